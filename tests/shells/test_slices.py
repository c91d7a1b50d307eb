"""Slices of a repository: complete, checked, deterministic, whole or not there."""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError, SettingsError
from agent.publish.slices import Choice, export_slice
from tests.fakes.board import Board
from tests.fakes.bundle_factory import NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle

ONE, TWO, THREE = (f"models/kws/{version}.bundle" for version in (1, 2, 3))


@pytest.fixture
def made(tmp_path: Path) -> SpoiledRepository:
    made = make_repository(
        tmp_path / "repo",
        {("kws", version): good_bundle(version) for version in (1, 2, 3)},
        {"all": {"door": ("kws", 1)}, "lab": {"door": ("kws", 2)}},
    )
    made.repository.assign_device("pi-7", {"door": ("kws", 2)})
    made.repository.revoke(["a" * 64], ["abc"])
    made.repository.publish(NOW)
    return made


def expect(
    kind: type[AgentError], reason: Reason, call: Callable[[], object]
) -> AgentError:
    """Expect one error with one reason."""
    with pytest.raises(kind) as caught:
        call()
    assert reason == caught.value.reason
    return caught.value


def bundles(folder: Path) -> list[str]:
    """Return the target paths of the bundles in a folder."""
    found = (folder / "targets").glob("models/*/*.bundle")
    names = (path.relative_to(folder / "targets") for path in found)
    return sorted(f"{n.parent}/{n.name.partition('.')[2]}" for n in names)


def board_of(folder: Path, made: SpoiledRepository, home: Path) -> Board:
    """Return a board that looks at a slice and trusts the repository's root."""
    carried = SpoiledRepository(folder, made.repository)
    carried.root = made.root
    return Board(home, carried)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [ONE, TWO]),
        (Choice(groups=["all"]), [ONE]),
        (Choice(devices=["pi-7"]), [TWO]),
        (Choice(models=[("kws", 3)]), [THREE]),
        (Choice(groups=["all"], models=[("kws", 3)]), [ONE, THREE]),
        (Choice(everything=True), [ONE, TWO, THREE]),
    ],
)
def test_the_choice_is_about_bundles(
    made: SpoiledRepository, tmp_path: Path, choice: Choice, expected: list[str]
) -> None:
    """Chosen bundles go along; metadata, desired states and revocations always do."""
    out = tmp_path / "slice"
    export_slice(made.path, out, choice)
    assert expected == bundles(out)
    trusted = board_of(out, made, tmp_path / "board").refresh()
    assert [path for path, _ in trusted.desired(["lab", "all"])] == [
        "fleet/groups/lab",
        "fleet/groups/all",
    ]
    for name in ("fleet/devices/*.pi-7", "*.revoked.json"):
        assert len(list((out / "targets").glob(name))) == 1


