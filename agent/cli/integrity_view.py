"""How ``tinyward status`` says whose copy runs, and whether it is what was verified."""

from collections.abc import Iterator, Mapping

from rich.text import Text

from agent.cli.ages import Clock
from agent.cli.board_answers import IntegrityAnswer, PipelineState
from agent.cli.plain_text import plain
from agent.core.copy_words import say_copy

WORD = "memory"
SHOWN = 200  # characters of a line: a tensor's name may be long


def integrity_facts(
    pipelines: Mapping[str, PipelineState], clock: Clock
) -> Iterator[tuple[str, Text]]:
    """Yield a row for each pipeline whose memory is checked, found damage in red."""
    for name, state in pipelines.items():
        if state.integrity is not None:
            yield WORD, _line(plain(name, 24), state.integrity, clock)


def copy_facts(pipelines: Mapping[str, PipelineState]) -> Iterator[tuple[str, Text]]:
    """Yield a row for each pipeline whose model is sealed, or this board's own copy."""
    for name, state in pipelines.items():
        if said := say_copy(state.copy or "", sealed=bool(state.sealed)):
            yield "copy", Text(f"{plain(name, 24)}: {said}")


def damaged(pipelines: Mapping[str, PipelineState]) -> bool:
    """Whether anywhere something else ran than was verified."""
    answers = (state.integrity for state in pipelines.values())
    return any(any((it.mismatches or {}).values()) for it in answers if it)


def _line(name: str, answer: IntegrityAnswer, clock: Clock) -> Text:
    """Say what the checks of one pipeline found, and when."""
    text = f"{name}: {plain(answer.text, SHOWN)}"
    if not answer.last:
        return Text(text)
    at = clock.noted(clock.now - answer.last_ago_s) if answer.last_ago_s else ""
    return Text(f"{text} ({plain(answer.last, SHOWN)}) {at}".rstrip(), "bold red")
