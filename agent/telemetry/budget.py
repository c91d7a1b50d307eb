"""The series budget: which parts of a scrape are shown where there is no room for all.

Room is given part by part and pipeline by pipeline: what everybody needs most first
(see ``agent.telemetry.ranks``), within that in the order of the settings, and before
all of it the features of pipelines in alarm. A part that is too large for what is left
does not keep a smaller one out.

The rules this module keeps:
 * What is left out is left out as a whole: half of a pipeline's labels would look like
   all of them, and come and go.
 * A part that was left out stays so until a model comes or goes: a graph that has holes
   reads like a board that has trouble. An alarm alone brings its features back.

Laws: what is shown fits, or is essential; nothing comes back but by an alarm.
"""

from collections.abc import Collection

from agent.telemetry.families import ESSENTIAL, Families, Part
from agent.telemetry.ranks import Rank

OWN_SERIES = 2  # those that say what a scrape holds


class SeriesBudget:
    """Decides what is shown; remembers what was left out.

    Args:
        max_series: What a scrape may have.
    """

    def __init__(self, max_series: int) -> None:
        self._max_series = max_series
        self._models: set[tuple[str, str, int, bool]] = set()
        self._out: set[Part] = set()
        self._needed: set[Part] = set()  # features that an alarm has asked for

    def fit(self, families: Families) -> tuple[Part, ...]:
        """Leave out what has no room; return those parts, the least telling first."""
        if families.models != self._models:
            self._models = set(families.models)
            self._out.clear()
            self._needed.clear()
        alarmed = {Part(name, Rank.FEATURES) for name in families.alarmed}
        self._needed |= alarmed
        self._out -= alarmed
        tally = families.tally()
        room = self._max_series - OWN_SERIES
        room -= sum(size for part, size in tally.items() if part.rank == ESSENTIAL)
        order = self._order(tally, alarmed)
        for part in order:
            if part in self._out or tally[part] > room:
                self._out.add(part)
            else:
                room -= tally[part]
        left_out = tuple(part for part in reversed(order) if part in self._out)
        families.left_out = frozenset(left_out)
        return left_out

    def _order(self, parts: Collection[Part], alarmed: set[Part]) -> list[Part]:
        """Return parts that may go, the most telling first.

        Features that an alarm asked for once come before all others: an alarm that
        comes and goes must not take other series with it each time.
        """
        return sorted(
            (part for part in parts if part.rank != ESSENTIAL),
            key=lambda it: (it not in alarmed, it not in self._needed, it.rank),
        )
