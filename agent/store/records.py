"""Rows of state.db as the values they stand for: slots, floors, quarantine, trials.

The rules this module keeps:
 * Which model is next is decided here, in the transaction that writes it.
 * Floors only rise.
"""

from collections.abc import Collection
from typing import TypeVar

import msgspec

from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.update_machine import Job
from agent.core.updates import Hold, SetAside
from agent.store.atomic import device_error
from agent.store.schema import Readable, Value, Writable

T = TypeVar("T", Installed, Job)
# Reasons for which nothing is better than the active model: bytes that rotted cannot
# run, and bytes that were revoked must not.
FATAL = {Reason.DIGEST, Reason.REVOKED}
COUNTED = 256  # bundles whose trials are counted; each of them had to be signed


def slots_of(source: Readable, pipeline: str) -> Slots:
    """Read one pipeline's models; all None before the first."""
    rows = source.rows(
        "SELECT active, previous, factory FROM slots WHERE pipeline = ?", pipeline
    )
    kept = (
        [None if raw is None else decode(raw, Installed) for raw in rows[0]]
        if rows
        else []
    )
    return Slots(*kept)


def put_slots(change: Writable, pipeline: str, slots: Slots) -> None:
    """Write one pipeline's models."""
    raw = [
        None if kept is None else msgspec.json.encode(kept)
        for kept in (slots.active, slots.previous, slots.factory)
    ]
    change.run(
        "INSERT OR REPLACE INTO slots (pipeline, active, previous, factory)"
        " VALUES (?, ?, ?, ?)",
        pipeline,
        *raw,
    )


def move_active(
    change: Writable, pipeline: str, installed: Installed, *, factory: bool
) -> None:
    """Make a model the active one and raise its floor.

    The same bytes again (other executor, or COMMIT repeated) leave ``previous`` alone.
    """
    slots = slots_of(change, pipeline)
    before = slots.active
    again = before is not None and before.sha256 == installed.sha256
    put_slots(
        change,
        pipeline,
        Slots(
            installed,
            slots.previous if again else before,
            installed if factory else slots.factory,
        ),
    )
    change.run(
        "INSERT INTO floors VALUES (?, ?) ON CONFLICT (model) DO UPDATE"
        " SET version = max(version, excluded.version)",
        installed.model,
        installed.version,
    )


def move_back(
    change: Writable,
    pipeline: str,
    reason: str,
    now: float,
    revoked: Collection[str] = (),
) -> tuple[Installed | None, Installed | None]:
    """Make the next best model the active one, and set the failed one aside.

    Bytes that rotted on this disk are not set aside: they may be fetched again. Nor are
    those that were revoked: the owner's list alone says so, and may take it back.

    Returns:
        The failed model if it is not active any more, and the one that is active now.
    """
    slots = slots_of(change, pipeline)
    failed = slots.active
    after = _next_best(change, slots, revoked)
    if after is None and reason not in FATAL:
        return None, failed
    # A factory model that rotted or was revoked is none.
    lost = failed is not None and slots.factory is not None and reason in FATAL
    lost = lost and _same(failed, slots.factory)
    put_slots(change, pipeline, Slots(after, None, None if lost else slots.factory))
    if failed is not None and reason not in FATAL:
        put_aside(change, failed.sha256, reason, now)
    return failed, after


def _next_best(
    source: Readable, slots: Slots, revoked: Collection[str]
) -> Installed | None:
    """Return ``previous``, else ``factory``: other bytes, that may run."""
    for kept in (slots.previous, slots.factory):
        if kept is None or _same(kept, slots.active):
            continue
        if kept.sha256 not in revoked and not why_aside(source, kept.sha256):
            return kept
    return None


def _same(one: Installed | None, other: Installed | None) -> bool:
    """Whether two entries are about the same bytes."""
    return one is not None and other is not None and one.sha256 == other.sha256


def floor_of(source: Readable, model: str) -> int:
    """Return the highest version of a model ever committed here, 0 if none."""
    rows = source.rows("SELECT version FROM floors WHERE model = ?", model)
    floor = rows[0][0] if rows else 0
    return floor if isinstance(floor, int) else 0


def put_aside(change: Writable, sha256: str, reason: str, now: float) -> None:
    """Remember not to try these bytes again; the first reason and time stay."""
    change.run(
        "INSERT OR IGNORE INTO set_aside (sha256, reason, at) VALUES (?, ?, ?)",
        sha256,
        str(reason),
        now,
    )


def why_aside(source: Readable, sha256: str) -> str:
    """Return why these bytes were set aside, or an empty string."""
    rows = source.rows("SELECT reason FROM set_aside WHERE sha256 = ?", sha256)
    return str(rows[0][0]) if rows else ""


def quarantine(source: Readable) -> list[SetAside]:
    """Return what was set aside, newest first."""
    rows = source.rows(
        "SELECT sha256, reason, at FROM set_aside ORDER BY at DESC, rowid DESC"
    )
    return [
        SetAside(str(sha256), str(reason), at if isinstance(at, float) else 0.0)
        for sha256, reason, at in rows
    ]


def put_attempts(change: Writable, sha256: str, count: int) -> None:
    """Write how many trials of these bytes count; the bundles counted last are kept."""
    if attempts_of(change, sha256) == count:
        return
    change.run("DELETE FROM attempts WHERE sha256 = ?", sha256)
    if count:
        change.run("INSERT INTO attempts VALUES (?, ?)", sha256, count)
        change.run(
            "DELETE FROM attempts WHERE rowid NOT IN"
            " (SELECT rowid FROM attempts ORDER BY rowid DESC LIMIT ?)",
            COUNTED,
        )


def attempts_of(source: Readable, sha256: str) -> int:
    """Return how many trials of these bytes count, 0 for most."""
    rows = source.rows("SELECT count FROM attempts WHERE sha256 = ?", sha256)
    count = rows[0][0] if rows else 0
    return count if isinstance(count, int) else 0


def put_hold(change: Writable, pipeline: str, hold: Hold | None) -> None:
    """Keep an operator's rollback, or end the one there is."""
    change.run("DELETE FROM holds WHERE pipeline = ?", pipeline)
    if hold is not None:
        values = (pipeline, hold.source, hold.generation)
        change.run("INSERT INTO holds VALUES (?, ?, ?)", *values)


def all_holds(source: Readable) -> list[Hold]:
    """Return the rollbacks that hold, by pipeline."""
    rows = source.rows(
        "SELECT pipeline, source, generation FROM holds ORDER BY pipeline"
    )
    return [
        Hold(str(pipeline), str(whose), generation)
        for pipeline, whose, generation in rows
        if isinstance(generation, int)
    ]


def decode(raw: Value, kind: type[T]) -> T:
    """Read a value that this agent, or an older one, wrote.

    Raises:
        DeviceError: ``state``: it makes no sense.
    """
    try:
        return msgspec.json.decode(raw if isinstance(raw, bytes) else b"", type=kind)
    except msgspec.MsgspecError as err:
        raise device_error(
            Reason.STATE, f"state.db holds a {kind.__name__} that makes no sense: {err}"
        ) from err
