"""The report's part on delays: how soon which change would be found."""

from collections.abc import Sequence
from html import escape
from math import log

from agent.cli.profile_delays import PATIENCE, ShiftDelay
from agent.cli.profile_making import MadeVariant
from agent.core.drift.calibrate_delays import Delay

FAST = 50  # samples: as soon as an average over the last 50 can tell


def delay_cards(one: MadeVariant) -> str:
    """Return what is known of delays; empty where nothing is."""
    cards = []
    if one.delays:
        cards.append(_changed(one.delays))
    if one.calibrated.delays:
        cards.append(_moved(one.calibrated.delays))
    return f"<h2>How soon a change is found</h2>{''.join(cards)}" if cards else ""


def _changed(delays: Sequence[ShiftDelay]) -> str:
    """Return delays of inputs that were changed on purpose."""
    rows = "".join(
        f'<tr><th scope="row">{escape(delay.meaning)}</th><td>{_meter(delay.warning)}'
        f'</td><td class="number">{_samples(delay.warning)}</td>'
        f'<td class="number">{_samples(delay.critical)}</td>'
        f'<td class="number">{100 * delay.found:.0f} %</td></tr>'
        for delay in delays
    )
    return (
        '<div class="card"><h3>Inputs changed on purpose</h3><div class="wide">'
        '<table class="bars"><thead><tr><th>Change</th><th>Samples until an alarm</th>'
        '<th class="number">Any alarm</th><th class="number">Confidence</th>'
        '<th class="number">Found</th></tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="note">Median of streams in '
        "which samples change from one to the next. Confidence alone is critical: "
        "the model itself has become unsure.</p></div>"
    )


def _moved(delays: Sequence[Delay]) -> str:
    """Return delays of single features that move."""
    sizes = sorted({delay.size for delay in delays})
    found = {(delay.shift, delay.size): delay.samples for delay in delays}
    heads = "".join(f'<th class="number">{size:g} sd</th>' for size in sizes)
    rows = "".join(
        f'<tr><th scope="row">{escape(shift)}</th>'
        + "".join(
            f'<td class="number">{_samples(found.get((shift, size)))}</td>'
            for size in sizes
        )
        + "</tr>"
        for shift in dict.fromkeys(delay.shift for delay in delays)
    )
    return (
        '<div class="card"><h3>Features that move</h3><div class="wide"><table><thead>'
        f"<tr><th>Feature</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note">Watched samples until an alarm when the mean of a feature '
        "moves by so many standard deviations, as computed.</p></div>"
    )


def _samples(count: int | None) -> str:
    """Return a delay for people."""
    if count is None:
        return '<span class="never">not found</span>'
    return f'<span class="fast">{count}</span>' if count <= FAST else f"{count:,}"


def _meter(count: int | None) -> str:
    """Return a bar as long as the delay's logarithm."""
    if count is None:
        return ""
    share = log(1 + count) / log(1 + PATIENCE)
    return f'<span class="meter" style="width:{100 * min(share, 1.0):.1f}%"></span>'
