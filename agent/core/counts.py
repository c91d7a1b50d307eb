"""Adding up statistics sections: what several workers answered with one model.

Laws: ``add_sections`` is commutative and associative up to the generation; closing a
section leaves nothing in flight and received = outcomes.
"""

from operator import add

from agent.core.histogram import BUCKETS
from agent.core.statistics_block import (
    MAX_LABELS,
    OUTCOMES,
    STAGES,
    Section,
    StageCounts,
)

EMPTY = Section(
    generation=0,
    received=0,
    outcomes=(0,) * len(OUTCOMES),
    stages=(StageCounts(0, (0,) * BUCKETS),) * len(STAGES),
    labels=(0,) * (MAX_LABELS + 1),
)


def add_sections(left: Section, right: Section) -> Section:
    """Return the counts of both; the generation is the later one."""
    return Section(
        generation=max(left.generation, right.generation),
        received=left.received + right.received,
        outcomes=tuple(map(add, left.outcomes, right.outcomes)),
        stages=tuple(map(_add_stages, left.stages, right.stages)),
        labels=tuple(map(add, left.labels, right.labels)),
    )


def close_section(section: Section, outcome: int) -> Section:
    """Return the section of a dead worker: what was in flight ended as ``outcome``."""
    outcomes = list(section.outcomes)
    outcomes[outcome] += section.in_flight
    return Section(
        generation=section.generation,
        received=section.received,
        outcomes=tuple(outcomes),
        stages=section.stages,
        labels=section.labels,
    )


def _add_stages(left: StageCounts, right: StageCounts) -> StageCounts:
    """Add one stage's durations."""
    return StageCounts(
        left.sum_ns + right.sum_ns, tuple(map(add, left.buckets, right.buckets))
    )
