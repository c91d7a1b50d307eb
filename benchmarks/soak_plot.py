"""A soak as a picture: p99, memory and descriptors over time, and what happened.

The rules this module keeps:
 * One SVG file without scripts or fonts of its own, which says in words what it shows.
 * Coordinates have one decimal; a series of hours has no more points than can be seen.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, log10

from agent.cli.profile_charts import MAX_POINTS, number
from benchmarks.soak_looks import MB, Look, Mark, series, windows

WIDTH, LEFT, RIGHT, TOP = 960, 60, 140, 50
PANEL, BETWEEN = 150, 46  # heights
ROLES = {"daemon": "#1f77b4", "full": "#d95f02", "steady": "#1b9e77"}
KINDS = {
    "update": ("#999999", "update"),
    "kill": ("#d62728", "SIGKILL"),
    "stop": ("#9467bd", "SIGSTOP"),
    "gone": ("#8c564b", "repository gone"),
    "slow": ("#e377c2", "slow scrapers"),
    "reload": ("#17becf", "SIGHUP"),
}
STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}"
    "polyline{fill:none;stroke-width:1.5}.axis{stroke:#ddd}.mark{stroke-width:1}"
)
Points = Sequence[tuple[float, float]]


def render_plot(
    looks: Sequence[Look], marks: Sequence[Mark], pipelines: Sequence[str]
) -> str:
    """Return the whole picture."""
    end_s = max([1.0, *(look.at_s for look in looks)])
    p99: dict[str, list[Points]] = {
        name: [[(it.at_s, it.p99_ms) for it in windows(looks, name)]]
        for name in pipelines
    }
    panels = (
        ("p99 of 10 s, ms", p99),
        ("resident memory, MB", {role: _memory(looks, role) for role in ROLES}),
        ("open descriptors", {role: _descriptors(looks, role) for role in ROLES}),
    )
    parts = []
    for place, (title, found) in enumerate(panels):
        top = TOP + place * (PANEL + BETWEEN)
        parts += _marks(marks, end_s, top)
        parts += _panel(title, found, top, end_s)
    height = TOP + len(panels) * (PANEL + BETWEEN) + 10
    parts += _legend(marks)
    name = f"Soak of {_moment(end_s, end_s)}: {_count(marks)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(name)}"><title>{escape(name)}</title>'
        f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        f'<text class="t" x="{LEFT}" y="18">{escape(name)}</text>'
        f"{''.join(parts)}</svg>\n"
    )


def _memory(looks: Sequence[Look], role: str) -> list[Points]:
    """Return a role's memory in MB; a line for each process."""
    parts = series(looks, role)
    return [[(at, it.rss_bytes / MB) for at, it in part] for part in parts]


def _descriptors(looks: Sequence[Look], role: str) -> list[Points]:
    """Return how many descriptors a role has open; a line for each process."""
    parts = series(looks, role)
    return [[(at, float(it.descriptors)) for at, it in part] for part in parts]


def _panel(
    title: str, found: Mapping[str, list[Points]], top: float, end_s: float
) -> list[str]:
    """Return one chart with its axes."""
    values = [y for lines in found.values() for line in lines for _, y in line]
    high = _round_up(max(values, default=1.0))
    parts = [f'<text class="t" x="{LEFT}" y="{top - 6}">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = top + PANEL * (1 - share)
        label = number(share * high)
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{label}</text>"
        )
    parts += [
        f'<text x="{_across(share * end_s, end_s):.1f}" y="{top + PANEL + 15}" '
        f'text-anchor="middle">{_moment(share * end_s, end_s)}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for name, lines in found.items():
        for line in lines:
            points = " ".join(
                f"{_across(x, end_s):.1f},{top + PANEL * (1 - y / high):.1f}"
                for x, y in _thinned(line)
            )
            parts.append(f'<polyline stroke="{ROLES[name]}" points="{points}"/>')
    return parts


def _thinned(line: Points) -> list[tuple[float, float]]:
    """Return as many points as can be told apart; of those in one place the highest."""
    size = max(1, ceil(len(line) / MAX_POINTS))
    groups = (line[start : start + size] for start in range(0, len(line), size))
    return [(group[0][0], max(y for _, y in group)) for group in groups]


def _marks(marks: Sequence[Mark], end_s: float, top: float) -> list[str]:
    """Return what happened: faults as lines over the height, updates as short ones."""
    parts = []
    for mark in marks:
        colour, _ = KINDS[mark.kind]
        x, tall = _across(mark.at_s, end_s), PANEL
        if mark.kind == "update":
            tall = 10
        parts.append(
            f'<line class="mark" stroke="{colour}" x1="{x:.1f}" x2="{x:.1f}" '
            f'y1="{top + PANEL - tall}" y2="{top + PANEL}"/>'
        )
    return parts


def _legend(marks: Sequence[Mark]) -> list[str]:
    """Return what the colours mean."""
    rows = [(colour, name) for name, colour in ROLES.items()]
    kinds = {mark.kind for mark in marks}
    rows += [entry for kind, entry in KINDS.items() if kind in kinds]
    x = WIDTH - RIGHT + 14
    return [
        f'<rect x="{x}" y="{TOP + 18 * place}" width="12" height="3" '
        f'fill="{colour}"/><text x="{x + 18}" y="{TOP + 18 * place + 6}">'
        f"{escape(name)}</text>"
        for place, (colour, name) in enumerate(rows)
    ]


def _count(marks: Sequence[Mark]) -> str:
    """Say how much happened."""
    updates = sum(mark.kind == "update" for mark in marks)
    return f"{updates} updates, {len(marks) - updates} faults"


def _moment(at_s: float, end_s: float) -> str:
    """Spell a time in the unit that suits the whole.

    >>> _moment(90.0, 100.0), _moment(90.0, 600.0)
    ('90 s', '1.5 min')
    """
    return f"{at_s:.3g} s" if end_s < 120 else f"{at_s / 60:.3g} min"


def _across(at_s: float, end_s: float) -> float:
    """Return where a moment is drawn."""
    return LEFT + at_s / end_s * (WIDTH - LEFT - RIGHT)


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10 ... that is not below.

    >>> _round_up(0.7), _round_up(31.0), _round_up(0.0)
    (1.0, 50.0, 1.0)
    """
    if value <= 0:
        return 1.0
    unit: float = 10.0 ** ceil(log10(value) - 1)
    return next(unit * step for step in (1, 2, 5, 10) if unit * step >= value)
