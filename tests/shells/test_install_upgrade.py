"""Upgrades as a whole: going back by the old version's program, locks, lost lines."""

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from agent.cli.installing import detached
from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError
from agent.install.facts import UNKNOWN, read_schema
from agent.install.places import BEFORE, CURRENT, TRIAL, Places
from agent.install.state_copy import keep_state, restore_state
from agent.install.steps import Planned
from agent.install.tree import Tree
from agent.install.upgrade import Upgrade, last_word, locked
from agent.store.schema import SCHEMA
from agent.store.store import Store
from tests.fakes.machine import Machine, wanted

# Python 3.12 warns of forks beside threads; those of other tests hold nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
REPOSITORY = Path(__file__).resolve().parents[2]
# What the program of slot a does when it is asked to go back.
OLD_PROGRAM = """\
#!{python}
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from tests.fakes.machine import Machine, wanted
assert sys.argv[1:] == ["install", "--fall-back"]
machine = Machine(Path({root!r}), {broken!r})
if {fails!r}:
    sys.exit("no room")
machine.fall_back(wanted("a"))
"""


def board(root: Path, broken: tuple[str, ...] = (), *, fails: bool = False) -> Machine:
    """Return a machine that runs slot a, whose program can go back to itself."""
    machine = Machine(root, broken)
    machine.install(wanted("a"))
    program = root / "opt/tinyward/a/bin/tinyward"
    text = OLD_PROGRAM.format(
        python=sys.executable,
        repository=str(REPOSITORY),
        root=str(root),
        broken=broken,
        fails=fails,
    )
    program.write_text(text)
    program.chmod(0o755)
    return machine


def upgrade(machine: Machine, slot: str = "b", schema: int = 2) -> Upgrade:
    """Return an upgrade of a machine."""
    want = wanted(slot, "2", schema)
    return Upgrade(machine.performer(), lambda: machine.facts(want), want)


def ignore(planned: Planned) -> None:
    """Tell nobody."""
    del planned


def test_a_version_that_is_not_ready_makes_way(tmp_path: Path) -> None:
    """The old one runs again with its own units; the error has the new one's words."""
    machine = board(tmp_path, ("b",))
    with pytest.raises(DeviceError) as caught:
        upgrade(machine).run(ignore)
    # Stopped before the old program is called: a start in between would migrate again.
    assert machine.systemd.asked[-3:] == [
        "restart tinyward.service",
        "stop tinyward.service",
        "await tinyward.service",
    ]
    assert caught.value.reason == Reason.UPGRADE
    assert str(caught.value) == (
        "tinyward 2 in slot b did not get ready; slot a runs again. "
        "Its last words: no good"
    )
    assert machine.systemd.known.runs == "a"
    assert machine.places.at(CURRENT).readlink() == Path("a")
    unit = tmp_path / "etc/systemd/system/tinyward.service"
    assert b"# 1\n" in unit.read_bytes()
    assert not machine.places.at(TRIAL).exists()


def test_going_back_after_a_killed_run_had_switched(tmp_path: Path) -> None:
    """The marker and `previous` say where to, although `current` is the new one."""
    machine = board(tmp_path, ("b",))
    for name, target in (("previous", "a"), ("current", "b")):
        machine.performer().tree.link(tmp_path / "opt/tinyward" / name, target)
    machine.places.at(TRIAL).write_text("b\n")
    with pytest.raises(DeviceError, match="slot a runs again"):
        upgrade(machine).run(ignore)
    assert machine.systemd.known.runs == "a"


def test_a_first_version_that_is_not_ready_has_none_to_make_way_for(
    tmp_path: Path,
) -> None:
    """It stays, is tried again by systemd, and its words are told."""
    machine = Machine(tmp_path, ("a",))
    with pytest.raises(DeviceError, match="last words: no good") as caught:
        upgrade(machine, "a").run(ignore)
    assert caught.value.reason == Reason.NOT_INSTALLED
    assert machine.places.at(CURRENT).readlink() == Path("a")


