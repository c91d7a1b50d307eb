"""What signed repository metadata says: bundles as targets, and desired states.

Only values that a verified signature covers get here; parsing is strict all the
same, because a signature says who wrote a value, not that it makes sense.
"""

import json
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.core.manifest import MAX_VERSION, Digest, ModelName, ModelVersion
from agent.core.reasons import Reason
from agent.core.sealing import Sealed, Sealing
from agent.errors import BundleRefusedError

T = TypeVar("T")
Percent = Annotated[float, Meta(ge=0, le=100)]
MinAgent = Annotated[str, Meta(pattern=r"^(\d{1,6}(\.\d{1,6}){0,2})?$(?!\n)")]
Salt = Annotated[str, Meta(max_length=64)]
Serial = Annotated[str, Meta(pattern=r"^[0-9a-f]{1,40}$(?!\n)")]
MAX_GROUP_BYTES = 64 * 1024  # 64 pipelines take 6 kB
MAX_REVOKED_BYTES = 512 * 1024  # both lists full take 480 kB
REVOKED_PATH = "revoked.json"
# A board's id where it is part of a path or of a certificate's name.
BOARD_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)"
BoardId = Annotated[str, Meta(pattern=BOARD_ID_PATTERN)]


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """Base: immutable, strict when parsed."""


class BundleFields(Strict, frozen=True):
    """The signed ``custom`` fields of a bundle target.

    ``plain_sha256`` and ``plain_bytes`` describe the content after unsealing; for a
    bundle that is not sealed they equal the target's own hash and length. Agents that
    do not know ``sealed`` refuse the target.
    """

    model: ModelName
    version: ModelVersion
    plain_sha256: Digest
    plain_bytes: Annotated[int, Meta(ge=1, le=2**40)]
    hardware: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    min_agent: MinAgent = ""
    sealed: Sealing | None = None


class SignedFile(Strict, frozen=True):
    """A target as it was signed: where, how long, which bytes."""

    path: str
    length: int
    sha256: str


class SignedTarget(SignedFile, frozen=True):
    """A bundle as the ``targets`` role signed it."""

    fields: BundleFields


class Wanted(Strict, frozen=True):
    """One pipeline's entry in a desired state."""

    model: ModelName
    version: ModelVersion


class GroupFile(Strict, frozen=True):
    """The desired state of one group or one device, signed by the ``fleet`` role.

    Attributes:
        generation: Counts the publications of this file; a lower one is a replay.
        paused: Nothing new starts while it is true.
        percent: Share of boards that take part; ``salt`` draws them.
        not_before: UTC, ISO 8601; empty means at once.
        window: Maintenance window ``HH:MM-HH:MM``, in UTC; with `` local`` behind it in
            the board's own time. Empty means any time.
        pipelines: Pipeline name -> wanted model and version.
    """

    generation: Annotated[int, Meta(ge=1, le=MAX_VERSION)]
    pipelines: Annotated[dict[ModelName, Wanted], Meta(max_length=64)]
    paused: bool = False
    percent: Percent = 100.0
    salt: Salt = ""
    not_before: Annotated[str, Meta(max_length=32)] = ""
    window: Annotated[str, Meta(max_length=32)] = ""


class Revocations(Strict, frozen=True):
    """``revoked.json``, signed by the ``targets`` role: what must not act any more.

    Attributes:
        bundles: SHA-256 of bundles that may run nowhere, the active one included.
        operators: Serial numbers (lower case hex) of client certificates.
    """

    bundles: Annotated[tuple[Digest, ...], Meta(max_length=4096)] = ()
    operators: Annotated[tuple[Serial, ...], Meta(max_length=4096)] = ()


def bundle_path(model: str, version: int) -> str:
    """Return the target path of a bundle: ``models/<model>/<version>.bundle``."""
    return f"models/{model}/{version}.bundle"


def group_path(group: str) -> str:
    """Return the target path of a group's desired state: ``fleet/groups/<group>``."""
    return f"fleet/groups/{group}"


def device_path(board: str) -> str:
    """Return the target path of one board's desired state: ``fleet/devices/<id>``."""
    return f"fleet/devices/{board}"


def parse_target(
    path: str, length: int, hashes: dict[str, str], custom: object
) -> SignedTarget:
    """Parse a bundle target.

    Raises:
        BundleRefusedError: ``metadata``: fields are missing, unknown or contradict
            the path.
    """
    if "sha256" not in hashes:
        raise _unclear(path, "has no sha256")
    try:
        fields = msgspec.convert(custom, BundleFields)
    except msgspec.ValidationError as err:
        raise _unclear(path, str(err)) from err
    if path != bundle_path(fields.model, fields.version):
        raise _unclear(path, f"says it is {fields.model} {fields.version}")
    return SignedTarget(path, length, hashes["sha256"], fields)


def sealed_of(target: SignedTarget) -> Sealed | None:
    """Return how a target is opened on this board; None where it is not sealed."""
    fields = target.fields
    if fields.sealed is None:
        return None
    return Sealed(
        fields.model,
        fields.version,
        fields.sealed,
        fields.plain_sha256,
        fields.plain_bytes,
    )


def parse_group(raw: bytes, path: str) -> GroupFile:
    """Parse a desired state.

    Raises:
        BundleRefusedError: ``too_large`` or ``metadata``.
    """
    return _parse(raw, path, MAX_GROUP_BYTES, GroupFile)


def parse_revocations(raw: bytes) -> Revocations:
    """Parse what was revoked.

    Law: ``parse_revocations(render_revocations(r)) == r``.

    Raises:
        BundleRefusedError: ``too_large`` or ``metadata``.
    """
    return _parse(raw, REVOKED_PATH, MAX_REVOKED_BYTES, Revocations)


def render_revocations(revoked: Revocations) -> bytes:
    """Return the canonical spelling of what was revoked."""
    text = json.dumps(msgspec.to_builtins(revoked), indent=2, sort_keys=True)
    return text.encode() + b"\n"


def render_group(group: GroupFile) -> bytes:
    """Return the canonical spelling of a desired state."""
    text = json.dumps(msgspec.to_builtins(group), indent=2, sort_keys=True)
    return text.encode() + b"\n"


def _parse(raw: bytes, path: str, max_bytes: int, kind: type[T]) -> T:
    """Parse a small signed file."""
    if len(raw) > max_bytes:
        raise BundleRefusedError(
            f"{path} has {len(raw)} bytes, at most {max_bytes} allowed",
            reason=Reason.TOO_LARGE,
        )
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise _unclear(path, str(err)) from err


def _unclear(path: str, what: str) -> BundleRefusedError:
    """Return the error for a signed value that makes no sense."""
    return BundleRefusedError(f"target {path}: {what}", reason=Reason.METADATA)
