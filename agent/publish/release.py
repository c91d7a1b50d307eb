"""Signing a publication: who signs what, in the order in which each seals the last."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from agent.publish.keys import KeyRing
from agent.publish.roles import (
    FLEET,
    LIFETIMES_DAYS,
    OFFLINE,
    ONLINE,
    RoleSet,
    meta_of,
    renew,
    sign,
    spell,
)

ISSUED_FIELD = "x-issued"
Told = Callable[[str], None]


def silent(line: str) -> None:
    """Tell nobody about progress."""
    del line


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """How many keys the offline roles get, and how many of them have to sign."""

    root_keys: int = 1
    root_threshold: int = 1
    targets_keys: int = 1
    targets_threshold: int = 1

    def of(self, role: str) -> tuple[int, int]:
        """Return (keys, threshold) of a role; online roles have one key."""
        plans = {
            Root.type: (self.root_keys, self.root_threshold),
            Targets.type: (self.targets_keys, self.targets_threshold),
        }
        return plans.get(role, (1, 1))


def give_keys(roles: RoleSet, ring: KeyRing, role: str, plan: tuple[int, int]) -> None:
    """Make new keys for a role: ``plan`` is (keys, threshold)."""
    count, threshold = plan
    delegator = roles.delegator(role)
    for key in ring.make_several(role, count):
        delegator.add_key(key, role)
    delegator.get_delegated_role(role).threshold = threshold


def take_keys(roles: RoleSet, role: str) -> None:
    """Revoke all keys of a role."""
    keyids, _ = roles.keys(role)
    for keyid in keyids:
        roles.delegator(role).revoke_key(keyid, role)


def renewals(roles: RoleSet, ring: KeyRing, moment: datetime, told: Told) -> set[str]:
    """Return the offline roles that are to be renewed now.

    These are the ones with less than a third of their life left whose keys are here;
    while they are in the safe, a warning is told, until the role is expired.
    """
    found = set()
    for role in OFFLINE:
        expires = roles.signed(role).expires
        if not is_due(role, expires, moment):
            continue
        keyids, threshold = roles.keys(role)
        # Once it is expired no board follows: signing fails and names the keys.
        if ring.count(role, keyids) >= threshold or expires <= moment:
            found.add(role)
        else:
            told(f"{role}: expires {expires:%Y-%m-%d}; publish with its keys before")
    return found


def is_due(role: str, expires: datetime, moment: datetime) -> bool:
    """Return whether a role has less than a third of its life left."""
    return expires - moment < timedelta(days=LIFETIMES_DAYS[role]) / 3


def seal(
    roles: RoleSet,
    ring: KeyRing,
    moment: datetime,
    offline: AbstractSet[str],
    told: Told,
) -> None:
    """Renew and sign: the offline roles that are named, then all online ones.

    Raises:
        SettingsError: A key that has to sign is not here, or does not open.
    """
    if Targets.type in offline:
        renew(roles.targets.signed, Targets.type, moment)
        sign(roles.targets, _signers(roles, ring, Targets.type, told))
    seal_online(roles, ring, moment, set(ONLINE), told)


def seal_online(
    roles: RoleSet,
    ring: KeyRing,
    moment: datetime,
    due: AbstractSet[str],
    told: Told,
) -> None:
    """Renew and sign the online roles that are named, and timestamp always.

    Args:
        roles: The publication.
        ring: The keys at hand.
        moment: UTC.
        due: Of fleet and snapshot; a new fleet needs a new snapshot.
        told: Told who signed.

    Raises:
        SettingsError: A key that has to sign is not here, or does not open.
    """
    snapshot, timestamp = roles.snapshot, roles.timestamp
    if FLEET in due:
        renew(roles.fleet.signed, FLEET, moment)
        sign(roles.fleet, _signers(roles, ring, FLEET, told))
    if {FLEET, Snapshot.type} & due:
        snapshot.signed.meta["targets.json"] = meta_of(roles.targets)
        snapshot.signed.meta[f"{FLEET}.json"] = meta_of(roles.fleet)
        renew(snapshot.signed, Snapshot.type, moment)
        sign(snapshot, _signers(roles, ring, Snapshot.type, told))
        timestamp.signed.snapshot_meta = meta_of(snapshot)
    timestamp.signed.unrecognized_fields[ISSUED_FIELD] = spell(moment)
    renew(timestamp.signed, Timestamp.type, moment)
    sign(timestamp, _signers(roles, ring, Timestamp.type, told))


def seal_root(
    roles: RoleSet,
    ring: KeyRing,
    moment: datetime,
    before: Sequence[Signer],
    told: Told,
) -> None:
    """Renew and sign root, also by its signers ``before`` the change.

    Raises:
        SettingsError: A key that has to sign is not here, or does not open.
    """
    root = roles.root
    root.signed.unrecognized_fields[ISSUED_FIELD] = spell(moment)
    renew(root.signed, Root.type, moment)
    sign(root, [*before, *_signers(roles, ring, Root.type, told)])


def _signers(roles: RoleSet, ring: KeyRing, role: str, told: Told) -> list[Signer]:
    """Return the signers of a role, and say so."""
    keyids, threshold = roles.keys(role)
    signers = ring.signers(role, keyids, threshold)
    told(f"{role}: signed by {len(signers)} of {len(keyids)} keys")
    return list[Signer](signers)
