"""What held-out data are read: groups, labels, folders, and where recordings end."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.profile_held_out import (
    HeldOut,
    Part,
    find_held_out,
    group_codes,
    label_codes,
    read_column,
)
from agent.errors import AgentError, SettingsError
from tests.fakes.profiled import STREAM, stream

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=40)


@given(WORDS)
def test_codes_keep_who_is_who(names: list[str]) -> None:
    """Equal names have equal numbers, others others, by first appearance."""
    codes, count = group_codes(names)
    assert count == len(set(names))
    first = list(dict.fromkeys(names))
    assert [first[code] for code in codes.tolist()] == names


@given(WORDS)
def test_codes_do_not_depend_on_names(names: list[str]) -> None:
    """Renaming every group changes nothing: profiles name no device."""
    renamed = [f"device-{name}" for name in names]
    assert np.array_equal(group_codes(names)[0], group_codes(renamed)[0])


@given(WORDS)
def test_boundaries_are_where_groups_change(names: list[str]) -> None:
    """Between two boundaries there is one group only."""
    bounds = HeldOut((Part(Path("x")),), groups=tuple(names)).boundaries()
    edges = [0, *bounds, len(names)]
    parts = [names[a:b] for a, b in itertools.pairwise(edges)]
    assert all(len(set(part)) <= 1 for part in parts)
    assert all(names[at - 1] != names[at] for at in bounds)


def test_labels_are_names_or_numbers() -> None:
    """A class's name wins; a number is one where no class is called that."""
    assert label_codes(["b", "a", "1"], ["a", "b"]).tolist() == [1, 0, 1]
    assert label_codes(["7", "0"], []).tolist() == [7, 0]
    assert label_codes(["0"], ["1", "0"]).tolist() == [1]
    for name in ("c", "2", "-1", ""):
        with pytest.raises(SettingsError, match="no class is called"):
            label_codes([name], ["a", "b"])


def test_columns_come_from_arrays_and_files(tmp_path: Path) -> None:
    """The same words from an .npz beside the samples, an .npy and lines of text."""
    writers = stream()["writers"]
    expected = tuple(str(number) for number in writers.tolist())
    np.save(tmp_path / "writers.npy", writers)
    np.save(tmp_path / "names.npy", np.array(["é", "b"]))
    np.save(tmp_path / "raw.npy", np.array([b"c", b"d"]))
    (tmp_path / "writers.txt").write_text("\n".join(expected) + "\n\n")
    assert expected == read_column(STREAM, "writers", "--groups")
    for name in ("writers.npy", "writers.txt"):
        assert expected == read_column(STREAM, str(tmp_path / name), "--groups")
    assert read_column(STREAM, str(tmp_path / "names.npy"), "--groups") == ("é", "b")
    assert read_column(STREAM, str(tmp_path / "raw.npy"), "--groups") == ("c", "d")


def test_what_is_no_column_is_refused(tmp_path: Path) -> None:
    """Pickles, tables, floats, other files: an error that names the option."""
    pickled = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "pickled.npy", pickled, allow_pickle=True)
    np.save(tmp_path / "floats.npy", np.zeros(4))
    np.save(tmp_path / "table.npy", np.zeros((4, 2), int))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    for name in ("pickled.npy", "floats.npy", "table.npy", "binary.txt", "none.txt"):
        with pytest.raises(SettingsError, match="--groups"):
            read_column(STREAM, str(tmp_path / name), "--groups")
    with pytest.raises(SettingsError, match="--labels"):
        read_column(tmp_path / "broken.npz", "labels", "--labels")


def test_folders_and_files_are_groups(tmp_path: Path) -> None:
    """In the order of names; hidden ones are left out."""
    images = stream()["images"]
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "images.npy", images[:3])
    np.save(tmp_path / "c.npy", images[:3])
    folders = find_held_out(tmp_path, "", "folders", "")
    assert [part.group for part in folders.parts] == ["a", "b"]
    assert folders.grouped
    files = find_held_out(tmp_path, "", "files", "")
    assert [part.group for part in files.parts] == ["c.npy"]
    assert not find_held_out(tmp_path, "", "", "").grouped


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    """No data, no folder in it, or an empty one."""
    np.save(tmp_path / "c.npy", np.zeros((2, 2)))
    for data, groups in ((tmp_path / "no", ""), (tmp_path, "folders")):
        with pytest.raises(AgentError):
            find_held_out(data, "", groups, "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgentError, match="no readable file"):
        find_held_out(tmp_path, "", "folders", "")
