"""Reading recorded input: which files there are, and the samples in them.

The rules this module keeps: whatever is wrong with a file becomes an ``InputError`` in
the place of its samples, and reading goes on with the next file.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.pictures import import_pillow
from agent.worker.samples import InputError, Sample
from agent.worker.sources.media import PICTURE_SUFFIXES, read_picture, read_wav
from agent.worker.sources.stored_arrays import read_npy, read_npz
from agent.worker.sources.tables import read_csv, read_jsonl

Item = Sample | InputError
Reader = Callable[[Path, str], Iterator[Item]]

READERS: Mapping[str, Reader] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".wav": read_wav,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    **dict.fromkeys(PICTURE_SUFFIXES, read_picture),
}


def find_files(path: Path) -> tuple[Path, ...]:
    """Return a file, or the readable files of a directory in the order of names.

    Raises:
        DeviceError: There is none (``source_missing``), it cannot be listed or is of
            no known kind (``source_failed``), or it needs Pillow (``input``).
    """
    try:
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if _is_known(entry))
        else:
            found = [path] if path.exists() else []
    except OSError as err:
        raise DeviceError(f"{path}: {err}", reason=Reason.SOURCE_FAILED) from err
    if not found:
        what = "no readable file in it" if path.is_dir() else "no such file"
        raise DeviceError(f"{path}: {what}", reason=Reason.SOURCE_MISSING)
    if not _is_known(found[0]):
        raise DeviceError(
            f"{path}: {path.suffix or 'no suffix'} is none of {', '.join(READERS)}",
            reason=Reason.SOURCE_FAILED,
        )
    if any(entry.suffix.lower() in PICTURE_SUFFIXES for entry in found):
        import_pillow()  # now: a worker without it fails at its start, not later
    return tuple(found)


def read_file(path: Path, array: str) -> Iterator[Item]:
    """Yield the samples of one file; errors come as items, naming the file."""
    try:
        for item in READERS[path.suffix.lower()](path, array):
            yield _named(path, item) if isinstance(item, InputError) else item
    except InputError as err:
        yield _named(path, err)
    except (OSError, ValueError, EOFError) as err:
        yield InputError(f"{path.name}: {err}")


def read_all(files: tuple[Path, ...], array: str, *, loop: bool) -> Iterator[Item]:
    """Yield the samples of all files, again and again with ``loop``.

    A round without one good sample is the last: looping on it would only count errors.
    """
    while True:
        good = seen = False
        for path in files:
            for item in read_file(path, array):
                seen = True
                good = good or not isinstance(item, InputError)
                yield item
        if not seen:
            yield InputError(f"{files[0].parent}: the files hold no samples")
        if not (loop and good):
            return


def read_from(
    files: tuple[Path, ...], array: str, start: int, *, loop: bool
) -> Iterator[Item]:
    """Yield what ``read_all`` yields, but for the first ``start`` items.

    Law: with a good sample in each round it is ``islice(read_all(...), start, None)``.
    With ``loop`` whole rounds are left out, by counting one. Pictures are passed over
    unread: each is one item.
    """
    if start == 0:
        yield from read_all(files, array, loop=loop)
        return
    counts: list[int] = []
    for path in files:
        counts.append(_count(path, array))
        if not loop and sum(counts) >= start:
            break
    total = sum(counts)
    left = start % total if loop and total else start
    passed = 0
    while passed < len(counts) and left >= counts[passed]:
        left -= counts[passed]
        passed += 1
    if passed < len(files):
        rest = (item for path in files[passed:] for item in read_file(path, array))
        yield from itertools.islice(rest, left, None)
    if loop:
        yield from read_all(files, array, loop=True)


def _count(path: Path, array: str) -> int:
    """Return how many items a file has."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return 1
    return sum(1 for _ in read_file(path, array))


def _is_known(path: Path) -> bool:
    """Whether a file is of a kind that is read; hidden files are not."""
    return path.suffix.lower() in READERS and not path.name.startswith(".")


def _named(path: Path, err: InputError) -> InputError:
    """Put the file's name before what is wrong with it."""
    return InputError(f"{path.name}: {err}", todo=err.todo)
