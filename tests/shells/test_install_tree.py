"""Installing on laid-out trees: the laws of repetition, and death at every change."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.install.places import BEFORE, CURRENT, SETTINGS, TRIAL
from agent.install.systemd import StartFailedError
from agent.install.wanted import Wanted
from tests.fakes.machine import (
    DyingTree,
    Killed,
    Machine,
    kill_dead,
    wanted,
)

# Python 3.12 warns of forks beside threads; those of other tests hold nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
UPGRADES = (
    ("same schema", wanted("b", "2", schema=2)),
    ("another schema", wanted("b", "2", schema=3)),
)
Act = Callable[[Machine, DyingTree], object]


def header(schema: int) -> bytes:
    """Return what a state.db begins with, as far as anybody here reads it."""
    return b"SQLite format 3\0" + bytes(44) + schema.to_bytes(4, "big") + bytes(40)


def lay_out_state(machine: Machine, schema: int) -> None:
    """Put a state there, as a daemon leaves it."""
    folder = machine.root / "var/lib/tinyward"
    (folder / "state.db").write_bytes(header(schema))
    (folder / "state.json").write_bytes(b"copy of %d" % schema)


def installed(root: Path, broken: tuple[str, ...] = ()) -> Machine:
    """Return a machine on which slot a runs, with a state of schema 2."""
    machine = Machine(root, broken)
    machine.install(wanted("a"))
    lay_out_state(machine, 2)
    return machine


def copies(machine: Machine, folder: Path) -> Iterator[Machine]:
    """Yield as many copies of a machine as are asked for."""
    for number in count():
        root = folder / str(number)
        shutil.copytree(machine.root, root, symlinks=True)
        yield Machine(root, tuple(machine.broken))


def dead_in_a_child(machine: Machine, last: int, act: Act) -> bool:
    """Let a child act until it kills itself at a change; return whether it did."""
    child = os.fork()
    if child == 0:
        act(machine, DyingTree(last, kill_dead))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -9)
    return code == -9


def upgrade(want: Wanted) -> Act:
    """Return what upgrades a machine, and goes back where it must."""

    def act(machine: Machine, tree: DyingTree) -> None:
        try:
            machine.install(want, tree)
        except StartFailedError:
            machine.systemd.stop("tinyward.service")
            machine.fall_back(wanted("a"), tree)

    return act


def after_power_cut(machine: Machine) -> str:
    """Boot; where a version on trial fails, the unit of the fall-back does its work."""
    runs = machine.systemd.boot()
    if not runs and machine.places.at(TRIAL).exists():
        machine.fall_back(wanted("a"))
        runs = machine.systemd.known.runs
    return runs


def test_installing_twice_changes_nothing(tmp_path: Path) -> None:
    """The second run finds everything as it should be, and asks systemd for nothing."""
    machine = Machine(tmp_path)
    machine.install(wanted())
    before = machine.snapshot()
    told = machine.install(wanted())
    assert [it for it in told if not it.already and it.step.line[:4] != "slot"] == []
    assert machine.systemd.asked == []
    assert machine.snapshot() == before


@given(st.integers(0, 60), st.sampled_from(["1", "2"]))
@settings(max_examples=40)
def test_any_prefix_and_then_the_whole(
    tmp_path_factory: pytest.TempPathFactory, last: int, version: str
) -> None:
    """However far a first run came, the next one ends in the same tree."""
    whole = Machine(tmp_path_factory.mktemp("whole"))
    whole.install(wanted("a", version))
    machine = Machine(tmp_path_factory.mktemp("cut"))
    with suppress(Killed):
        machine.install(wanted("a", version), DyingTree(last))
    machine.install(wanted("a", version))
    assert machine.snapshot() == whole.snapshot()
    assert machine.systemd.known.runs == "a"


@pytest.mark.parametrize("broken", [(), ("b",)], ids=["good", "broken"])
@pytest.mark.parametrize(
    "want", [it for _, it in UPGRADES], ids=[n for n, _ in UPGRADES]
)
def test_death_at_every_change_of_an_upgrade(
    tmp_path: Path, want: Wanted, broken: tuple[str, ...]
) -> None:
    """Killed anywhere and cut from power, a board runs one of both, with its state."""
    begun = installed(tmp_path / "begun", broken)
    seen = set()
    for last, machine in enumerate(copies(begun, tmp_path)):
        died = dead_in_a_child(machine, last, upgrade(want))
        runs = after_power_cut(machine)
        assert runs in {"a", "b"} - set(broken), f"killed before change {last}"
        assert machine.places.at(CURRENT).readlink().name == runs
        assert not machine.places.at(TRIAL).exists()
        seen.add(runs)
        again = upgrade(want)
        again(machine, DyingTree())
        assert machine.systemd.known.runs == ("a" if broken else "b")
        assert not machine.places.at(TRIAL).exists()
        assert not machine.places.at(BEFORE).exists()
        if not died:
            break
    assert seen == ({"a"} if broken else {"a", "b"})


def test_death_at_every_change_of_going_back(tmp_path: Path) -> None:
    """A state that was migrated comes back as it was, however often that is tried."""
    begun = installed(tmp_path / "begun", ("b",))
    want = UPGRADES[1][1]
    with pytest.raises(StartFailedError):
        begun.install(want)
    lay_out_state(begun, 3)  # the new version migrated, and then did not get ready
    (begun.root / "var/lib/tinyward/state.db-journal").write_bytes(b"of schema 3")
    begun.systemd.stop("tinyward.service")

    def back(machine: Machine, tree: DyingTree) -> None:
        machine.fall_back(wanted("a"), tree)

    for last, machine in enumerate(copies(begun, tmp_path)):
        died = dead_in_a_child(machine, last, back)
        assert after_power_cut(machine) == "a"
        folder = machine.root / "var/lib/tinyward"
        assert (folder / "state.db").read_bytes() == header(2)
        assert (folder / "state.json").read_bytes() == b"copy of 2"
        assert not (folder / "state.db-journal").exists()
        units = machine.root / "etc/systemd/system/tinyward.service"
        assert b"# 1\n" in units.read_bytes()
        if not died:
            break
    assert last > 5


def test_a_state_of_the_same_schema_is_never_put_back(tmp_path: Path) -> None:
    """What the new version learned stays: a floor never falls."""
    machine = installed(tmp_path, ("b",))
    with pytest.raises(StartFailedError):
        machine.install(UPGRADES[0][1])
    (tmp_path / "var/lib/tinyward/state.json").write_bytes(b"a higher floor")
    machine.fall_back(wanted("a"))
    assert (tmp_path / "var/lib/tinyward/state.json").read_bytes() == b"a higher floor"


def test_a_slot_that_does_not_run_here_is_never_switched_to(tmp_path: Path) -> None:
    """The check comes first; the old version is not even restarted."""
    machine = installed(tmp_path)
    before = machine.snapshot()
    trouble = DeviceError("no runtime", reason=Reason.NOT_INSTALLED)
    machine.workshop.trouble = trouble
    with pytest.raises(DeviceError, match="no runtime"):
        machine.install(wanted("b", "2"))
    assert machine.snapshot() == before
    assert machine.systemd.asked == []


def test_settings_of_the_operator_survive_everything(tmp_path: Path) -> None:
    """Neither an upgrade nor a removal touches them; a purge does."""
    machine = installed(tmp_path)
    own = b'log_level = "debug"\n'
    machine.places.at(SETTINGS).write_bytes(own)
    machine.install(wanted("b", "2"))
    machine.remove(purge=False)
    assert machine.places.at(SETTINGS).read_bytes() == own
    machine = Machine(tmp_path)  # a slot is filled again
    machine.install(wanted("a", "3"))
    assert machine.places.at(SETTINGS).read_bytes() == own
    machine.remove(purge=True)
    assert not machine.places.at("/etc/tinyward").exists()


def test_a_demo_that_lost_a_file_is_made_again(tmp_path: Path) -> None:
    """All of it: its parts are of one signature."""
    machine = installed(tmp_path)
    whole = machine.snapshot()
    (tmp_path / "opt/tinyward/demo/root.json").unlink()
    machine.install(wanted("a"))
    assert machine.snapshot() == whole


def test_three_upgrades_go_to_and_fro(tmp_path: Path) -> None:
    """a, b, a, b: each leaves the one before as the way back."""
    machine = Machine(tmp_path)
    for version, slot in enumerate("abab", start=1):
        machine.install(wanted(slot, str(version)))
        assert machine.systemd.known.runs == slot
    assert (tmp_path / "opt/tinyward/previous").readlink() == Path("a")
    assert (tmp_path / "opt/tinyward/current").readlink() == Path("b")


def test_a_file_appears_whole_with_its_mode(tmp_path: Path) -> None:
    """Whatever the umask is, and whatever lay there."""
    machine = Machine(tmp_path)
    before = os.umask(0o077)
    try:
        machine.install(wanted())
    finally:
        os.umask(before)
    seen = machine.snapshot()
    assert seen["etc/systemd/system/tinyward.service"][0] == 0o644
    assert seen["etc/tinyward/agent.toml"][0] == 0o640
    assert seen["opt/tinyward/demo"][0] == 0o755
    assert seen["usr/local/bin"][0] == 0o755


def test_drop_ins_that_were_asked_for(tmp_path: Path) -> None:
    """They lie beside the unit, and a removal takes only them."""
    machine = Machine(tmp_path)
    want = wanted()
    machine.install(replace(want, drop_ins=want.shipped.drop_ins(["camera"])))
    folder = tmp_path / "etc/systemd/system/tinyward.service.d"
    assert [it.name for it in folder.iterdir()] == ["tinyward-camera.conf"]
    (folder / "override.conf").write_text("[Service]\n")
    machine.remove(purge=False)
    assert [it.name for it in folder.iterdir()] == ["override.conf"]
