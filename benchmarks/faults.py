"""``faults``: faults at every point of an update, and what the next start finds.

The cases, the oracle and the controls are the tests' own (``tests.faults``); here all
of them are done, at every call instead of once for each code site, on three kinds of
mount, and with a foreign tool (strace) and the real daemon as cross-checks.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from benchmarks.rows import Row
from tests.faults.parts import FAULTS, PARTS
from tests.faults.power import may_cut_power
from tests.faults.rooms import may_mount
from tests.faults.telling import Begun, Judged, hear
from tests.faults.tracer import may_trace

# What a minute has room for: one life's states, each code site, two power cuts.
QUICK = (
    *("kill", "enospc", "enospc-sticky", "eio", "full-blocks", "sigterm"),
    *("power-1-calm", "power-3-journal"),
    *("late-killed", "unsynced-cut", "unsynced-killed"),
)
PASSED = 100.0


@dataclass(slots=True)
class Result:
    """What one part came to, in all of its scenes."""

    name: str
    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def rows(self) -> list[Row]:
        """Return cases and the share that passed; of a control, what was caught."""
        part = PARTS[self.name]
        title = f"{part.line} {part.title}" if part.line else part.title
        count = Row("faults", f"{title}: cases", self.cases, "")
        if part.control:
            caught = Row("faults", f"{title}: caught", len(self.wrong), "", 1, "above")
            return [count, caught]
        share = 100.0 * (self.cases - len(self.wrong)) / max(self.cases, 1)
        return [count, Row("faults", f"{title}: passed", share, "%", PASSED, "above")]


def run(console: Console, *, full: bool) -> list[Row]:
    """Return a row for each part, and the sums."""
    named = tuple(PARTS) if full else QUICK
    names = [name for name in named if _possible(name, console)]
    results = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for name in names:
            results.append(_do(name, progress, every=full))
            for sentence in results[-1].wrong[: 0 if PARTS[name].control else 5]:
                console.print(f"[red]{name}[/]: {sentence}")
    return [row for result in results for row in result.rows()] + _sums(results)


def _possible(name: str, console: Console) -> bool:
    """Return whether this machine allows a part; say so where it does not."""
    part = PARTS[name]
    why = may_trace()
    if name.startswith(("power", "unsynced-cut")):
        why = why or may_cut_power()
    elif part.mounts:
        why = may_mount()
    if name == "strace" and shutil.which("strace") is None:
        why = "the program strace"
    if why:
        console.print(f"left out: {part.title}: {why} is missing")
    return not why


def _do(name: str, progress: Progress, *, every: bool) -> Result:
    """Do one part."""
    result, began = Result(name), time.monotonic()
    bar = progress.add_task(PARTS[name].title, total=None)
    for line in hear([name], every=every):
        if isinstance(line, Begun):
            progress.update(bar, total=line.cases, completed=0)
        elif isinstance(line, Judged):
            progress.advance(bar)
            result.cases += 1
            if line.verdict.wrong:
                result.wrong.append(f"{line.verdict.case}: {line.verdict.wrong[0]}")
    progress.remove_task(bar)
    result.seconds = time.monotonic() - began
    return result


def _sums(results: Sequence[Result]) -> list[Row]:
    """Return what all parts came to together."""
    faults = [result for result in results if result.name in FAULTS]
    controls = [result for result in results if PARTS[result.name].control]
    cases = sum(result.cases for result in faults)
    wrong = sum(len(result.wrong) for result in faults)
    caught = sum(bool(result.wrong) for result in controls)
    seconds = sum(result.seconds for result in results)
    passed = 100.0 * (cases - wrong) / max(cases, 1)
    missed = len(controls) - caught
    return [
        Row("faults", "all: cases", cases, ""),
        Row("faults", "all: passed", passed, "%", PASSED, "above"),
        Row("faults", "controls not caught", missed, "", 0),
        Row("faults", "time", seconds, "s"),
    ]
