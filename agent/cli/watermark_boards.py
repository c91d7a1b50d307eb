"""boards.csv: which boards get a copy, and whether so many bits tell them apart."""

import csv
import re
from pathlib import Path

from agent.core.reasons import Reason
from agent.core.targets import BOARD_ID_PATTERN
from agent.core.watermark import CHANCE, threshold
from agent.errors import SettingsError

MAX_BOARDS = 1_000_000  # what thresholds are meant for
_HEADS = frozenset({"board", "board_id", "id"})


def read_boards(path: Path) -> list[str]:
    """Return the ids in the first column, in their order.

    Raises:
        SettingsError: The file cannot be read, a line has no id, or two have one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [row[0].strip() for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise _wrong(f"{path}: {err}") from err
    if lines and lines[0].lower() in _HEADS:
        lines = lines[1:]
    if not 0 < len(lines) <= MAX_BOARDS:
        raise _wrong(f"{path}: {len(lines)} boards, expected 1 to {MAX_BOARDS:,}")
    seen: set[str] = set()
    for number, board in enumerate(lines, 1):
        if not re.match(BOARD_ID_PATTERN, board):
            raise _wrong(f"{path}: board {number}: {board[:80]!r} is no board's id")
        if board in seen:
            raise _wrong(f"{path}: board {board} is named twice")
        seen.add(board)
    return lines


def check_bits(bits: int, boards: int) -> None:
    """Refuse codewords that name nobody, before any time is spent on them.

    Activation and tracing bits have to tell boards apart by themselves: who can read
    a board knows its activation triggers, and answers those as he likes.

    Raises:
        SettingsError: They are no whole bytes, or too few for so many boards.
    """
    if bits % 8:
        raise SettingsError(
            f"--bits {bits} is not a multiple of 8",
            reason=Reason.SETTINGS,
            todo=f"Take --bits {bits // 8 * 8} or --bits {bits // 8 * 8 + 8}.",
        )
    if threshold(bits, boards) < 0:
        least = next(it for it in range(bits, 513, 8) if threshold(it, boards) >= 0)
        raise SettingsError(
            f"--bits {bits} cannot tell {boards:,} boards apart: with every bit right "
            f"the chance to name a wrong one is more than {CHANCE:g}",
            reason=Reason.SETTINGS,
            todo=f"Take --bits {least} at the least; 128 stands some wrong bits, too.",
        )


def _wrong(what: str) -> SettingsError:
    """Return the error for a file that names no boards."""
    todo = "Put one board's id on each line, as `tinyward identity` shows it."
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
