"""What the recorder charges, and what it says to be lost."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from agent.audit.archive import Archive
from agent.audit.recorder import FREE_AT_FIRST, FREE_ONE_IN, LogRecorder
from agent.core.audit_events import parse_event
from agent.core.reasons import Reason
from agent.core.receipts import FAILED, FLAGS_END, RECORD_BYTES, parse_receipt
from tests.fakes.audit_logs import LoggingBoard, inferences


@dataclass
class Charges:
    """Counts as a meter does."""

    answered: int = 0
    failed: int = 0
    models: set[bytes] = field(default_factory=set)

    def take(self, pipeline: str, records: memoryview) -> None:
        """Count."""
        del pipeline
        for at in range(0, len(records), RECORD_BYTES):
            receipt = parse_receipt(records[at : at + RECORD_BYTES])
            failed = bool(receipt.flags & FAILED)
            self.failed, self.answered = (
                self.failed + failed,
                self.answered + 1 - failed,
            )
            self.models.add(receipt.model)

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Allow all."""
        del pipeline
        return 1 << 40, Reason.NONE


def failures(count: int) -> memoryview:
    """Return records of samples that failed, as a worker says."""
    made = bytearray(inferences(count))
    made[FLAGS_END - 1 :: RECORD_BYTES] = bytes([FAILED]) * count
    return memoryview(made)


def test_failures_are_free_up_to_a_share(tmp_path: Path) -> None:
    """Who says of everything that it failed pays for it, and the log keeps the flag."""
    board = LoggingBoard(tmp_path / "state")
    log, charges = board.open(), Charges()
    recorder = LogRecorder(log, charges)
    recorder.take("p", failures(FREE_AT_FIRST))
    assert (charges.answered, charges.failed) == (0, FREE_AT_FIRST)
    recorder.take("p", failures(100))
    assert (charges.answered, charges.failed) == (100, FREE_AT_FIRST)
    recorder.take("p", inferences(1000))
    recorder.take("p", failures(1000 // FREE_ONE_IN))
    assert (charges.answered, charges.failed) == (
        1100,
        FREE_AT_FIRST + 1000 // FREE_ONE_IN,
    )
    asyncio.run(log.close())
    records = Archive(board.folder).records(1, FREE_AT_FIRST + 100, log.size)
    assert {parse_receipt(it).flags for it in records} == {FAILED}


def test_what_is_lost_is_said_and_charged(tmp_path: Path) -> None:
    """Also what was lost before the log was open, as soon as it is."""
    board = LoggingBoard(tmp_path / "state")
    charges = Charges()
    recorder = LogRecorder(None, charges)
    recorder.lose("p", 3)
    log = recorder.log = board.open()
    recorder.take("p", inferences(2))
    recorder.lose("p", 4)
    assert log.lost == 7
    assert charges.answered == 9
    asyncio.run(log.close())
    said = [parse_event(text) for _, text in Archive(board.folder).events(0)]
    assert [it.facts["records"] for it in said if it.event == "log.lost"] == [3, 4]
