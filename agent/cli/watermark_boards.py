"""boards.csv: which boards get a copy."""

import csv
import re
from pathlib import Path

from agent.core.reasons import Reason
from agent.core.targets import BOARD_ID_PATTERN
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


def _wrong(what: str) -> SettingsError:
    """Return the error for a file that names no boards."""
    todo = "Put one board's id on each line, as `tinyward identity` shows it."
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
