"""Fixtures for faults: what this machine allows, and one update to look at."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.conftest import missing
from tests.faults.oracle import Verdict
from tests.faults.power import may_cut_power
from tests.faults.rooms import may_mount
from tests.faults.scenes import Name, Scene, make_scenes, scratch
from tests.faults.telling import Judged, hear
from tests.faults.tracer import may_trace

Prove = Callable[..., list[Verdict]]


def _need(why: str) -> None:
    """Skip for what this kernel or user is not allowed; a program must be there."""
    if why.startswith("the program"):
        missing(why)
    if why:
        pytest.skip(f"not possible here: {why}")


@pytest.fixture(scope="session")
def tracing() -> None:
    """Skip where no process may be traced."""
    _need(may_trace())


@pytest.fixture(scope="session")
def mounting() -> None:
    """Skip where nothing may be mounted."""
    _need(may_mount())


@pytest.fixture(scope="session")
def power(tracing: None) -> None:
    """Skip where no power can be cut: that takes root and a loop device."""
    del tracing
    _need(may_cut_power())


@pytest.fixture
def prove() -> Prove:
    """Give a function that does parts and returns their verdicts."""

    def do(*parts: str, every: bool = False) -> list[Verdict]:
        told: Sequence[object] = list(hear(parts, every=every))
        return [line.verdict for line in told if isinstance(line, Judged)]

    return do


@pytest.fixture(scope="session")
def scenes() -> Iterator[dict[Name, Scene]]:
    """Give all scenes, in memory."""
    with scratch() as folder:
        yield make_scenes(folder)


def wrong(verdicts: list[Verdict]) -> list[tuple[str, list[str]]]:
    """Return the cases where something does not hold."""
    return [(verdict.case, verdict.wrong) for verdict in verdicts if verdict.wrong]
