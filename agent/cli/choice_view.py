"""How ``tinyward status`` tells which variant runs, and why none of the others does.

The rules this module keeps:
 * Nothing is said where there was nothing to choose: one variant, on whatever computes
   it fastest, is no news. All that was tried is shown on demand.
 * What runs for a while instead of what was chosen is always said.
"""

from collections.abc import Iterator, Mapping, Sequence

from rich.padding import Padding
from rich.text import Text

from agent.cli.board_answers import (
    Active,
    ChoiceAnswer,
    PassedOverAnswer,
    PipelineState,
)
from agent.cli.plain_text import plain


def choice_lines(
    pipelines: Mapping[str, PipelineState], *, everything: bool = False
) -> Iterator[Text | Padding]:
    """Yield what runs in each pipeline where there was a choice, and why.

    Args:
        pipelines: By name.
        everything: All that was tried, not only the best of each other variant.
    """
    for name, pipeline in pipelines.items():
        active, choice = pipeline.active, pipeline.choice or ChoiceAnswer()
        if active is None:
            continue
        losers = choice.passed_over
        if not everything:
            losers = _best_of_others(active, losers)
        if losers or pipeline.runs or (everything and choice.why):
            yield from _lines(name, active, pipeline.runs or "", choice.why, losers)


def _lines(
    name: str, active: Active, runs: str, why: str, losers: Sequence[PassedOverAnswer]
) -> Iterator[Text | Padding]:
    """Yield the lines of one pipeline."""
    chosen = f"{plain(active.variant, 64)} on {plain(active.executor, 80)}"
    because = f": {plain(why, 200)}" if why else ""
    yield Text.assemble((plain(name, 24), "bold"), f" chose {chosen}{because}")
    if runs:
        yield _indented(Text(f"now runs {plain(runs, 160)} instead", "yellow"))
    for row in losers:
        what = f"not {plain(row.variant, 64)} on {plain(row.executor, 80)}"
        reason = f" [{plain(row.reason, 32)}]" if row.reason else ""
        yield _indented(Text(f"{what}: {plain(row.detail, 200)}{reason}"))


def _indented(text: Text) -> Padding:
    """Return a line below the pipeline's."""
    return Padding(text, (0, 0, 0, 2))


def _best_of_others(
    active: Active, losers: Sequence[PassedOverAnswer]
) -> tuple[PassedOverAnswer, ...]:
    """Return the first, most telling row of each variant that does not run."""
    first: dict[str, PassedOverAnswer] = {}
    for row in losers:
        if row.variant != active.variant:
            first.setdefault(row.variant, row)
    return tuple(first.values())
