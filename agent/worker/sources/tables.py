"""Samples from text: rows of CSV, lines of JSON.

The rules this module keeps: a bad row is one bad sample (an ``InputError`` in its
place), and reading goes on behind it.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from agent.worker.samples import Array, InputError, Sample

MAX_LINE_CHARACTERS = 64 * 1024 * 1024  # 4 million numbers; more is not a line


def read_csv(path: Path, array: str) -> Iterator[Array | InputError]:
    """Yield the rows of a CSV file as float32; a first row of words is a header."""
    del array
    width = 0
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = iter(lambda: file.readline(MAX_LINE_CHARACTERS), "")
        rows = csv.reader(lines)
        for number, cells in enumerate(_rows(rows), start=1):
            if isinstance(cells, InputError):
                yield cells
                continue
            row = _numbers(cells)
            if row is None and number == 1:
                continue
            width = width or len(cells)
            if row is None or len(row) != width:
                what = f"row {number} (line {rows.line_num}): not {width} numbers"
                yield InputError(f"{what}: {','.join(cells)[:80]!r}")
            else:
                yield row


def read_jsonl(path: Path, array: str) -> Iterator[Sample | InputError]:
    """Yield each line's array as float32, or its object of arrays by input name."""
    del array
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(MAX_LINE_CHARACTERS), b"")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield _sample(msgspec.json.decode(line))
            except (msgspec.DecodeError, ValueError, RecursionError) as err:
                yield InputError(f"line {number}: {err}")


def _rows(rows: Iterator[list[str]]) -> Iterator[list[str] | InputError]:
    """Yield rows that hold anything; what csv refuses becomes an error in place."""
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as err:
            yield InputError(f"not CSV: {err}")
        else:
            if cells:
                yield cells


def _numbers(cells: list[str]) -> Array | None:
    """Return cells as float32, or None if one is no number."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    return _float32(np.array(values))


def _sample(value: object) -> Sample:
    """Return one line's value as a sample."""
    if isinstance(value, dict):
        return {str(name): _array(entry) for name, entry in value.items()}
    return _array(value)


def _array(value: object) -> Array:
    """Return nested lists of numbers as float32."""
    if not isinstance(value, list):
        raise ValueError("not an array of numbers")  # noqa: TRY004 - one error to catch
    array = np.array(value)  # ragged lists raise ValueError
    if array.dtype.kind not in "iuf":
        raise ValueError("not an array of numbers")
    return _float32(array)


def _float32(values: Array) -> Array:
    """Return float32; what is too large becomes infinity, which is refused later."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
