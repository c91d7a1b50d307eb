"""How ``tinyward monitor`` looks: scores beside thresholds, alarms, what moved.

The rules this module keeps:
 * It fits 80 columns, and reads the same in a pipe: words and bars carry the meaning,
   colours only repeat it.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from operator import itemgetter

from rich.console import Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from agent.cli.ages import Clock
from agent.cli.board_answers import (
    AlarmAnswer,
    AnchorAnswer,
    PipelineState,
    ScoreAnswer,
    WatchAnswer,
)
from agent.cli.plain_text import plain
from agent.core.reasons import Reason

CELLS = 10  # of a bar up to the threshold; as many again beyond it
MOVED = 5  # features that are shown: three tell what happened, five whether it is so
LOUD = {"critical": "bold red", "warning": "yellow"}


def render_monitors(
    pipelines: Mapping[str, PipelineState], clock: Clock
) -> Iterator[Group | Text]:
    """Yield what the monitors of each pipeline say, a blank line between two."""
    if not pipelines:
        yield Text("no pipelines: the settings name none")
    for number, (name, state) in enumerate(pipelines.items()):
        if number:
            yield Text()
        watch = _current(state)
        if watch is None:
            why = "no model answers" if state.active is None else "not watched"
            yield Text(f"{plain(name, 24)}: {why}")
        else:
            yield _render(name, watch, clock)


def bar(ratio: float) -> str:
    """Return a score as a bar; ``|`` is the threshold, and twice it is the end.

    >>> bar(0.5), bar(1.2), bar(99.0)
    ('=====     |', '==========|==', '==========|=========>')
    """
    # What is no number is no bar; a lie of 1e9 is a full one.
    cells = round(min(max(ratio, 0.0), 2.0) * CELLS) if isfinite(ratio) else 0
    below, beyond = min(cells, CELLS), max(0, cells - CELLS)
    tail = "=" * (CELLS - 1) + ">" if beyond >= CELLS else "=" * beyond
    return f"{'=' * below:{CELLS}}|{tail}"


def _current(state: PipelineState) -> WatchAnswer | None:
    """Return what the monitor of the model that answers says."""
    active = state.active
    for watch in state.watch or ():
        if active and (watch.model, watch.version) == (active.model, active.version):
            return watch
    return None


def _render(name: str, watch: WatchAnswer, clock: Clock) -> Group:
    """Return one model's monitor."""
    title = f"{plain(name, 24)}: {plain(watch.model, 24)} {watch.version}"
    if why := why_unwatched(watch):
        return Group(Text(title, "bold"), Text(f"  not watched: {why}"))
    said = (_effort(watch), _findings(watch))
    parts: list[Text | Table | Padding] = [Text(title, "bold"), *map(_indent, said)]
    if watch.anchors:
        parts.append(_anchors_table(watch))
    if not any(each.valid for each in watch.anchors):
        parts.append(Text("  nothing to compare with yet"))
    scores = _shown_scores(watch)
    if scores:
        parts += [Text(), _scores_table(watch, scores)]
    raised = [each for each in watch.alarms if each.active or each.raised]
    parts += [Text()] if raised else []
    parts += [_alarm_line(each, clock) for each in raised]
    if watch.features:
        parts += [Text(), _features_table(watch)]
    return Group(*parts)


def _effort(watch: WatchAnswer) -> str:
    """Say how much was watched, how often, and what that costs."""
    return (
        f"{watch.samples} samples watched, 1 in {watch.interval}, "
        f"at {(watch.share or 0) * 100:.2f} % of its worker's time"
    )


def why_unwatched(watch: WatchAnswer) -> str:
    """Return why nothing watches a model at all, empty for what is watched.

    Without a profile nothing is compared with either, but samples are seen; then no
    detail says why.
    """
    anchors = watch.anchors
    off = all(it.reason == Reason.UNWATCHED and it.detail for it in anchors)
    return plain(anchors[0].detail, 200) if anchors and off else ""


def _shown_scores(watch: WatchAnswer) -> list[ScoreAnswer]:
    """Return the scores that say something: without an anchor a 0 does not."""
    compares = any(each.valid for each in watch.anchors)
    return [each for each in watch.scores if compares or each.ratio]


def _findings(watch: WatchAnswer) -> str:
    """Say how inputs follow each other, how many are none, and how answers fare."""
    words = [f"autocorrelation {watch.autocorrelation or 0:.2f}"]
    words += [f"{watch.repeated} repeated"] if watch.repeated else []
    words += [
        f"{n} invalid ({plain(why, 16)})" for why, n in watch.invalid.items() if n
    ]
    if watch.accuracy is not None:
        words.append(f"accuracy about {watch.accuracy:.2f}")
    return ", ".join(words)


