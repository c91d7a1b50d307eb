"""A fleet around an outage as a picture: what was asked of its server each second.

One SVG file without scripts or fonts of its own, which says in words what it shows.
"""

from collections.abc import Sequence
from html import escape

from benchmarks.fleet_scenarios import Outage

WIDTH, LEFT, RIGHT, TOP, PANEL, BETWEEN = 960, 60, 20, 56, 180, 64
STEP_S = 10  # one point each: a second of a thousand boards is three looks, or none
STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}"
    "polyline{fill:none;stroke-width:1.5}.axis{stroke:#ddd}"
)
ANSWERED, LOOKS, BOUND = "#1f77b4", "#d95f02", "#d62728"


def render_plot(outages: Sequence[Outage], boards: int, poll_s: float) -> str:
    """Return the whole picture, a panel for each outage."""
    name = (
        f"{boards:,} boards that poll every {poll_s:g} s, around an outage of their "
        "repository"
    )
    parts = []
    for place, seen in enumerate(outages):
        parts += _panel(seen, boards / poll_s, TOP + place * (PANEL + BETWEEN))
    height = TOP + len(outages) * (PANEL + BETWEEN)
    legend = (
        ("requests answered, mean of 10 s", ANSWERED),
        ("looks of boards, answered or not, mean of 10 s", LOOKS),
        ("twice the steady rate", BOUND),
    )
    for place, (words, colour) in enumerate(legend):
        x = LEFT + place * 300
        parts.append(
            f'<rect x="{x}" y="30" width="12" height="3" fill="{colour}"/>'
            f'<text x="{x + 18}" y="36">{words}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(name)}"><title>{escape(name)}</title>'
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f'<text class="t" x="{LEFT}" y="18">{escape(name)}</text>'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(seen: Outage, steady: float, top: float) -> list[str]:
    """Return one chart with its axes; time is counted from the server's return."""
    whole, back_s = seen.whole.seconds, seen.before.seconds + seen.away_s
    answered, looks = _means(seen.whole.per_second), _means(seen.whole.looks_per_second)
    high = max([2.5 * steady, *answered, *looks])
    title = f"away for {seen.away_s / 60:g} min"
    parts = [
        f'<text class="t" x="{LEFT}" y="{top - 4}">{title}</text>',
        _box(seen.before.seconds, back_s, whole, top),
    ]
    for value in (0.0, steady, 2 * steady):
        y = top + PANEL * (1 - value / high)
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"{_red(value > steady)}/><text x="{LEFT - 6}" '
            f'y="{y + 4:.1f}" text-anchor="end">{value:.3g}/s</text>'
        )
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        minute = (share * whole - back_s) / 60
        parts.append(
            f'<text x="{_across(share * whole, whole):.1f}" y="{top + PANEL + 15}" '
            f'text-anchor="middle">{minute:+.3g} min</text>'
        )
    for line, colour in ((looks, LOOKS), (answered, ANSWERED)):
        points = " ".join(
            f"{_across(place * STEP_S, whole):.1f},{top + PANEL * (1 - y / high):.1f}"
            for place, y in enumerate(line)
        )
        parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
    return parts


def _means(counts: Sequence[int]) -> list[float]:
    """Return what passed a second, each over ``STEP_S`` of them."""
    ends = range(STEP_S, len(counts) + 1, STEP_S)
    return [sum(counts[end - STEP_S : end]) / STEP_S for end in ends]


def _box(began_s: float, ended_s: float, whole_s: float, top: float) -> str:
    """Return the shade over the time in which the server was away."""
    x, end = _across(began_s, whole_s), _across(ended_s, whole_s)
    return (
        f'<rect x="{x:.1f}" y="{top}" width="{end - x:.1f}" height="{PANEL}" '
        'fill="#f4f0ec"/>'
    )


def _red(marked: bool) -> str:  # noqa: FBT001 - the one thing it is about
    """Return the attribute of a line that is a bound."""
    return f' style="stroke:{BOUND};stroke-dasharray:4 3"' if marked else ""


def _across(at_s: float, whole_s: float) -> float:
    """Return where a moment is drawn."""
    return LEFT + at_s / whole_s * (WIDTH - LEFT - RIGHT)
