"""60: kill -9 at every call of an update that may change the disk."""

from pathlib import Path

import pytest

from tests.faults.conftest import Prove, wrong
from tests.faults.scenes import Name, Scene

pytestmark = pytest.mark.usefixtures("tracing")


def test_60_the_state_after_every_call_of_one_run(prove: Prove) -> None:
    """A first install and an update, copied after every call: whole, and goes on.

    What was durable stays so in all later copies, and the last one has the new model.
    """
    verdicts = prove("kill")
    assert wrong(verdicts) == []
    assert {verdict.found for verdict in verdicts} == {0, 1, 2}
    assert len(verdicts) > 200


def test_60_72_the_state_after_every_call_of_an_update_by_delta(prove: Prove) -> None:
    """The same where nothing of the new bundle itself is fetched."""
    verdicts = prove("delta")
    assert wrong(verdicts) == []
    assert {verdict.found for verdict in verdicts} == {1, 2}
    assert len(verdicts) > 100


def test_the_scene_of_deltas_is_one(scenes: dict[Name, Scene], tmp_path: Path) -> None:
    """Undisturbed, its board fetches a delta, and nothing whole."""
    board = scenes["delta"].board(scenes["delta"].fresh(tmp_path))
    board.look()
    fetched = board.poller.snapshot().bytes
    assert (board.active(), fetched["full"]) == (2, 0)
    assert fetched["delta"] > 0
    board.close()


def test_60_the_state_after_every_call_of_a_sealed_update(prove: Prove) -> None:
    """Bundle and envelope are used together or not at all, whenever it died."""
    verdicts = prove("sealed")
    assert wrong(verdicts) == []
    assert {verdict.found for verdict in verdicts} == {1, 2}
    assert len(verdicts) > 100


def test_60_an_envelope_kept_after_the_commit_is_caught(prove: Prove) -> None:
    """The control: a life in the wrong order leaves ``active`` that nothing opens."""
    assert wrong(prove("late-envelope"))


def test_60_real_deaths_agree(prove: Prove) -> None:
    """SIGKILL instead of a copy, once for each code site: the same."""
    verdicts = prove("sigkill")
    assert wrong(verdicts) == []
    assert len(verdicts) > 60


def test_60_an_object_stored_after_the_commit_is_caught(prove: Prove) -> None:
    """The control: a life in the wrong order leaves ``active`` without its bytes."""
    caught = wrong(prove("late-killed"))
    assert caught
    assert all(first.startswith("O1 version 2") for _, (first, *_) in caught)


def test_60_twenty_deaths_of_the_real_daemon(prove: Prove) -> None:
    """In the middle of twenty updates: whole, no floor fell, each update succeeds."""
    verdicts = prove("daemon")
    assert wrong(verdicts) == [], [verdict.case for verdict in verdicts]
    assert len(verdicts) == 20


def test_60_a_death_in_each_phase_of_a_sealed_update(prove: Prove) -> None:
    """The real daemon: what is durable opens, and the update succeeds the next time."""
    verdicts = prove("daemon-sealed")
    assert wrong(verdicts) == [], [verdict.case for verdict in verdicts]
    assert len(verdicts) == 6
