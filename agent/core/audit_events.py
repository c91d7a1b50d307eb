"""Events in the log of receipts: what happened to a board, between what it answered.

An event is a record without an inference. Its ``output`` digest is the SHA-256 of a
small JSON text that lies beside the records; its ``model`` is the digest of the model
it is about, where it is about one.

The rules this module keeps:
 * What is said is short: long texts are cut, and what has no place is left out.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from agent.core.audit_layout import MAX_EVENT_BYTES
from agent.core.receipts import EVENT, NO_HASH, Receipt, pack_receipt

# Logged events that the log of receipts keeps, by how their names begin: what runs,
# what was refused, who did what, what was paid.
KEPT_EVENTS = (
    "update.committed",
    "update.refused",
    "update.failed",
    "update.rolled_back",
    "update.interrupted",
    "model.",
    "bundle.",
    "repository.refused",
    "operator.",
    "settings.applied",
    "settings.refused",
    "worker.died",
    "worker.hung",
    "swap.",
    "degradation.",
    "integrity.",
    "meter.",
    "receipts.",
    "seal.",
    "watermark.",
    "provenance.",
    "challenge.",
    "state.rebuilt",
    "store.damaged",
    "ddi.accepted",
    "ddi.canceled",
)
STARTED = "log.started"
STOPPED = "log.stopped"
LOST = "log.lost"
GAP = "log.gap"
MAX_FACTS = 16
MAX_FACT_CHARS = 120  # 16 of them, with their names, stay below MAX_EVENT_BYTES


class AuditEvent(Struct, frozen=True):
    """What happened.

    Attributes:
        event: Its name, as in the log lines: ``update.committed``.
        time_s: Unix seconds by the board's clock, which may be wrong.
        facts: Fields, as in the log lines.
    """

    event: str
    time_s: float
    facts: dict[str, Any] = {}


def render_event(name: str, time_s: float, facts: Mapping[str, object]) -> bytes:
    """Return the JSON of an event: one line, no longer than ``MAX_EVENT_BYTES``."""
    said: dict[str, object] = {}
    for key, value in list(facts.items())[:MAX_FACTS]:
        plain = isinstance(value, int | float | bool) and _is_small(value)
        said[str(key)[:40]] = value if plain else str(value)[:MAX_FACT_CHARS]
    while True:
        text = msgspec.json.encode(AuditEvent(name[:80], round(time_s, 3), said))
        if len(text) <= MAX_EVENT_BYTES or not said:
            return text
        said.popitem()  # it was in an alphabet of four bytes a letter


def parse_event(text: bytes) -> AuditEvent:
    """Parse the JSON of an event.

    Raises:
        ValueError: It is none.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise ValueError("an event is shorter")
    try:
        return msgspec.json.decode(text, type=AuditEvent)
    except (msgspec.MsgspecError, RecursionError) as err:
        raise ValueError(f"no event: {err}") from err


def event_record(text: bytes, monotonic_ns: int, model: bytes = NO_HASH) -> bytes:
    """Return the record of an event; the log gives its seq."""
    receipt = Receipt(
        seq=0,
        sample=0,
        monotonic_ns=monotonic_ns,
        flags=EVENT,
        pipeline=0,
        model=model,
        input=NO_HASH,
        output=sha256(text).digest(),
    )
    return pack_receipt(receipt)


def is_kept(name: str) -> bool:
    """Whether the log of receipts keeps a logged event of this name."""
    return name.startswith(KEPT_EVENTS)


def _is_small(value: float) -> bool:
    """Whether a number is one that JSON readers everywhere read alike."""
    return -(2**53) < value < 2**53  # NaN is not
