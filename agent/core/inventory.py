"""An operator's inventory of a small fleet (``fleet.toml``), parsed and checked.

The rules this module keeps:
 * Strict, like agent.toml: unknown keys, wrong types and boards that are named twice,
   however they are spelled, are errors that name the key.
 * What Prometheus would silently rename, drop or mix up is an error here: labels of its
   own and of our metrics, two boards behind one address.
 * Paths stay as written; whoever reads the file resolves them beside it.
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from agent.core.addresses import CONTROL_PORT, Place, parse_place
from agent.core.mistakes import describe_mistake
from agent.core.reasons import Reason
from agent.core.targets import BoardId
from agent.errors import SettingsError

MAX_INVENTORY_BYTES = 4 * 1024 * 1024  # ten thousand boards take 2 MB
MAX_BOARDS = 10_000
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}")
LabelValue = Annotated[str, Meta(max_length=256)]
# What a label of a board may not be called. Prometheus renames (``exported_model``) or
# replaces what a series has already, and every rule and dashboard would miss it; a test
# keeps this up with the table of metrics.
RESERVED_LABELS = frozenset(
    {
        # Prometheus's own, and what we say of every board.
        *("job", "instance", "le", "quantile", "alertname", "alertstate", "severity"),
        *("groups",),
        # Labels of our metrics.
        *("pipeline", "model", "version", "variant", "executor", "digest", "state"),
        *("runtime", "python", "machine", "outcome", "reason", "stage", "label"),
        *("result", "sink", "level", "measure", "phase", "kind", "source", "role"),
        *("anchor", "calibration", "scope", "detector", "feature", "method"),
        *("check",),
        *("kernel", "system", "power_mode", "sensor", "type", "governor", "device"),
    }
)
Address = Annotated[str, Meta(min_length=1, max_length=255)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=1e7)]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every table: immutable and strict."""


class PapersTable(Table, frozen=True):
    """[papers]: files (PEM) for TLS, as the options of ``push`` name them."""

    cert: str = ""
    key: str = ""
    ca: str = ""


class BoardTable(Table, frozen=True):
    """[[board]]: one board.

    Attributes:
        id: Its id in the fleet, which its certificate names.
        address: ``HOST[:PORT]`` of its control listener.
        groups: What it belongs to; waves and groups of a repository name them.
        labels: Go to Prometheus with every series.
        metrics: ``HOST:PORT`` that Prometheus scrapes; empty means ``address``, whose
            ``/metrics`` asks for a scraper's certificate.
    """

    id: BoardId
    address: Address
    groups: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    labels: Annotated[dict[str, LabelValue], Meta(max_length=32)] = field(
        default_factory=dict
    )
    metrics: Annotated[str, Meta(max_length=255)] = ""

    @property
    def place(self) -> Place:
        """Where its control listener is."""
        return parse_place(self.address, CONTROL_PORT)

    @property
    def scraped(self) -> Place:
        """Where Prometheus finds its metrics: over TLS unless ``metrics`` is said."""
        return parse_place(self.metrics) if self.metrics else self.place


class GateTable(Table, frozen=True):
    """[rollout.gate]: what the boards of a wave may do before it counts as bad.

    Attributes:
        soak_s: How long a wave is watched after its last board has committed.
        deadline_s: How long a wave may take in all.
        failed_share: Of the wave's boards: refused, failed or rolled back.
        unreachable_share: Of the wave's boards: no answer.
        errors_share: Of a board's samples: failed, since it committed.
        latency_ratio: p95 after the commit over p95 before.
        drift: A board whose drift is critical counts as failed.
    """

    soak_s: Seconds = 300.0  # five minutes of a camera are 9,000 answers
    deadline_s: Seconds = 3600.0
    failed_share: Share = 0.0
    unreachable_share: Share = 0.1
    errors_share: Share = 0.01
    latency_ratio: Annotated[float, Meta(ge=1, le=1000)] = 1.5
    drift: bool = True


