"""What a board asks of metadata beyond the TUF specification: its own floors.

The rules this module keeps:
 * Floors live outside the metadata cache, in the board's durable notes: a cache that a
   power cut emptied does not let an older repository in.
 * A floor is judged by the keys of the newest root, after the chain of roots and
   before anything signed by those keys is kept (see ``agent.core.floors``).
 * The floor of ``targets`` ends with the keys of ``snapshot``, too: who says which
   version is newest is replaced, and TUF lets versions begin again then (5.3.11).
 * Nothing is learned from a refresh that did not succeed, except the root's version.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from agent.core.floors import (
    MAX_HEIGHT,
    Floor,
    Floors,
    RoleKeys,
    height,
    holds,
    raised,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.trust.clock import ISSUED_FIELD, learned_time, moment, parse_issued
from agent.trust.notes import Remembered

if TYPE_CHECKING:  # tuf costs 0.15 s and 16 MB: a booting board does not pay for it
    from tuf.api.metadata import Root, Signed

    from agent.trust.updater import DurableUpdater

ROLES = ("timestamp", "snapshot", "targets", "fleet")


class Explain(Protocol):
    """Told about each step of a verification as it passes."""

    def __call__(self, step: str, detail: str) -> None:
        """Take a step's name and one sentence on what was checked."""


def silent(step: str, detail: str) -> None:
    """Explain nothing: what the daemon uses."""
    del step, detail


class FloorGate:
    """The gate of a board that has a past.

    Attributes:
        floors: What it remembers.
        now_s: The system clock at the beginning of a refresh, Unix seconds.
    """

    def __init__(
        self, remembered: Remembered, build_time: float, explain: Explain = silent
    ) -> None:
        self.floors = remembered.load()
        self.now_s = 0.0
        self._remembered = remembered
        self._build_s = int(build_time)
        self._explain = explain
        self._learned: object = None
        self._begins_again: frozenset[str] = frozenset()  # whose floor does not count

    @property
    def clock_floor_s(self) -> int:
        """The earliest time it can be, Unix seconds."""
        return max(self._build_s, self.floors.clock_s)

    @property
    def certificate_floor_s(self) -> int:
        """The same by offline keys alone, Unix seconds: see ``agent.trust.clock``."""
        return max(self._build_s, self.floors.offline_s)

    def reload(self) -> None:
        """Read the floors again.

        The fleet's repository and a slice that was pushed share them: each has to see
        what the other has learned, and must not save what it knew before that.

        Raises:
            DeviceError: ``state``: the floors cannot be read.
        """
        self.floors = self._remembered.load()

    @property
    def moved(self) -> bool:
        """Whether somebody else has moved the floors since this one learned last."""
        return self._learned != _heights(self.floors)

    def settled(self) -> datetime:
        """Return the time that expiry is judged by."""
        return moment(max(self.now_s, self.clock_floor_s))

    def settle(self, root: "Root") -> datetime:
        """Judge the final root; return the time that expiry is judged by.

        Raises:
            BundleRefusedError: ``replayed``, or ``metadata`` (its issue time).
        """
        check_height("root", root.version, self.floors.root)
        ordered = self.floors.roles.get("snapshot")
        lost = ordered is not None and not holds(ordered, _keys(root, "snapshot"))
        self._begins_again = frozenset({"targets"} if lost else ())
        clock_s = self._floor_under(root)
        self._keep(
            replace(
                self.floors,
                root=root.version,
                clock_s=clock_s,
                offline_s=_issued_s(root),
            )
        )
        settled = self.settled()
        if root.is_expired(settled):
            return settled  # the updater refuses it: no step is told that did not hold
        self._explain("root", _facts(root, _keys(root, "root")))
        behind = " (the clock is behind the floor)" if self.now_s < clock_s else ""
        self._explain("clock", f"it is {settled:%Y-%m-%d %H:%M:%S} UTC{behind}")
        return settled

    def admit(self, role: str, signed: "Signed", keys: RoleKeys) -> None:
        """Judge verified metadata before it is kept.

        Raises:
            BundleRefusedError: ``replayed`` or ``metadata``.
        """
        check_height(role, signed.version, height(self._floor(role), keys))
        _issued_s(signed)
        self._explain(role, _facts(signed, keys))

    def learn(self, updater: "DurableUpdater") -> None:
        """Raise the floors to what a complete refresh verified.

        Raises:
            BundleRefusedError: ``replayed``: the cache itself is older than a floor.
        """
        roles = dict(self.floors.roles)
        for role in ROLES:
            signed = updater.signed(role)
            if signed is None:
                continue
            keys, floor = updater.keys(role), self._floor(role)
            lowest = height(floor, keys)
            check_height(role, signed.version, lowest)
            if signed.version > lowest:
                signers = updater.signers(role)
                roles[role] = raised(floor, signed.version, signers, keys)
        time_floor = self._time_after(updater)
        learned = replace(self.floors, roles=roles, time=time_floor)
        keys = updater.keys("timestamp")
        clock_s = max(self._floor_under(updater.root), height(time_floor, keys))
        self._keep(replace(learned, clock_s=clock_s))
        self._learned = _heights(self.floors)

    def learn_generation(self, path: str, generation: int, keys: RoleKeys) -> None:
        """Judge the generation of a group file, and raise its floor.

        Raises:
            BundleRefusedError: ``replayed``.
        """
        self.reload()
        floor = self.floors.generations.get(path)
        check_height(path, generation, height(floor, keys))
        signers = self.floors.roles["fleet"].signers
        known = self.floors.generations
        after = {**known, path: raised(floor, generation, signers, keys)}
        self._keep(replace(self.floors, generations=after))

    def overtaken(self, updater: "DurableUpdater") -> bool:
        """Tell whether something newer than this was verified somewhere else."""
        if updater.root.version < self.floors.root:
            return True
        signed = updater.signed("targets")
        lowest = height(self.floors.roles.get("targets"), updater.keys("targets"))
        return signed is None or signed.version < lowest

    def _floor(self, role: str) -> Floor | None:
        """Return the floor of a role's version, None where there is none any more."""
        return None if role in self._begins_again else self.floors.roles.get(role)

    def _floor_under(self, root: "Root") -> int:
        """Return the clock floor as far as it stands under this root."""
        known_s = height(self.floors.time, _keys(root, "timestamp"))
        return max(self._build_s, _issued_s(root), known_s)

    def _time_after(self, updater: "DurableUpdater") -> Floor | None:
        """Return the time floor after a complete refresh."""
        offline = (updater.root.expires, updater.targets.expires)
        learned_s = learned_time(_issued_s(updater.timestamp), offline)
        keys = updater.keys("timestamp")
        if learned_s <= height(self.floors.time, keys):
            return self.floors.time
        return raised(self.floors.time, learned_s, updater.signers("timestamp"), keys)

    def _keep(self, floors: Floors) -> None:
        """Save floors that changed; flash wears out."""
        if floors != self.floors:
            self._remembered.save(floors)
            self.floors = floors


