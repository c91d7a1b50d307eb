"""What held-out data ``tinyward profile`` reads: files, their groups and labels.

The rules this module keeps:
 * Nothing here reads a sample: that is for the child, with the worker's own sources.
 * Groups and labels are one entry for each sample, in the order in which the samples
   are read; no file of them is unpickled.
"""

import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError
from agent.worker.sources.reading import find_files
from agent.worker.sources.stored_arrays import ALL_ARRAYS

FOLDERS = "folders"  # each folder below --data is a group
FILES = "files"  # each file is one: a recording of one session
MAX_TEXT_BYTES = 64 * 1024 * 1024  # 200,000 lines of 300 characters
# What numpy and the disk raise for a file that is not what its name says.
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile)
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """One file or folder of samples, read from its beginning to its end.

    Attributes:
        group: What all of its samples belong to; empty if something else says so.
    """

    path: Path
    group: str = ""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Data that the model was not trained on.

    Attributes:
        parts: In the order in which they are read.
        array: Which array of an .npz holds the samples.
        groups: Group of each sample, None where parts are groups or there are none.
        labels: True answer of each sample (a class's name or number), None without.
    """

    parts: tuple[Part, ...]
    array: str = ""
    groups: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    @property
    def grouped(self) -> bool:
        """Whether samples are known to come from several sources."""
        return self.groups is not None or bool(self.parts[0].group)

    def boundaries(self) -> tuple[int, ...]:
        """Return the samples (by number) before which the group changes.

        A window or a state must not reach from one recording into the next.
        """
        named = self.groups or ()
        pairs = enumerate(itertools.pairwise(named), start=1)
        return tuple(at for at, (before, after) in pairs if before != after)


def find_held_out(data: Path, array: str, groups: str, labels: str) -> HeldOut:
    """Say what is read, from what the command line names.

    Args:
        data: A file or folder of samples.
        array: Which array of an .npz; empty means the first.
        groups: ``folders``, ``files``, an array of the .npz or a file; empty: none.
        labels: An array of the .npz or a file; empty: none.

    Raises:
        SettingsError: ``settings``: something named is not there.
        DeviceError: There is nothing to read.
    """
    if groups == FOLDERS:
        parts = _folders(data)
    elif groups == FILES:
        parts = tuple(Part(path, path.name) for path in _find(data))
    else:
        _find(data)
        parts = (Part(data),)
    _check_array(data, array)
    columns = groups and groups not in (FOLDERS, FILES)
    return HeldOut(
        parts=parts,
        array=array,
        groups=read_column(data, groups, "--groups") if columns else None,
        labels=read_column(data, labels, "--labels") if labels else None,
    )


def group_codes(names: Sequence[str]) -> tuple[Codes, int]:
    """Return each sample's group as a number from 0 on, and how many there are.

    Numbers go by first appearance, so that names can change without a new profile.
    """
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(name, len(numbers)) for name in names]
    return np.asarray(codes, np.int64), len(numbers)


def label_codes(named: Sequence[str], classes: Sequence[str]) -> Codes:
    """Return true answers as the model's class numbers.

    Args:
        named: A class's name, or its number where no class is called that.
        classes: The manifest's labels; empty means that only numbers are known.

    Raises:
        SettingsError: ``settings``: a label is neither.
    """
    known = {name: number for number, name in enumerate(classes)}
    return np.asarray([_label_code(name, known) for name in named], np.int64)


def read_column(data: Path, wanted: str, option: str) -> tuple[str, ...]:
    """Return one word for each sample: an array beside the samples, or a file.

    Args:
        data: The samples; an .npz may hold the array.
        wanted: The array's name or the file's path.
        option: What to call it in errors.

    Raises:
        SettingsError: ``settings``: there is neither, or it is no column.
    """
    path = Path(wanted).expanduser()
    try:
        there = _arrays(data) if data.suffix.lower() == ".npz" else ()
        if wanted in there:
            with np.load(data, allow_pickle=False) as archive:
                return _column(archive[wanted])
        if path.suffix.lower() == ".npy":
            return _column(np.load(path, allow_pickle=False))
        if path.is_file():
            return _lines(path)
    except UNREADABLE as err:
        raise wrong(f"{option} {wanted}: {err}") from err
    choice = f"; {data.name} holds {', '.join(there)}" if there else ""
    raise wrong(f"{option}: no file or array is called {wanted!r}{choice}")


def wrong(what: str, todo: str = "") -> SettingsError:
    """Return the error for a command line that cannot be followed."""
    todo = todo or "`tinyward profile --help` says what each option takes."
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)


def _folders(data: Path) -> tuple[Part, ...]:
    """Return each folder below ``data`` as a group, in the order of names."""
    if not data.is_dir():
        raise wrong(f"--groups folders: {data} is no folder")
    inner = sorted(
        entry
        for entry in data.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not inner:
        raise wrong(
            f"--groups folders: no folder in {data}",
            "Put the samples of each device or session into a folder of its own.",
        )
    for folder in inner:
        _find(folder)  # an empty one is a mistake better told now
    return tuple(Part(folder, folder.name) for folder in inner)


def _find(path: Path) -> tuple[Path, ...]:
    """Return the files of samples; errors speak of --data, not of a board's source.

    Raises:
        DeviceError: There is none, or none that can be read.
    """
    try:
        return find_files(path)
    except DeviceError as err:
        todo = (
            err.todo or "Name held-out samples with --data: `tinyward profile --help`"
        )
        raise DeviceError(f"--data {err}", reason=err.reason, todo=todo) from err


def _check_array(data: Path, array: str) -> None:
    """Whether an .npz holds the array that is asked for.

    Raises:
        SettingsError: ``settings``: it does not.
    """
    if not array or array == ALL_ARRAYS or data.suffix.lower() != ".npz":
        return
    try:
        there = _arrays(data)
    except UNREADABLE:  # the worker's own reader says what is wrong with the file
        return
    if array not in there:
        names = ", ".join(there)
        raise wrong(f"--array: {data.name} has no array {array!r}; it holds {names}")


def _arrays(data: Path) -> tuple[str, ...]:
    """Return the names of an .npz's arrays."""
    with np.load(data, allow_pickle=False) as archive:
        return tuple(archive.files)


def _column(values: NDArray[np.generic]) -> tuple[str, ...]:
    """Return an array of integers or words as words.

    Raises:
        ValueError: It is none.
    """
    if values.ndim != 1 or values.dtype.kind not in "iubSU":
        raise ValueError(
            "one integer or word for each sample is needed, not an array of "
            f"{values.dtype} with {values.ndim} axes"
        )
    if values.dtype.kind == "S":
        return tuple(value.decode("utf-8", "replace") for value in values.tolist())
    return tuple(str(value) for value in values.tolist())


def _lines(path: Path) -> tuple[str, ...]:
    """Return a text file's lines."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"larger than {MAX_TEXT_BYTES >> 20} MB")
    text = path.read_text(encoding="utf-8-sig")
    return tuple(line.strip() for line in text.rstrip().splitlines())


def _label_code(name: str, known: dict[str, int]) -> int:
    """Return the number of one class."""
    if name in known:
        return known[name]
    if name.isascii() and name.isdigit() and (not known or int(name) < len(known)):
        return int(name)
    some = ", ".join(list(known)[:8]) or "numbers from 0 on"
    raise wrong(f"--labels: no class is called {name!r}; there are {some}")
