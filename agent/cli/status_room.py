"""A status that fits a terminal's lines: what matters least is left out first.

The rules this module keeps:
 * What each pipeline does, and why not, is never left out.
 * What was left out is said, with the command that shows it.
"""

from collections.abc import Callable

from rich.console import Console, Group
from rich.text import Text

from agent.cli.board_answers import State, Updates
from agent.cli.status_view import Extent, render_status

# Older updates go first, then facts that change by the day, then all but trouble.
EXTENTS = (
    *(Extent(reports=count) for count in (6, 4, 3, 2, 1, 0)),
    Extent(reports=0, facts="urgent"),
    Extent(reports=0, facts="none"),
)


def fit_status(
    console: Console, state: State, updates: Updates, now: float, host: str = ""
) -> Group:
    """Return as much of a status as a terminal shows without scrolling."""

    def draw(extent: Extent) -> Group:
        return render_status(state, updates, now, extent, host=host)

    return _first_that_fits(console, draw)


def _first_that_fits(console: Console, draw: Callable[[Extent], Group]) -> Group:
    """Return the fullest drawing that fits, or the shortest of all."""
    shown = draw(EXTENTS[0])
    for extent in EXTENTS:
        shown = draw(extent)
        if extent != EXTENTS[0]:
            shown = Group(shown, Text(LEFT_OUT, "dim"))
        # The cursor stands in a line of its own below.
        if len(console.render_lines(shown)) < console.height:
            break
    return shown


LEFT_OUT = "... more: `tinyward status` without --watch, `tinyward update list`"
