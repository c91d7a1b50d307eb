"""Rows of a benchmark: a measure, its value, its target, and whether it was reached."""

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value.

    Attributes:
        benchmark: Name of the benchmark; ``measure`` what of it.
        value: Median over the rounds, in ``unit``; ``spread`` half the distance
            between the quartiles.
        target: Bound it is held against; None for plain information.
        better: On which side of the target it should lie.
    """

    benchmark: str
    measure: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["below", "above"] = "below"
    spread: float = 0.0

    @property
    def ok(self) -> bool | None:
        """Whether the target was reached; None without one."""
        if self.target is None:
            return None
        if self.better == "below":
            return self.value <= self.target
        return self.value >= self.target

    def render(self) -> dict[str, object]:
        """Return the row as a JSON-able object."""
        return {**asdict(self), "ok": self.ok}


def median(values: Sequence[float]) -> tuple[float, float]:
    """Return the median, and half the distance between the quartiles."""
    if len(values) < 4:
        return statistics.median(values), 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, (high - low) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return the ``share`` quantile of values, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(rows: Sequence[Row], console: Console) -> None:
    """Print a table with target and verdict."""
    table = Table(title=rows[0].benchmark if rows else "")
    for column in ("measure", "value", "spread", "target", ""):
        table.add_column(column, justify="left" if column == "measure" else "right")
    verdicts = {True: "[green]ok[/]", False: "[red]missed[/]", None: ""}
    for row in rows:
        bound = "<=" if row.better == "below" else ">="
        target = "" if row.target is None else f"{bound} {row.target:g}"
        value = f"{row.value:.4g} {row.unit}"
        spread = f"{row.spread:.2g}" if row.spread else ""
        table.add_row(row.measure, value, spread, target, verdicts[row.ok])
    console.print(table)


def save(name: str, rows: Sequence[Row]) -> None:
    """Write a benchmark's rows, and what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    content = {"measured_on": machine, "rows": [row.render() for row in rows]}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
