"""What every recorder of receipts promises the supervisor: the fake's and the log's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.core.protect_settings import AuditSettings
from agent.core.reasons import Reason
from agent.core.receipts import NO_HASH, SLOTS, Receipt, pack_receipt
from agent.errors import AgentError
from agent.supervise.receipts import Recorder
from tests.fakes.recorded import ListRecorder


def records(count: int, first: int = 1) -> memoryview:
    """Return so many records of samples that follow each other."""
    made = (
        Receipt(at, first + at, 1000 + at, 0, 7, NO_HASH, NO_HASH, NO_HASH)
        for at in range(count)
    )
    return memoryview(b"".join(map(pack_receipt, made)))


@dataclass
class Subject:
    """A recorder that takes records, and one that cannot just now."""

    works: Recorder
    closed: Recorder


def in_memory(folder: Path) -> Iterator[Subject]:
    """Return the fakes."""
    del folder
    yield Subject(ListRecorder(), ListRecorder(units=0, broken=True, reason=Reason.LOG))


def in_log(folder: Path) -> Iterator[Subject]:
    """Return a recorder over a log on the disk, and one whose log is not open yet."""
    import asyncio
    import time

    from agent.audit.key import load_audit_key
    from agent.audit.log import Place
    from agent.audit.opening import Opening, open_log
    from agent.audit.recorder import LogRecorder, NoMeter

    key = load_audit_key(folder / "audit.key", may_make=True)
    place = Place("", "-", lambda: "-", time.time)  # noqa: TID251 - composed as by the daemon
    opened = open_log(AuditSettings(), Opening(folder, "pi-1", key, None, place))
    yield Subject(LogRecorder(opened, NoMeter()), LogRecorder(None, NoMeter()))
    asyncio.run(opened.close())


@pytest.fixture(params=[in_memory, in_log])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """Give each kind in turn."""
    make: Callable[[Path], Iterator[Subject]] = request.param
    yield from make(tmp_path)


def test_numbers_follow_each_other(subject: Subject) -> None:
    """``take`` returns the first one's number; pipelines share the numbers."""
    first = subject.works.take("a", records(3))
    assert first + 3 == subject.works.take("b", records(1))
    assert first + 4 == subject.works.take("a", records(2, 4))


def test_there_is_room_where_nothing_is_counted(subject: Subject) -> None:
    """A ring's worth may be answered, and no reason is told."""
    more, reason = subject.works.allowance("a")
    assert more >= SLOTS
    assert reason == Reason.NONE


def test_what_is_closed_says_why(subject: Subject) -> None:
    """No more may be answered, with a reason; records are refused as a whole."""
    more, reason = subject.closed.allowance("a")
    assert more == 0
    assert reason != Reason.NONE
    with pytest.raises(AgentError):
        subject.closed.take("a", records(2))


def test_records_are_copied(subject: Subject) -> None:
    """The memory may change once ``take`` has returned: a ring is written again."""
    memory = bytearray(records(4))
    first = subject.works.take("a", memoryview(memory))
    memory[:] = bytes(len(memory))
    assert first + 4 == subject.works.take("a", records(1))
