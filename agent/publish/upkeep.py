"""What has to be signed again in time, so that nothing expires unnoticed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tuf.api.metadata import Snapshot

from agent.publish.roles import FLEET, LIFETIMES_DAYS, OFFLINE, ONLINE, ROLES, RoleSet


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When each role expires."""

    expires: Mapping[str, datetime]

    @property
    def online(self) -> datetime:
        """When an online role expires first: the next signature has to come before."""
        return min(self.expires[role] for role in ONLINE)

    def near(self, moment: datetime, days: float) -> dict[str, datetime]:
        """Return the offline roles that expire within so many days, or have."""
        return {
            role: self.expires[role]
            for role in OFFLINE
            if self.expires[role] - moment < timedelta(days=days)
        }


def deadlines(roles: RoleSet) -> Deadlines:
    """Return when each role expires."""
    return Deadlines({role: roles.signed(role).expires for role in ROLES})


def due_online(roles: RoleSet, moment: datetime) -> set[str]:
    """Return which of fleet and snapshot are to be signed again.

    These are the ones with less than half of their life left: 3.5 days, so that a
    machine that is off over a weekend misses nothing, and boards that poll load them
    only twice a week.
    """
    return {
        role
        for role in (FLEET, Snapshot.type)
        if roles.signed(role).expires - moment
        < timedelta(days=LIFETIMES_DAYS[role]) / 2
    }
