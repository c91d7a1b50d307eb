"""The instruments themselves: faults fire where they should, and wrong is seen."""

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from agent.core.floors import Floor, Floors
from agent.store import Store
from tests.faults.conftest import wrong
from tests.faults.driver import Told, live
from tests.faults.oracle import Verdict, check_order, fallen, heights, judge
from tests.faults.parallel import run_all
from tests.faults.scenes import Name, Scene
from tests.faults.syscalls import NUMBERS, SHAPES, Call, shapes_by_number
from tests.faults.tracer import Watcher, trace
from tests.faults.watchers import Fails, Signals, Waits, parse_stacks

Spoil = Callable[[Path], None]


def write_twice(path: Path) -> None:
    """Make two files, each by open, write, fsync and rename."""
    for name in ("one", "two"):
        descriptor = os.open(path / ".tmp", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, name.encode())
        os.fsync(descriptor)
        os.close(descriptor)
        (path / ".tmp").rename(path / name)


@pytest.mark.usefixtures("tracing")
def test_it_sees_what_changes_the_folder_and_nothing_else(tmp_path: Path) -> None:
    """Calls elsewhere, reading and closing are not counted; paths are relative."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()

    def child() -> None:
        write_twice(tmp_path / "out")
        write_twice(tmp_path / "in")
        (tmp_path / "in" / "one").read_bytes()

    calls = trace(child, tmp_path / "in", Watcher()).calls
    per_file = [("openat", ".tmp"), ("write", ".tmp"), ("fsync", ".tmp")]
    expected = [*per_file, ("rename", "one"), *per_file, ("rename", "two")]
    assert [(call.name, call.path) for call in calls] == expected
    assert [call.number for call in calls] == list(range(1, 9))


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("number", range(1, 9))
def test_a_kill_leaves_what_was_done_until_then(tmp_path: Path, number: int) -> None:
    """SIGKILL after the n-th call: it is done, and the next one is not."""
    traced = trace(lambda: write_twice(tmp_path), tmp_path, Signals(number))
    assert traced.killed
    assert traced.signalled == [number]
    assert (tmp_path / "one").exists() == (number >= 4)
    assert (tmp_path / "two").exists() == (number >= 8)
    assert (tmp_path / ".tmp").exists() == (number in {1, 2, 3, 5, 6, 7})


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize(
    ("sticky", "failed", "there"),
    [(False, [2], ["one", "three"]), (True, [2, 4], ["one"])],
)
def test_an_error_is_told_and_nothing_is_done(
    tmp_path: Path,
    sticky: bool,  # noqa: FBT001 - a parameter of the test
    failed: list[int],
    there: list[str],
) -> None:
    """The child sees the errno, once or from there on; spared calls go through."""

    def child() -> None:
        (tmp_path / "one").mkdir()
        for name in ("two", "three"):
            try:
                (tmp_path / name).mkdir()
            except OSError as err:
                if err.errno != errno.ENOSPC:
                    raise  # another status, which the test sees
                (tmp_path / "nothing").unlink(missing_ok=True)

    watcher = Fails(2, errno.ENOSPC, sticky, frozenset({"unlink"}))
    traced = trace(child, tmp_path, watcher)
    assert traced.status == 0
    assert traced.failed == failed
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(there)


@pytest.mark.usefixtures("tracing")
def test_all_threads_share_one_count(tmp_path: Path) -> None:
    """The n-th call is the n-th of the process, whichever thread makes it."""

    def child() -> None:
        for number in range(4):
            thread = threading.Thread(target=(tmp_path / str(number)).mkdir)
            thread.start()
            thread.join()

    traced = trace(child, tmp_path, Signals(3))
    assert traced.killed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert len({call.thread for call in traced.calls}) == 3


@pytest.mark.usefixtures("tracing")
def test_a_slow_call_is_slow(tmp_path: Path) -> None:
    """Every fsync waits, and is counted."""
    waits = Waits(frozenset({"fsync"}), 0.01)
    assert trace(lambda: write_twice(tmp_path), tmp_path, waits).status == 0
    assert waits.waited == 2


def test_each_machine_has_its_numbers() -> None:
    """Calls have distinct numbers, and none that no shape explains."""
    names = {shape.name for shape in SHAPES}
    for machine, numbers in NUMBERS.items():
        assert len(set(numbers.values())) == len(numbers)
        assert set(numbers) <= names
        assert len(shapes_by_number(machine)) == len(numbers)


def test_roles_leave_out_what_is_random() -> None:
    """A digest is no code site."""
    call = Call(1, "rename", f"state/obj/{'a' * 64}", 1)
    assert call.role == "state/obj/#"


def test_stacks_keep_our_own_lines() -> None:
    """Frames of libraries are left out; innermost comes first."""
    raw = (
        b"Stack (most recent call first):\n"
        b'  File "/x/lib/tuf/api.py", line 1 in f\n'
        b'  File "/x/agent/trust/durable.py", line 12 in write_durably\n'
        b'  File "/x/agent/update/threads.py", line 40 in work\n'
    )
    expected = ("trust/durable.py:12 write_durably", "update/threads.py:40 work")
    assert parse_stacks(raw + raw) == [expected, expected]


def test_a_case_that_dies_is_a_failed_case() -> None:
    """Whoever does not answer did not pass."""

    def dies() -> list[Verdict]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []

    found = list(run_all([dies, lambda: [Verdict("fine")]]))
    assert [bool(wrong(verdicts)) for verdicts in found] == [True, False]


def grown(scene: Scene, folder: Path) -> Path:
    """Return a state after a clean update."""
    state = scene.fresh(folder)
    told = os.memfd_create("told")
    live(scene, state, told)
    os.close(told)
    return state


def lose_object(state: Path) -> None:
    """Remove the newest object."""
    store = Store.open(state)
    active = store.slots("door").active
    store.close()
    assert active is not None
    (state / "obj" / active.sha256).unlink()


def rot_object(state: Path) -> None:
    """Flip the bits of every object's first byte."""
    for path in (state / "obj").iterdir():
        content = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(bytes([content[0] ^ 0xFF]) + content[1:])


