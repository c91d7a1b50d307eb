"""How a push went, board by board: as a table, or as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from rich.table import Table
from rich.text import Text

from agent.cli.outcome import Outcome
from agent.cli.plain_text import plain
from agent.cli.status_view import columns, state_text, why_text
from agent.errors import AgentError


@dataclass(slots=True)
class Result:
    """How it went with one board.

    Attributes:
        sent: ``sent_bytes`` and ``kept_bytes`` of the upload.
        error: Why it was given up; None where it came to its end.
    """

    board: str
    outcomes: Sequence[Outcome] = ()
    error: AgentError | None = None
    sent: dict[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nobody has to act."""
        return self.error is None and all(row.good for row in self.outcomes)


def describe_result(result: Result) -> dict[str, object]:
    """Return a result for scripts."""
    error = result.error
    return {
        "board": result.board,
        "ok": result.good,
        "error": error and {"reason": str(error.reason), "message": str(error)},
        "upload": result.sent,
        "pipelines": [asdict(row) for row in result.outcomes],
    }


def results_table(results: Sequence[Result]) -> Table:
    """Return the table of all boards, a row for each pipeline."""
    table = columns("BOARD", "PIPELINE", "STATE", "RUNS", "WHY")
    for result in results:
        for row in _rows(result):
            table.add_row(
                Text(plain(result.board, 30)),
                Text(plain(row.pipeline, 20) or "-"),
                state_text(row),
                Text(plain(row.runs, 24) or "-"),
                why_text(row),
            )
    return table


def without_place(error: AgentError, board: str) -> str:
    """Return an error's words where the board's name stands before them already."""
    return str(error).removeprefix(f"{board}: ")


def _rows(result: Result) -> Iterator[Outcome]:
    """Yield what is said about a board, an error like a pipeline that failed."""
    if result.error is not None:
        why = without_place(result.error, result.board)
        yield Outcome("", False, "failed", why=why, reason=str(result.error.reason))
    elif not result.outcomes:
        yield Outcome("", True, "asked", why="nobody waited for the end")
    yield from result.outcomes
