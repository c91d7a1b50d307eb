"""Kept samples: what an audit needs to compute one inference anew.

A worker leaves a kept sample in a ring beside its receipts (``agent.core.shadow_ring``
in memory of ``KEPT_BYTES``); the daemon seals it to the model's owner and keeps it
under the number that the log gave its receipt. Nothing in it has to be believed: the
receipt, which is in the log, has the hashes of both sides.

Tensors are raw bytes in the model's order, native and little-endian on every board that
is supported; types and shapes are those of the variant whose digest the receipt names.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.core.receipts import BLAKE2B, NO_HASH, InputHash, Receipt

KEPT_BYTES = 16 * 1024 * 1024  # of the ring: samples of 8 MB at most
MAX_KEPT_BYTES = KEPT_BYTES  # of one, sealed
MAX_TENSORS = 256
SUFFIX = ".kept"
DOMAIN = b"tinyward/v1/audit\0"

Tensors = Annotated[tuple[bytes, ...], Meta(max_length=MAX_TENSORS)]
Word = Annotated[str, Meta(max_length=300)]


class KeptSample(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One sample as the model was given it, and as it answered.

    Attributes:
        number: Of its receipt in the worker's ring.
        inputs: All input tensors, state included.
        outputs: All output tensors: where other kernels compute anew, they differ by
            a little, which no hash can tell.
        executor: What computed, ``litert 2.3.0 / xnnpack / 1``, for the auditor's
            choice of kernels.
        cpu: ``cpu_print`` of the board.
    """

    number: Annotated[int, Meta(ge=0, lt=2**62)]
    inputs: Tensors
    outputs: Tensors
    executor: Word = ""
    cpu: Word = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(KeptSample)


def render_kept(sample: KeptSample) -> bytes:
    """Return the bytes of a kept sample.

    Law: ``parse_kept(render_kept(s)) == s``.
    """
    return _encoder.encode(sample)


def parse_kept(content: bytes) -> KeptSample:
    """Parse a kept sample, which may be anybody's.

    Raises:
        ValueError: It is none.
    """
    try:
        return _decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise ValueError(f"no kept sample: {err}") from err


def hash_tensors(tensors: Iterable[bytes], hashed: InputHash = "sha256") -> bytes:
    """Return the hash of tensors, one after the other, as receipts have it.

    Shapes and types are not hashed: the model's digest fixes them.
    """
    found = (
        hashlib.blake2b(digest_size=len(NO_HASH))
        if hashed == "blake2b"
        else hashlib.sha256()
    )
    for tensor in tensors:
        found.update(tensor)
    return found.digest()


def fits_receipt(sample: KeptSample, receipt: Receipt) -> bool:
    """Whether a kept sample is the one that a receipt is about."""
    hashed: InputHash = "blake2b" if receipt.flags & BLAKE2B else "sha256"
    return (
        hash_tensors(sample.inputs, hashed) == receipt.input
        and hash_tensors(sample.outputs) == receipt.output
    )


def seal_context(board: str, pipeline: int, seq: int) -> bytes:
    """Return HPKE's ``info``: what is sealed for one receipt opens for no other.

    >>> seal_context("pi-0042", 7, 1000)
    b'tinyward/v1/kept|pi-0042|7|1000'
    """
    return f"tinyward/v1/kept|{board}|{pipeline}|{seq}".encode()


def kept_name(seq: int) -> str:
    """Return what the file of a receipt's kept input is called.

    >>> kept_name(1000)
    '00000000000000001000.kept'
    """
    return f"{seq:020d}{SUFFIX}"


def kept_seq(name: str) -> int | None:
    """Return the receipt that a file is of; None if it is no such file.

    Law: ``kept_seq(kept_name(seq)) == seq``.
    """
    number = name.removesuffix(SUFFIX)
    if len(number) != 20 or not (number.isascii() and number.isdigit()):
        return None
    return int(number) if name == number + SUFFIX else None


def choose(seqs: Sequence[int], seed: bytes, root: bytes, samples: int) -> list[int]:
    """Return which kept samples an audit asks for: as if drawn, and the same for all.

    The seed is revealed after the checkpoint whose ``root`` goes in here: who wrote
    the log could not know what would be asked, and the auditor cannot choose either.

    >>> len(choose(range(100), b"seed", b"root", 3))
    3
    """

    def rank(seq: int) -> bytes:
        drawn = DOMAIN + bytes([len(seed)]) + seed + root + seq.to_bytes(8)
        return hashlib.sha256(drawn).digest()

    return sorted(sorted(seqs, key=rank)[:samples])


def cpu_print(machine: str, cpuinfo: str) -> str:
    """Return a short name for what a CPU can do: kernels are chosen by that.

    >>> cpu_print("aarch64", "Features : fp asimd") == cpu_print(
    ...     "aarch64", "Features: asimd fp"
    ... )
    True
    """
    words: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            words.update(value.split())
            break
    listed = " ".join(sorted(words)).encode()
    return f"{machine}-{hashlib.sha256(listed).hexdigest()[:12]}"