def test_a_board_that_slept_through_rotations_follows_a_slice(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Every root is in it, so the chain has no gap; its content is fetched whole."""
    board = Board(tmp_path / "board", made)
    board.refresh()
    for _ in range(3):
        made.repository.rotate("root", NOW)
    made.repository.rotate("fleet", NOW)
    out = tmp_path / "slice"
    export_slice(made.path, out, Choice())
    names = sorted(path.name for path in (out / "metadata").glob("*.root.json"))
    assert names == [f"{number}.root.json" for number in range(1, 5)]
    board.repository = board_of(out, made, tmp_path).repository
    target = board.refresh().find("kws", 2)
    assert board.fetch(target) == good_bundle(2)


def test_an_archive_holds_the_same_files(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """A .tar is the folder, file by file, timestamp.json last; names may be long."""
    long = "x" * 64
    made.repository.assign_device(long, {"door": ("kws", 1)})
    made.repository.publish(NOW)
    folder, archive = tmp_path / "slice", tmp_path / "slice.tar"
    pieces = export_slice(made.path, folder, Choice())
    export_slice(made.path, archive, Choice())
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        opened.extractall(tmp_path / "from-tar", filter="data")
    assert [piece.name for piece in pieces] == [member.name for member in members]
    assert members[-1].name == "metadata/timestamp.json"
    assert {(m.mode, m.mtime, m.uid, m.uname) for m in members} == {(0o644, 0, 0, "")}
    assert tree(folder) == tree(tmp_path / "from-tar")
    assert any(name.endswith(long) for name in tree(folder))


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_publication_gives_the_same_bytes(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Twice, on a copy elsewhere too, and over the file of the last time."""
    out = tmp_path / "slice.tar"
    export_slice(made.path, out, Choice())
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    elsewhere = made.copy(tmp_path / "elsewhere")
    export_slice(elsewhere, out, Choice())
    assert first == hashlib.sha256(out.read_bytes()).hexdigest()
    made.repository.publish(NOW)
    export_slice(made.path, out, Choice())
    assert first != hashlib.sha256(out.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["slice", "slice.tar"])
def test_damaged_copies_are_not_carried(
    made: SpoiledRepository, tmp_path: Path, name: str
) -> None:
    """#2, #4: what is not what was signed stops the export, and leaves nothing."""
    out = tmp_path / name
    file = made.bundle_file("kws", 1)
    whole = file.read_bytes()
    file.chmod(0o644)
    for content, reason in (
        (bytes([whole[0] ^ 1]) + whole[1:], Reason.DIGEST),
        (whole[:-1], Reason.LENGTH),
        (whole + b"\0", Reason.LENGTH),
    ):
        file.write_bytes(content)
        expect(
            BundleRefusedError, reason, lambda: export_slice(made.path, out, Choice())
        )
    file.unlink()
    expect(
        DeviceError,
        Reason.MISSING_TARGET,
        lambda: export_slice(made.path, out, Choice()),
    )
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == ["repo", "repo-keys"]


def test_what_a_crash_left_is_in_nobodys_way(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """A half-written slice has another name, and the next export replaces it."""
    (tmp_path / ".slice.tmp" / "metadata").mkdir(parents=True)
    (tmp_path / ".slice.tmp" / "metadata" / "rubbish").write_bytes(b"x")
    (tmp_path / ".slice.tar.tmp").write_bytes(b"x")
    for name in ("slice", "slice.tar"):
        export_slice(made.path, tmp_path / name, Choice())
    assert not list((tmp_path / "slice").rglob("rubbish"))
    assert not list(tmp_path.glob(".*"))


def test_a_folder_is_never_replaced(made: SpoiledRepository, tmp_path: Path) -> None:
    """Somebody's files are not removed for a slice."""
    out = tmp_path / "slice"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"x")
    error = expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: export_slice(made.path, out, Choice()),
    )
    assert ".tar" in error.todo
    assert [path.name for path in out.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("choice", "kind", "reason"),
    [
        (Choice(groups=["nobody"]), SettingsError, Reason.SETTINGS),
        (Choice(devices=["pi-8"]), SettingsError, Reason.SETTINGS),
        (Choice(models=[("kws", 9)]), BundleRefusedError, Reason.MISSING_TARGET),
    ],
)
def test_unknown_choices_are_named(
    made: SpoiledRepository,
    tmp_path: Path,
    choice: Choice,
    kind: type[AgentError],
    reason: Reason,
) -> None:
    """A choice that names nothing is refused before anything is written."""
    expect(kind, reason, lambda: export_slice(made.path, tmp_path / "out", choice))
    assert not (tmp_path / "out").exists()


def test_a_slice_of_an_empty_repository_is_believed(tmp_path: Path) -> None:
    """Nothing assigned yet: metadata alone."""
    made = make_repository(tmp_path / "repo")
    export_slice(made.path, tmp_path / "slice", Choice())
    board = board_of(tmp_path / "slice", made, tmp_path / "board")
    assert board.refresh().desired(["all"]) == []


def test_trouble_with_the_disk_is_the_owners(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """A folder that is none is an error of the disk, and nothing is left."""
    (tmp_path / "file").write_bytes(b"")
    for name in ("slice", "slice.tar"):
        expect(
            DeviceError,
            Reason.STATE,
            lambda: export_slice(made.path, tmp_path / "file" / name, Choice()),  # noqa: B023 - called at once
        )
    shutil.rmtree(made.path / "targets" / "fleet")
    expect(
        DeviceError,
        Reason.STATE,
        lambda: export_slice(made.path, tmp_path / "slice", Choice()),
    )
