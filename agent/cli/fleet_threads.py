"""Threads that ask boards, and what ends them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from agent.cli.board_link import BoardLink
from agent.cli.patience import Patience

MAX_DELIVERIES = 64  # more would share an operator's uplink too thinly
LOOKERS = 8  # beside those that deliver; a thousand boards in half a minute


@contextmanager
def broken_off(
    links: Iterable[BoardLink], patience: Patience | None = None
) -> Iterator[None]:
    """Whoever leaves the body by an error, Ctrl-C's too, ends what threads wait for.

    Threads cannot be interrupted; what they wait for can be ended.
    """
    try:
        yield
    except BaseException:
        if patience is not None:
            patience.end()
        for link in links:
            link.break_off()
        raise


@contextmanager
def threads(
    at_once: int, links: Sequence[BoardLink], patience: Patience
) -> Iterator[ThreadPoolExecutor]:
    """Give threads; whoever leaves by an error ends what they wait for."""
    pool = ThreadPoolExecutor(min(at_once, MAX_DELIVERIES) + LOOKERS)
    try:
        with broken_off(links, patience):
            yield pool
    finally:
        pool.shutdown(cancel_futures=True)
