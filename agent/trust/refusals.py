"""From python-tuf's exceptions to our stable reasons, by looking at the evidence.

The rules this module keeps:
 * A reason is found from the exception's type, the role that was being loaded and the
   bytes that arrived; never from the text of a message.
 * Everything that python-tuf raises on purpose has a reason; anything else is a bug
   and stays one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Snapshot, Timestamp

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.trust.fetcher import TransportError
from agent.trust.updater import DurableUpdater

# What a server says of a file that is not there; 403 is an object store's word for it.
_ABSENT = frozenset({403, 404, 410})


@contextmanager
def reasons_for(updater: DurableUpdater) -> Iterator[None]:
    """Turn what python-tuf raises while ``updater`` works into refusals.

    Raises:
        BundleRefusedError: ``signature``, ``threshold``, ``expired``, ``replayed``,
            ``mixed``, ``length``, ``digest``, ``too_large``, ``unreachable``,
            ``too_slow``, ``tls``, ``redirect`` or ``metadata``.
    """
    try:
        yield
    except (RepositoryError, DownloadError) as err:
        text = str(err) or type(err).__name__
        raise BundleRefusedError(
            f"{updater.role}.json: {text}", reason=reason_for(err, updater)
        ) from err


@contextmanager
def reasons_for_root() -> Iterator[None]:
    """Turn a provisioned root that cannot be trusted into a refusal.

    Raises:
        BundleRefusedError: ``signature`` or ``metadata``.
    """
    try:
        yield
    except UnsignedMetadataError as err:
        raise BundleRefusedError(
            f"the provisioned root: {err}", reason=Reason.SIGNATURE
        ) from err
    except RepositoryError as err:
        raise BundleRefusedError(
            f"the provisioned root is not a root.json: {err}", reason=Reason.METADATA
        ) from err


@contextmanager
def reasons_for_target(path: str) -> Iterator[None]:
    """Turn what reading a target's content raises into refusals.

    Raises:
        BundleRefusedError: ``missing_target``, ``unreachable``, ``too_slow``, ``tls``
            or ``redirect``.
    """
    try:
        yield
    except DownloadError as err:
        reason = _download_reason(err, absent=Reason.MISSING_TARGET)
        raise BundleRefusedError(f"{path}: {err}", reason=reason) from err


@contextmanager
def reasons_for_look(path: str) -> Iterator[None]:
    """Turn what a conditional request raises into refusals.

    Raises:
        BundleRefusedError: ``metadata`` (it is missing), ``too_large``,
            ``unreachable``, ``too_slow``, ``tls`` or ``redirect``.
    """
    try:
        yield
    except DownloadLengthMismatchError as err:
        raise BundleRefusedError(str(err), reason=Reason.TOO_LARGE) from err
    except DownloadError as err:
        reason = _download_reason(err, absent=Reason.METADATA)
        raise BundleRefusedError(f"{path}: {err}", reason=reason) from err


def reason_for(
    error: RepositoryError | DownloadError, updater: DurableUpdater
) -> Reason:
    """Return the reason for what went wrong with the role loaded last."""
    reason = Reason.METADATA
    match error:
        case UnsignedMetadataError():
            reason = Reason.THRESHOLD if _signatures(updater) else Reason.SIGNATURE
        case ExpiredMetadataError():
            reason = Reason.EXPIRED
        case BadVersionNumberError():
            reason = _version_reason(updater)
        case LengthOrHashMismatchError():
            reason = _content_reason(updater)
        case DownloadLengthMismatchError():
            reason = Reason.TOO_LARGE
        case DownloadError():
            reason = _download_reason(error, absent=Reason.METADATA)
        case _:
            pass
    return reason


def _signatures(updater: DurableUpdater) -> int:
    """Count valid signatures; of a root, by the old or by its own keys if fewer."""
    by_known_keys = len(updater.valid_signers(updater.role, updater.received))
    if updater.role != Root.type:
        return by_known_keys
    metadata = Metadata[Root].from_bytes(updater.received)
    own = metadata.signed.get_verification_result(
        Root.type, metadata.signed_bytes, metadata.signatures
    )
    return min(by_known_keys, len(own.signed))


def _version_reason(updater: DurableUpdater) -> Reason:
    """Tell an older file (replayed) from one of another publication (mixed)."""
    if updater.role in {Root.type, Timestamp.type}:
        return Reason.REPLAYED
    if updater.role == Snapshot.type:
        signed = Metadata[Snapshot].from_bytes(updater.received).signed
        # The announced snapshot it is; so an entry in it went backwards.
        if signed.version == updater.timestamp.snapshot_meta.version:
            return Reason.REPLAYED
    return Reason.MIXED


def _content_reason(updater: DurableUpdater) -> Reason:
    """Tell a genuine file of another publication from a damaged one."""
    try:
        genuine = len(updater.valid_signers(updater.role, updater.received))
    except RepositoryError:
        genuine = 0
    if genuine >= updater.keys(updater.role).threshold:
        return Reason.MIXED
    expected = _expected_length(updater)
    differs = expected is not None and expected != len(updater.received)
    return Reason.LENGTH if differs else Reason.DIGEST


def _expected_length(updater: DurableUpdater) -> int | None:
    """Return the signed length of the role loaded last, where one was signed."""
    if updater.role == Snapshot.type:
        return updater.timestamp.snapshot_meta.length
    snapshot = updater.signed(Snapshot.type)
    if not isinstance(snapshot, Snapshot):
        return None
    announced = snapshot.meta.get(f"{updater.role}.json")
    return announced.length if announced else None


def _download_reason(error: DownloadError, absent: Reason) -> Reason:
    """Tell a missing file from a repository that cannot be read, and why not."""
    if isinstance(error, TransportError):
        return error.reason
    missing = isinstance(error, DownloadHTTPError) and error.status_code in _ABSENT
    return absent if missing else Reason.UNREACHABLE
