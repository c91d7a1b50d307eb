"""What holds for every algorithm and every suite: sealed, opened, and refused."""

import fcntl
import gc
import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.sealing import (
    ENVELOPE_BYTES,
    HYBRID_ENVELOPE_BYTES,
    Algorithm,
    Suite,
    sealed_bytes,
)
from agent.errors import BundleRefusedError
from agent.trust.bundle import open_bundle
from agent.trust.seal_key import SealKey
from agent.trust.unseal import Unsealer
from tests.fakes.bundles import good_bundle
from tests.fakes.sealed_bytes import ALGORITHMS, BOARD, SUITES, SealedBytes, seal_bytes

# Bytes of a chunk with its tag, and of what stands before the first one.
CHUNKS = {"cobblestone-256": (16_400, 56), "chacha20-poly1305": (65_552, 16)}
Spoil = Callable[[bytes, int], bytes]


def flipped(content: bytes, at: int) -> bytes:
    """Change one byte."""
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def cut(content: bytes, at: int) -> bytes:
    """Cut it anywhere."""
    return content[: at % len(content)]


def extended(content: bytes, at: int) -> bytes:
    """Append some bytes of its own."""
    return content + content[: at % len(content) + 1]


@pytest.fixture(scope="module", params=ALGORITHMS)
def sealed(request: pytest.FixtureRequest) -> SealedBytes:
    """Give a bundle of several chunks, sealed with each algorithm."""
    plain = hashlib.shake_128(b"plain").digest(200_000)
    return seal_bytes(request.param, plain=plain)


def refused_as(sealed: SealedBytes, content: bytes) -> str:
    """Return why this content is not opened."""
    with pytest.raises(BundleRefusedError) as caught:
        sealed.open(content)
    return caught.value.reason


def held() -> set[str]:
    """Return the descriptors and the mapped memfds that this process holds."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = {line.split()[0] for line in maps if "memfd:sealed-kws" in line}
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - the folder's own descriptor is gone again
    opened = {str(it) for it in links if it.is_symlink() and "memfd" in os.readlink(it)}  # noqa: PTH115 - a memfd is no path
    return mapped | opened


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_sealed_opens_as_it_was(algorithm: Algorithm, suite: Suite) -> None:
    """Every part is what it is in the plain bundle; the digest is the target's."""
    made = seal_bytes(algorithm, suite)
    opened, plain = made.open(), open_bundle(made.plain, max_bytes=2**20)
    assert {**plain.variants} == {**opened.variants}
    assert (plain.raw_manifest, plain.golden) == (opened.raw_manifest, opened.golden)
    assert ("a" * 64, len(made.content)) == (opened.sha256, opened.size)
    assert (None, plain.manifest) == (opened.marks, opened.manifest)
    assert {"x25519": 80, "mlkem768-x25519": 1168}[suite] == len(made.envelope())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [1, 16_383, 16_384, 65_535, 65_536, 65_537, 131_072])
def test_the_plain_length_decides_the_sealed_one(
    algorithm: Algorithm, size: int
) -> None:
    """Also where chunks are just full."""
    made = seal_bytes(algorithm, plain=bytes(size))
    assert sealed_bytes(algorithm, size) == len(made.content)


@pytest.mark.parametrize("spoil", [flipped, cut, extended])
@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**9))
def test_no_spoiled_ciphertext_opens(
    sealed: SealedBytes, spoil: Spoil, at: int
) -> None:
    """One byte changed, cut or longer anywhere: ``unseal``, and nothing comes out."""
    assert refused_as(sealed, spoil(sealed.content, at)) == "unseal"


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)))
def test_no_order_of_chunks_but_the_own_opens(
    sealed: SealedBytes, order: list[int]
) -> None:
    """Whole chunks in another place are refused; in their own they are not."""
    step, header = CHUNKS[sealed.sealed.sealing.algorithm]
    chunks = [sealed.content[header + n * step :][:step] for n in range(3)]
    rest = sealed.content[header + 3 * step :]
    moved = sealed.content[:header] + b"".join(chunks[n] for n in order) + rest
    # These plain bytes are no bundle: who gets that far has opened all of them.
    right = order == [0, 1, 2]
    assert refused_as(sealed, moved) == ("malformed" if right else "unseal")


def test_a_wrong_length_is_refused_before_the_key_is_read(sealed: SealedBytes) -> None:
    """The signed plain length says how long a ciphertext is: no memory is taken."""

    def unreadable() -> SealKey:
        raise AssertionError

    unsealer = Unsealer(BOARD, unreadable)
    for content in (sealed.content[:-1], sealed.content + b"x", b""):
        with pytest.raises(BundleRefusedError, match="bytes, not") as caught:
            unsealer.open(memoryview(content), "a" * 64, sealed.sealed, b"")
        assert caught.value.reason == "unseal"


def test_a_last_chunk_that_is_missing_or_twice_is_refused(sealed: SealedBytes) -> None:
    """Also where the length is made right again, as the owner never signed it."""
    step, header = CHUNKS[sealed.sealed.sealing.algorithm]
    first = sealed.content[header : header + step]
    last = sealed.content[-((len(sealed.content) - header) % step) :]
    body = sealed.content[: -len(last)]
    for content in (body + first[: len(last)], body[: -len(last)] + last + last):
        assert len(content) == len(sealed.content)
        assert refused_as(sealed, content) == "unseal"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_other_plain_bytes_than_signed_are_refused(algorithm: Algorithm) -> None:
    """Sealed with the right key for the right target, and yet not what was signed."""
    made = seal_bytes(algorithm)
    other = seal_bytes(algorithm, plain=flipped(made.plain, 5_000))
    swapped = SealedBytes(
        other.plain, other.content, made.sealed, other.key, other.board_key
    )
    with pytest.raises(BundleRefusedError, match="not the signed ones") as caught:
        swapped.open()
    assert caught.value.reason == "unseal"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_ciphertext_of_another_version_is_refused(algorithm: Algorithm) -> None:
    """The content itself is bound to its target, whoever kept the key."""
    made = seal_bytes(algorithm)
    higher = SealedBytes(
        made.plain,
        made.content,
        type(made.sealed)(
            "kws",
            8,
            made.sealed.sealing,
            made.sealed.plain_sha256,
            made.sealed.plain_bytes,
        ),
        made.key,
        made.board_key,
    )
    with pytest.raises(BundleRefusedError) as caught:
        higher.open(envelope=made.envelope(version=8))
    assert caught.value.reason == "unseal"


