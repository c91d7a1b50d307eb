"""How ``tinyward repo status`` looks: tables, or one JSON object."""

import json
from collections.abc import Mapping

import msgspec
from rich.console import Console
from rich.table import Column, Table

from agent.core.targets import GroupFile, Revocations
from agent.publish.roles import LIFETIMES_DAYS, OFFLINE
from agent.publish.staging import Staged
from agent.publish.status import RoleStatus, Status

_DAY_S = 86_400
_SOON_DAYS = 2  # an online role that expires sooner needs a publication now


def show_tables(status: Status, now: float) -> None:
    """Print roles, bundles, desired states, revocations and what is staged.

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
    if status.deltas:
        console.print(_deltas(status))
    if status.groups:
        console.print(_states("group", status.groups))
    else:
        console.print("no groups yet: `tinyward repo assign`")
    if status.devices:
        console.print(_states("device", status.devices))
    if status.revoked != Revocations():
        console.print(_revoked(status))
    for path, boards in status.envelopes.items():
        console.print(f"sealed: {path}, for {boards} boards")
    if status.withdrawn:
        console.print(f"boards without envelopes: {', '.join(status.withdrawn)}")
    console.print("staged: " + (", ".join(_staged(status.staged)) or "nothing"))


def render_json(status: Status) -> str:
    """Return the whole status as JSON."""
    return json.dumps(msgspec.to_builtins(status), indent=2)


def _roles(status: Status, now: float) -> Table:
    """Return the table of roles."""
    expires = Column("expires (UTC)", no_wrap=True)
    table = Table("role", "version", expires, "days", "keys", "here", "to do")
    for role in status.roles:
        table.add_row(
            role.role,
            str(role.version),
            f"{role.expires:%Y-%m-%d %H:%M}",
            f"{max(0, _left_days(role, now)):.0f}",
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


def _deltas(status: Status) -> Table:
    """Return the table of deltas."""
    table = Table("delta", "from", "to", "bytes", "of the bundle")
    for delta in status.deltas:
        said = delta.fields
        share = f"{delta.length / said.bytes:.1%}"
        from_version, version = str(said.from_version), str(said.version)
        table.add_row(said.model, from_version, version, str(delta.length), share)
    return table


def _states(word: str, states: Mapping[str, GroupFile]) -> Table:
    """Return the table of desired states of groups or of devices."""
    table = Table(word, "generation", "percent", "begins", "pipelines")
    for name, file in sorted(states.items()):
        wanted = [
            f"{pipeline} = {version.model} {version.version}"
            for pipeline, version in sorted(file.pipelines.items())
        ]
        paused = " (paused)" if file.paused else ""
        begins = " ".join(filter(None, (file.not_before, file.window))) or "at once"
        generation = f"{file.generation}{paused}"
        table.add_row(name, generation, f"{file.percent:g}", begins, "\n".join(wanted))
    return table


def _revoked(status: Status) -> Table:
    """Return the table of revocations; bundles by name where they are listed."""
    names = {
        target.sha256: f"{target.fields.model} {target.fields.version}"
        for target in status.bundles
    }
    table = Table("revoked", "sha256 or serial")
    for sha256 in status.revoked.bundles:
        # A line of 80 columns has no room for all of it; --json has.
        table.add_row(names.get(sha256, "a bundle"), sha256[:16])
    for serial in status.revoked.operators:
        table.add_row("an operator", serial)
    return table


def _staged(staged: Staged) -> list[str]:
    """Return what waits for a signature, in words."""
    devices = [
        f"device {name}" if file else f"the end of device {name}"
        for name, file in staged.devices.items()
    ]
    return [
        *staged.bundles,
        *(
            f"delta {it.fields.model} {it.fields.from_version} to {it.fields.version}"
            for it in staged.deltas.values()
        ),
        *(f"{path} unlisted" for path in staged.unlisted),
        *(f"group {name}" for name in staged.groups),
        *devices,
        *(["revocations"] if staged.revoked is not None else []),
    ]


def role_todo(role: RoleStatus, now: float) -> str:
    """Return what should be done about a role at a time; empty for nothing.

    Args:
        role: A role that was published.
        now: Unix seconds.
    """
    left_days = _left_days(role, now)
    offline = role.role in OFFLINE
    # Publishing renews offline roles in the last third of their life.
    soon_days = LIFETIMES_DAYS[role.role] / 3 if offline else _SOON_DAYS
    if left_days >= soon_days:
        return ""
    verdict = "publish soon" if left_days > 0 else "expired: publish"
    return verdict if role.keys_here >= role.threshold else f"{verdict}, with its keys"


def _left_days(role: RoleStatus, now: float) -> float:
    """Return how many days are left; negative once it is expired."""
    return (role.expires.timestamp() - now) / _DAY_S
