"""One contract for the runner's journal: the real one on a disk, the fake in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.executors import DelegateFile, Executor
from agent.core.installed import Installed
from agent.core.update_machine import Job, Phase
from agent.store import Store
from agent.update.runner import Journal
from tests.fakes.memory_store import MemoryStore

DELEGATE = DelegateFile("coral", "/usr/lib/libedgetpu.so.1", "d" * 64, {"device": "0"})
EXECUTOR = Executor("litert", "delegate", 2, "2.3.0", DELEGATE)
INSTALLED = Installed("kws", 2, "a" * 64, 9, "int8", EXECUTOR, 1_790_000_000.5)
JOB = Job(
    pipeline="door",
    model="kws",
    version=2,
    sha256="a" * 64,
    phase=Phase.PROBATION,
    attempts=2,
    installed=INSTALLED,
)


@pytest.fixture(params=["real", "fake"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Give each of the two journals, empty."""
    if request.param == "fake":
        yield MemoryStore()
        return
    opened = Store.open(tmp_path / "state")
    yield opened
    opened.close()


def test_a_new_journal_knows_no_job(journal: Journal) -> None:
    """Nothing was saved, so there is nothing; clearing it is fine."""
    assert journal.load_job() is None
    journal.clear_job(JOB)
    assert journal.load_job() is None


@pytest.mark.parametrize("phase", Phase)
def test_a_job_comes_back_whole(journal: Journal, phase: Phase) -> None:
    """Every phase and field comes back as it was saved, the executor included."""
    job = replace(JOB, phase=phase)
    journal.save_job(job)
    assert journal.load_job() == job


def test_the_last_job_counts(journal: Journal) -> None:
    """There is one job; a new one replaces it, and clearing forgets it."""
    journal.save_job(JOB)
    last = Job(pipeline="window", model="vww", version=1, sha256="b" * 64)
    journal.save_job(last)
    assert journal.load_job() == last
    journal.clear_job(last)
    assert journal.load_job() is None
