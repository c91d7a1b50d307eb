"""How ``tinyward status`` says that a pipeline is held back, why, and since when."""

from collections.abc import Mapping

from rich.text import Text

from agent.cli.ages import Clock
from agent.cli.board_answers import LadderAnswer, PipelineState
from agent.cli.plain_text import plain
from agent.core.degradation import Level
from agent.core.ladder_words import say_held

LOUD: Mapping[str, str] = {Level.SAFE: "bold red", Level.DEGRADED: "yellow"}


def held_lines(pipelines: Mapping[str, PipelineState], clock: Clock) -> list[Text]:
    """Return a line for each pipeline that does less, or may have to."""
    return [
        _line(name, state.ladder, clock)
        for name, state in pipelines.items()
        if state.ladder is not None and state.ladder.level != Level.NORMAL
    ]


def _line(name: str, ladder: LadderAnswer, clock: Clock) -> Text:
    """Say how much one pipeline is held back."""
    since = f" (began {clock.noted(ladder.since)})" if ladder.since else ""
    why = say_held(plain(ladder.detail), ladder.measures, ladder.lacking)
    level = plain(ladder.level, 16).upper()
    text = f"{level}  {plain(name, 24)}: {plain(why)}{since}"
    return Text(text, LOUD.get(ladder.level, ""))
