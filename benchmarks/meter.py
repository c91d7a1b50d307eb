"""``meter``: what counting costs an inference, and whether any escapes it.

Kills are half without a refund, half with it: without one a crash takes what a write
had reserved, with one what was handed out and not answered.
"""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.audit.files import Folder
from agent.audit.key import verify_ed25519
from agent.audit.meter_file import MeterFile
from agent.core.meter import MeterState
from agent.core.receipts import NO_HASH, Receipt, pack_receipt
from agent.core.voucher import (
    ISSUER_BYTES,
    Kind,
    Voucher,
    believe_voucher,
    key_hash,
    pack_fields,
    signed_bytes,
)
from agent.core.voucher_text import parse_texts, render_text
from benchmarks.meter_lives import LEASE, PIPELINE, VENDOR, Board, live_and_die
from benchmarks.rows import Row, median

RECORDS = 200  # of one look at 2,000 samples a second
LOOKS = 500
CALLS = 200
COUNT_US, CHECK_MS = 4.0, 1.0
UNMETERED = 0.0


def run(rounds: int, kills: int, seed: int) -> list[Row]:
    """Measure costs, then kill boards so often.

    Args:
        rounds: Of each cost.
        kills: Together, of both policies.
        seed: Of the moments of death.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_vouchers(rounds), *_counting(Path(folder), rounds)]
    for refund in (False, True):
        with tempfile.TemporaryDirectory() as folder, _quiet():
            course = live_and_die(Path(folder), kills // 2, seed, refund=refund)
        word = "refund" if refund else "no refund"
        rows += [
            Row("meter", f"kill -9, {word}: kills", kills // 2, ""),
            Row("meter", f"kill -9, {word}: answers", course.answers, ""),
            Row(
                "meter",
                f"kill -9, {word}: answers that were not charged",
                course.unmetered,
                "",
                UNMETERED,
            ),
            Row(
                "meter",
                f"kill -9, {word}: units one crash took at most",
                course.worst_loss,
                "",
                LEASE,
            ),
        ]
    return rows


def _vouchers(rounds: int) -> list[Row]:
    """Measure what a voucher costs to check, and to read as text."""
    public = VENDOR.public_key().public_bytes_raw()
    issuer, board = key_hash(public)[:ISSUER_BYTES], bytes(32)
    fields = pack_fields(Voucher(Kind.UNITS, issuer, board, 1, 100))
    raw = fields + VENDOR.sign(signed_bytes(fields))
    text = render_text(raw)

    def check() -> None:
        believe_voucher(
            raw, issuer, board, lambda found, told: verify_ed25519(public, found, told)
        )

    value, spread = _time(check, rounds)
    typed, typed_spread = _time(lambda: parse_texts(text), rounds)
    return [
        Row(
            "meter", "voucher checked", value * 1e3, "ms", CHECK_MS, spread=spread * 1e3
        ),
        Row(
            "meter",
            "voucher read as text",
            typed * 1e3,
            "ms",
            spread=typed_spread * 1e3,
        ),
    ]


def _counting(home: Path, rounds: int) -> list[Row]:
    """Measure what counting costs an inference, its leases included, and a lease."""
    board = Board(home, refund=False)
    board.buy()
    log, meter = board.open()
    meter.start()
    record = pack_receipt(Receipt(1, 1, 1, 0, 1, b"m" * 32, NO_HASH, NO_HASH))
    records = memoryview(record * RECORDS)
    values = []
    for _ in range(rounds):
        spent_s = 0.0
        for _ in range(LOOKS):
            began_s = time.process_time()
            meter.allowance(PIPELINE)
            meter.take(PIPELINE, records)
            spent_s += time.process_time() - began_s
        values.append(spent_s / LOOKS / RECORDS * 1e6)
    value, spread = median(values)
    meter.close()
    asyncio.run(log.close())
    file, state = MeterFile(Folder(home / "meter")), MeterState(bought=10**6)
    file.load()
    write, write_spread = _time(lambda: file.save(state), rounds, calls=5)
    shared_us = write * 1e6 / 1000  # by the default lease
    return [
        Row("meter", "counted, a record", value, "us", COUNT_US, spread=spread),
        Row("meter", "lease written", write * 1e3, "ms", spread=write_spread * 1e3),
        Row("meter", "lease of 1,000 written, a record", shared_us, "us"),
    ]


def _time(
    call: Callable[[], object], rounds: int, calls: int = CALLS
) -> tuple[float, float]:
    """Return the seconds of one call: the median of rounds, and its spread."""
    values = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(calls):
            call()
        values.append((time.perf_counter() - began_s) / calls)
    return median(values)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what each life logs off the terminal."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
