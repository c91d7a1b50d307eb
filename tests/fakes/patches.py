"""Signed deltas for tests, right ones and wrong ones."""

import hashlib
import sys

from agent.core.deltas import DeltaFields, SignedDelta, delta_path
from agent.publish.deltas import make_delta

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def sha256(content: bytes) -> str:
    """Return a digest as it is signed."""
    return hashlib.sha256(content).hexdigest()


def signed_delta(
    old: bytes, new: bytes, patch: bytes | None = None, **fields: object
) -> tuple[SignedDelta, bytes]:
    """Return a delta of kws 1 to 2 and its content; all but the bytes may be wrong."""
    content = make_delta(old, new) if patch is None else patch
    said: dict[str, object] = {
        "model": "kws",
        "version": 2,
        "from_version": 1,
        "from_sha256": sha256(old),
        "to_sha256": sha256(new),
        "bytes": len(new),
    }
    known = DeltaFields(**{**said, **fields})  # type: ignore[arg-type] # by tests
    path = delta_path(known.from_sha256, known.to_sha256)
    return SignedDelta(path, len(content), sha256(content), known), content


def frame(
    content: bytes, old: bytes = b"", announced: int | None = None, window: int = 16
) -> bytes:
    """Return a frame that may say that its content has another length.

    Args:
        content: What it unpacks to.
        old: Its prefix.
        announced: What its header says; None: the truth, -1: nothing.
        window: log2 of its window.
    """
    prefix = zstd.ZstdDict(old, is_raw=True).as_prefix if old else None
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.window_log: window,
        parameter.content_size_flag: int(announced != -1),
    }
    packer = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    if announced != -1:
        packer.set_pledged_input_size(len(content))
    made = bytearray(packer.compress(content) + packer.flush())
    if announced is not None and announced >= 0:
        _announce(made, announced)
    return bytes(made)


def _announce(made: bytearray, length: int) -> None:
    """Overwrite the length in a header (RFC 8878, 3.1.1.1)."""
    descriptor = made[4]
    size = (1, 2, 4, 8)[descriptor >> 6]
    length -= 256 if size == 2 else 0
    # Without the flag of a single segment, a byte about the window lies in between.
    start = 5 if descriptor & 0b0010_0000 else 6
    made[start : start + size] = length.to_bytes(size, "little")
