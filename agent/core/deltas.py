"""Deltas: what is signed about one, which is worth it, and what applying one may take.

A delta turns one bundle that a board holds into another. It is a target of its own,
``deltas/<from>-<to>.zst``, named by the digests of both, signed by ``targets`` like the
bundles; the whole bundle is always there beside it.

The rules this module keeps:
 * A delta changes how bytes come here, never which: its signed fields have to agree
   with its name and with the bundle that it leads to, or there is no such delta.
 * Both sides compute the window from the two signed lengths: a frame that asks for more
   was not made by us.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.core.manifest import Digest, ModelName, ModelVersion
from agent.core.reasons import Reason
from agent.core.targets import SignedFile, SignedTarget, Strict
from agent.errors import BundleRefusedError

FOLDER = "deltas/"
# Published below this share of the compressed bundle. What is retrained from scratch
# comes to 99 %, a few changed layers to 5 %: hardly anything lies in between.
WORTH_SHARE = 0.6
# zstd's own limits (ZSTD_WINDOWLOG_MIN, ZSTD_WINDOWLOG_MAX of 64 bits).
MIN_WINDOW_LOG, MAX_WINDOW_LOG = 10, 31
# A copy of the base and the window, measured as 2.1 times a bundle of 20 MB; the rest
# is zstd's tables and the pieces in between.
APPLY_EXTRA_BYTES = 8 * 1024 * 1024
# What applying may take of the memory that a model could get: the active model goes on
# beside it, and what is left has to do for its peaks.
MEMORY_SHARE = 0.5


class DeltaFields(Strict, frozen=True):
    """The signed ``custom`` fields of a delta.

    Attributes:
        model: Of both bundles; ``version`` is the one that comes of it.
        bytes: How long what comes of it is.
    """

    model: ModelName
    version: ModelVersion
    from_version: ModelVersion
    from_sha256: Digest
    to_sha256: Digest
    bytes: Annotated[int, Meta(ge=1, le=2**40)]


class SignedDelta(SignedFile, frozen=True):
    """A delta as the ``targets`` role signed it."""

    fields: DeltaFields


def delta_path(from_sha256: str, to_sha256: str) -> str:
    """Return the target path of a delta: ``deltas/<from>-<to>.zst``."""
    return f"{FOLDER}{from_sha256}-{to_sha256}.zst"


def ends_of(path: str) -> tuple[str, str]:
    """Return the digests in a delta's name: from, to.

    Law: ``ends_of(delta_path(a, b)) == (a, b)``.
    """
    before, _, after = path.removeprefix(FOLDER).removesuffix(".zst").partition("-")
    return before, after


def parse_delta(
    path: str, length: int, hashes: dict[str, str], custom: object
) -> SignedDelta:
    """Parse a delta's entry.

    Raises:
        BundleRefusedError: ``metadata``: fields are missing, unknown or contradict
            the path.
    """
    try:
        fields = msgspec.convert(custom, DeltaFields)
    except msgspec.ValidationError as err:
        raise _unclear(path, str(err)) from err
    if path != delta_path(fields.from_sha256, fields.to_sha256):
        raise _unclear(path, "is of another pair of bundles")
    if "sha256" not in hashes:
        raise _unclear(path, "has no sha256")
    return SignedDelta(path, length, hashes["sha256"], fields)


def leads_to(delta: SignedDelta, target: SignedTarget) -> bool:
    """Return whether a delta promises exactly this bundle, unsealed."""
    said, wanted = delta.fields, target.fields
    return (said.model, said.version, said.to_sha256, said.bytes) == (
        wanted.model,
        wanted.version,
        target.sha256,
        target.length,
    ) and wanted.plain_sha256 == target.sha256


def best_delta(
    deltas: Iterable[SignedDelta], target: SignedTarget, missing_bytes: int
) -> SignedDelta | None:
    """Return the shortest delta that leads to a bundle and beats what is missing of it.

    Args:
        deltas: Those whose base is here.
        target: What is wanted.
        missing_bytes: What would have to be fetched without a delta.
    """
    useful = [
        delta
        for delta in deltas
        if leads_to(delta, target) and 0 < delta.length < missing_bytes
    ]
    return min(useful, key=lambda delta: (delta.length, delta.path), default=None)


def is_worth(delta_bytes: int, compressed_bytes: int) -> bool:
    """Return whether a delta is published.

    Args:
        delta_bytes: Its length.
        compressed_bytes: That of the whole bundle, compressed alike.
    """
    return delta_bytes < WORTH_SHARE * compressed_bytes


def window_log(old_bytes: int, new_bytes: int) -> int:
    """Return log2 of the window that sees all of both, as zstd takes it.

    Law: ``2 ** window_log(old, new) >= old + new`` up to zstd's limit of 2 GiB.

    >>> window_log(10_000_000, 10_000_000), window_log(1, 1)
    (25, 10)
    """
    needed = (old_bytes + new_bytes).bit_length()
    return max(MIN_WINDOW_LOG, min(needed, MAX_WINDOW_LOG))


def apply_bytes(old_bytes: int, new_bytes: int) -> int:
    """Return how much memory applying a delta takes at most."""
    return old_bytes + max(old_bytes, new_bytes) + APPLY_EXTRA_BYTES


def fits_memory(old_bytes: int, new_bytes: int, ram_bytes: int) -> bool:
    """Return whether a delta may be applied here.

    Args:
        old_bytes: Length of the base.
        new_bytes: Length of what comes of it.
        ram_bytes: Memory that a model could get now.
    """
    return apply_bytes(old_bytes, new_bytes) <= MEMORY_SHARE * ram_bytes


def _unclear(path: str, what: str) -> BundleRefusedError:
    """Return the error for a signed value that makes no sense."""
    return BundleRefusedError(f"target {path}: {what}", reason=Reason.METADATA)
