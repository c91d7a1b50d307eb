"""Snapshots: what crosses to metrics and pages cannot change on the way."""

from dataclasses import FrozenInstanceError

import pytest

from agent.core.snapshot import AgentSnapshot, UpdateSnapshot

EMPTY = AgentSnapshot("0.1.0", {}, (), UpdateSnapshot())


def test_snapshots_are_frozen() -> None:
    """A scrape cannot change what the next one sees."""
    with pytest.raises(FrozenInstanceError):
        EMPTY.version = "0.2.0"  # type: ignore[misc]  # the point


def test_snapshots_do_not_share_defaults() -> None:
    """Counting in one agent's update leaves another's at zero."""
    one, two = UpdateSnapshot(), UpdateSnapshot()
    one.results["committed", ""] = 1
    assert two.results == {}


def test_an_update_machine_begins_idle() -> None:
    """Before the first order there is nothing to report."""
    assert (EMPTY.update.phase, EMPTY.update.last_refusal) == ("IDLE", None)
