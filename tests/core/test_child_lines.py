"""Lines of children: what was written is what is meant, and noise is only text."""

import logging
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.child_lines import (
    DEBUG,
    ERROR,
    INFO,
    WARNING,
    Line,
    parse_line,
    render_line,
)
from agent.core.reasons import Reason

levels = st.sampled_from([DEBUG, INFO, WARNING, ERROR])
words = st.text(string.ascii_letters + string.digits + "<>[]: ")


@given(st.builds(Line, levels, st.sampled_from(Reason), words))
def test_there_and_back(line: Line) -> None:
    """Level, reason and text come back."""
    assert parse_line(render_line(line)) == line


@given(st.text())
def test_whatever_was_written_is_read(text: str) -> None:
    """No line is an error, and no word of it is lost but the prefix."""
    assert text.endswith(parse_line(text).text)


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("plain words", Line(INFO, Reason.NONE, "plain words")),
        ("<0>gone", Line(ERROR, Reason.NONE, "gone")),
        ("<5>noted", Line(INFO, Reason.NONE, "noted")),
        ("<8>no level", Line(INFO, Reason.NONE, "<8>no level")),
        ("<4>[v4l2] lost", Line(WARNING, Reason.NONE, "[v4l2] lost")),
        ("<4>[camera] lost", Line(WARNING, Reason.NONE, "[camera] lost")),
        ("[input] no prefix", Line(INFO, Reason.NONE, "[input] no prefix")),
    ],
)
def test_what_others_write(written: str, line: Line) -> None:
    """Programs that know systemd are understood; brackets alone mean nothing."""
    assert parse_line(written) == line


def test_levels_are_those_of_logging() -> None:
    """The numbers mean what the logging module means by them."""
    ours = [DEBUG, INFO, WARNING, ERROR]
    names = ["DEBUG", "INFO", "WARNING", "ERROR"]
    assert [logging.getLevelName(level) for level in ours] == names
