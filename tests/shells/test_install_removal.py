"""Removing an installation: what goes, what stays, and death at every change."""

import os
import shutil
from itertools import count
from pathlib import Path

import pytest

from agent.install.places import CURRENT, PROGRAM, SETTINGS, STATE
from agent.install.steps import Remove, Stop
from agent.install.systemd import StartFailedError
from tests.fakes.machine import DyingTree, Killed, Machine, wanted

OURS = "tinyward"


def installed(root: Path) -> Machine:
    """Return a machine with two slots in use and a state."""
    machine = Machine(root)
    machine.install(wanted("a"))
    machine.install(wanted("b", "2"))
    (root / "var/lib/tinyward/state.db").write_bytes(b"models")
    return machine


def left(root: Path) -> set[str]:
    """Return the names that have something of ours in them."""
    return {
        str(path.relative_to(root)) for path in root.rglob("*") if OURS in path.name
    }


def test_settings_state_and_user_stay(tmp_path: Path) -> None:
    """All else goes, what runs first, and the next installation goes on."""
    machine = installed(tmp_path)
    told = machine.remove(purge=False)
    assert isinstance(told[0].step, Stop)
    assert machine.systemd.asked == [
        "stop tinyward.service",
        "forget tinyward.service",
        "stop tinyward-fallback.service",
        "forget tinyward-fallback.service",
        "disable tinyward.service",
        "reload",
    ]
    assert left(tmp_path) == {"etc/tinyward", "var/lib/tinyward"}
    assert (tmp_path / "var/lib/tinyward/state.db").read_bytes() == b"models"
    assert "tinyward" in (tmp_path / "etc/passwd").read_text()
    again = Machine(tmp_path)
    again.install(wanted("a", "3"))
    assert again.systemd.known.runs == "a"
    assert (tmp_path / "var/lib/tinyward/state.db").read_bytes() == b"models"


def test_a_purge_leaves_nothing(tmp_path: Path) -> None:
    """Neither a file nor a user."""
    machine = installed(tmp_path)
    machine.remove(purge=True)
    assert left(tmp_path) == set()
    assert "tinyward" not in (tmp_path / "etc/passwd").read_text()
    assert not (tmp_path / "opt/tinyward").exists()


def test_a_service_that_failed_is_forgotten(tmp_path: Path) -> None:
    """Systemd would list it among the failed ones until the next boot."""
    machine = Machine(tmp_path, ("a",))
    with pytest.raises(StartFailedError):
        machine.install(wanted("a"))
    assert machine.systemd.known.active == "failed"
    machine.remove(purge=False)
    assert machine.systemd.asked[:2] == [
        "stop tinyward.service",
        "forget tinyward.service",
    ]


@pytest.mark.parametrize("purge", [False, True])
def test_a_second_removal_finds_nothing(tmp_path: Path, *, purge: bool) -> None:
    """Also where nothing was ever installed."""
    machine = installed(tmp_path)
    machine.remove(purge=purge)
    before = machine.snapshot()
    told = machine.remove(purge=purge)
    assert [it.step.line for it in told if not it.already] == []
    assert machine.snapshot() == before


def test_a_removal_that_was_killed_is_completed(tmp_path: Path) -> None:
    """At every change; and until its slot goes, the program is there to be called."""
    begun = installed(tmp_path / "begun")
    for last in count():
        root = tmp_path / str(last)
        shutil.copytree(begun.root, root, symlinks=True)
        machine = Machine(root)
        died = False
        try:
            machine.remove(purge=True, tree=DyingTree(last))
        except Killed:
            died = True
            if not os.path.lexists(machine.places.at(CURRENT)):
                assert not machine.places.at(STATE).exists()
        machine.remove(purge=True)
        assert left(root) == set()
        if not died:
            break
    assert last > 15


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """A command of the same name, a neighbour of the slots, a state somewhere else."""
    machine = installed(tmp_path)
    machine.places.at(PROGRAM).unlink()
    machine.places.at(PROGRAM).write_text("#!/bin/sh\n")
    (tmp_path / "opt/tinyward/models").mkdir()
    (tmp_path / "srv").mkdir()
    machine.places.at(SETTINGS).write_text("state_dir = '/srv/models'\n")
    told = machine.remove(purge=True)
    notes = {it.note for it in told} - {""}
    assert notes == {"kept: it is not ours", "/srv/models stays: remove it yourself"}
    assert (tmp_path / "opt/tinyward/models").is_dir()
    assert machine.places.at(PROGRAM).is_file()
    assert (tmp_path / "srv").is_dir()


def test_the_program_itself_goes_last(tmp_path: Path) -> None:
    """Slots after everything else, for nothing can be called without them."""
    machine = installed(tmp_path)
    told = [it for it in machine.remove(purge=True) if isinstance(it.step, Remove)]
    last = [getattr(it.step, "path", "") for it in told[-3:]]
    assert last == ["/opt/tinyward/a", "/opt/tinyward/b", "/opt/tinyward"]


def test_what_never_was_is_not_said_to_be_gone(tmp_path: Path) -> None:
    """Drop-ins that nobody asked for, for example."""
    lines = [it.step.line for it in installed(tmp_path).remove(purge=False)]
    folder = "/etc/systemd/system/tinyward.service.d"
    assert f"{folder}/tinyward-jit.conf is not there" in lines
    assert "/etc/systemd/system/tinyward.service is gone" in lines