def lower_floors(state: Path) -> None:
    """Forget what trust remembers."""
    store = Store.open(state)
    rows = store._database.rows("SELECT key FROM notes WHERE key LIKE 'trust.floors%'")
    for (key,) in rows:
        store.save_note(str(key), b"{}")
    store.close()


def empty_state(state: Path) -> None:
    """Lose everything."""
    shutil.rmtree(state)
    state.mkdir(mode=0o700)


def leave_rubbish(state: Path) -> None:
    """Put a folder where a clean update has to write."""
    (state / "metadata" / ".timestamp.json.tmp").mkdir()


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        (lose_object, "O1"),
        (rot_object, "O1"),
        (lower_floors, "O2"),
        (empty_state, "O1"),
        (leave_rubbish, "O4"),
    ],
)
def test_the_oracle_sees_what_is_wrong(
    tmp_path: Path, scenes: dict[Name, Scene], spoil: Spoil, law: str
) -> None:
    """Each way to break a state breaks its law."""
    state = grown(scenes["update"], tmp_path)
    spoil(state)
    found = judge(scenes["update"], state, "spoiled").wrong
    assert law in {sentence.partition(" ")[0] for sentence in found}, found


def test_the_oracle_finds_nothing_in_a_clean_life(
    tmp_path: Path, scenes: dict[Name, Scene]
) -> None:
    """Before and after a clean update all laws hold."""
    update = scenes["update"]
    (tmp_path / "before").mkdir()
    before = judge(update, update.fresh(tmp_path / "before"), "before")
    after = judge(update, grown(update, tmp_path), "after")
    assert (before.found, before.wrong) == (1, [])
    assert (after.found, after.wrong) == (2, [])


@pytest.mark.parametrize(
    ("told", "law"),
    [
        (Told(answers=2, active=1), "O3"),
        (Told(results=["failed because"]), "O5"),
        (Told(refused="because"), "O5"),
        (Told(crash="Traceback"), "O5"),
    ],
)
def test_the_oracle_hears_what_a_life_said(
    tmp_path: Path, scenes: dict[Name, Scene], told: Told, law: str
) -> None:
    """Other answers than what is durable, unknown reasons, tracebacks: each counts."""
    state = scenes["update"].fresh(tmp_path)
    verdict = judge(scenes["update"], state, "said", msgspec.json.encode(told))
    assert {sentence.partition(" ")[0] for sentence in verdict.wrong} == {law}


def test_floors_that_fell_are_named() -> None:
    """Heights of root, clock, roles and generations are compared; rising is fine."""
    high = Floors(
        root=2,
        roles={"timestamp": Floor(5, ("a",))},
        generations={"fleet/groups/all": Floor(3, ("a",))},
        clock_s=100,
    )
    now, nothing = heights(high), heights(Floors())
    assert fallen(now, heights(replace(high, root=3, clock_s=101))) == []
    assert fallen(nothing, now) == []
    assert fallen(now, nothing) == [
        "the floor of root fell from 2 to 0",
        "the floor of clock fell from 100 to 0",
        "the floor of role timestamp fell from 5 to 0",
        "the floor of generation fleet/groups/all fell from 3 to 0",
    ]


def test_what_was_durable_once_stays_so_in_all_later_moments() -> None:
    """A version or a floor that comes undone between two moments is wrong."""
    earlier = Verdict("earlier", found=2, floors={"version": 2})
    same, less = Verdict("same", 2, {"version": 2}), Verdict("less", 1, {"version": 1})
    check_order(earlier, same)
    check_order(earlier, less)
    assert same.wrong == []
    assert less.wrong == [
        "O1 2 was active already",
        "O2 the floor of version fell from 2 to 1",
    ]
