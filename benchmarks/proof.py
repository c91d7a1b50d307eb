"""``proof``: what it takes to prove one record among a million, and to start with them.

The log is a real one, with its writer's thread and its signatures, in a folder of its
own; proofs are made from its files and judged as ``tinyward audit verify`` judges them.
A proof's size is that of number, size and path, as sent to who has the record and the
checkpoint; the file that needs neither is told beside it.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from agent.audit.archive import Archive
from agent.audit.key import AuditKey, load_audit_key, verify_ed25519
from agent.audit.log import AuditLog, Place
from agent.audit.opening import LOG_FOLDER, Opening, open_log
from agent.audit.verify import Asked, verify_log
from agent.audit.writer import Durable
from agent.core.log_proof import (
    RecordProof,
    judge_proof,
    pack_path,
    parse_proof,
    render_proof,
)
from agent.core.merkle import leaf_hash, verify_inclusion
from agent.core.note import NoteKey
from agent.core.protect_settings import AuditSettings
from agent.core.receipts import Receipt, pack_receipt
from benchmarks.rows import Row, median

PROOF_BYTES, VERIFY_MS = 700.0, 1.0
BATCH = 2048
NAME = "proof"
T = TypeVar("T")
# As little as disks and people would ever see of one: nothing is removed meanwhile.
SETTINGS = AuditSettings(mode="chain", quota_mb=1000.0)


@dataclass(frozen=True, slots=True)
class Bench:
    """A log that is measured, and by whose key."""

    folder: Path
    key: AuditKey

    def open(self) -> AuditLog:
        """Open it as the daemon does."""
        place = Place("", "-", lambda: "-", time.time)  # noqa: TID251 - a benchmark
        opening = Opening(self.folder, "bench", self.key, None, place)
        return open_log(SETTINGS, opening)


def run(records: int, proofs: int) -> list[Row]:
    """Return sizes and times for a log of so many records."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = load_audit_key(folder / "audit.key", may_make=True)
        bench = Bench(folder, key)
        rows = list(_fill(bench, records))
        rows += _prove(bench, records, proofs)
        rows += _whole(bench)
    return rows


def _fill(bench: Bench, records: int) -> Iterator[Row]:
    """Append, sign, and start again."""
    log = bench.open()
    one = Receipt(0, 1, 1, 0, 1, b"\x0d" * 32, bytes(32), b"\x0e" * 32)
    batch = memoryview(pack_receipt(one) * BATCH)
    costs, waited_ms = [], []
    for _ in range(records // BATCH + 1):
        began = time.perf_counter()
        log.take(batch)
        costs.append((time.perf_counter() - began) / BATCH * 1e6)
        while log.durable.checkpoint.size < log.size - BATCH:
            time.sleep(0.0005)
        waited_ms.append((time.perf_counter() - began) * 1e3)
    asyncio.run(log.close())
    cost, spread = median(costs)
    yield Row(NAME, "append to chain and tree", cost, "us", spread=spread)
    signed, spread = median(waited_ms)
    yield Row(NAME, f"{BATCH} records signed on the disk", signed, "ms", spread=spread)
    starts = []
    for _ in range(5):
        began = time.perf_counter()
        log = bench.open()
        starts.append((time.perf_counter() - began) * 1e3)
        asyncio.run(log.close())
    start, spread = median(starts)
    yield Row(NAME, f"start with {records:,} records", start, "ms", spread=spread)


def _prove(bench: Bench, records: int, proofs: int) -> Iterator[Row]:
    """Make proofs of records anywhere, and judge them."""
    log = bench.open()
    while not log.durable.note:
        time.sleep(0.001)
    key, chance = bench.key.named(log.origin), random.Random(1)  # noqa: S311 - a choice
    archive = Archive(bench.folder / LOG_FOLDER)
    found = [
        _prove_one(archive, log.durable, chance.randrange(records), key)
        for _ in range(proofs)
    ]
    asyncio.run(log.close())
    sizes, files, made, judged, walked = zip(*found, strict=True)
    among = f"proof of one record among {records:,}, largest"
    yield Row(NAME, among, max(sizes), "B", PROOF_BYTES)
    yield Row(NAME, "file with record and checkpoint, largest", max(files), "B")
    value, spread = median(judged)
    what = "verify it, signature included"
    yield Row(NAME, what, value, "ms", VERIFY_MS, spread=spread)
    for what, times in (("verify its path alone", walked), ("make it", made)):
        value, spread = median(times)
        yield Row(NAME, what, value, "ms", spread=spread)


def _prove_one(
    archive: Archive, durable: Durable, index: int, key: NoteKey
) -> tuple[float, float, float, float, float]:
    """Return a proof's bytes, its file's, and ms to make, to judge and to walk it."""
    checkpoint = durable.checkpoint
    (record, path), made_ms = _timed(partial(archive.prove, index, checkpoint))
    proof = RecordProof(record, index, tuple(path), durable.note)
    raw = render_proof(proof).encode()
    # Parsed anew each time, and the signature of the checkpoint verified.
    _, judged_ms = _timed(partial(_judge, raw, key))
    size, leaf = checkpoint.size, leaf_hash(record)
    walk = partial(verify_inclusion, leaf, index, size, path, checkpoint.root)
    is_in, walked_ms = _timed(walk)
    if not is_in:
        raise RuntimeError("a proof that proves nothing")
    packed = pack_path(index, size, path)
    return float(len(packed)), float(len(raw)), made_ms, judged_ms, walked_ms


def _judge(raw: bytes, key: NoteKey) -> None:
    """Judge a proof as it comes from a file."""
    judge_proof(parse_proof(raw), key, verify_ed25519)


def _whole(bench: Bench) -> Iterator[Row]:
    """Verify all of it."""
    asked = Asked(bench.key.public)
    found, took_ms = _timed(
        lambda: verify_log(bench.folder / LOG_FOLDER, asked, _untold)
    )
    yield Row(NAME, "verify the whole log", found.size / took_ms * 1e3, "records/s")


def _untold(done: int, of: int) -> None:
    """Tell nobody how far it is."""


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what a call returns, and its milliseconds."""
    began = time.perf_counter()
    found = call()
    return found, (time.perf_counter() - began) * 1e3
