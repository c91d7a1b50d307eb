"""How a board that is too hot, too full or failing does less: levels and measures.

The words that settings, manifests, metrics and events share. Which level holds is
decided in ``agent.core.ladder``; what a measure does to a pipeline in ``supervise``.

>>> Level.SAFE.rank > Level.SUSPECT.rank
True
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct


class Level(StrEnum):
    """How much a pipeline is held back, in order."""

    NORMAL = "normal"
    SUSPECT = "suspect"
    DEGRADED = "degraded"
    SAFE = "safe"

    @property
    def rank(self) -> int:
        """0 for normal to 3 for safe."""
        return list(Level).index(self)


class Measure(StrEnum):
    """What a pipeline does at a level, beside saying so.

    ``half_rate`` answers every other sample; the others end as dropped (``shed``).
    ``one_thread`` runs the interpreter on one thread.
    ``small_variant`` runs the variant that preflight found cheapest here.
    ``abstain`` gives no answer: samples end as dropped (``abstained``).
    ``safe_output`` gives the constant answer that is declared, without the model.
    """

    HALF_RATE = "half_rate"
    ONE_THREAD = "one_thread"
    SMALL_VARIANT = "small_variant"
    ABSTAIN = "abstain"
    SAFE_OUTPUT = "safe_output"


Measures = Annotated[tuple[Measure, ...], Meta(max_length=5)]


class SafeOutput(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The constant answer of ``safe_output``.

    Attributes:
        label: What a prediction's ``label`` says.
        score: What its ``score`` says.
    """

    label: Annotated[str, Meta(max_length=200)] = "safe"
    score: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0


class DegradeSteps(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done at each level; a level does what those below it do, too.

    Attributes:
        suspect: Measures from the level ``suspect`` on.
        degraded: Measures from the level ``degraded`` on.
        safe: Measures at the level ``safe``.
        safe_output: What ``safe_output`` answers.
    """

    suspect: Measures = ()
    degraded: Measures = ()
    safe: Measures = ()
    safe_output: SafeOutput = SafeOutput()


class LadderState(Struct, frozen=True):
    """Where one pipeline stands on the ladder.

    Attributes:
        level: See ``Level``.
        since: Unix seconds of the last transition, 0 before the first.
        reasons: What holds it there, worst first: ``heat``, ``throttled``...
        detail: The same for people: ``soc 86 C, 85 C allowed``.
        measures: What is done about it now; ``lacking`` what was asked for and cannot
            be had here, such as a smaller variant where there is one only.
        transitions: (level, reason) -> how often it came to that level for it.
    """

    level: Level = Level.NORMAL
    since: float = 0.0
    reasons: tuple[str, ...] = ()
    detail: str = ""
    measures: tuple[Measure, ...] = ()
    lacking: tuple[Measure, ...] = ()
    transitions: tuple[tuple[Level, str, int], ...] = ()