@pytest.mark.parametrize(
    ("suite", "length"),
    [("x25519", ENVELOPE_BYTES), ("mlkem768-x25519", HYBRID_ENVELOPE_BYTES)],
)
def test_how_long_an_envelope_without_marks_is(suite: Suite, length: int) -> None:
    """Longer ones anybody can make who knows a board's public key: not decrypted."""
    made = seal_bytes(suite=suite)
    assert len(made.envelope()) == length
    long = made.envelope(held=bytes(HYBRID_ENVELOPE_BYTES))
    with pytest.raises(BundleRefusedError, match=f"it has {len(long)} bytes") as caught:
        made.open(envelope=long)
    assert caught.value.reason == "envelope"


def test_a_mapped_ciphertext_is_the_same_and_is_let_go(tmp_path: Path) -> None:
    """As the store maps it: opened alike; its pages are not memory afterwards."""
    made = seal_bytes()
    path = tmp_path / "object"
    path.write_bytes(made.content)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    opened = made.open(memoryview(mapped))
    assert {**made.open().variants} == {**opened.variants}
    assert mapped[:] == made.content


def test_memory_that_may_be_written_is_not_let_go() -> None:
    """An anonymous mapping would lose its content: it has no file to come back from."""
    made = seal_bytes()
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, len(made.content), flags=private)
    memory[:] = made.content
    assert made.open(memoryview(memory)).manifest.version == 7
    assert memory[:] == made.content


def test_what_was_opened_cannot_be_changed() -> None:
    """The memfd is sealed: through no descriptor and no view."""
    opened = seal_bytes().open()
    assert opened.golden.readonly
    with pytest.raises(TypeError):
        opened.golden[0] = 0
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split() for line in maps if "memfd:sealed-kws" in line]
    assert {"r--p"} == {words[1] for words in mapped}
    try:
        descriptor = os.open(f"/proc/self/map_files/{mapped[-1][0]}", os.O_RDONLY)
    except PermissionError:
        pytest.skip("only root may look at what is behind a mapping")
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    os.close(descriptor)
    every = (fcntl.F_SEAL_WRITE, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SHRINK)
    assert sum((*every, fcntl.F_SEAL_SEAL)) == seals


def test_a_refusal_leaves_no_descriptor_and_no_memory(sealed: SealedBytes) -> None:
    """Neither does an opening whose bundle nobody holds any more."""
    before = held()
    for at in range(0, len(sealed.content), 40_000):
        assert refused_as(sealed, flipped(sealed.content, at)) == "unseal"
    # Somebody else's may have gone meanwhile.
    assert held() <= before


def test_another_board_cannot_open_it() -> None:
    """Neither with its own key, nor by calling itself by the right name."""
    made, other = seal_bytes(), seal_bytes()
    for envelope, board in (
        (other.envelope(), BOARD),
        (made.envelope(), "pi-8"),
        (made.envelope(board="pi-8"), BOARD),
        (made.envelope(version=8), BOARD),
    ):
        with pytest.raises(BundleRefusedError, match="does not open") as caught:
            made.open(envelope=envelope, board=board)
        assert caught.value.reason == "envelope"


def test_a_key_of_another_suite_opens_nothing() -> None:
    """An envelope for X25519 and a hybrid key, and the reverse."""
    made, hybrid = seal_bytes(), seal_bytes(suite="mlkem768-x25519")
    for one, other in ((made, hybrid), (hybrid, made)):
        with pytest.raises(BundleRefusedError) as caught:
            one.open(envelope=other.envelope())
        assert caught.value.reason == "envelope"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_an_envelope_or_refused(raw: bytes) -> None:
    """Nothing but ``envelope`` leaves, for anything that a repository may serve."""
    with pytest.raises(BundleRefusedError) as caught:
        MADE.open(envelope=raw)
    assert caught.value.reason == "envelope"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=500))
def test_any_content_of_an_envelope_opens_or_is_refused(held: bytes) -> None:
    """Whoever knows the public key can seal anything to it."""
    with pytest.raises(BundleRefusedError) as caught:
        MADE.open(envelope=MADE.envelope(held=held))
    assert caught.value.reason in {"envelope", "unseal"}


def test_no_secret_is_in_a_repr_or_a_message() -> None:
    """Neither the content key nor the board's, whatever goes wrong."""
    made = seal_bytes()
    secrets = (made.key.hex(), repr(made.key)[2:-1], made.board_key.to_line().decode())
    said = [repr(made.board_key), str(made.board_key)]
    for spoiled in (flipped(made.content, 99), made.content[:-1]):
        with pytest.raises(BundleRefusedError) as caught:
            made.open(spoiled)
        said += [str(caught.value), repr(caught.value.__cause__)]
    assert [it for it in secrets for text in said if it in text] == []


MADE = seal_bytes(plain=good_bundle())