def test_an_old_version_that_cannot_go_back_is_told(tmp_path: Path) -> None:
    """With the command to run by hand."""
    machine = board(tmp_path, ("b",), fails=True)
    with pytest.raises(DeviceError, match="no room") as caught:
        upgrade(machine).run(ignore)
    assert "previous" not in caught.value.todo
    assert "/opt/tinyward/a/bin/tinyward install --fall-back" in caught.value.todo
    # The unit of the fall-back tries on: everything it needs is there.
    assert machine.places.at(TRIAL).exists()


def test_falling_back_without_a_trial_does_nothing(tmp_path: Path) -> None:
    """Somebody else was faster, or nothing was wrong."""
    machine = board(tmp_path)
    before = machine.snapshot()
    told: list[Planned] = []
    upgrade(machine, "a").fall_back(told.append)
    assert told == []
    assert machine.snapshot() == before
    machine.places.at(TRIAL).write_text("b\n")
    with pytest.raises(SettingsError, match="not the one before"):
        upgrade(machine, "a").fall_back(told.append)


def test_one_installation_at_a_time(tmp_path: Path) -> None:
    """The second one is refused; a lock of a dead one is none."""
    machine = Machine(tmp_path)
    with locked(machine.places):
        with pytest.raises(DeviceError, match="another installation") as caught:
            upgrade(machine, "a").run(ignore)
        assert caught.value.reason == Reason.LOCKED
    upgrade(machine, "a").run(ignore)
    assert machine.systemd.known.runs == "a"


class FullTree(Tree):
    """A disk that takes no more from change number ``last`` on."""

    def __init__(self, last: int, number: int) -> None:
        self.made = 0
        self._last = last
        self._number = number

    def about_to(self, change: str, path: Path) -> None:
        """Count, or have no room; removing always works."""
        if self.made >= self._last and change in ("write", "link", "mkdir"):
            raise OSError(self._number, os.strerror(self._number), str(path))
        self.made += 1


def trouble_of(machine: Machine, tree: Tree) -> DeviceError | None:
    """Return what an upgrade on this tree fails of."""
    try:
        machine.install(wanted("b", "2", schema=3), tree)
    except DeviceError as err:
        return err
    return None


@pytest.mark.parametrize(
    ("number", "reason", "todo"),
    [
        (errno.ENOSPC, Reason.DISK_FULL, "Free space"),
        (errno.EROFS, Reason.READ_ONLY, "Remount"),
    ],
)
def test_a_disk_that_takes_no_more(
    tmp_path: Path, number: int, reason: Reason, todo: str
) -> None:
    """At every change: it is said, one version would start, and later it goes on."""
    begun = board(tmp_path / "begun")
    for last in count():
        root = tmp_path / str(last)
        shutil.copytree(begun.root, root, symlinks=True)
        machine = Machine(root)
        error = trouble_of(machine, FullTree(last, number))
        if error is None:
            break
        assert (error.reason, todo in error.todo) == (reason, True)
        assert machine.systemd.boot() in ("a", "b")
        machine.install(wanted("b", "2", schema=3))
        assert machine.systemd.known.runs == "b"
    assert last > 10


@contextmanager
def state(folder: Path) -> Iterator[Path]:
    """Give a real state directory with a store in it."""
    store = Store.open(folder)
    store.close()
    yield folder


def test_the_schema_is_what_the_store_wrote(tmp_path: Path) -> None:
    """The header of a real state.db, without opening the database."""
    with state(tmp_path / "state") as folder:
        path = folder / "state.db"
        assert read_schema(path) == SCHEMA
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 77")
        connection.close()
        assert read_schema(path) == 77
    assert read_schema(tmp_path / "none") == 0
    (tmp_path / "empty").touch()
    assert read_schema(tmp_path / "empty") == 0
    (tmp_path / "other").write_bytes(b"not a database")
    assert read_schema(tmp_path / "other") == UNKNOWN
    (tmp_path / "link").symlink_to(path)
    assert read_schema(tmp_path / "link") == UNKNOWN


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """With its owner and mode, and without the journal of what came after."""
    with state(tmp_path / "state") as folder:
        before = {it.name: it.read_bytes() for it in folder.glob("state.*")}
        place = tmp_path / "before"
        keep_state(Tree(), folder, place)
        (folder / "state.db").write_bytes(b"migrated")
        (folder / "state.db-journal").write_bytes(b"of the migrated one")
        (folder / "state.json").unlink()
        restore_state(Tree(), place, folder)
        after = {it.name: it.read_bytes() for it in folder.glob("state.*")}
        assert after == before
        assert (folder / "state.db").stat().st_mode & 0o777 == 0o600
        Store.open(folder).close()


