"""Adding up statistics sections: what several workers answered with one model.

Laws: ``add_sections`` is commutative and associative up to the generation; closing a
section leaves nothing in flight and received = outcomes; ``final_block`` never counts
less than the last good copy did.
"""

from dataclasses import replace
from itertools import chain
from operator import add, ge

from agent.core.histogram import BUCKETS
from agent.core.statistics_block import (
    MAX_LABELS,
    OUTCOMES,
    STAGES,
    Block,
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


def final_block(block: Block | None, last: Block | None) -> Block | None:
    """Return what to believe of a dead worker: its block, or the last good copy.

    Args:
        block: What it left, parsed with ``writer_died``; None if that was refused.
        last: The last copy whose sums agreed, if there ever was one.
    """
    if block is None or last is None:
        return block if last is None and block and _is_sane(block, 0) else last
    pairs = list(zip(block.sections, last.sections, strict=True))
    # Only the section that does not count is ever cleared, for the next generation.
    newest = max(section.generation for section in last.sections)
    cleared = 1 - last.active
    grown = all(
        _grew(now, before)
        or (not before.generation and now.generation > newest)
        or (index == cleared and (not now.generation or now.generation > newest))
        for index, (now, before) in enumerate(pairs)
    )
    dropped = all(map(ge, block.sink_dropped, last.sink_dropped))
    if not (grown and dropped and _is_sane(block, last.next_seq)):
        return last
    taken = sum(
        now.received - (before.received if _grew(now, before) else 0)
        for now, before in pairs
    )
    # One more: the last copy may lie between the two stores of a sample that was taken.
    return replace(block, next_seq=min(block.next_seq, last.next_seq + taken + 1))


def _is_sane(block: Block, next_seq: int) -> bool:
    """Whether no more is in flight than the worker took since ``next_seq``."""
    most = block.next_seq - next_seq + 1
    return most > 0 and all(
        0 <= section.in_flight <= most for section in block.sections
    )


def _grew(now: Section, before: Section) -> bool:
    """Whether a section is the same as before, and no counter of it fell."""
    return now.generation == before.generation and all(
        map(ge, _counters(now), _counters(before))
    )


def _counters(section: Section) -> chain[int]:
    """Return all counters of a section."""
    stages = ((stage.sum_ns, *stage.buckets) for stage in section.stages)
    return chain((section.received,), section.outcomes, *stages, section.labels)


def _add_stages(left: StageCounts, right: StageCounts) -> StageCounts:
    """Add one stage's durations."""
    return StageCounts(
        left.sum_ns + right.sum_ns, tuple(map(add, left.buckets, right.buckets))
    )
