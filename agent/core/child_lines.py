"""Lines that a child writes to standard error: how grave, why, and words for people.

``<4>[input] kws 7: samples fail: NaN`` is a warning for the reason ``input``. The
prefix is that of sd-daemon(3), so programs that know systemd are understood, too; a
line without one is information.

Law: ``parse_line(render_line(line)) == line`` for printable words without margins and
the four levels.

>>> parse_line("<4>[input] kws 7: samples fail: NaN").reason
<Reason.INPUT: 'input'>
"""

import re
from typing import NamedTuple

from agent.core.reasons import Reason

# Levels as in the logging module, which is not for here.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40
PRIORITIES = {DEBUG: 7, INFO: 6, WARNING: 4, ERROR: 3}
LEVELS = (ERROR, ERROR, ERROR, ERROR, WARNING, INFO, INFO, DEBUG)
WORDS = frozenset(map(str, Reason))
PREFIXED = re.compile(r"<([0-7])>(?:\[([a-z_]*)\] )?")


class Line(NamedTuple):
    """One line: its level, what it is about if that has a word, and its text."""

    level: int
    reason: Reason
    text: str


def render_line(line: Line) -> str:
    """Return what a child writes; other levels than ours are information."""
    priority = PRIORITIES.get(line.level, PRIORITIES[INFO])
    return f"<{priority}>[{line.reason}] {line.text}"


def parse_line(written: str) -> Line:
    """Return what was meant; whatever is no prefix of ours is text."""
    found = PREFIXED.match(written)
    if found is None:
        return Line(INFO, Reason.NONE, written)
    priority, word = found.groups()
    level = LEVELS[int(priority)]
    if word is None or word not in WORDS:
        return Line(level, Reason.NONE, written[found.end(1) + 1 :])
    return Line(level, Reason(word), written[found.end() :])
