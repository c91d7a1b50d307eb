"""The file of a rollout: durable, sealed, and one process's at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.cli.fleet_state import Asked, Kept, StateFile, check_belongs
from agent.core.waves import BoardCourse, Course, Phase, Standing
from agent.core.waves_course import Before, Figures, Health, LogRow
from agent.errors import DeviceError, SettingsError

Json = dict[str, Any]
WAVES = (("group:canary", ("b1",)), ("all", ("b2", "b3")))
BOARDS = {name: BoardCourse() for name in ("b1", "b2", "b3")}
KEPT = Kept({"door": ("", 8)}, "push", "salt", WAVES, Course(boards=BOARDS), "id")
floats = st.floats(0, 2e9)
figures = st.builds(Figures, st.integers(0, 9), st.integers(0, 9), floats)
board_courses = st.builds(
    BoardCourse,
    standing=st.sampled_from(Standing),
    reason=st.text(max_size=5),
    detail=st.text(max_size=9),
    told=st.integers(0, 9),
    told_at=floats,
    before=st.dictionaries(
        st.text(max_size=3), st.builds(Before, figures, figures), max_size=2
    ),
    health=st.builds(Health, st.integers(0, 9), st.floats(0, 1), floats),
)
courses = st.builds(
    Course,
    phase=st.sampled_from(Phase),
    wave=st.integers(0, 1),
    began_at=floats,
    boards=st.fixed_dictionaries(dict.fromkeys(BOARDS, board_courses)),
    log=st.lists(st.builds(LogRow, floats, st.text(max_size=5), st.just(0))).map(tuple),
)


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    """A file that is not there yet."""
    return StateFile(tmp_path / "fleet.toml.rollout.json")


@given(course=courses)
def test_what_is_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, course: Course
) -> None:
    """Every standing, figure and decision, bit for bit."""
    file = StateFile(tmp_path_factory.mktemp("state") / "s")
    kept = replace(KEPT, course=course)
    file.save(kept)
    assert kept == file.load()


def _edited(change: Callable[[Json], object]) -> Callable[[bytes], bytes]:
    """Return an edit of the file as JSON."""

    def edit(raw: bytes) -> bytes:
        parsed = json.loads(raw)
        change(parsed)
        return json.dumps(parsed).encode()

    return edit


EDITS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a board made committed": (
        _edited(
            lambda it: it["rollout"]["course"]["boards"]["b1"].update(
                standing="committed"
            )
        ),
        "checksum is wrong",
    ),
    "another version": (
        _edited(lambda it: it["rollout"]["assign"].update(door=["", 9])),
        "checksum is wrong",
    ),
    "a wave skipped": (
        _edited(lambda it: it["rollout"]["course"].update(wave=1)),
        "checksum is wrong",
    ),
    "an unknown key": (
        _edited(lambda it: it["rollout"].update(note="mine")),
        "there is no key `note`",
    ),
    "an unknown standing": (
        _edited(
            lambda it: it["rollout"]["course"]["boards"]["b1"].update(standing="fine")
        ),
        "none of its choices",
    ),
    "a format of tomorrow": (_edited(lambda it: it.update(format=2)), "format is 2"),
    "half of it": (lambda raw: raw[: len(raw) // 2], "rollout.json"),
    "nothing": (lambda _raw: b"", "rollout.json"),
    "no text": (lambda _raw: b"\xff\xfe\x00", "rollout.json"),
    "deeply nested": (lambda _raw: b"[" * 100_000, "rollout.json"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_file_that_was_edited_is_refused(file: StateFile, name: str) -> None:
    """With reason ``rollout``, what is wrong, and what can be done."""
    edit, said = EDITS[name]
    file.save(KEPT)
    file.path.write_bytes(edit(file.path.read_bytes()))
    with pytest.raises(SettingsError, match=said) as caught:
        file.load()
    assert (caught.value.reason, caught.value.exit_code) == ("rollout", 2)
    assert "Restore the file" in caught.value.todo


def test_a_sealed_file_whose_parts_do_not_fit(file: StateFile) -> None:
    """Even with a right checksum: its waves name a board that it does not know."""
    strange = replace(KEPT, waves=(("all", ("b1", "b2", "b9")),))
    file.save(strange)
    with pytest.raises(SettingsError, match="do not fit"):
        file.load()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (replace(KEPT, assign={"door": ("", 9)}), "another rollout is under way"),
        (replace(KEPT, mode="repository"), "another rollout is under way"),
        (
            replace(KEPT, course=Course(boards={**BOARDS, "b4": BoardCourse()})),
            "other boards than this rollout began with: \\+b4",
        ),
        (replace(KEPT, salt="other"), "other waves or groups"),
        (replace(KEPT, waves=(("all", ("b1", "b2", "b3")),)), "--wave group:canary"),
    ],
)
def test_a_file_of_another_rollout(asked: Kept, said: str) -> None:
    """What differs is named; nothing is guessed."""
    with pytest.raises(SettingsError, match=said) as caught:
        check_belongs(KEPT, asked)
    assert caught.value.reason == "rollout"
    check_belongs(KEPT, replace(KEPT, id="other"))


def test_one_process_at_a_time(file: StateFile) -> None:
    """The lock names its holder, ends with it, and is seen by other processes."""
    with file.held():
        with pytest.raises(DeviceError, match=f"process {os.getpid()} works") as caught:
            file.held().__enter__()
        assert caught.value.reason == "locked"
        assert file.is_held()
    assert not file.is_held()
    script = (
        "import os, sys; from pathlib import Path;"
        "from agent.cli.fleet_state import StateFile\n"
        "with StateFile(Path(sys.argv[1])).held(): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(file.path)], check=False)
    assert not file.is_held()


def test_an_order_is_taken_once(file: StateFile) -> None:
    """It waits beside the file until it is carried out."""
    assert file.asked() is None
    asked = Asked("abort", back=True, by="ada")
    file.ask(asked)
    assert asked == file.asked()
    file.forget_asked()
    file.forget_asked()
    assert file.asked() is None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Trouble with the disk has its reason, and is no trace."""
    file = StateFile(tmp_path / "no" / "such" / "folder")
    assert file.load() is None
    with pytest.raises(DeviceError):
        file.save(KEPT)
    with pytest.raises(DeviceError):
        file.held().__enter__()


def test_a_crash_leaves_the_old_file_or_the_new_one(file: StateFile) -> None:
    """What was written aside before a crash is no part of it."""
    file.save(KEPT)
    file.path.with_name(f"{file.path.name}.tmp").write_bytes(b'{"format"')
    assert file.load() == KEPT
    file.save(replace(KEPT, id="new"))
    assert replace(KEPT, id="new") == file.load()
