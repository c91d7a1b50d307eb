"""Envelopes on the operator's machine: a board is brought its own, and no other's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import slice_files
from agent.cli.slice_choice import Choice, Needs, choose_files
from agent.cli.slice_files import open_slice
from agent.core.reasons import Reason
from agent.core.sealing import envelope_path
from agent.errors import BundleRefusedError
from tests.fakes.slices import Tree, bundle, group, make_tree, write_tar, write_tree
from tests.fakes.slices import write_zip as zipped

BOARDS = ("pi-7", "pi-8")
ENVELOPES: Tree = {
    envelope_path("kws", version, board): f"{version} {board}".encode()
    for version in (7, 8)
    for board in BOARDS
}
TREE = make_tree({7: bundle(7), 8: bundle(8)}, {"fleet/groups/all": group(("door", 8))})
DOOR = Needs(models={"door": "kws"}, board="pi-7")


def choose(needs: Needs, tree: Tree = TREE) -> Choice:
    """Choose from a tree."""
    sizes = {name: len(raw) for name, raw in tree.items()}
    return choose_files(sizes, tree.__getitem__, needs)


def test_the_boards_own_envelope_of_what_it_wants() -> None:
    """Of the version that is desired, whether its bundle goes there or runs already."""
    assert choose(DOOR).envelopes == ("envelopes/kws/8/pi-7",)
    runs = Needs(models={"door": "kws"}, board="pi-7", running={"door": "f" * 64})
    assert choose(runs).envelopes == ("envelopes/kws/8/pi-7",)


def test_all_versions_where_somebody_else_chooses() -> None:
    """A fleet's server, or who sends everything; still of this board alone."""
    both = ("envelopes/kws/7/pi-7", "envelopes/kws/8/pi-7")
    every = Needs(models={"door": "kws"}, board="pi-7", every_version=True)
    assert choose(every).envelopes == both
    assert choose(Needs(models={}, board="pi-7", everything=True)).envelopes == both
    broken = {**TREE, "metadata/timestamp.json": b"{"}
    assert choose(DOOR, broken).envelopes == both


@pytest.mark.parametrize(
    "needs",
    [Needs(models={"door": "kws"}), Needs(models={"door": "other"}, board="pi-7")],
)
def test_no_envelope_is_nobodys(needs: Needs) -> None:
    """Of a board without a name, and of models that it does not run."""
    assert choose(needs).envelopes == ()


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_they_are_found_by_name_and_not_listed(kind: str, tmp_path: Path) -> None:
    """One for each board of a fleet is too many to list: their number has no limit."""
    tree = {**TREE, **ENVELOPES}
    where = {
        "folder": lambda: write_tree(tmp_path / "repo", tree),
        "tar": lambda: write_tar(tmp_path / "repo.tar", tree, "./"),
        "zip": lambda: zipped(tmp_path / "repo.zip", tree, "deep/down/"),
    }[kind]()
    with open_slice(where) as files:
        assert set(files.sizes) == set(TREE)
        path = "envelopes/kws/8/pi-7"
        assert files.find_envelope(path)
        assert files.read(path, 0, 100) == b"8 pi-7"
        for absent in ("envelopes/kws/9/pi-7", "targets/x", "envelopes/../../etc/x"):
            assert not files.find_envelope(absent)


class ManyBoards:
    """Implements ``slice_files.Reader``: more boards than a slice may have files.

    Attributes:
        folder: In which the boards' files lie.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def names(self) -> Iterator[tuple[str, int]]:
        """Yield what is signed, and one file for each board."""
        yield from ((name, len(raw)) for name, raw in TREE.items())
        for number in range(slice_files.MAX_FILES):
            yield f"{self.folder}/kws/8/pi-{number}", 80

    def size(self, name: str) -> int:
        """Know every envelope."""
        return 80 if name.startswith("envelopes/") else 0

    def read(self, name: str, first: int, count: int) -> bytes:
        """Read nothing."""
        del name, first, count
        return b""


def test_a_fleet_may_have_any_number_of_boards() -> None:
    """The limit on files is one on what is signed; other files count."""
    files = slice_files.Slice(Path("many"), ManyBoards("envelopes"))
    assert len(files.sizes) == len(TREE)
    assert files.find_envelope("envelopes/kws/8/pi-19999")
    for folder in ("targets/envelopes", "else"):
        with pytest.raises(BundleRefusedError) as caught:
            slice_files.Slice(Path("many"), ManyBoards(folder))
        assert caught.value.reason == Reason.TOO_LARGE


def test_a_link_is_no_envelope(tmp_path: Path) -> None:
    """It could lead anywhere on the operator's machine."""
    root = write_tree(tmp_path / "repo", {**TREE, **ENVELOPES})
    place = root / "envelopes/kws/8/pi-7"
    place.unlink()
    place.symlink_to("/etc/passwd")
    with open_slice(root) as files:
        assert not files.find_envelope("envelopes/kws/8/pi-7")


@given(st.text(max_size=30))
def test_no_board_leads_out_of_the_slice(board: str) -> None:
    """Whatever a board calls itself, what is looked for lies below envelopes/."""
    for path in choose(Needs(models={"door": "kws"}, board=board)).envelopes:
        found = slice_files._ENVELOPE.fullmatch(path) is not None
        assert not found or ".." not in path.split("/")
