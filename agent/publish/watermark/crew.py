"""Copies by the thousand: processes side by side, each with a part of the boards."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

from agent.publish.marks_book import BoardCopy
from agent.publish.watermark.copies import Plan, make_copies
from agent.publish.watermark.runtime import Executor

# Boards whose heads are turned at once: enough for the arithmetic to be worth a call,
# few enough that a third class that one of them needs does not burden many.
TOGETHER = 32

_work: list[tuple[Plan, Executor]] = []  # of a process of the crew, set at its start


def make_many(
    plan: Plan, boards: Sequence[str], executor: Executor, jobs: int
) -> Iterator[list[BoardCopy]]:
    """Yield copies of all boards, some at a time, in no certain order.

    Args:
        plan: What all copies share.
        boards: Whose.
        executor: Runs heads; every process gets its own.
        jobs: Processes; 1 stays in this one.

    Raises:
        BundleRefusedError: ``watermark``: see ``make_copies``.
    """
    parts = [boards[at : at + TOGETHER] for at in range(0, len(boards), TOGETHER)]
    if jobs == 1 or len(parts) < 2:
        for part in parts:
            yield make_copies(plan, part, executor)
        return
    with ProcessPoolExecutor(
        min(jobs, len(parts)),
        mp_context=get_context("spawn"),  # a fork of a process with threads may hang
        initializer=_begin,
        initargs=(plan, executor),
    ) as crew:
        yield from _gather(crew, parts, 2 * jobs)


def _gather(
    crew: ProcessPoolExecutor, parts: list[Sequence[str]], ahead: int
) -> Iterator[list[BoardCopy]]:
    """Keep the crew busy, no more than a few parts ahead, and yield what is done."""
    waiting = iter(parts)
    under_way: set[Future[list[BoardCopy]]] = set()
    try:
        while True:
            for part in waiting:
                under_way.add(crew.submit(_make, part))
                if len(under_way) >= ahead:
                    break
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for ended in done:
                yield ended.result()
    finally:
        crew.shutdown(wait=False, cancel_futures=True)


def _begin(plan: Plan, executor: Executor) -> None:
    """Take the plan; what a runtime says at its start is nobody's news."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    _work.append((plan, executor))


def _make(boards: Sequence[str]) -> list[BoardCopy]:
    """Make copies in a process of the crew."""
    plan, executor = _work[0]
    return make_copies(plan, boards, executor)
