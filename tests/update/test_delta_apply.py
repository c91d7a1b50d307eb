"""Applying deltas: right ones give the new bytes, wrong ones nothing, soon."""

import hashlib
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.publish.deltas import make_delta
from agent.update.delta_apply import PIECE_BYTES, apply_delta
from tests.fakes.bundles import good_bundle
from tests.fakes.patches import frame, sha256

OLD, NEW, OTHER = good_bundle(1), good_bundle(2), bytes(20_000)
PATCH = make_delta(OLD, NEW)
MB = 1_000_000


def applied(old: bytes, patch: bytes, length: int, digest: str) -> bytes:
    """Return what comes of a patch; every write is counted against the length."""
    content = bytearray()

    def write(piece: memoryview) -> None:
        content.extend(piece)
        assert len(content) <= length

    apply_delta(memoryview(old), memoryview(patch), write, length, digest)
    return bytes(content)


def reason(call: Callable[[], object]) -> str:
    """Return why a patch is refused."""
    with pytest.raises(BundleRefusedError) as caught:
        call()
    assert caught.value.reason == Reason.DELTA
    return str(caught.value)


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.binary(max_size=3000))
def test_every_delta_gives_the_new_bytes(old: bytes, new: bytes, both: bytes) -> None:
    """Law: apply(old, diff(old, new)) == new, related or not, empty ones too."""
    for before, after in ((old, new), (old + both, both + new), (both, both)):
        patch = make_delta(before, after)
        made = applied(before, patch, len(after), sha256(after))
        assert made == after


def test_the_same_input_gives_the_same_delta() -> None:
    """As everything that is published."""
    assert make_delta(OLD, NEW) == PATCH
    assert len(PATCH) < len(NEW) * 0.04


def test_a_delta_of_several_pieces() -> None:
    """Larger than what is unpacked at once, and than what is fed at once."""
    old = b"".join(good_bundle(version) for version in range(1, 120))
    new = old[500_000:] + OTHER + old[:500_000] + NEW[::-1]
    assert len(new) > 2 * PIECE_BYTES
    assert applied(old, make_delta(old, new), len(new), sha256(new)) == new


