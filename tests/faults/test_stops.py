"""69, 70: stopped politely anywhere, and on a disk that takes its time."""

import pytest

from tests.faults.conftest import Prove, wrong

pytestmark = pytest.mark.usefixtures("tracing")


def test_69_sigterm_at_each_code_site(prove: Prove) -> None:
    """SIGTERM at a call: the look ends, what is durable is whole, the next succeeds."""
    verdicts = prove("sigterm")
    assert wrong(verdicts) == []
    assert len(verdicts) > 60


def test_70_every_sync_takes_its_time(prove: Prove) -> None:
    """A slow card only delays: nothing gives up, nothing is done twice."""
    verdicts = prove("slow")
    assert wrong(verdicts) == []
    assert [verdict.said for verdict in verdicts] == [["committed"]] * 2
