"""Charts of a profile's report: plain SVG, coloured by the page's style sheet.

The rules this module keeps:
 * Every chart has an accessible name, and says in words what it shows.
 * Coordinates have one decimal: the same data give the same bytes, and few of them.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 900, 250  # of the score's chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 34
MAX_POINTS = 450  # two units of width each: more cannot be told apart
MAX_RATIO = 4.0  # scores beyond it are drawn there: the threshold must stay visible
MAX_BOUNDS = 64  # groups whose ends are drawn
SMALL_WIDTH, SMALL_HEIGHT = 220, 96  # of one feature's histogram
FOOT = 16  # units below a histogram for its axis
# A bin narrower than this part of the whole is drawn with its neighbour: its density
# would be a needle, as of a value that many samples share.
NARROW = 1 / 40

Floats = NDArray[np.float64]


def score_chart(
    paths: Mapping[str, Floats], bounds: Sequence[int], axis: str, name: str
) -> str:
    """Return scores over their thresholds along the data.

    Args:
        paths: Scope -> (n) ratios.
        bounds: Where groups end, as positions in 0..n.
        axis: What the horizontal axis is.
        name: The chart's accessible name.
    """
    count = max(len(path) for path in paths.values())
    highest = max(float(path.max(initial=0.0)) for path in paths.values())
    top = min(MAX_RATIO, max(1.5, 1.1 * highest))
    across = (WIDTH - LEFT - RIGHT) / max(1, count)
    parts = [
        f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
        f'y2="{HEIGHT - BOTTOM}"/>'
        for x in (LEFT + at * across for at in bounds[:MAX_BOUNDS])
    ]
    parts += _grid(top, count)
    for scope, path in paths.items():
        points = _points(path, top, across)
        parts.append(f'<polyline class="path {escape(scope)}" points="{points}"/>')
    limit = _height(1.0, top)
    parts.append(
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{limit:.1f}" '
        f'y2="{limit:.1f}"/>'
    )
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">'
        f"{escape(axis)}</text>"
    )
    return _svg(WIDTH, HEIGHT, name, parts)


def histogram(edges: Floats, counts: NDArray[np.int64], mean: float, name: str) -> str:
    """Return one feature's reference histogram.

    The outermost bins have no outer edge, since a profile knows no minimum and no
    maximum: they are drawn dashed, as wide as their count at half their neighbour's
    density.

    Args:
        edges: (15) quantiles.
        counts: (16) samples between them.
        mean: The feature's mean.
        name: The chart's accessible name.
    """
    places, heights = _densities(edges, counts)
    low, high = places[0], places[-1]
    scale = SMALL_WIDTH / (high - low)
    tallest = max(heights)
    ground = SMALL_HEIGHT - FOOT
    parts = []
    for at, height in enumerate(heights):
        tall = height / tallest * (ground - 4)
        style = "tail" if at in (0, len(heights) - 1) else "bar"
        x, wide = (places[at] - low) * scale, (places[at + 1] - places[at]) * scale
        parts.append(
            f'<rect class="{style}" x="{x:.1f}" y="{ground - tall:.1f}" '
            f'width="{wide:.1f}" height="{tall:.1f}"/>'
        )
    middle = min(max((mean - low) * scale, 0.0), float(SMALL_WIDTH))
    parts.append(
        f'<line class="mean" x1="{middle:.1f}" x2="{middle:.1f}" y1="0" y2="{ground}"/>'
    )
    for place, anchor in ((places[1], "start"), (places[-2], "end")):
        x = min(max((place - low) * scale, 0.0), float(SMALL_WIDTH))
        parts.append(
            f'<text x="{x:.1f}" y="{SMALL_HEIGHT - 3}" text-anchor="{anchor}">'
            f"{number(place)}</text>"
        )
    return _svg(SMALL_WIDTH, SMALL_HEIGHT, name, parts)


def number(value: float) -> str:
    """Return a number for people: three digits.

    >>> number(0.12345), number(1234.5), number(-0.0)
    ('0.123', '1,230', '0')
    """
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _densities(
    edges: Floats, counts: NDArray[np.int64]
) -> tuple[list[float], list[float]]:
    """Return where bins begin and end, and their densities; narrow ones are joined."""
    # Edges of one value only, as of a confidence that is always 1, still need a width.
    span = float(edges[-1] - edges[0]) or abs(float(edges[0])) or 1.0
    places: list[float] = [float(edges[0])]
    sums: list[float] = []
    waiting = 0.0
    for edge, count in zip(edges[1:].tolist(), counts[1:-1].tolist(), strict=True):
        waiting += count
        if edge - places[-1] >= span * NARROW:
            places.append(edge)
            sums.append(waiting)
            waiting = 0.0
    if not sums:
        places.append(places[0] + span * NARROW)
        sums.append(0.0)
    sums[-1] += waiting
    heights = [
        total / (after - before)
        for total, before, after in zip(sums, places, places[1:], strict=False)
    ]
    width = places[-1] - places[0]
    tails = [
        _tail(float(count), beside, width)
        for count, beside in ((counts[0], heights[0]), (counts[-1], heights[-1]))
    ]
    places = [places[0] - tails[0], *places, places[-1] + tails[1]]
    ends = [counts[0] / tails[0], counts[-1] / tails[1]]
    return places, [float(ends[0]), *heights, float(ends[1])]


def _tail(count: float, beside: float, width: float) -> float:
    """Return how wide an open bin is drawn."""
    wanted = 2 * count / beside if beside else width
    return min(max(wanted, width / 12), width / 2)


def _grid(top: float, count: int) -> list[str]:
    """Return the axes: a line and a label for each whole or half threshold."""
    step = 0.5 if top <= 2 else 1.0
    parts = []
    for at in np.arange(0, top + 1e-9, step).tolist():
        y = _height(at, top)
        parts.append(
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{at:g}</text>"
        )
    for share in (0.0, 0.25, 0.5, 0.75):
        x = LEFT + share * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{int(share * count)}</text>"
        )
    return parts


def _points(path: Floats, top: float, across: float) -> str:
    """Return a path's points; of many samples in one place the highest is drawn."""
    size = max(1, -(-len(path) // MAX_POINTS))
    starts = np.arange(0, len(path), size)
    highest = np.maximum.reduceat(path, starts)
    return " ".join(
        f"{LEFT + start * across:.1f},{_height(ratio, top):.1f}"
        for start, ratio in zip(starts.tolist(), highest.tolist(), strict=True)
    )


def _height(ratio: float, top: float) -> float:
    """Return where a ratio is drawn."""
    return HEIGHT - BOTTOM - min(ratio, top) / top * (HEIGHT - BOTTOM - TOP)


def _svg(width: int, height: int, name: str, parts: Sequence[str]) -> str:
    """Return an image with an accessible name."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(name)}"><title>{escape(name)}</title>'
        f"{''.join(parts)}</svg>"
    )
