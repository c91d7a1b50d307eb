"""An operator's inventory of a small fleet (``fleet.toml``), parsed and checked.

The rules this module keeps:
 * Strict, like agent.toml: unknown keys, wrong types and boards that are named twice
   are errors that name the key.
 * Paths stay as written; whoever reads the file resolves them beside it.
"""

import tomllib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from agent.core.mistakes import describe_mistake
from agent.core.reasons import Reason
from agent.core.targets import BoardId
from agent.errors import SettingsError

MAX_INVENTORY_BYTES = 4 * 1024 * 1024  # ten thousand boards take 2 MB
MAX_BOARDS = 10_000
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]
LabelName = Annotated[str, Meta(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$(?!\n)")]
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
    labels: Annotated[dict[LabelName, str], Meta(max_length=32)] = field(
        default_factory=dict
    )
    metrics: str = ""


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
            ``all``; the last one is always ``all``.
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
    for key in ("id", "address"):
        seen: dict[str, int] = field(default_factory=dict)
        for index, board in enumerate(inventory.board):
            first = seen.setdefault(getattr(board, key), index)
            if first != index:
                what = f"{getattr(board, key)!r} is that of board[{first}] already"
                raise _wrong(f"board[{index}].{key}: {what}")
    return inventory


def _wrong(what: str) -> SettingsError:
    """Return the error for an inventory that makes no sense."""
    return SettingsError(what, reason=Reason.INVENTORY)