class RolloutTable(Table, frozen=True):
    """[rollout]: how versions spread.

    Attributes:
        waves: Each ``group:NAME``, ``N%`` (of all boards, those before included) or
            ``all``, shares growing; what the last one leaves out is told nothing.
        at_once: Boards that are updated at the same time.
    """

    waves: Annotated[tuple[str, ...], Meta(min_length=1, max_length=32)] = (
        "1%",
        "10%",
        "all",
    )
    at_once: Annotated[int, Meta(ge=1, le=256)] = 8
    gate: GateTable = GateTable()


class Inventory(Table, frozen=True):
    """Everything in fleet.toml."""

    board: Annotated[tuple[BoardTable, ...], Meta(min_length=1, max_length=MAX_BOARDS)]
    papers: PapersTable = PapersTable()
    rollout: RolloutTable = RolloutTable()

    def groups(self) -> tuple[str, ...]:
        """Return the groups that boards belong to, sorted."""
        return tuple(sorted({group for board in self.board for group in board.groups}))

    def chosen(self, group: str = "") -> tuple[BoardTable, ...]:
        """Return the boards of a group, or all without one.

        Raises:
            SettingsError: ``inventory``: no board belongs to it.
        """
        found = tuple(it for it in self.board if not group or group in it.groups)
        if not found:
            known = ", ".join(self.groups()) or "none"
            raise _wrong(f"no board belongs to the group {group!r} (groups: {known})")
        return found


def parse_inventory(raw: bytes) -> Inventory:
    """Parse and check an inventory.

    Raises:
        SettingsError: ``inventory``; the message names the key and what is wrong.
    """
    if len(raw) > MAX_INVENTORY_BYTES:
        raise _wrong(f"the file has {len(raw)} bytes, at most {MAX_INVENTORY_BYTES}")
    try:
        inventory = msgspec.convert(tomllib.loads(raw.decode("utf-8")), Inventory)
    except msgspec.ValidationError as err:
        raise _wrong(describe_mistake(str(err))) from err
    except (ValueError, RecursionError) as err:
        raise _wrong(f"not TOML: {err}") from err
    for index, board in enumerate(inventory.board):
        _check_board(f"board[{index}]", board)
    _check_once("id", inventory.board, lambda board: board.id.lower())
    _check_once("address", inventory.board, lambda board: board.place)
    _check_once(
        "metrics",
        inventory.board,
        lambda board: parse_place(board.metrics) if board.metrics else None,
    )
    return inventory


def _check_board(where: str, board: BoardTable) -> None:
    """Check what the types of a board's table do not say.

    Raises:
        SettingsError: ``inventory``.
    """
    for key, text, port in (
        ("address", board.address, CONTROL_PORT),
        ("metrics", board.metrics or f"unsaid:{CONTROL_PORT}", 0),
    ):
        try:
            parse_place(text, port)
        except ValueError as err:
            raise _wrong(f"{where}.{key}: {err}") from err
    if again := _repeated(board.groups):
        raise _wrong(f"{where}.groups: {again!r} is there twice")
    for name in board.labels:
        if not LABEL_NAME.fullmatch(name):
            what = "is no label's name: a-z, A-Z, 0-9 and _, no digit first"
            raise _wrong(f"{where}.labels: {name!r} {what}")
        if name in RESERVED_LABELS or name.startswith(("__", "exported_")):
            what = "is a label that series have already; call it otherwise"
            raise _wrong(f"{where}.labels.{name}: {what}")


def _check_once(
    key: str,
    boards: Iterable[BoardTable],
    spelled: Callable[[BoardTable], object],
) -> None:
    """Check that no two boards have the same, None aside.

    Raises:
        SettingsError: ``inventory``: both are named.
    """
    seen: dict[object, int] = {}
    for index, board in enumerate(boards):
        value = spelled(board)
        first = index if value is None else seen.setdefault(value, index)
        if first != index:
            written = getattr(board, key)
            what = f"{written!r} is that of board[{first}] already"
            raise _wrong(f"board[{index}].{key}: {what}")


def _repeated(words: Iterable[str]) -> str:
    """Return a word that is there twice, or nothing."""
    seen: set[str] = set()
    for word in words:
        if word in seen:
            return word
        seen.add(word)
    return ""


def _wrong(what: str) -> SettingsError:
    """Return the error for an inventory that makes no sense."""
    return SettingsError(what, reason=Reason.INVENTORY)
