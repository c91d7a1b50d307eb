"""Samples from .npy and .npz: rows along the first axis, read one by one.

The rules this module keeps:
 * No pickles: only boolean, integer and float arrays are read.
 * What a header claims is compared with what the file holds before memory is taken,
   and no more than a row is in memory at a time.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from agent.worker.samples import MAX_SAMPLE_BYTES, Array, InputError


@dataclass(frozen=True, slots=True)
class Header:
    """What an .npy file states about its array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def read_npy(path: Path, array: str) -> Iterator[Array]:
    """Yield the rows of an .npy file.

    Raises:
        InputError: It is not one, or ends too early.
    """
    del array
    with path.open("rb") as file:
        yield from _rows(file, os.fstat(file.fileno()).st_size)


def read_npz(path: Path, array: str) -> Iterator[Array]:
    """Yield the rows of one array of an .npz file; ``array`` empty means the first.

    Raises:
        InputError: There is no such array, or it is not one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = _entry(archive, array)
            with archive.open(entry) as file:
                yield from _rows(file, entry.file_size)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as err:
        raise InputError(f"not a readable .npz: {err}") from err


def _entry(archive: zipfile.ZipFile, array: str) -> zipfile.ZipInfo:
    """Return the entry that holds an array."""
    entries = [entry for entry in archive.infolist() if entry.filename[-4:] == ".npy"]
    for entry in entries:
        if array in ("", entry.filename[:-4]):
            return entry
    names = ", ".join(entry.filename[:-4] for entry in entries) or "none"
    raise InputError(f"no array {array!r}; there is {names}")


def _rows(file: IO[bytes], size: int) -> Iterator[Array]:
    """Yield the rows of the array that begins at the file's start."""
    header = _header(file)
    rows, row_shape = header.shape[0], header.shape[1:]
    row_bytes = int(np.prod(row_shape, dtype=object)) * header.dtype.itemsize
    if row_bytes * rows > size or row_bytes > MAX_SAMPLE_BYTES:
        raise InputError(
            f"the header claims {rows} rows of {row_bytes} bytes, "
            f"the file has {size} bytes"
        )
    if header.fortran:
        yield from _columns_first(file, header)
        return
    native = _native(header.dtype)
    for number in range(rows):
        content = file.read(row_bytes)
        if len(content) != row_bytes:
            raise InputError(f"the file ends in row {number} of {rows}")
        row = np.frombuffer(content, header.dtype).reshape(row_shape)
        yield row.astype(native, copy=False)


def _columns_first(file: IO[bytes], header: Header) -> Iterator[Array]:
    """Yield rows of an array that is stored by columns: it has to be read whole."""
    count = int(np.prod(header.shape, dtype=object))
    content = file.read(count * header.dtype.itemsize)
    whole = np.frombuffer(content, header.dtype, count).reshape(header.shape[::-1]).T
    native = _native(header.dtype)
    for row in whole:
        yield np.ascontiguousarray(row, native)


def _header(file: IO[bytes]) -> Header:
    """Read and check the header of an .npy file."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise InputError(f".npy version {version} is not read")
    if dtype.kind not in "biuf":
        raise InputError(f"an array of {dtype} is no sample")
    if not shape:
        raise InputError("an array without axes holds no rows")
    return Header(shape, fortran and len(shape) > 1, dtype)


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in this machine's byte order: numpy's one object of its kind."""
    return np.dtype(dtype.type)
