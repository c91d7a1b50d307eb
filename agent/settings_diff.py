"""What differs between two settings: what a running daemon takes, what it does not.

The rules this module keeps:
 * It is pure, and says all of it: what is applied and what needs a restart are together
   the keys that differ, and none is both.
 * What needs a restart keeps its old value until then, so that the next reload says so
   again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from agent.settings import PipelineSettings, Settings

# What a running daemon takes, by table; "*" stands for all keys of one. The others are
# in force where something was opened, bound or built once: sockets, caches, trust.
LIVE: Mapping[str, frozenset[str]] = {
    "log_level": frozenset("*"),
    "supervise": frozenset("*"),
    "monitor": frozenset("*"),
    "integrity": frozenset("*"),
    "degrade": frozenset("*"),
    "board": frozenset({"hardware"}),
    "meter": frozenset({"lease"}),
    "audit": frozenset({"quota_mb", "when_full", "checkpoint_records", "checkpoint_s"}),
    "update": frozenset({"poll_s", "groups", "max_bundle_mb", "quota_mb"}),
}
# What a worker begins with. Of the other keys of a pipeline trials, the poller and the
# ladder hear, and ``model`` says what is to be looked up in the store.
HEARD = frozenset({"source", "sinks", "deadline_ms"})


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """What new settings change.

    Attributes:
        added: Pipelines that begin.
        removed: Names of those that end.
        changed: Pipelines with other settings, and which keys of each.
        live: Keys applied to the running daemon, pipelines left out.
        restart: Keys that need ``systemctl restart``.
    """

    added: tuple[PipelineSettings, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[tuple[PipelineSettings, frozenset[str]], ...] = ()
    live: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def applied(self) -> tuple[str, ...]:
        """Return all keys that are applied, those of pipelines too."""
        whole = (*(it.name for it in self.added), *self.removed)
        keys = (
            f"pipeline.{it.name}.{key}"
            for it, keys in self.changed
            for key in sorted(keys)
        )
        return (*self.live, *(f"pipeline.{name}" for name in whole), *keys)


def plan_reload(before: Settings, after: Settings) -> ReloadPlan:
    """Return what has to be done so that ``after`` comes into force."""
    old = {table.name: table for table in before.pipeline}
    new = {table.name: table for table in after.pipeline}
    keys = list(_differing_keys(before, after))
    return ReloadPlan(
        added=tuple(table for name, table in new.items() if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(
            (table, differing(old[name], table))
            for name, table in new.items()
            if name in old and table != old[name]
        ),
        live=tuple(key for key in keys if _is_live(key)),
        restart=tuple(key for key in keys if not _is_live(key)),
    )


def settings_in_force(before: Settings, after: Settings) -> Settings:
    """Return ``after``, but for the keys that need a restart: those of ``before``.

    Law: ``plan_reload`` from there to ``after`` applies nothing, and needs the same
    restart.
    """
    kept: dict[str, object] = {}
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name == "pipeline" or old == new:
            continue
        if isinstance(old, msgspec.Struct):
            keys = (it for it in differing(old, new) if not _is_live(f"{name}.{it}"))
            kept[name] = replace(new, **{key: getattr(old, key) for key in keys})
        elif not _is_live(name):
            kept[name] = old
    return replace(after, **kept)


def differing(old: msgspec.Struct, new: msgspec.Struct) -> frozenset[str]:
    """Return the keys in which two tables of one kind differ."""
    keys = old.__struct_fields__
    return frozenset(key for key in keys if getattr(old, key) != getattr(new, key))


def _differing_keys(before: Settings, after: Settings) -> Iterator[str]:
    """Yield the other keys that differ: ``log_level``, ``local.listen``."""
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name == "pipeline" or old == new:
            continue
        if isinstance(old, msgspec.Struct):
            differ = differing(old, new)
            yield from (f"{name}.{it}" for it in old.__struct_fields__ if it in differ)
        else:
            yield name


def _is_live(key: str) -> bool:
    """Whether a running daemon takes a key."""
    table, _, rest = key.partition(".")
    live = LIVE.get(table, frozenset())
    return "*" in live or rest in live
