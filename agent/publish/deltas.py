"""Deltas on the owner's side: made of two bundles of a repository, weighed, staged.

A delta is one zstd frame whose prefix is the older bundle, as ``zstd --patch-from``
makes it, so that anybody can check one without Tinyward.

The rules this module keeps:
 * A delta is staged only where it saves something (``agent.core.deltas.is_worth``);
   that one does not is no error.
 * It is made of bytes that have the listed digests, and between bundles that may run.
 * The repository is locked for writing alone: a large delta takes a while.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from agent.core.deltas import (
    DeltaFields,
    SignedDelta,
    delta_path,
    is_worth,
    window_log,
)
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget, bundle_path
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.contents import Contents
from agent.publish.files import locked, owners_disk, place_target, stored_target
from agent.publish.roles import RoleFiles
from agent.publish.staging import Staged, load_staged, save_staged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# A third of a second for 20 MB; 19 takes 33 s and spares 1 % of the bundle more.
LEVEL = 9
FEED_BYTES = 1024 * 1024
# zstd takes no shorter dictionary; a frame made without one needs none.
MIN_BASE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Weighed:
    """A delta that was made, and whether it is worth publishing.

    Attributes:
        staged: What was staged; None where it is not worth it.
        bytes: How long the delta is, ``compressed_bytes`` the whole bundle compressed.
    """

    from_version: int
    staged: SignedDelta | None
    bytes: int
    compressed_bytes: int


def ignore_progress(done: int) -> None:
    """Tell nobody how many bytes are done."""
    del done


def make_delta(
    old: bytes, new: bytes, progress: Callable[[int], None] = ignore_progress
) -> bytes:
    """Return the patch that turns ``old`` into ``new``.

    Law: ``agent.update.delta_apply.apply_delta`` of it on ``old`` gives ``new``.

    Args:
        old: What boards hold.
        new: What they are to get.
        progress: Told how many bytes of ``new`` are done.
    """
    prefix = None
    if len(old) >= MIN_BASE_BYTES:
        prefix = zstd.ZstdDict(old, is_raw=True).as_prefix
    return b"".join(_frame(new, prefix, len(old), progress))


def compressed_bytes(
    new: bytes, progress: Callable[[int], None] = ignore_progress
) -> int:
    """Return how long a bundle is when it is compressed by itself, likewise."""
    return sum(len(part) for part in _frame(new, None, 0, progress))


def check_known(repository: Path, model: str, version: int) -> None:
    """Check that a delta may lead from a model's version.

    Raises:
        SettingsError: It is sealed.
        BundleRefusedError: ``missing_target``, ``revoked`` or ``digest``.
        DeviceError: It cannot be read.
    """
    _listed(repository, model, version)


def check_way(model: str, from_version: int, version: int) -> None:
    """Check that a delta leads from one version to another.

    Raises:
        SettingsError: It would lead from a bundle to itself.
    """
    if from_version == version:
        raise SettingsError(
            f"there is no delta from {model} {version} to itself",
            reason=Reason.SETTINGS,
            todo="Name the version that boards run now with --delta-from.",
        )


def stage_delta(
    repository: Path,
    target: SignedTarget,
    from_version: int,
    progress: Callable[[int], None] = ignore_progress,
) -> Weighed:
    """Make the delta that leads to a bundle from another version, and stage it.

    Args:
        repository: Its directory.
        target: The bundle, listed or staged.
        from_version: The version of the same model that boards hold.
        progress: Told how many bytes are done, of twice the bundle's length.

    Raises:
        SettingsError: It would lead from a bundle to itself, or one of them is sealed.
        BundleRefusedError: ``missing_target``: one of the two is not listed;
            ``revoked``: it may not run; ``digest``: the repository's own copy is
            damaged.
        DeviceError: It cannot be read or stored.
    """
    model, version = target.fields.model, target.fields.version
    check_way(model, from_version, version)
    from_sha256, old = _listed(repository, model, from_version)
    to_sha256, new = _listed(repository, model, version)
    patch = make_delta(old, new, progress)
    whole = compressed_bytes(new, lambda done: progress(len(new) + done))
    if not is_worth(len(patch), whole):
        return Weighed(from_version, None, len(patch), whole)
    fields = DeltaFields(
        model=model,
        version=version,
        from_version=from_version,
        from_sha256=from_sha256,
        to_sha256=to_sha256,
        bytes=len(new),
    )
    path = delta_path(from_sha256, to_sha256)
    with locked(repository):
        sha256 = place_target(repository / "targets", path, patch)
        delta = SignedDelta(path, len(patch), sha256, fields)
        staged = load_staged(repository)
        deltas = {**staged.deltas, path: delta}
        save_staged(repository, replace(staged, deltas=deltas))
    return Weighed(from_version, delta, len(patch), whole)


def _listed(repository: Path, model: str, version: int) -> tuple[str, bytes]:
    """Return digest and content of a bundle that is listed, or will be."""
    contents = Contents(
        RoleFiles(repository / "metadata").load(), repository / "targets"
    )
    staged = load_staged(repository)
    path = bundle_path(model, version)
    sha256 = _digest(contents, staged, path)
    if sha256 is None:
        raise BundleRefusedError(
            f"{model} {version} is not in this repository",
            reason=Reason.MISSING_TARGET,
            todo="See `tinyward repo status` for the versions that are.",
        )
    if sha256 in (staged.revoked or contents.revocations()).bundles:
        raise BundleRefusedError(f"{model} {version} is revoked", reason=Reason.REVOKED)
    if _is_sealed(contents, staged, path):
        raise SettingsError(
            f"{model} {version} is sealed: ciphertexts have nothing in common",
            reason=Reason.SETTINGS,
            todo="Leave out --delta-from; boards fetch sealed bundles whole.",
        )
    place = stored_target(repository / "targets", path, sha256)
    with owners_disk():
        content = place.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleRefusedError(
            f"{place} is not what was signed",
            reason=Reason.DIGEST,
            todo="Restore it from a copy, or `tinyward repo add` its bundle again.",
        )
    return sha256, content


def _digest(contents: Contents, staged: Staged, path: str) -> str | None:
    """Return the digest of a bundle that will be listed, or None."""
    if path in staged.bundles:
        return staged.bundles[path].sha256
    found = contents.bundles().get(path)
    return None if found is None or path in staged.unlisted else found.hashes["sha256"]


def _is_sealed(contents: Contents, staged: Staged, path: str) -> bool:
    """Return whether a bundle that will be listed is a ciphertext."""
    if path in staged.bundles:
        return staged.bundles[path].fields.sealed is not None
    return (contents.bundles()[path].custom or {}).get("sealed") is not None


def _frame(
    new: bytes,
    prefix: "tuple[zstd.ZstdDict, int] | None",
    old_bytes: int,
    progress: Callable[[int], None],
) -> Iterator[bytes]:
    """Yield one zstd frame, which says how long its content is and ends in a sum."""
    parameter = zstd.CompressionParameter
    options: dict[int, int] = {
        parameter.compression_level: LEVEL,
        parameter.window_log: window_log(old_bytes, len(new)),
        # Without it only the last part of the prefix is searched at this level.
        parameter.enable_long_distance_matching: 1,
        parameter.checksum_flag: 1,
    }
    frame = zstd.ZstdCompressor(options=options, zstd_dict=prefix)
    # Boards refuse a frame that does not announce the signed length.
    frame.set_pledged_input_size(len(new))
    for start in range(0, len(new), FEED_BYTES):
        part = new[start : start + FEED_BYTES]
        yield frame.compress(part)
        progress(start + len(part))
    yield frame.flush()
