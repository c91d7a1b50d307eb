"""How long ago, and how long still: spans told by a board's own clock.

The rules this module keeps:
 * What was signed is told by the clock or by the clock floor, whichever is later: a
   board that woke up in 1970 judges by the floor, too.
 * What the board wrote down itself is told by the clock it wrote it by.
 * No span loses its sign: what is ahead is said to be.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from agent.cli.plain_text import span_text


@dataclass(frozen=True, slots=True)
class Clock:
    """A board's clock.

    Attributes:
        now: What it shows, Unix seconds.
        floor: Before that it cannot be; 0 where nothing is known.
    """

    now: float
    floor: float = 0.0

    @property
    def judged(self) -> float:
        """The time that signed moments are compared with."""
        return max(self.now, self.floor)

    def noted(self, moment: float) -> str:
        """Say how long ago the board wrote a moment down.

        >>> Clock(1000).noted(940), Clock(1000).noted(1060), Clock(5, 1000).noted(940)
        ('1 min ago', '1 min in the future', '1 min ago')
        """
        # A later one was written by a clock that was right since, and is not now.
        return ago_text((self.now if moment <= self.now else self.judged) - moment)

    def signed(self, moment: float) -> str:
        """Say how long ago something was signed."""
        return ago_text(self.judged - moment)

    def left_s(self, moment: float) -> float:
        """Return seconds until something signed ends; negative where it did."""
        return moment - self.judged


def ago_text(seconds: float) -> str:
    """Return a span since a moment, or until it.

    >>> ago_text(8), ago_text(-200)
    ('8 s ago', '3 min 20 s in the future')
    """
    return f"{span_text(abs(seconds))} {'ago' if seconds >= 0 else 'in the future'}"


def date_text(moment: float) -> str:
    """Return a moment in UTC; boards may say any number."""
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f}"
