"""A daemon's side of receipts, in a process of its own: empties a ring into a log.

``python -m benchmarks.receipts_log RING FOLDER``: until standard input ends; then it
prints its records and its CPU seconds as JSON.
"""

import asyncio
import json
import mmap
import sys
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.audit.files import Folder
from agent.audit.key import load_audit_key
from agent.audit.log import UNLIMITED, AuditLog, Place
from agent.audit.meter import Meter, Terms
from agent.audit.meter_leases import Clocks
from agent.audit.meter_opening import Opening as MeterOpening
from agent.audit.meter_opening import open_meter
from agent.audit.opening import Opening, open_log
from agent.audit.recorder import LogRecorder
from agent.core.protect_settings import AuditSettings, MeterSettings, Unpaid
from agent.core.reasons import Reason
from agent.core.receipts import RECORD_BYTES, RING_BYTES, RingReader
from agent.core.voucher import (
    ISSUER_BYTES,
    Kind,
    Voucher,
    key_hash,
    pack_fields,
    signed_bytes,
)
from agent.supervise.receipts import BATCH, DRAIN_S

PIPELINE = "bench"
UNITS = (
    2**40
)  # never used up: what runs out of units answers nothing, and costs nothing


class EndedError(Exception):
    """Whoever asked has heard enough."""


def open_bench_log(folder: Path) -> AuditLog:
    """Open a new log as the daemon does."""
    key = load_audit_key(folder / "audit.key", may_make=True)
    place = Place("", "-", lambda: "-", time.time)  # noqa: TID251 - a benchmark
    return open_log(AuditSettings(), Opening(folder, "bench", key, None, place))


def open_bench_meter(folder: Path) -> Meter:
    """Open a meter with the daemon's own lease, and pay for more than is answered."""
    vendor, board = Ed25519PrivateKey.generate(), bytes(32)
    public = vendor.public_key().public_bytes_raw()
    policies = {PIPELINE: Unpaid()}
    terms = Terms(board, public, MeterSettings().lease, False, policies, str)
    place = folder / "meter"
    place.mkdir()
    meter = open_meter(terms, Clocks(time.time), MeterOpening(Folder(place), None))  # noqa: TID251 - a benchmark
    issuer = key_hash(public)[:ISSUER_BYTES]
    fields = pack_fields(Voucher(Kind.UNITS, issuer, key_hash(board), 1, UNITS))
    meter.start()
    meter.redeem(fields + vendor.sign(signed_bytes(fields)))
    return meter


class Ungated:
    """A meter that counts and reserves, and holds nobody up; satisfies ``Meter``.

    A daemon's meter hands out what the last looks used, and doubles that from look to
    look. The loop is measured in turns that are shorter than one look (0.1 s), so that
    each would begin at a closed gate, and waiting would be measured, not receipts.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.take = meter.take

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Let the meter do its work, and allow more than it says."""
        self._meter.allowance(pipeline)
        return UNLIMITED, Reason.NONE


async def drain(descriptor: int, folder: Path) -> None:
    """Do what ``agent.supervise.receipts`` does, until standard input ends."""
    ring = RingReader(memoryview(mmap.mmap(descriptor, RING_BYTES)))
    opened = open_bench_log(folder)
    meter = open_bench_meter(folder)
    recorder = LogRecorder(opened, Ungated(meter))
    ring.allow(recorder.allowance(PIPELINE)[0])
    began_s = time.process_time()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_end())
            group.create_task(opened.run())
            print("ready", flush=True)
            await _drain(ring, recorder)
    except* EndedError:
        pass
    spent_s = time.process_time() - began_s
    told = {"records": ring.taken, "cpu_s": spent_s, "lost": opened.lost}
    print(json.dumps(told), flush=True)
    await opened.close()
    meter.close()


async def _end() -> None:
    """End everything with standard input."""
    await asyncio.to_thread(sys.stdin.read)
    raise EndedError


async def _drain(ring: RingReader, recorder: LogRecorder) -> None:
    """Empty the ring, for ever."""
    while True:
        ready = ring.look()
        while ready > 0:
            batch = ring.copy(min(ready, BATCH))
            recorder.take(PIPELINE, memoryview(batch))
            count = len(batch) // RECORD_BYTES
            ring.take(count)
            ready -= count
            await asyncio.sleep(0)
        ring.allow(recorder.allowance(PIPELINE)[0])
        await asyncio.sleep(DRAIN_S)


if __name__ == "__main__":
    asyncio.run(drain(int(sys.argv[1]), Path(sys.argv[2])))
