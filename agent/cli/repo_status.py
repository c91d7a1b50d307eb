"""How ``tinyward repo status`` looks: three tables, or one JSON object."""

import json

import msgspec
from rich.console import Console
from rich.table import Column, Table

from agent.publish.roles import LIFETIMES_DAYS, OFFLINE
from agent.publish.status import RoleStatus, Status

_DAY_S = 86_400
_SOON_DAYS = 2  # an online role that expires sooner needs a publication now


def show_tables(status: Status, now: float) -> None:
    """Print roles, bundles, groups and what is staged.

    Args:
        status: What the repository holds.
        now: Unix seconds, to tell what is expired.
    """
    console = Console(highlight=False, markup=False)
    console.print(_roles(status, now))
    if status.bundles:
        console.print(_bundles(status))
    else:
        console.print("no bundles yet: `tinyward repo add`")
    if status.groups:
        console.print(_groups(status))
    else:
        console.print("no groups yet: `tinyward repo assign`")
    staged = [*status.staged.bundles, *(f"group {n}" for n in status.staged.groups)]
    console.print("staged: " + (", ".join(staged) or "nothing"))


def render_json(status: Status) -> str:
    """Return the whole status as JSON."""
    return json.dumps(msgspec.to_builtins(status), indent=2)


def _roles(status: Status, now: float) -> Table:
    """Return the table of roles."""
    expires = Column("expires (UTC)", no_wrap=True)
    table = Table("role", "version", expires, "keys", "here", "to do")
    for role in status.roles:
        table.add_row(
            role.role,
            str(role.version),
            f"{role.expires:%Y-%m-%d %H:%M}",
            f"{role.threshold} of {role.keys} sign",
            str(role.keys_here),
            role_todo(role, now),
        )
    return table


def _bundles(status: Status) -> Table:
    """Return the table of bundles."""
    bundles = Table("bundle", "bytes", "sha256", "hardware", "min agent")
    for target in status.bundles:
        fields = target.fields
        bundles.add_row(
            f"{fields.model} {fields.version}",
            str(target.length),
            target.sha256[:16],
            " ".join(fields.hardware) or "any",
            fields.min_agent or "any",
        )
    return bundles


def _groups(status: Status) -> Table:
    """Return the table of desired states."""
    groups = Table("group", "generation", "percent", "pipelines")
    for name, file in sorted(status.groups.items()):
        wanted = [
            f"{pipeline} = {version.model} {version.version}"
            for pipeline, version in sorted(file.pipelines.items())
        ]
        paused = " (paused)" if file.paused else ""
        groups.add_row(
            name, f"{file.generation}{paused}", f"{file.percent:g}", "\n".join(wanted)
        )
    return groups


def role_todo(role: RoleStatus, now: float) -> str:
    """Return what should be done about a role at a time; empty for nothing.

    Args:
        role: A role that was published.
        now: Unix seconds.
    """
    left_days = (role.expires.timestamp() - now) / _DAY_S
    offline = role.role in OFFLINE
    # Publishing renews offline roles in the last third of their life.
    soon_days = LIFETIMES_DAYS[role.role] / 3 if offline else _SOON_DAYS
    if left_days >= soon_days:
        return ""
    verdict = "publish soon" if left_days > 0 else "expired: publish"
    return verdict if role.keys_here >= role.threshold else f"{verdict}, with its keys"