class FactoryGate:
    """The gate for a slice that was shipped with the system, on its own disk.

    Its signatures count; its age does not: a board may be unpacked years after its
    image was made, and knows nothing older or newer yet. It remembers nothing.
    """

    clock_floor_s = 0
    certificate_floor_s = 0
    now_s = 0.0
    moved = False

    def reload(self) -> None:
        """Nothing is remembered."""

    def settled(self) -> datetime:
        """Return a time at which nothing is expired."""
        return moment(0)

    def overtaken(self, updater: "DurableUpdater") -> bool:
        """Nothing newer is known anywhere."""
        del updater
        return False

    def settle(self, root: "Root") -> datetime:
        """Return a time at which nothing is expired."""
        del root
        return self.settled()

    def admit(self, role: str, signed: "Signed", keys: RoleKeys) -> None:
        """Admit whatever is signed."""
        del role, signed, keys

    def learn(self, updater: "DurableUpdater") -> None:
        """Learn nothing."""
        del updater

    def learn_generation(self, path: str, generation: int, keys: RoleKeys) -> None:
        """Learn nothing."""
        del path, generation, keys


def check_height(what: str, value: int, floor: int) -> None:
    """Refuse what is older than its floor, or higher than anything honest.

    Raises:
        BundleRefusedError: ``replayed`` or ``metadata``.
    """
    if value < floor:
        raise BundleRefusedError(
            f"{what}: version {value} is older than {floor}, seen before",
            reason=Reason.REPLAYED,
        )
    if value > MAX_HEIGHT:
        raise BundleRefusedError(
            f"{what}: version {value} is absurd", reason=Reason.METADATA
        )


def _keys(root: "Root", role: str) -> RoleKeys:
    """Return the keys that a root gives to a top-level role."""
    return RoleKeys(tuple(root.roles[role].keyids), root.roles[role].threshold)


def _issued_s(signed: "Signed") -> int:
    """Return when something was signed, as it says itself; 0 if it says nothing.

    Raises:
        BundleRefusedError: ``metadata``: it says something else than a time.
    """
    return parse_issued(signed.unrecognized_fields.get(ISSUED_FIELD))


def _heights(floors: Floors) -> object:
    """Return the floors that a refresh moves; generations move with each question."""
    return floors.root, floors.roles, floors.time


def _facts(signed: "Signed", keys: RoleKeys) -> str:
    """Say in one line what was verified of a role."""
    return (
        f"version {signed.version}, signed by at least {keys.threshold} of "
        f"{len(keys.keyids)} keys, expires {signed.expires:%Y-%m-%d %H:%M} UTC"
    )
