"""One line that says how the agent is, for ``systemctl status``.

What is not ready comes first, then what is under way, then what runs:
``kws 8 on litert/xnnpack, 312/s, p99 3.1 ms``.

Laws: it is one line, of ``MAX_CHARS`` at most, without control characters; a pipeline
that is not ready is named before any that is, and none is left out without a word.
"""

from collections.abc import Mapping, Sequence

from agent.core.degradation import Level
from agent.core.executors import Executor
from agent.core.snapshot import AgentSnapshot, PipelineSnapshot
from agent.core.trend import PERIOD_S, TrendPoint

NOT_READY = "not ready"  # what a line says that somebody waits for
MAX_CHARS = 200  # two lines of a terminal: more is read by nobody
LAST = 3  # points, 6 s: figures that stand still for a glance, and are no history
MORE_CHARS = len("; and 64 more")  # 64 pipelines are the most that settings hold


def describe_agent(
    agent: AgentSnapshot,
    trends: Mapping[str, Sequence[TrendPoint]],
    note: str = "",
) -> str:
    """Return the line.

    Args:
        agent: As of now.
        trends: Pipeline -> its last points, oldest first.
        note: What is to be said before anything else, e.g. that settings were refused.
    """
    parts = [note] if note else []
    parts += [_waiting(it) for it in agent.pipelines if not it.ready]
    parts += _under_way(agent)
    parts += [
        _running(it, trends.get(it.name, ())) for it in agent.pipelines if it.ready
    ]
    if not agent.pipelines:
        parts.append("no pipeline in the settings")
    return _join([_clean(part) for part in parts])


def _waiting(pipeline: PipelineSnapshot) -> str:
    """Name a pipeline that is not ready, and why."""
    return f"{pipeline.name} {NOT_READY}: {pipeline.reason}{_level(pipeline)}"


def _under_way(agent: AgentSnapshot) -> list[str]:
    """Name the update that goes on, if any."""
    update = agent.update.progress
    if update is None:
        return []
    share = ""
    if update.phase == "FETCHING" and update.total_bytes:
        share = f" {100 * update.done_bytes // update.total_bytes} %"
    return [f"{update.pipeline} to {update.version}: {update.phase.lower()}{share}"]


def _running(pipeline: PipelineSnapshot, points: Sequence[TrendPoint]) -> str:
    """Say what a pipeline runs, on what, and how fast."""
    words = pipeline.name
    if pipeline.active is not None:
        runs = pipeline.runs or _executor(pipeline.active.executor)
        words += f" {pipeline.active.version} on {runs.replace(' / ', '/')}"
    last = points[-LAST:]
    if last:
        words += f", {_rate(sum(it.rate for it in last) / len(last))}"
    slowest = max((it.p99_ms for it in last if it.p99_ms is not None), default=None)
    if slowest is not None:
        words += f", p99 {_figure(slowest)} ms"
    return words + _level(pipeline)


def _executor(executor: Executor) -> str:
    """Return ``litert/xnnpack``, with its threads where there are several."""
    kernels = executor.delegate.name if executor.delegate else executor.kernels
    threads = f"/{executor.threads}" if executor.threads > 1 else ""
    return f"{executor.engine}/{kernels}{threads}"


def _level(pipeline: PipelineSnapshot) -> str:
    """Say how much a pipeline is held back, and for what."""
    ladder = pipeline.ladder
    if ladder.level is Level.NORMAL:
        return ""
    why = ", ".join(ladder.reasons)
    return f", {ladder.level} ({why})" if why else f", {ladder.level}"


def _rate(rate: float) -> str:
    """Return ``312/s``; below one in a period, that there are none now."""
    return f"{_figure(rate)}/s" if rate > 0 else f"none in {LAST * PERIOD_S:.0f} s"


def _figure(value: float) -> str:
    """Return a number with two digits, or all before the point where there are more.

    >>> _figure(312.4), _figure(3.14), _figure(0.0671), _figure(10.0)
    ('312', '3.1', '0.067', '10')
    """
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _join(parts: Sequence[str]) -> str:
    """Join as many parts as there is room for, and count the others."""
    line = "; ".join(parts)
    if len(line) <= MAX_CHARS:
        return line
    # The first is said in any case, cut where it must be.
    line = _cut(parts[0], MAX_CHARS - MORE_CHARS)
    for number, part in enumerate(parts[1:], start=1):
        longer = f"{line}; {part}"
        if len(longer) > MAX_CHARS - MORE_CHARS:
            return f"{line}; and {len(parts) - number} more"
        line = longer
    return line


def _cut(text: str, chars: int) -> str:
    """Return the beginning of a text that is too long."""
    return text if len(text) <= chars else f"{text[: chars - 3]}..."


def _clean(text: str) -> str:
    """Keep a part to one line, whatever a name or a reason holds."""
    return "".join(it if it.isprintable() else " " for it in text)
