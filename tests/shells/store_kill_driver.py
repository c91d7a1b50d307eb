"""A process of its own that dies at every step of a change, and looks at what is left.

``python -m tests.shells.store_kill_driver CHANGE DIRECTORY`` prints one JSON object.

A step is a call that leaves Python to change something: an SQL statement, a write, a
sync, a rename... Each is a moment to die before it and another one after it. What is
left is looked at twice: as it is, and after state.db was damaged as well.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from agent.core.reasons import Reason
from agent.core.update_machine import Job, Phase
from agent.core.updates import Hold, Report
from agent.errors import BundleRefusedError
from agent.store import Inbox, Store
from tests.fakes.schema_1 import schema_1
from tests.fakes.stored import bring_in, check_whole, content, installed

MUTATING = frozenset(
    {
        *("execute", "open", "write", "fsync", "rename", "replace", "unlink", "remove"),
        *("posix_fallocate", "fchmod", "mkdir", "link", "ftruncate", "rmdir", "close"),
    }
)
Change = Callable[[Path], object]
REPORT = Report(7, "door", "kws", 3, "a" * 64, "fleet/groups/all", 2, "committed")
HOLD = Hold("door", "fleet/groups/all", 2)
SIZE = 5000


def die_at(moment: int) -> None:
    """Arm this process: it kills itself at that moment, counted from now on."""
    seen = 0

    def count(_frame: FrameType, event: str, function: object) -> None:
        nonlocal seen
        if event not in {"c_call", "c_return"}:
            return
        if getattr(function, "__name__", "") in MUTATING:
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def dies(moment: int, change: Change, state: Path) -> bool:
    """Return whether a child that makes this change comes to that moment."""
    child = os.fork()
    if child == 0:
        die_at(moment)
        change(state)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.waitstatus_to_exitcode(status) == 0
    return False


# The changes; all begin with the state that ``prepare`` makes.


def prepare(state: Path) -> None:
    """Make a board that runs 2, ran 1 before, and has 1 as its factory model."""
    store = Store.open(state)
    first = bring_in(store, 1)
    store.commit("door", first, factory=True)
    bring_in(store, 2)
    store.set_aside("b" * 64, Reason.HANG)
    store.save_note("note", b"1")
    store.close()


def commit(state: Path) -> None:
    """Bring in and commit the next version, with its report and a hold."""
    store = Store.open(state)
    bring_in(store, 3)
    store.commit("door", installed(3), REPORT, hold=HOLD)


def fall_back(state: Path) -> None:
    """Lose the active model."""
    Store.open(state).fall_back("door", Reason.CRASH_LOOP)


def rot(state: Path) -> None:
    """Find the active model rotten."""
    Store.open(state).fall_back("door", Reason.DIGEST)


def notes(state: Path) -> None:
    """Change what is kept besides models."""
    store = Store.open(state)
    store.save_note("note", b"2")
    store.forgive("b" * 64)
    store.set_aside("c" * 64, Reason.CRASH)
    store.add_report(REPORT)


def resume(state: Path) -> None:
    """Break a download off, go on with it, and commit it."""
    store = Store.open(state)
    model, body = installed(3), memoryview(content(3))
    for end in (1000, 3000):
        with store.stage(model.sha256, SIZE) as staging:
            staging.write(body[len(staging.kept) : end])
            staging.close(keep=True)
    with store.stage(model.sha256, SIZE) as staging:
        staging.write(body[len(staging.kept) :])
        staging.commit()
    store.commit("door", model)


def rebuild(state: Path) -> None:
    """Start with a damaged state.db."""
    Store.open(state)


def migrate(state: Path) -> None:
    """Start with a state.db of schema 1."""
    Store.open(state)


def upload(state: Path) -> None:
    """Upload a slice of two files, place one of them anew, and clear it."""
    store = Store.open(state)
    inbox = Inbox(state, 100_000)
    for version, path in ((11, "targets/a"), (12, "metadata/timestamp.json")):
        model = installed(version)
        for start in (0, 2000):
            piece = content(version)[start : start + 3000 if start else 2000]
            inbox.append(model.sha256, SIZE, start, piece)
        inbox.place(model.sha256, SIZE, path)
    model = installed(13)
    inbox.append(model.sha256, SIZE, 0, content(13))
    inbox.place(model.sha256, SIZE, "metadata/timestamp.json")
    inbox.clear()
    store.close()


def damage_before(state: Path) -> None:
    """Damage state.db before the change begins."""
    (state / "state.db").write_bytes(b"damage" * 1000)


def age_before(state: Path) -> None:
    """Put a state.db of schema 1 there, with objects 6 and 7."""
    shutil.rmtree(state)
    store = Store.open(state)
    bring_in(store, 6)
    bring_in(store, 7)
    store.close()
    (state / "state.json").unlink()
    (state / "state.db").write_bytes(schema_1())


BEFORE: dict[Change, Change] = {rebuild: damage_before, migrate: age_before}
CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (*(commit, fall_back, rot, notes, resume, rebuild, migrate, upload),)
}


# What is left.


def look(state: Path) -> tuple[int, int]:
    """Start again: all is whole, the next update works; return floor and active."""
    store = Store.open(state)
    active, floor = check_whole(store), store.version_floor("kws")
    slots = store.slots("door")
    assert active > 0
    assert floor >= active
    store.collect()
    for kept in (slots.active, slots.previous, slots.factory):
        assert kept is None or store.has_object(kept.sha256)
    store.save_job(Job("door", "kws", 9, "a" * 64, Phase.FETCHING, id=90))
    look_at_inbox(state)
    bring_in(store, floor + 1)
    assert check_whole(store) == store.version_floor("kws") == floor + 1
    store.close()
    return floor, active


def look_at_inbox(state: Path) -> None:
    """Whatever has a name in the slice is whole; what was to be uploaded still can."""
    inbox = Inbox(state, 100_000)
    bodies = {content(version) for version in (11, 12, 13)}
    for found in inbox.folder.rglob("*"):
        assert found.is_dir() or found.read_bytes() in bodies
    for version, path in ((11, "targets/a"), (12, "metadata/timestamp.json")):
        model = installed(version)
        offset = inbox.offset(model.sha256)
        assert offset <= SIZE
        inbox.append(model.sha256, SIZE, offset, content(version)[offset:])
        try:
            inbox.place(model.sha256, SIZE, path)
        except BundleRefusedError as err:
            raise AssertionError(path) from err
        assert (inbox.folder / path).read_bytes() == content(version)
    assert inbox.filled()
    inbox.clear()
    assert not inbox.filled()
    assert [found for found in inbox.folder.rglob("*") if found.is_file()] == []


def main() -> None:
    """Die at every moment of the change that the command line names."""
    change, directory = CHANGES[sys.argv[1]], Path(sys.argv[2])
    template = directory / "template"
    prepare(template)
    if change in BEFORE:
        BEFORE[change](template)
    seen: set[tuple[int, int]] = set()
    moments = 0
    for moment in range(1, 2000):
        state = directory / "state"
        shutil.copytree(template, state)
        if not dies(moment, change, state):
            break
        moments += 1
        other = directory / "other"
        shutil.copytree(state, other)
        floor, active = look(state)
        seen.add((floor, active))
        if (other / "state.json").exists():
            (other / "state.db").write_bytes(b"damage" * 1000)
            # The copy is never behind: what state.db says, or the change decided on.
            floor_of_copy, _ = look(other)
            assert floor_of_copy >= floor
        shutil.rmtree(state)
        shutil.rmtree(other)
    sys.stdout.write(json.dumps({"moments": moments, "seen": sorted(seen)}))


if __name__ == "__main__":
    main()
