"""Lives of a metered board that end by ``kill -9`` at any moment.

Each life is two processes, as on a board: one opens the real log and the real meter,
empties the real ring into them and hands out what may be answered; the other one is its
worker, which writes a receipt for each answer, then the answer itself into a file. Both
die at once. What was answered is that file's length, whatever anybody else says.

``python -m benchmarks.meter_lives HOME KILLS SEED [refund]``, for tests: as JSON.
"""

import asyncio
import ctypes
import mmap
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.audit.files import Folder
from agent.audit.key import AuditKey, load_audit_key
from agent.audit.log import AuditLog, Place
from agent.audit.meter import Meter, Terms
from agent.audit.meter_file import MeterFile
from agent.audit.meter_leases import Clocks
from agent.audit.meter_opening import Opening, open_meter
from agent.audit.opening import Opening as LogOpening
from agent.audit.opening import open_log
from agent.audit.recorder import LogRecorder
from agent.core.meter import Remains, settle
from agent.core.note import sign_note
from agent.core.protect_settings import AuditSettings, Unpaid
from agent.core.receipts import (
    NO_HASH,
    RECORD_BYTES,
    RING_BYTES,
    RingReader,
    RingWriter,
)
from agent.core.voucher import (
    ISSUER_BYTES,
    MAX_UNITS,
    Kind,
    Voucher,
    key_hash,
    pack_fields,
    signed_bytes,
)

# More than a life's rate makes it grow to: so it is what one write reserves.
LEASE = 20_000
LONGEST_S = 0.2  # of a life: some end before the meter is open, most within leases
LOOK_S = 0.004  # 25 times as often as the daemon, so that more can go wrong
BURST = 20  # answers between two rests of the worker: some 10,000 a second
REST_S = 0.001
PR_SET_PDEATHSIG = 1
PIPELINE = "door"
VENDOR = Ed25519PrivateKey.from_private_bytes(b"v" * 32)


@dataclass(slots=True)
class Course:
    """What came of many lives.

    Attributes:
        answers: What was answered in all.
        unmetered: Answers that were not charged, at the worst moment.
        worst_loss: Units that one crash took at most, ``lost`` in all.
        lost: See above.
        used: Units that are charged in the end; ``receipts`` the log has.
        receipts: See above.
        answered_lives: Lives in which anything was answered.
    """

    answers: int = 0
    unmetered: int = 0
    worst_loss: int = 0
    lost: int = 0
    used: int = 0
    receipts: int = 0
    answered_lives: int = 0


class Board:
    """A board whose lives are short.

    Args:
        home: Its state directory, empty.
        refund: The policy [meter] refund.
    """

    def __init__(self, home: Path, *, refund: bool) -> None:
        self.home = home
        self.refund = refund
        self.answers = home / "answers"
        self.answers.touch()
        (home / "meter").mkdir()
        self._key = load_audit_key(home / "audit.key", may_make=True)

    def open(self) -> tuple[AuditLog, Meter]:
        """Open log and meter as the daemon does."""
        clock = time.time  # noqa: TID251 - a board's clock
        place = Place("", "-", lambda: "-", clock)
        log = open_log(
            AuditSettings(), LogOpening(self.home, "bench", self._key, None, place)
        )
        terms = _terms(self._key, log.origin, refund=self.refund)
        opening = Opening(Folder(self.home / "meter"), log.inferences)
        return log, open_meter(terms, Clocks(clock), opening)

    def buy(self) -> None:
        """Redeem a voucher that lasts for ever."""
        public = VENDOR.public_key().public_bytes_raw()
        board = key_hash(self._key.public)
        fields = pack_fields(
            Voucher(Kind.UNITS, key_hash(public)[:ISSUER_BYTES], board, 1, MAX_UNITS)
        )
        log, meter = self.open()
        meter.redeem(fields + VENDOR.sign(signed_bytes(fields)))
        meter.close()
        asyncio.run(log.close())

    def answered(self) -> int:
        """Return how many answers there are."""
        return self.answers.stat().st_size

    def charged(self) -> int:
        """Return what the next start will take for used."""
        file = MeterFile(Folder(self.home / "meter"))
        state = file.load()
        assert state is not None  # noqa: S101 - it was bought
        remains = Remains(file.marked(), None)
        return settle(state, remains, refund=self.refund).state.used

    def live(self, seconds: float) -> None:
        """Let the board live so long, then kill all of it."""
        read, write = os.pipe()
        daemon = os.fork()
        if daemon == 0:
            os.close(read)
            self._be_daemon()
        os.close(write)
        time.sleep(seconds)
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)
        os.read(read, 1)  # ends with the last process that holds the other end
        os.close(read)

    def _be_daemon(self) -> None:
        """Empty the ring and hand out, for ever."""
        ring_memory = mmap.mmap(-1, RING_BYTES)
        ring = RingReader(memoryview(ring_memory))
        # Before there are threads: the worker dies with the one that forked it.
        parent = os.getpid()
        if os.fork() == 0:
            self._be_worker(ring_memory, parent)
        log, meter = self.open()
        meter.start()
        recorder = LogRecorder(log, meter)
        while True:
            ready = ring.look()
            if ready:
                records = ring.copy(ready)
                recorder.take(PIPELINE, memoryview(records))
                ring.take(len(records) // RECORD_BYTES)
            ring.allow(recorder.allowance(PIPELINE)[0])
            log.look()
            time.sleep(LOOK_S)

    def _be_worker(self, memory: mmap.mmap, parent: int) -> None:
        """Answer whatever may be answered, for ever."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it died before it could have told us
        answers = os.open(self.answers, os.O_WRONLY | os.O_APPEND)
        ring = RingWriter(memoryview(memory))
        put = ring.bind(1, b"m" * 32)
        number = 0
        while True:
            for _ in range(BURST):
                if ring.closed:
                    break
                number += 1
                put(number, time.monotonic_ns(), 0, NO_HASH, NO_HASH)
                os.write(answers, b".")
            time.sleep(REST_S)


def live_and_die(home: Path, kills: int, seed: int, *, refund: bool) -> Course:
    """Let a board live and be killed so often; return what came of it."""
    board, course = Board(home, refund=refund), Course()
    board.buy()
    chance = random.Random(seed)  # noqa: S311 - moments of death
    charged = board.charged()
    for _ in range(kills):
        answered = board.answered()
        board.live(chance.uniform(0.0, LONGEST_S))
        new, before = board.answered() - answered, charged
        charged = board.charged()
        loss = charged - before - new
        course.unmetered = max(course.unmetered, board.answered() - charged)
        course.unmetered = max(course.unmetered, -loss)
        course.worst_loss = max(course.worst_loss, loss)
        course.lost += loss
        course.answered_lives += new > 0
    log, meter = board.open()
    course.answers, course.receipts = board.answered(), log.inferences
    course.used = meter.status().used
    meter.close()
    asyncio.run(log.close())
    return course


def _terms(key: AuditKey, origin: str, *, refund: bool) -> Terms:
    """Return the terms of the board."""
    return Terms(
        board=key.public,
        vendor=VENDOR.public_key().public_bytes_raw(),
        lease=LEASE,
        refund=refund,
        policies={PIPELINE: Unpaid()},
        sign=lambda text: sign_note(text, key.named(origin), key.sign),
    )


if __name__ == "__main__":
    told = live_and_die(
        Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), refund=bool(sys.argv[4])
    )
    print(msgspec.json.encode(told).decode())
