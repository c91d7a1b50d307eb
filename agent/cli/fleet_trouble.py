"""What an error of one board means for a rollout.

The rules this module keeps:
 * A way that failed says nothing about the version: the board is out of reach, and
   counts as that once it has been for too long.
 * What a board refuses is a failure, unless time or another order will pass by.
"""

from msgspec.structs import replace

from agent.cli.plain_text import plain
from agent.core.reasons import Reason
from agent.core.waves import BoardCourse, Standing, untell
from agent.errors import AgentError

# The way to a board, as opposed to what it says.
WAYS = frozenset(
    {
        *(Reason.UNREACHABLE, Reason.STOPPING, Reason.RATE_LIMITED),
        # A board that stops in the middle of a handshake looks like one of these.
        *(Reason.TLS, Reason.CERTIFICATE),
    }
)
# Looked at again: somebody updates the board now, or has told it something newer.
PASSING = frozenset({Reason.BUSY, Reason.REPLAYED})


def after_look(
    name: str, board: BoardCourse, error: AgentError, now: float
) -> BoardCourse:
    """Return a board that could not be looked at."""
    if board.standing is Standing.TOLD and not board.ready:
        if error.reason not in WAYS:
            return _failed(name, board, error, now)
        board = untell(board)
    return _lost(name, board, error, now)


def after_delivery(
    name: str, board: BoardCourse, error: AgentError, now: float
) -> BoardCourse:
    """Return a board that could not be told; an order may have arrived all the same."""
    if error.reason in PASSING:
        return replace(board, detail=_words(name, error))
    if error.reason in WAYS:
        return _lost(name, board, error, now)
    return _failed(name, board, error, now)


def after_return(
    name: str, board: BoardCourse, error: AgentError, now: float
) -> BoardCourse:
    """Return a board that could not be taken back."""
    return replace(_failed(name, board, error, now), standing=board.standing)


def _lost(name: str, board: BoardCourse, error: AgentError, now: float) -> BoardCourse:
    """Return a board that is out of reach, since now if it was not before."""
    return replace(
        board,
        lost_at=board.lost_at or now,
        reason=plain(error.reason, 64),
        detail=_words(name, error),
    )


def _failed(
    name: str, board: BoardCourse, error: AgentError, now: float
) -> BoardCourse:
    """Return a board that refused."""
    return replace(
        board,
        standing=Standing.FAILED,
        reason=plain(error.reason, 64),
        detail=_words(name, error),
        settled_at=now,
        lost_at=0.0,
    )


def _words(name: str, error: AgentError) -> str:
    """Return an error's words where the board's name stands before them already."""
    return plain(str(error).removeprefix(f"{name}: "), 200)
