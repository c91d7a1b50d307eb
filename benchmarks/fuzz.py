"""``fuzz``: damaged metadata, bundles, messages and answers, and what came of them.

Inputs, board and oracle are the tests' own (``tests.fuzz``): the daemon's client,
poller and store, shown one spoiled publication after another. CI throws some thousand.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from benchmarks.rows import Row
from tests.fuzz.board import HONEST, NOTHING
from tests.fuzz.storm import Report, run_slice, slices

SHOWN = 10  # failures that are printed; all are counted
FORGED = ("runs what", "is believed", "floor fell", "the clock believes")


def run(console: Console, inputs: int, seed: int, jobs: int) -> list[Row]:
    """Return how many inputs there were, and what never may be of them."""
    report, began = Report(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True
    ) as progress:
        bar = progress.add_task("damaged inputs", total=inputs)
        for part in _parts(inputs, seed, jobs):
            report.add(part)
            progress.advance(bar, part.inputs)
    for sentence in report.wrong[:SHOWN]:
        console.print(f"[red]wrong[/]: {sentence}")
    return [*_verdicts(report), *_reasons(report), _seconds(began)]


def _parts(inputs: int, seed: int, jobs: int) -> Iterator[Report]:
    """Yield what each slice came to."""
    parts = slices(inputs, seed)
    if jobs == 1:
        for part in parts:
            yield run_slice(*part)
        return
    # Not forked: a server's threads would be copied in the middle of something.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = [pool.submit(run_slice, *part) for part in parts]
        for future in as_completed(futures):
            yield future.result()


def _verdicts(report: Report) -> list[Row]:
    """Return the sums that have a target."""
    escaped = sum(n for (_, word), n in report.words.items() if word == "escaped")
    forged = sum(any(word in text for word in FORGED) for text in report.wrong)
    other = len(report.wrong) - escaped - forged
    return [
        Row("fuzz", "inputs", report.inputs, ""),
        Row("fuzz", "exceptions outside our error tree", escaped, "", 0),
        Row("fuzz", "activated, believed or lowered unsigned", forged, "", 0),
        Row("fuzz", "anything else wrong", other, "", 0),
        Row("fuzz", "honest publications in between", report.honest, ""),
    ]


def _reasons(report: Report) -> list[Row]:
    """Return kinds and words, the most frequent first."""
    kinds, words = Counter[str](), Counter[str]()
    for (kind, word), number in report.words.items():
        kinds[kind] += number
        words[{HONEST: "harmless", NOTHING: "no order"}.get(word, word)] += number
    rows = [Row("fuzz", f"of {kind}", n, "") for kind, n in kinds.most_common()]
    return rows + [Row("fuzz", f"→ {word}", n, "") for word, n in words.most_common()]


def _seconds(began: float) -> Row:
    """Return how long it took."""
    return Row("fuzz", "time", time.monotonic() - began, "s")
