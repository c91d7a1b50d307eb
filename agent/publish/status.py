"""What a repository holds, as values to be shown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tuf.api.metadata import TargetFile

from agent.core.deltas import SignedDelta, parse_delta
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Revocations, SignedTarget
from agent.errors import BundleRefusedError, SettingsError
from agent.publish.keys import KeyRing
from agent.publish.roles import ROLES, RoleSet
from agent.publish.staging import Staged, checked_fields


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """What `tinyward repo status` shows of a role."""

    role: str
    version: int
    expires: datetime
    keys: int
    threshold: int
    keys_here: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a repository holds: signed roles and contents, and what is staged.

    Attributes:
        groups: Desired states by group; ``devices`` by board id.
        revoked: What must not act any more.
        envelopes: Path of a sealed bundle -> how many boards can open it.
        withdrawn: Boards that get no envelope any more.
    """

    roles: tuple[RoleStatus, ...]
    bundles: tuple[SignedTarget, ...]
    deltas: tuple[SignedDelta, ...]
    groups: Mapping[str, GroupFile]
    devices: Mapping[str, GroupFile]
    revoked: Revocations
    staged: Staged
    envelopes: Mapping[str, int] = field(default_factory=dict)
    withdrawn: tuple[str, ...] = ()


def role_statuses(roles: RoleSet, ring: KeyRing) -> tuple[RoleStatus, ...]:
    """Return what is known of each role, in the order of trust."""
    found = []
    for role in ROLES:
        keyids, threshold = roles.keys(role)
        signed = roles.signed(role)
        found.append(
            RoleStatus(
                role=role,
                version=signed.version,
                expires=signed.expires,
                keys=len(keyids),
                threshold=threshold,
                keys_here=ring.count(role, keyids),
            )
        )
    return tuple(found)


def listed_bundles(bundles: Iterable[TargetFile]) -> tuple[SignedTarget, ...]:
    """Return bundles with their signed fields.

    Raises:
        SettingsError: Another tool wrote fields that make no sense.
    """
    return tuple(
        SignedTarget(
            found.path,
            found.length,
            found.hashes["sha256"],
            checked_fields(found.custom),
        )
        for found in bundles
    )


def listed_deltas(deltas: Iterable[TargetFile]) -> tuple[SignedDelta, ...]:
    """Return deltas with their signed fields.

    Raises:
        SettingsError: Another tool wrote fields that make no sense.
    """
    try:
        return tuple(
            parse_delta(found.path, found.length, found.hashes, found.custom)
            for found in deltas
        )
    except BundleRefusedError as err:
        raise SettingsError(
            str(err),
            reason=Reason.SETTINGS,
            todo="Remove it with the tool that made it.",
        ) from err
