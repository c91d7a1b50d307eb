"""What operators may do on this board, as one value that all listeners share."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agent.endpoint.needs import (
    Identity,
    KeptInputs,
    Ledger,
    Meter,
    Operations,
    Statements,
    Uploads,
)


def nobody() -> Sequence[str]:
    """No client certificate was revoked."""
    return ()


def _one_thread() -> ThreadPoolExecutor:
    """Return what writes uploads, one piece after the other."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="uploads")


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the agent that act; one that is None answers 404.

    Attributes:
        revoked: Serial numbers (hex) of client certificates that are not let in.
        clerk: The one thread that touches uploads, whichever listener they come by:
            the pieces of two operators never meet.
    """

    operations: Operations | None = None
    uploads: Uploads | None = None
    identity: Identity | None = None
    revoked: Callable[[], Sequence[str]] = nobody
    clerk: ThreadPoolExecutor = field(default_factory=_one_thread)
    statements: Statements | None = None
    meter: Meter | None = None
    ledger: Ledger | None = None
    kept: KeptInputs | None = None