@pytest.mark.parametrize(
    ("old", "patch"),
    [
        (OTHER, PATCH),
        (b"", PATCH),
        (OLD[:-1], PATCH),
        (OLD, make_delta(OLD, OLD)),
        (OLD, make_delta(OLD, NEW[:-1])),
        (OLD, make_delta(OLD, NEW + b"!")),
        (OLD, PATCH[:-1]),
        (OLD, PATCH[: len(PATCH) // 2]),
        (OLD, PATCH[:3]),
        (OLD, b""),
        (OLD, PATCH + b"\0"),
        (OLD, PATCH + PATCH),
        (OLD, frame(NEW, OLD, announced=-1)),
        (OLD, frame(NEW[:-1], OLD, announced=len(NEW))),
        (OLD, frame(NEW + b"!", OLD, announced=len(NEW))),
        (OLD, NEW),
    ],
    ids=[
        *("base", "no_base", "base_cut", "other_pair", "shorter", "longer", "cut"),
        *("half", "header", "empty", "trailing", "twice", "no_length"),
        *("lies_shorter", "lies_longer", "no_frame"),
    ],
)
def test_72_a_wrong_delta_gives_nothing(old: bytes, patch: bytes) -> None:
    """Wrong base, other output, cut, trailing, announced wrongly: refused, each."""
    reason(lambda: applied(old, patch, len(NEW), sha256(NEW)))


def test_72_a_cut_delta_is_not_waited_for() -> None:
    """zstd would be asked for more a few times before it complains."""
    said = reason(lambda: applied(OLD, PATCH[:-1], len(NEW), sha256(NEW)))
    assert "middle of its frame" in said


def test_72_a_delta_to_other_bytes_of_that_length() -> None:
    """The digest of the whole bundle decides, whatever the frame's own sum says."""
    other = NEW[:-1] + bytes([NEW[-1] ^ 1])
    said = reason(lambda: applied(OLD, make_delta(OLD, other), len(NEW), sha256(NEW)))
    assert "other bytes" in said


@pytest.mark.parametrize("length", [len(NEW), 3 * MB])
def test_72_a_bomb_is_left_at_the_signed_length(length: int) -> None:
    """Much in 10 kB that announces the right length: a piece too much comes out."""
    bomb = frame(bytes(100 * MB), announced=length)
    assert len(bomb) < MB / 10
    tracemalloc.start()
    try:
        said = reason(lambda: applied(OLD, bomb, length, sha256(NEW)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What fits a block of zstd it stops itself.
    assert ("buffer is too small" in said) == (length == len(NEW))
    assert ("more than the 3000000 bytes" in said) == (length == 3 * MB)
    assert peak < length + 5 * PIECE_BYTES


@pytest.mark.parametrize("window", [21, 25])
def test_72_a_window_beyond_both_lengths_is_not_allocated(window: int) -> None:
    """Frames that ask for 2 MB and for 32 MB of memory to unpack 300 kB."""
    length = 300_000
    wide = frame(bytes(100 * MB), announced=length, window=window)
    said = reason(lambda: applied(OLD, wide, length, sha256(NEW)))
    assert "requires too much memory" in said


@given(st.integers(0, 8 * len(PATCH) - 1))
def test_72_a_flipped_bit_gives_the_signed_bytes_or_nothing(bit: int) -> None:
    """Law: no mutation gives other bytes; a few of them change nothing at all."""
    spoiled = bytearray(PATCH)
    spoiled[bit // 8] ^= 1 << bit % 8
    expect_new_or_nothing(bytes(spoiled))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(PATCH) - 1), st.binary(max_size=4))))
def test_72_a_mutated_delta_gives_the_signed_bytes_or_nothing(
    edits: list[tuple[int, bytes]],
) -> None:
    """Law: bytes replaced, added and cut out of a patch never get through."""
    spoiled = PATCH
    for place, content in edits:
        spoiled = spoiled[:place] + content + spoiled[place + 1 :]
    assume(spoiled != PATCH)
    expect_new_or_nothing(spoiled)


def expect_new_or_nothing(patch: bytes) -> None:
    """Apply; what is refused is refused as a delta."""
    try:
        made = applied(OLD, patch, len(NEW), sha256(NEW))
    except BundleRefusedError as err:
        assert err.reason == Reason.DELTA  # noqa: PT017 - either ending is right
    else:
        assert made == NEW


def test_what_writing_raises_passes() -> None:
    """A full disk is no fault of the delta."""

    def write(piece: memoryview) -> None:
        del piece
        raise DeviceError("full", reason=Reason.DISK_FULL)

    with pytest.raises(DeviceError):
        apply_delta(memoryview(OLD), memoryview(PATCH), write, len(NEW), sha256(NEW))


def test_memory_goes_back_to_the_system() -> None:
    """The daemon idles for weeks after a delta: copy and window leave nothing behind.

    In threads, as the daemon does it: each has an arena of its own to keep things in.
    """
    old = hashlib.shake_128(b"old").digest(12 * MB)
    new = old[: 6 * MB] + NEW + old[6 * MB :]
    patch, digest = make_delta(old, new), sha256(new)

    def apply() -> None:
        base = memoryview(old)
        apply_delta(base, memoryview(patch), lambda _: None, len(new), digest)

    before = resident_bytes()
    for _ in range(4):
        thread = threading.Thread(target=apply)
        thread.start()
        thread.join()
    assert resident_bytes() - before < 6 * MB


def resident_bytes() -> int:
    """Return what this process has in memory of its own."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [it for it in status.splitlines() if it.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def test_the_base_is_let_go_of() -> None:
    """Its mapping would count until the end: the copy that zstd made is enough."""
    base = memoryview(bytes(OLD))
    apply_delta(base, memoryview(PATCH), lambda _: None, len(NEW), sha256(NEW))
    with pytest.raises(ValueError, match="released"):
        len(base)
