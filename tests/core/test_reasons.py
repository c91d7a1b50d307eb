"""Reasons: stable words, each explained."""

import re

import pytest

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason

# Words that others already depend on, in dashboards and scripts: never renamed.
PUBLISHED = (
    *("signature", "threshold", "expired", "replayed", "mixed", "missing_target"),
    *("digest", "length", "truncated", "malformed", "manifest", "version_floor"),
    *("contract", "golden", "latency", "memory", "crash", "hang", "crash_loop"),
    *("overrun", "settings", "disk_full", "read_only", "locked", "not_orchestrator"),
)


@pytest.mark.parametrize("word", PUBLISHED)
def test_published_words_stay(word: str) -> None:
    """A word that was published is still a reason, spelled the same."""
    assert Reason(word) == word


@pytest.mark.parametrize("reason", EXPLANATIONS)
def test_words_fit_a_label(reason: Reason) -> None:
    """A reason is lower snake case: safe as label value, JSON key and file name."""
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", reason)


@pytest.mark.parametrize("reason", EXPLANATIONS)
def test_explanations_are_sentences(reason: Reason) -> None:
    """What happened and what to do are sentences, to be read without the code."""
    known = EXPLANATIONS[reason]
    for text in (known.what, known.todo):
        assert text[0].isupper() or text.startswith("`")
        assert text.endswith(".")


def test_explanations_cannot_change() -> None:
    """Nobody can explain a reason away at run time."""
    with pytest.raises(TypeError):
        EXPLANATIONS[Reason.NONE] = EXPLANATIONS[Reason.CRASH]  # type: ignore[index]  # the point


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (Reason.SETTINGS, "option"),  # not only `tinyward check FILE` ends so
        (Reason.STATE, "`state_dir`"),  # which may name a file
        (Reason.MALFORMED, "again"),  # one bit may have flipped on the way
        (Reason.CONTRACT, "`task`"),
        (Reason.SOURCE_MISSING, "`sinks`"),
    ],
)
def test_what_to_do_fits_every_cause(reason: Reason, word: str) -> None:
    """A reason with several causes names them all in what to do."""
    assert word in EXPLANATIONS[reason].todo
