"""One row of the table of metrics."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "info"]
# A swap must be comparable before and after: every series of a model says which.
MODEL = ("pipeline", "model", "version")


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: its name as scraped, its type, its labels, and what it means."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
