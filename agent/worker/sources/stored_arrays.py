"""Samples from .npy and .npz: rows along the first axis, read one by one.

The rules this module keeps:
 * No pickles: only boolean, integer and float arrays are read.
 * What a header claims is compared with what the file holds before memory is taken,
   and no more than a row is in memory at a time.
 * The arrays of a model with several inputs are rows of the same sample: they have
   equally many, or none is read.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from agent.worker.npy import read_header
from agent.worker.samples import MAX_SAMPLE_BYTES, Array, InputError, Sample

ALL_ARRAYS = "*"  # as `array`: one array for each input, by its name


@dataclass(frozen=True, slots=True)
class Header:
    """What an .npy file states about its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize


def read_npy(path: Path, array: str) -> Iterator[Array]:
    """Yield the rows of an .npy file.

    Raises:
        InputError: It is not one, or ends too early.
    """
    del array
    with path.open("rb") as file:
        yield from _rows(file, _header(file, os.fstat(file.fileno()).st_size))


def read_npz(path: Path, array: str) -> Iterator[Sample]:
    """Yield the rows of an .npz file.

    Args:
        path: The file.
        array: Which array; empty means the first, ``*`` a dict of all of them.

    Raises:
        InputError: There is no such array, it is not one, or they differ in length.
    """
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as files:
            if array == ALL_ARRAYS:
                yield from _named_rows(archive, files)
            else:
                yield from _open(archive, _entry(archive, array), files)[1]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as err:
        raise InputError(f"not a readable .npz: {err}") from err


def _named_rows(
    archive: zipfile.ZipFile, files: ExitStack
) -> Iterator[dict[str, Array]]:
    """Yield one row of every array, by name."""
    arrays = {
        entry.filename[:-4]: _open(archive, entry, files) for entry in _entries(archive)
    }
    if len({count for count, _ in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {count}" for name, (count, _) in arrays.items())
        raise InputError(f"the arrays differ in length: {lengths} rows")
    for row in zip(*(rows for _, rows in arrays.values()), strict=True):
        yield dict(zip(arrays, row, strict=True))


def _open(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, files: ExitStack
) -> tuple[int, Iterator[Array]]:
    """Return how many rows an array has, and the rows."""
    file = files.enter_context(archive.open(entry))
    header = _header(file, entry.file_size)
    return header.shape[0], _rows(file, header)


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the entries that hold arrays."""
    return [entry for entry in archive.infolist() if entry.filename[-4:] == ".npy"]


def _entry(archive: zipfile.ZipFile, array: str) -> zipfile.ZipInfo:
    """Return the entry that holds an array."""
    entries = _entries(archive)
    for entry in entries:
        if array in ("", entry.filename[:-4]):
            return entry
    names = ", ".join(entry.filename[:-4] for entry in entries) or "none"
    raise InputError(f"no array {array!r}; there is {names}")


def _rows(file: IO[bytes], header: Header) -> Iterator[Array]:
    """Yield the rows that follow a header."""
    if header.fortran:
        yield from _columns_first(file, header)
        return
    rows, native = header.shape[0], _native(header.dtype)
    for number in range(rows):
        content = file.read(header.row_bytes)
        if len(content) != header.row_bytes:
            raise InputError(f"the file ends in row {number} of {rows}")
        row = np.frombuffer(content, header.dtype).reshape(header.shape[1:])
        yield row.astype(native, copy=False)


def _columns_first(file: IO[bytes], header: Header) -> Iterator[Array]:
    """Yield rows of an array that is stored by columns: it has to be read whole."""
    count = int(np.prod(header.shape, dtype=object))
    content = file.read(count * header.dtype.itemsize)
    whole = np.frombuffer(content, header.dtype, count).reshape(header.shape[::-1]).T
    native = _native(header.dtype)
    for row in whole:
        yield np.ascontiguousarray(row, native)


def _header(file: IO[bytes], size: int) -> Header:
    """Read the header of an .npy file of ``size`` bytes, and check what it claims.

    Raises:
        InputError: It holds no samples, or claims more than there is.
    """
    try:
        shape, fortran, dtype = read_header(file)
    except ValueError as err:
        raise InputError(str(err)) from err
    if dtype.kind not in "biuf":
        raise InputError(f"an array of {dtype} is no sample")
    if not shape:
        raise InputError("an array without axes holds no rows")
    header = Header(shape, fortran and len(shape) > 1, dtype)
    rows, row_bytes = shape[0], header.row_bytes
    if not row_bytes:
        raise InputError(f"{rows} rows without a value are no samples")
    if row_bytes * rows > size or row_bytes > MAX_SAMPLE_BYTES:
        raise InputError(
            f"the header claims {rows} rows of {row_bytes} bytes, "
            f"the file has {size} bytes"
        )
    return header


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in this machine's byte order: numpy's one object of its kind."""
    return np.dtype(dtype.type)
