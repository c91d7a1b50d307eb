"""The degradation ladder in words: for the page, the command line and logs alike.

>>> say_held("soc 86 C, 85 C allowed", ("half_rate", "one_thread"))
'soc 86 C, 85 C allowed: every other sample, one thread'
"""

from collections.abc import Mapping, Sequence

from agent.core.degradation import Level, Measure

MEASURES: Mapping[str, str] = {
    Measure.HALF_RATE: "every other sample",
    Measure.ONE_THREAD: "one thread",
    Measure.SMALL_VARIANT: "the smaller variant",
    Measure.ABSTAIN: "no answers",
    Measure.SAFE_OUTPUT: "a constant answer",
}
LEVELS: Mapping[str, str] = {
    Level.NORMAL: "is not held back any more",
    Level.SUSPECT: "may have to do less",
    Level.DEGRADED: "does less",
    Level.SAFE: "does as little as it may",
}


def say_measures(measures: Sequence[str]) -> str:
    """Return what is done, in words; a measure of a newer agent by its name."""
    return ", ".join(MEASURES.get(it, it.replace("_", " ")) for it in measures)


def say_held(detail: str, measures: Sequence[str], lacking: Sequence[str] = ()) -> str:
    """Return why a pipeline is held back, and what is done about it.

    >>> say_held("soc 81 C, 80 C allowed", ())
    'soc 81 C, 80 C allowed'
    >>> say_held("soc 86 C, 85 C allowed", ("half_rate",), ("small_variant",))
    'soc 86 C, 85 C allowed: every other sample (not to be had: the smaller variant)'
    """
    said = say_measures(measures)
    if lacking:
        said = f"{said} (not to be had: {say_measures(lacking)})".lstrip()
    return ": ".join(part for part in (detail, said) if part)
