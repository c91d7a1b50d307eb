"""A delta applied: old bytes and a patch become new ones, piece by piece.

A patch is one zstd frame whose prefix is the old bytes (``zstd --patch-from``; RFC 8878
for the frame). It was verified as a target, which says who made it, not that it makes
sense.

The rules this module keeps:
 * Nothing is allocated or written because a frame says so: its window may not exceed
   what both lengths need, its announced size has to be the signed one, and what comes
   out is counted. A window limit alone stops no small frame that unpacks to a gigabyte.
 * Memory holds a copy of the old bytes and the window, never the new bytes as a whole;
   the mapping of the old ones is let go before the window fills.
 * All of that memory goes back to the system: the daemon idles for weeks after it.
 * What came out is right only once the digest of all of it was compared.

``zstd`` is imported with this module, which is only imported where a delta is applied.
"""

import ctypes
import hashlib
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache

from agent.core.deltas import window_log
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Of the patch at once; zstd keeps a copy of what it has not used yet.
FEED_BYTES = 64 * 1024
# Of the result at once: 2.5 ms here, some 10 on a Pi, and what may be out too much.
PIECE_BYTES = 1024 * 1024
# Longer than any header of a frame (RFC 8878, 3.1.1.1: at most 18 bytes).
HEADER_BYTES = 32
# Of mallopt(3): from this size on, a block is a mapping of its own and ends as one.
# By itself glibc raises that size to the largest block it saw freed, up to 32 MiB, and
# keeps the next ones: 42 MB stayed with the daemon after two deltas of 20 MB.
M_MMAP_THRESHOLD, OWN_MAPPING_BYTES = -3, 1024 * 1024
# zstd takes no shorter dictionary; a frame made without one needs none.
MIN_BASE_BYTES = 8
# What zstd and its binding raise on bytes that are no frame, or none for this base.
BROKEN = (zstd.ZstdError, EOFError, ValueError)


def apply_delta(
    base: memoryview,
    patch: memoryview,
    write: Callable[[memoryview], None],
    length: int,
    sha256: str,
) -> None:
    """Write what ``patch`` makes of ``base``; errors of ``write`` pass.

    Args:
        base: The old bytes; released as soon as they are copied.
        patch: The frame.
        write: Takes the new bytes in order, never more than ``length`` of them.
        length: How many there have to be.
        sha256: Their digest.

    Raises:
        BundleRefusedError: ``delta``: it is no such frame, for other old bytes, or
            makes others than the signed ones. What was written until then is rubbish.
        MemoryError: There is not enough of it.
    """
    _map_large_blocks()
    digest, written = hashlib.sha256(), 0
    try:
        for piece in _pieces(base, patch, length):
            written += len(piece)
            if written > length:
                raise refused(f"unpacks to more than the {length} bytes signed")
            digest.update(piece)
            write(memoryview(piece))
    except BROKEN as err:
        raise refused(str(err)) from err
    if digest.hexdigest() != sha256:
        raise refused("unpacks to other bytes than the signed ones")


def _pieces(base: memoryview, patch: memoryview, length: int) -> Iterator[bytes]:
    """Yield the new bytes; the frame has to end where the patch does."""
    announced = zstd.get_frame_info(patch[:HEADER_BYTES]).decompressed_size
    if announced != length:
        raise refused(f"announces {announced} bytes, {length} are signed")
    wide = window_log(len(base), length)
    limit: dict[int, int] = {zstd.DecompressionParameter.window_log_max: wide}
    prefix = None
    if len(base) >= MIN_BASE_BYTES:
        # Faults its pages in without the interpreter's lock, under which zstd copies
        # them: 1 ms of a stalled loop for 20 MB instead of 9.
        zlib.crc32(base)
        prefix = zstd.ZstdDict(base, is_raw=True).as_prefix
    base.release()
    frame = zstd.ZstdDecompressor(zstd_dict=prefix, options=limit)
    taken = 0
    while not frame.eof:
        feed = memoryview(b"")
        if frame.needs_input:
            feed = patch[taken : taken + FEED_BYTES]
            if not feed:
                raise refused("ends in the middle of its frame")
        taken += len(feed)
        yield frame.decompress(feed, max_length=PIECE_BYTES)
    if taken < len(patch) or frame.unused_data:
        raise refused("goes on behind its frame")


@cache
def _map_large_blocks() -> None:
    """Let large blocks of memory be mappings of their own, where the C library can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none, and keeps nothing either
        mallopt(M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)


def refused(what: str) -> BundleRefusedError:
    """Return the error for a delta that does not give what was signed."""
    return BundleRefusedError(f"the delta {what}", reason=Reason.DELTA)
