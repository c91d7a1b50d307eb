"""The container: one spelling, and a refusal for every other."""

import io
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.container import (
    MAX_CONTENT_BYTES,
    MAX_ENTRIES,
    parse_container,
    render_container,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.zips import RawEnd, RawEntry, raw_zip

ENTRIES = {"a.json": b"{}", "golden.npz": b"", "variants/int8.tflite": b"TFL3" * 9}
GOOD = render_container(ENTRIES)
names = st.from_regex(
    r"[a-z0-9][a-z0-9_.-]{0,20}(/[a-z0-9][a-z0-9_.-]{0,20})?", fullmatch=True
)
contents = st.dictionaries(names, st.binary(max_size=200), min_size=1, max_size=8)


def parse(content: bytes) -> dict[str, bytes]:
    """Parse a container and copy its entries."""
    parsed = parse_container(memoryview(content))
    return {name: bytes(entry) for name, entry in parsed.items()}


def refusal(content: bytes) -> BundleRefusedError:
    """Return the error that refuses these bytes."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_container(memoryview(content))
    return caught.value


@given(contents)
def test_parse_undoes_render(entries: dict[str, bytes]) -> None:
    """What was rendered is parsed, in the order of names."""
    content = render_container(entries)
    assert dict(sorted(entries.items())) == parse(content)
    assert sorted(entries) == list(parse(content))


@given(contents)
def test_render_ignores_the_order_of_entries(entries: dict[str, bytes]) -> None:
    """The same entries give the same bytes in whatever order they are given."""
    assert render_container(entries) == render_container(
        dict(reversed(entries.items()))
    )


@given(contents)
def test_every_zip_program_reads_it(entries: dict[str, bytes]) -> None:
    """The standard library reads the same entries and finds no fault."""
    with zipfile.ZipFile(io.BytesIO(render_container(entries))) as archive:
        assert None is archive.testzip()
        assert entries == {name: archive.read(name) for name in archive.namelist()}


def test_the_standard_library_writes_the_same_bytes() -> None:
    """``zipfile``, told the same fixed fields, spells the container the same way."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in sorted(ENTRIES.items()):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    assert file.getvalue() == GOOD


def test_entries_are_views_into_the_content() -> None:
    """No content is copied: an entry shows what its bytes become."""
    content = bytearray(GOOD)
    entry = parse_container(memoryview(content))["variants/int8.tflite"]
    content[content.index(b"TFL3")] = ord("x")
    assert bytes(entry[:4]) == b"xFL3"


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    """Every single bit of a container is checked by something."""
    for place in range(len(GOOD)):
        flipped = bytearray(GOOD)
        flipped[place] ^= 1 << bit
        refusal(bytes(flipped))


def test_any_missing_end_is_truncated() -> None:
    """Cut after any byte, a container is refused as truncated."""
    reasons = {refusal(GOOD[:length]).reason for length in range(len(GOOD))}
    assert {Reason.TRUNCATED} == reasons


def test_any_missing_byte_is_refused() -> None:
    """A container that lost one byte anywhere is refused."""
    for place in range(len(GOOD)):
        refusal(GOOD[:place] + GOOD[place + 1 :])


def test_any_doubled_byte_is_refused() -> None:
    """A container with one byte too many anywhere is refused."""
    for place in range(len(GOOD) + 1):
        refusal(GOOD[:place] + b"\0" + GOOD[place:])


@settings(max_examples=300)
@given(st.binary(max_size=2_000))
def test_any_bytes_are_parsed_or_refused(content: bytes) -> None:
    """Arbitrary bytes raise nothing but a refusal, whatever they begin with."""
    for attempt in (content, b"PK\x03\x04" + content, content + GOOD[-22:]):
        with pytest.raises(BundleRefusedError):
            parse_container(memoryview(attempt))


mutations = st.lists(
    st.tuples(
        st.integers(0, len(GOOD) - 1), st.integers(0, 30), st.binary(max_size=30)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=500)
@given(mutations)
def test_what_is_accepted_has_one_spelling(edits: list[tuple[int, int, bytes]]) -> None:
    """A mutated container is refused, or is what its entries render to."""
    content = GOOD
    for place, removed, inserted in edits:
        content = content[:place] + inserted + content[place + removed :]
    try:
        entries = parse(content)
    except BundleRefusedError:
        return
    assert content == render_container(entries)


FIRST = RawEntry(b"a.json", b"{}")
SECOND = RawEntry(b"b.json", b'{"b": 1}')
LYING = 0x7FFFFFFF


def both(**spoiled: Any) -> bytes:  # noqa: ANN401 - any field may be spoiled
    """Return a container whose second entry differs in some fields."""
    return raw_zip([FIRST, replace(SECOND, **spoiled)])


def test_the_spoiling_writer_can_be_honest() -> None:
    """Unspoiled, the writer of these attacks writes what we write."""
    assert render_container({"a.json": b"{}", "b.json": b'{"b": 1}'}) == both()


def deflated() -> bytes:
    """Return an honest container of a compressed entry."""
    packer = zlib.compressobj(wbits=-15)
    raw = packer.compress(SECOND.content) + packer.flush()
    return both(content=raw, method=8, crc=zlib.crc32(SECOND.content), size=8)


class Pipe(io.BytesIO):
    """A file without a place to return to."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Refuse, as a pipe does."""
        del offset, whence
        raise io.UnsupportedOperation


def from_library(
    *, names: tuple[str, ...] = ("a.json",), zip64: bool = False, pipe: bool = False
) -> bytes:
    """Return what the standard library writes, with our fixed fields."""
    file = Pipe() if pipe else io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # it warns of duplicate names
        for name in names:
            described = zipfile.ZipInfo(name)
            described.external_attr = 0o100644 << 16
            with archive.open(described, "w", force_zip64=zip64) as entry:
                entry.write(b"{}")
    return file.getvalue()


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "path traversal": (lambda: both(name=b"b/../../etc/passwd"), "name"),
    "dot dot": (lambda: both(name=b".."), "name"),
    "absolute path": (lambda: both(name=b"/etc/passwd"), "name"),
    "windows path": (lambda: both(name=b"c:\\boot.ini"), "name"),
    "backslash": (lambda: both(name=b"b\\..\\c"), "name"),
    "zero byte": (lambda: both(name=b"b.json\0.txt"), "name"),
    "line feed": (lambda: both(name=b"b.json\n"), "name"),
    "empty name": (lambda: both(name=b""), "name"),
    "long name": (lambda: both(name=b"b" * 5_000), "name"),
    "not ascii": (lambda: both(name="bé.json".encode()), "name"),
    "two folders": (lambda: both(name=b"b/b/b"), "name"),
    "a folder": (lambda: both(name=b"b/", content=b""), "name"),
    "symlink": (lambda: both(content=b"/etc/passwd", mode=0o120777 << 16), "link"),
    "device": (lambda: both(mode=0o060644 << 16), "link"),
    "setuid": (lambda: both(mode=0o104755 << 16), "link"),
    "dos attributes": (lambda: both(mode=0o100644 << 16 | 0x10), "link"),
    "duplicate of the library": (lambda: from_library(names=("a", "a")), "twice"),
    "duplicate": (lambda: raw_zip([FIRST, FIRST]), "twice"),
    "second name in the local header": (
        lambda: both(local_name=b"c.json"),
        "contradicts the directory",
    ),
    "longer name in the local header": (
        lambda: both(local_name=b"b.json.exe"),
        "contradicts the directory",
    ),
    "overlapping": (lambda: both(offset=0), "overlaps"),
    "one entry inside another": (lambda: both(offset=32), "overlaps"),
    "offset beyond the file": (lambda: both(offset=LYING), "overlaps"),
    "order": (lambda: raw_zip([SECOND, FIRST]), "order"),
    "gap": (lambda: both(gap=b"hidden"), "gap"),
    "gap before the first": (
        lambda: raw_zip([replace(FIRST, gap=b"\x7fELF")]),
        "begin",
    ),
    "hidden entry": (
        lambda: raw_zip([FIRST, replace(SECOND, gap=SECOND.local() + SECOND.content)]),
        "gap",
    ),
    "entry the directory does not list": (
        lambda: raw_zip([replace(FIRST, descriptor=SECOND.local() + SECOND.content)]),
        "between",
    ),
    "compressed": (deflated, "compressed"),
    "bomb": (lambda: both(method=8, size=LYING), "compressed"),
    "unknown method": (lambda: both(method=99), "compressed"),
    "encrypted": (lambda: both(flags=1), "encrypted"),
    "strongly encrypted": (lambda: both(flags=0x41), "encrypted"),
    "utf-8 flag": (lambda: both(flags=0x800), "flag"),
    "data descriptor": (
        lambda: both(flags=8, descriptor=b"PK\x07\x08" + b"\0" * 12),
        "descr",
    ),
    "data descriptor of the library": (lambda: from_library(pipe=True), "descriptor"),
    "wrong CRC": (lambda: both(crc=0), "CRC"),
    "prepended": (lambda: b"#!/bin/sh\n" + both(), "begin"),
    "prepended zip": (
        lambda: both() + both(),
        "overlaps|contradicts|directory|follow|ends",
    ),
    "appended": (lambda: both() + b"\n", "follow"),
    "much appended": (lambda: both() + b"x" * 60_000, "follow"),
    "comment": (lambda: raw_zip([FIRST], RawEnd(comment=b"hello")), "follow"),
    "entry comment": (lambda: both(comment=b"hello"), "comment"),
    "extra field": (lambda: both(extra=b"\xfe\xca\x04\x00abcd"), "extra"),
    "zip64 of the library": (lambda: from_library(zip64=True), "made by"),
    "zip64 sizes": (lambda: both(size=2**32 - 1, stored_size=2**32 - 1), "larger"),
    "zip64 locator": (
        lambda: raw_zip([FIRST], RawEnd(before=b"PK\x06\x07" + b"\0" * 16)),
        "ends|directory",
    ),
    "zip64 locator in the directory": (
        lambda: raw_zip(
            [FIRST], RawEnd(before=b"PK\x06\x07" + b"\0" * 16, directory_size=52 + 20)
        ),
        "more than",
    ),
    "zip64 end": (
        lambda: raw_zip([FIRST], RawEnd(offset=2**32 - 1, entries=2**16 - 1)),
        "ends",
    ),
    "size larger than the file": (
        lambda: both(size=LYING, stored_size=LYING),
        "larger",
    ),
    "size smaller than the content": (
        lambda: both(size=2, stored_size=2, crc=zlib.crc32(b'{"')),
        "between",
    ),
    "two sizes": (lambda: both(size=2), "contradicts itself"),
    "size into the directory": (lambda: both(size=20, stored_size=20), "larger"),
    "more entries than there are": (
        lambda: raw_zip([FIRST], RawEnd(entries=2)),
        "less",
    ),
    "fewer entries than there are": (
        lambda: raw_zip([FIRST, SECOND], RawEnd(entries=1)),
        "more than",
    ),
    "no entries": (lambda: raw_zip([FIRST], RawEnd(entries=0)), "more than"),
    "empty zip": (lambda: raw_zip([]), "begin"),
    "two disks": (lambda: raw_zip([FIRST], RawEnd(disk=1)), "contradicts itself"),
    "entries on disks": (
        lambda: raw_zip([FIRST, SECOND], RawEnd(disk_entries=1)),
        "contradicts itself",
    ),
    "entry on another disk": (lambda: both(disk=1), "disk"),
    "text attribute": (lambda: both(internal=1), "attributes"),
    "made by DOS": (lambda: both(made_by=20), "made by"),
    "newer version": (lambda: both(needed=45), "version"),
    "timestamp": (lambda: both(time=1), "timestamp"),
    "date": (lambda: both(date=0x5A21), "timestamp"),
    "too many entries": (
        lambda: raw_zip([RawEntry(b"%03d" % number, b"") for number in range(65)]),
        "65 entries",
    ),
    "tar": (lambda: b"manifest.json\0" + b"\0" * 600, "begin"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_by_name(attack: str) -> None:
    """Each known trick is refused, with a message that says which rule it breaks."""
    make, meaning = ATTACKS[attack]
    error = refusal(make())
    expected = Reason.TRUNCATED if "it ends" in str(error) else Reason.MALFORMED
    assert expected == error.reason
    assert str(error).isprintable()
    with pytest.raises(BundleRefusedError, match=meaning):
        raise error


def test_as_many_entries_as_allowed() -> None:
    """64 entries are read, 65 are not even written."""
    entries = {f"{number:03}": b"" for number in range(MAX_ENTRIES)}
    assert entries == parse(render_container(entries))
    with pytest.raises(BundleRefusedError, match="65 entries"):
        render_container({**entries, "one-more": b""})


@pytest.mark.parametrize("name", ["", "A", "../a", "/a", "a/b/c", "a\n", "é", "a" * 81])
def test_names_that_would_not_be_read_are_not_written(name: str) -> None:
    """The writer refuses what the reader would."""
    with pytest.raises(BundleRefusedError, match="name"):
        render_container({name: b""})


class Huge(bytes):
    """Bytes that say they are as long as a ZIP can just not be."""

    def __len__(self) -> int:
        return MAX_CONTENT_BYTES + 1


def test_what_would_need_zip64_is_not_written() -> None:
    """Above 4 GB the writer refuses instead of writing zip64."""
    with pytest.raises(BundleRefusedError) as caught:
        render_container({"a": Huge()})
    assert caught.value.reason == Reason.TOO_LARGE
