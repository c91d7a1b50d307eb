"""The reporter: everything arrives, the newest of each kind, and nobody waits."""

import logging
import threading
from collections.abc import Callable

import pytest

from agent.core.messages import Anchored, Watched
from agent.core.watching import Monitored
from agent.errors import DeviceError
from agent.worker.watch_report import MAX_WAITING, Report, Reporter


class Slow:
    """A channel that takes one message when it is allowed to."""

    def __init__(self) -> None:
        self.sent: list[Report] = []
        self.entered = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def send(self, report: Report) -> None:
        """Wait, then take it."""
        self.entered.release()
        self.allowed.acquire()
        self.sent.append(report)


def watched(samples: int, generation: int = 1) -> Watched:
    """Return a report."""
    return Watched(generation, Monitored(samples=samples))


def sent_after_close(reports: list[Report], send: Callable[[Report], None]) -> None:
    """Hand everything over, then close."""
    reporter = Reporter(send)
    reporter.start()
    reporter.start()
    for report in reports:
        reporter.say(report)
    reporter.close()


def test_what_was_handed_over_is_sent_before_the_end() -> None:
    """The last report of each model, and each baseline; then the thread is gone."""
    sent: list[Report] = []
    last: list[Report] = [Anchored(1, b"a"), watched(3, 2), watched(4)]
    sent_after_close([watched(1), last[0], watched(2), *last[1:]], sent.append)
    assert [report for report in last if report in sent] == last
    assert all(sent.count(report) == 1 for report in sent)
    assert [it.name for it in threading.enumerate() if it.name == "reporter"] == []


def test_a_daemon_that_reads_slowly_gets_the_newest() -> None:
    """While one record waits for the socket, newer ones replace each other."""
    slow = Slow()
    reporter = Reporter(slow.send)
    reporter.start()
    reporter.say(watched(1))
    slow.entered.acquire()  # the thread waits in the socket now
    for samples in range(2, 50):
        reporter.say(watched(samples))
    reporter.say(Anchored(1, b"kept"))
    slow.allowed.release(10)
    reporter.close()
    assert slow.sent == [watched(1), watched(49), Anchored(1, b"kept")]


def test_what_nobody_reads_is_bounded() -> None:
    """A socket that is never read costs a bounded number of reports, and no wait."""
    slow = Slow()
    reporter = Reporter(slow.send)
    reporter.start()
    reporter.say(watched(0))
    slow.entered.acquire()
    for samples in range(10 * MAX_WAITING):
        reporter.say(watched(samples))
    assert reporter._waiting.qsize() == MAX_WAITING
    reporter.say(Anchored(1, b"said once"))
    slow.allowed.release(10)
    reporter.close()
    assert slow.sent[-1] == Anchored(1, b"said once")


def test_what_cannot_be_sent_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on, for what can be."""
    sent: list[Report] = []

    def send(report: Report) -> None:
        if report.generation == 1:
            raise DeviceError("too long", reason="internal")
        sent.append(report)

    with caplog.at_level(logging.WARNING):
        sent_after_close([watched(1), Anchored(1, b""), watched(2, 2)], send)
    assert sent == [watched(2, 2)]
    assert [it.message for it in caplog.records] == [
        "reports of the monitor are not sent: too long"
    ]


def test_without_a_watcher_there_is_no_thread() -> None:
    """A worker that watches nothing closes what it never started."""
    sent_: list[Report] = []
    reporter = Reporter(sent_.append)
    reporter.close()
    assert (sent_, reporter._thread) == ([], None)
