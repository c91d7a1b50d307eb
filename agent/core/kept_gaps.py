"""Which inputs were to be kept and were not, as the log of receipts says it.

A receipt says that its input was kept before anybody knows whether the disk takes it.
What it did not take is an event in the same log, so that an audit can tell a board that
was busy from one that hides what it answered.

The rules this module keeps:
 * A run is of one pipeline, from one receipt to another, with none between them whose
   input was kept: it excuses nothing else.
 * It is bounded: where runs come faster than they are said, the last one grows.

Law: ``find_gaps`` of the events of ``render_gaps`` gives the runs back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.core.audit_events import MAX_FACT_CHARS, AuditEvent
from agent.core.receipts import name_word

NOT_KEPT = "audit.not_kept"
MAX_RUNS = 256  # that wait for an event; 4 kB
MAX_TEXTS = 12  # of one event, beside its other facts
TEXT = "runs"
Run = tuple[int, int]  # first and last receipt


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of receipts whose inputs were not kept.

    Attributes:
        pipeline: The word by which records name it.
        first: The first of them; ``last`` the last.
    """

    pipeline: int
    first: int
    last: int


class Gaps:
    """Gathers what was not kept until it is said.

    Inputs may be turned away when they come, or later when the disk does not take them.
    Each of these is told in its own order, so each makes runs of its own (``late``).
    """

    def __init__(self) -> None:
        self._runs: dict[str, list[list[int]]] = {}
        self._grows: dict[tuple[str, bool], list[int]] = {}

    def miss(self, pipeline: str, seq: int, *, late: bool) -> None:
        """Note that an input was not kept."""
        runs, key = self._runs.setdefault(pipeline, []), (pipeline, late)
        if key not in self._grows:
            if len(runs) < MAX_RUNS:
                runs.append([seq, seq])
            self._grows[key] = runs[-1]
        run = self._grows[key]
        run[0], run[1] = min(run[0], seq), max(run[1], seq)

    def hit(self, pipeline: str, *, late: bool) -> None:
        """Note that one was."""
        self._grows.pop((pipeline, late), None)

    def take(self) -> dict[str, list[Run]]:
        """Return what was gathered by pipeline, and begin anew."""
        found = {
            name: sorted((first, last) for first, last in runs)
            for name, runs in self._runs.items()
        }
        self._runs, self._grows = {}, {}
        return found


def render_gaps(pipeline: str, runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return the facts of the events that say some runs."""
    texts = [""]
    for first, last in runs:
        word = f"{first}-{last}" if last > first else str(first)
        if len(texts[-1]) + len(word) + 1 > MAX_FACT_CHARS:
            texts.append("")
        texts[-1] = f"{texts[-1]} {word}".strip()
    events: list[dict[str, object]] = []
    for start in range(0, len(texts), MAX_TEXTS):
        said = enumerate(texts[start : start + MAX_TEXTS])
        events.append(
            {"pipeline": pipeline, **{f"{TEXT}_{at}": text for at, text in said}}
        )
    return events


def find_gaps(events: Iterable[AuditEvent]) -> list[Gap]:
    """Return the gaps that events tell of; all others are passed over."""
    found: list[Gap] = []
    for event in events:
        if event.event == NOT_KEPT:
            word = name_word(str(event.facts.get("pipeline", "")))
            found += [Gap(word, *run) for run in _runs(event.facts)]
    return found


def _runs(facts: Mapping[str, Any]) -> list[Run]:
    """Return the runs in an event; what is none is passed over."""
    words = " ".join(str(facts.get(f"{TEXT}_{at}", "")) for at in range(MAX_TEXTS))
    runs: list[Run] = []
    for word in words.split():
        first, _, last = word.partition("-")
        bounds = [it for it in (first, last or first) if _is_number(it)]
        if len(bounds) == 2:
            runs.append((int(bounds[0]), int(bounds[1])))
    return runs


def _is_number(text: str) -> bool:
    """Whether a text is a receipt's number."""
    return text.isascii() and text.isdigit() and len(text) <= 19
