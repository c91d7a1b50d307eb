"""Pointers: what names a bundle where a server has no metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.ddi_pointer import (
    MAX_POINTER_BYTES,
    parse_pointer,
    parse_target_path,
)
from agent.core.targets import Wanted, bundle_path
from agent.errors import BundleRefusedError

PATH = b"models/kws/7.bundle"
JSON = b'{"tuf.target": "models/kws/7.bundle", "note": 1}'
KWS_7 = Wanted("kws", 7)


def member(name: str, content: bytes, magic: bytes = b"070702") -> bytes:
    """Return one member of a cpio archive."""
    fields = [0] * 13
    fields[6], fields[11] = len(content), len(name) + 1
    head = magic + b"".join(b"%08x" % it for it in fields)
    named = head + name.encode() + b"\0"
    named += b"\0" * (-len(named) % 4)
    return named + content + b"\0" * (-len(content) % 4)


def swu(pointer: bytes, name: str = "tinyward.json", magic: bytes = b"070702") -> bytes:
    """Return what SWUpdate calls an image: a description, and the pointer."""
    description = member("sw-description", b'software = { version = "7"; }', magic)
    archive = description + member(name, pointer, magic)
    return archive + member("TRAILER!!!", b"", magic)


def reason_of(raw: bytes) -> str:
    """Return why a pointer is refused, or nothing."""
    try:
        parse_pointer(raw)
    except BundleRefusedError as err:
        return err.reason
    return ""


@pytest.mark.parametrize(
    "raw",
    [
        PATH,
        PATH + b"\nwhatever else\n",
        JSON,
        b"\n " + JSON,
        swu(JSON),
        swu(PATH + b"\n"),
        swu(JSON, magic=b"070701"),
    ],
)
def test_pointers(raw: bytes) -> None:
    """JSON, a line, or either in a cpio archive."""
    assert parse_pointer(raw) == KWS_7


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"models/kws/7",
        b"models/../7.bundle",
        b"models/kws/07.bundle",
        b"models/kws/-7.bundle",
        b"models/kws/7.bundle.bundle",
        b"/models/kws/7.bundle",
        b"fleet/groups/all",
        "models/kws/\u0667.bundle".encode(),
        b"models/kws/" + b"9" * 30 + b".bundle",
        b'{"tuf.target": 7}',
        b"{}",
        b"{" * 2000,
        b"\xff",
        b"x" * (MAX_POINTER_BYTES + 1),
        swu(JSON, name="other.json"),
        swu(JSON)[:200],
        swu(b"nonsense"),
        b"070702" + b"-" * 200,
        b"070702" + b"_1" * 100,
        b"070702" + b"f" * 104 + b"x",
        member("a", b"") * 20,
    ],
)
def test_refused_pointers(raw: bytes) -> None:
    """What names no bundle is refused as what it is."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_pointer(raw)
    assert caught.value.reason == "protocol"


@given(
    model=st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
    version=st.integers(1, 2**53 - 1),
)
def test_paths_and_back(model: str, version: int) -> None:
    """``parse_target_path(bundle_path(w.model, w.version)) == w``."""
    try:
        assert parse_target_path(bundle_path(model, version)) == Wanted(model, version)
    except BundleRefusedError:
        # Only what could not be signed under that name either.
        assert model.endswith("-") or "--" in model or version > 2**31


@given(
    raw=st.binary(max_size=400) | st.binary(max_size=400).map(lambda it: swu(JSON) + it)
)
def test_any_bytes(raw: bytes) -> None:
    """Any bytes name a bundle, or are refused."""
    assert reason_of(raw) in {"", "protocol"}


@given(data=st.data())
def test_damaged_archives(data: st.DataObject) -> None:
    """A byte of an archive turned over is no accident."""
    raw = bytearray(swu(JSON))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert reason_of(bytes(raw)) in {"", "protocol"}
