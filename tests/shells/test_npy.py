"""Headers of .npy files: whatever the bytes are, a header or a ValueError."""

import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.worker.npy import read_header

GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"
CUT = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2",  # TokenError
    "{'descr': '<f4'\n  ,\n 1",
    "x\n    y\n  z",  # IndentationError
    "(" * 400,
    "-" * 9000 + "1",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2), }",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 40}, }}",
]


def rendered(header: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return the start of a file with a header."""
    content = header.encode("latin-1", "replace")
    length = struct.pack("<H" if version == (1, 0) else "<I", len(content))
    return b"\x93NUMPY" + bytes(version) + length + content


def read(content: bytes) -> str:
    """Return what comes of some bytes: nothing else may come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's and numpy's, about odd literals
        try:
            read_header(io.BytesIO(content))
        except ValueError:
            return "refused"
    return "read"


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_good_header(version: tuple[int, int]) -> None:
    """Shape, order and dtype."""
    found = read_header(io.BytesIO(rendered(GOOD, version)))
    assert found == ((3, 2), False, np.dtype("<f4"))


@pytest.mark.parametrize("header", CUT)
def test_damaged_headers(header: str) -> None:
    """Each in its own way fails Python's parser, or claims what cannot be."""
    assert read(rendered(header)) == "refused"


def test_other_versions() -> None:
    """Version 3 exists for names of fields, which no sample has."""
    assert read(rendered(GOOD, (3, 0))) == "refused"


@given(st.text(max_size=60) | st.text(alphabet="{}()[]'\",:0 \n\tTrue\\-", max_size=60))
@example(GOOD)
def test_any_header(header: str) -> None:
    """No text makes it fail in another way."""
    assert read(rendered(header)) in {"read", "refused"}


@given(st.integers(0, len(rendered(GOOD))), st.integers(0, 255))
def test_a_cut_or_changed_header(place: int, byte: int) -> None:
    """One changed byte, or an end, gives a header or the one error."""
    whole = bytearray(rendered(GOOD))
    assert read(bytes(whole[:place])) in {"read", "refused"}
    whole[place : place + 1] = bytes([byte])
    assert read(bytes(whole)) in {"read", "refused"}