def _anchors_table(watch: WatchAnswer) -> Table:
    """Say of each anchor that it is compared with, or why it is not."""
    heads = (Column(no_wrap=True), Column(overflow="fold"))
    table = Table.grid(*heads, padding=(0, 2, 0, 0))
    for each in watch.anchors:
        table.add_row(Text(f"  {plain(each.anchor, 8)}"), Text(_anchor_words(each)))
    return table


def _anchor_words(anchor: AnchorAnswer) -> str:
    """Say what is compared with, or why nothing is."""
    if anchor.valid:
        how = f" ({plain(anchor.calibration, 24)})" if anchor.calibration else ""
        return f"compared{how}"
    why = plain(anchor.detail, 200)
    if anchor.wanted:
        so_far = f"collecting: {anchor.collected} of {anchor.wanted} samples"
        why = f"{so_far}, {why}" if why else so_far
    reason = f" [{plain(anchor.reason, 32)}]" if anchor.reason else ""
    return f"{why or 'nothing to compare with'}{reason}"


def _scores_table(watch: WatchAnswer, scores: list[ScoreAnswer]) -> Table:
    """Return the scores as bars."""
    active = {(it.anchor, it.scope): it.severity for it in watch.alarms if it.active}
    table = _table("", "ANCHOR", "SCOPE", "DETECTOR", "SCORE", "OF ITS THRESHOLD")
    for score in scores:
        style = LOUD.get(active.get((score.anchor, score.scope), ""), "")
        table.add_row(*(Text(cell, style) for cell in _score_cells(score)))
    return table


def _score_cells(score: ScoreAnswer) -> tuple[str, ...]:
    """Return the cells of one score."""
    ratio = score.ratio if score.ratio is not None else float("nan")
    return (
        "",
        plain(score.anchor, 8),
        plain(score.scope, 12),
        plain(score.detector, 8),
        f"{ratio:.2f}" if ratio < 1e4 else ">9999",
        bar(ratio),
    )


def alarm_lines(pipelines: Mapping[str, PipelineState], clock: Clock) -> list[Text]:
    """Return a line for each active alarm of any pipeline, critical ones first."""
    found = [
        (alarm.severity != "critical", name, alarm)
        for name, state in pipelines.items()
        if (watch := _current(state)) is not None
        for alarm in watch.alarms
        if alarm.active
    ]
    # By gravity alone: pipelines stay in the order of the settings.
    found.sort(key=itemgetter(0))
    return [_active_line(name, alarm, clock) for _, name, alarm in found]


def _active_line(name: str, alarm: AlarmAnswer, clock: Clock) -> Text:
    """Say which alarm of which pipeline is active, and since when."""
    what = f"{plain(alarm.anchor, 8)} {plain(alarm.scope, 12)}"
    words = [f"ALARM  {plain(name, 24)}: {what} ({plain(alarm.severity, 12)})"]
    words += ["confirmed"] if alarm.confirmed else []
    words += [f"last raised {clock.noted(alarm.at)}"] if alarm.at else []
    return Text(", ".join(words), LOUD.get(alarm.severity, ""))


def _alarm_line(alarm: AlarmAnswer, clock: Clock) -> Text:
    """Say what became of an alarm."""
    state = "ALARM" if alarm.active else "quiet"
    words = [f"raised {alarm.raised} times" if alarm.raised != 1 else "raised once"]
    if alarm.active and alarm.confirmed:
        words.insert(0, "confirmed")
    if alarm.at:
        words.append(f"last {clock.noted(alarm.at)}")
    what = f"{plain(alarm.anchor, 8)} {plain(alarm.scope, 12)}"
    text = f"  {state}  {what} ({plain(alarm.severity, 12)}): {', '.join(words)}"
    return Text(text, LOUD.get(alarm.severity, "") if alarm.active else "")


def _features_table(watch: WatchAnswer) -> Table:
    """Return the features that moved most."""
    table = _table("", "ANCHOR", "MOVED MOST", "BY", "PSI", "KS")
    moved = sorted(watch.features, key=lambda it: -abs(it.shift or 0))
    for each in moved[:MOVED]:
        table.add_row(
            "",
            Text(plain(each.anchor, 8)),
            Text(plain(each.feature, 32)),
            Text(f"{each.shift or 0:+.2f} sd"),
            Text(f"{each.psi or 0:.2f}"),
            Text(f"{each.ks or 0:.2f}"),
        )
    return table


def _indent(line: str) -> Padding:
    """Return a line that stays indented where it is too long for the terminal."""
    return Padding(Text(line), (0, 0, 0, 2))


def _table(*names: str) -> Table:
    """Return a table without lines."""
    heads = [Column(name, no_wrap=True) for name in names]
    return Table(*heads, box=None, pad_edge=False, padding=(0, 2, 0, 0))
