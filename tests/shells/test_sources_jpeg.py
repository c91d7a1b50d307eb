"""Splitting mjpeg: any cut of the stream gives the same whole pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.worker.sources.jpeg import JpegSplitter
from tests.fakes.pictures import FILLED, NESTED, PLAIN, PROGRESSIVE, RESTARTING

PICTURES = (PLAIN, PROGRESSIVE, RESTARTING, NESTED, FILLED)
# What lies between pictures: nothing, headers of multipart streams, noise without SOI.
GAPS = st.sampled_from(
    [b"", b"\r\n--frame\r\nContent-Length: 7\r\n\r\n", b"\xff", b"\xd8"]
)


def split(stream: bytes, chunk: int) -> tuple[list[bytes], JpegSplitter]:
    """Feed a stream in chunks of one size."""
    splitter = JpegSplitter()
    pictures = []
    for at in range(0, len(stream), chunk):
        pictures += splitter.feed(memoryview(stream)[at : at + chunk])
    return pictures, splitter


@pytest.mark.parametrize("whole", PICTURES)
@pytest.mark.parametrize("chunk", [1, 2, 3, 64, 100_000])
def test_each_kind_of_picture(whole: bytes, chunk: int) -> None:
    """Restart markers, thumbnails and fill bytes do not end a picture."""
    pictures, splitter = split(whole * 2, chunk)
    assert pictures == [whole, whole]
    assert splitter.partial == 0


@given(
    sequence=st.lists(st.tuples(GAPS, st.sampled_from(PICTURES)), max_size=5),
    cuts=st.lists(st.integers(1, 3000), max_size=30),
)
def test_any_cut_gives_the_same_pictures(
    sequence: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    """Law: pictures depend on the stream, not on how it arrives."""
    stream = b"".join(gap + whole for gap, whole in sequence)
    splitter = JpegSplitter()
    pictures = []
    for cut in cuts:
        pictures += splitter.feed(stream[:cut])
        stream = stream[cut:]
    pictures += splitter.feed(stream)
    assert pictures == [whole for _, whole in sequence]
    assert splitter.partial == 0


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_are_held_in_bounds(chunks: list[bytes]) -> None:
    """Law: noise never raises, and what is held stays below limit and one chunk."""
    splitter = JpegSplitter(limit=256)
    for chunk in chunks:
        splitter.feed(b"\xff\xd8\xff" + chunk)
        assert len(splitter._held) <= 256


def test_a_stream_without_pictures_is_forgotten() -> None:
    """Bytes without SOI yield nothing and keep at most two bytes."""
    splitter = JpegSplitter()
    for _ in range(100):
        assert splitter.feed(b"\x00\xd8\xff" * 1000) == []
        assert len(splitter._held) <= 2
    assert splitter.partial == 0


def test_a_picture_without_end_is_given_up() -> None:
    """SOI without EOI is dropped at the limit, counted, and the next one is found."""
    splitter = JpegSplitter(limit=4096)
    header = PLAIN[: PLAIN.index(b"\xff\xda") + 14]
    pictures = splitter.feed(header)
    for _ in range(100):
        pictures += splitter.feed(b"\x55" * 100)
    assert (pictures, splitter.partial) == ([], 1)
    assert splitter.feed(PLAIN) == [PLAIN]


def test_half_a_picture_before_a_whole_one() -> None:
    """A program that died and began again loses its half picture only."""
    half = PLAIN[: len(PLAIN) - 40]
    pictures, splitter = split(half + PROGRESSIVE, 100)
    assert pictures == [PROGRESSIVE]
    assert splitter.partial == 1


def test_half_a_picture_at_the_end() -> None:
    """What was begun when the stream ended counts as partial, once."""
    pictures, splitter = split(PLAIN + PLAIN[:100], 64)
    splitter.abandon()
    splitter.abandon()
    assert (pictures, splitter.partial) == ([PLAIN], 1)
    assert splitter.feed(PLAIN) == [PLAIN]