def test_a_state_with_a_journal_keeps_it(tmp_path: Path) -> None:
    """Both are one: a daemon that was killed left its last transaction half done."""
    folder, place = tmp_path / "state", tmp_path / "before"
    folder.mkdir()
    (folder / "state.db").write_bytes(b"half")
    (folder / "state.db-journal").write_bytes(b"the other half")
    keep_state(Tree(), folder, place)
    (folder / "state.db-journal").unlink()
    restore_state(Tree(), place, folder)
    assert (folder / "state.db-journal").read_bytes() == b"the other half"


def test_links_of_a_daemon_that_was_taken_over_are_not_followed(
    tmp_path: Path,
) -> None:
    """Root neither reads nor writes what a link in the state directory names."""
    folder, place = tmp_path / "state", tmp_path / "before"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "state.db").symlink_to(secret)
    with pytest.raises(DeviceError):
        keep_state(Tree(), folder, place)
    assert not place.exists()
    (folder / "state.db").unlink()
    (folder / "state.db").write_text("mine")
    keep_state(Tree(), folder, place)
    for name in ("state.db", ".state.db.restored"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)
    restore_state(Tree(), place, folder)
    assert secret.read_text() == "secret"
    assert (folder / "state.db").read_text() == "mine"
    away = tmp_path / "away"
    folder.rename(away)
    folder.symlink_to(away)
    with pytest.raises(DeviceError):
        restore_state(Tree(), place, folder)


def test_a_lost_connection_does_not_end_the_work(tmp_path: Path) -> None:
    """The terminal's processes are hung up and killed; the work goes on, and ends."""
    ready, go, done = (tmp_path / name for name in ("ready", "go", "done"))
    for pipe in (ready, go, done):
        os.mkfifo(pipe)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from agent.cli.installing import Telling, detached\n"
        "def work():\n"
        f"    Path({str(ready)!r}).write_text('x')\n"
        f"    Path({str(go)!r}).read_text()\n"
        "    Telling(as_json=False).say('into a closed terminal')\n"
        f"    Path({str(done)!r}).write_text('done')\n"
        "sys.exit(detached(work))\n"
    )
    reader, writer = os.pipe()
    shell = subprocess.Popen(
        [sys.executable, "-c", program], start_new_session=True, stdout=writer
    )
    os.close(writer)
    assert ready.read_text() == "x"
    os.killpg(shell.pid, signal.SIGHUP)
    assert shell.wait() == -signal.SIGHUP
    os.close(reader)
    go.write_text("go")
    assert done.read_text() == "done"


def test_the_work_of_a_child_ends_as_here(capfd: pytest.CaptureFixture[str]) -> None:
    """Its errors are shown by it, and its exit code is ours."""

    def refuse() -> None:
        raise SettingsError("in the way", reason=Reason.SETTINGS, todo="Move it.")

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    assert detached(lambda: None) == 0
    assert detached(refuse) == 2
    assert capfd.readouterr().err == "error: in the way [settings]\nto do: Move it.\n"
    assert detached(fail) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_lock_is_no_file(tmp_path: Path) -> None:
    """It is the folder of the slots itself: nothing of it is left, nor in the way."""
    machine = Machine(tmp_path)
    before = machine.snapshot()
    with locked(Places(tmp_path)):
        descriptor = os.open(tmp_path / "opt/tinyward", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert machine.snapshot() == before
    assert BEFORE not in before


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ""),
        (["Traceback:", "  File x", "ValueError: no good"], "ValueError: no good"),
        (["  | ValueError: no good", "  +------------------"], "ValueError: no good"),
        (
            ["ready", "error: no [x]", "to do: Mend it."],
            "error: no [x] to do: Mend it.",
        ),
    ],
)
def test_a_traceback_is_left_to_the_journal(lines: list[str], expected: str) -> None:
    """Its last line is the cause; of an error of ours also what to do."""
    assert last_word(lines) == expected
