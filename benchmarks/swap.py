"""``swap``: many swaps in a row under full load, alternating versions.

Lost is checked by the sums, and attribution by the sequence numbers: the samples that
each load counted must be exactly those from its first number to the next one's.
"""

from agent.supervise.pipeline import Pipeline
from agent.supervise.worker_process import MB
from benchmarks.boards import pipeline_on, until_ready
from benchmarks.rows import Row, median, percentile
from benchmarks.subjects import Subject, first_executor, subject

TARGETS_MS = {"kws": 1.5, "vww": 2.0}
P99_BEYOND_MS = 10.0
SETTLED = 20  # swaps after which memory must not grow any more
GROWTH_MB = 2.0  # what the allocator may still move; a kws interpreter has 1 MB


async def run(swaps: int) -> list[Row]:
    """Return pauses, losses and growth for each model."""
    rows: list[Row] = []
    for name in TARGETS_MS:
        rows += await _case(name, swaps)
    return rows


async def _case(name: str, swaps: int) -> list[Row]:
    """Swap one model against itself under two versions."""
    first, second = subject(name, 1), subject(name, 2)
    async with pipeline_on(first) as pipeline:
        pauses_ms, growth_mb = await _swap(pipeline, first, second, swaps)
        snapshot = pipeline.snapshot()
    sections = [row.section for row in snapshot.counts]
    received = sum(section.received for section in sections)
    ended = sum(sum(section.outcomes) for section in sections)
    failed = ended - sum(section.outcomes[0] for section in sections)
    numbered = snapshot.seq - 1
    what = f"{name}, {swaps} swaps"
    middle, spread = median(pauses_ms)
    return [
        Row("swap", f"{what}: samples", received, ""),
        Row("swap", f"{what}: lost", received - ended - snapshot.in_flight, "", 0),
        Row("swap", f"{what}: not attributed", abs(numbered - received), "", 0),
        Row("swap", f"{what}: failed", failed, "", 0),
        Row(
            "swap",
            f"{what}: longest pause, median",
            middle,
            "ms",
            TARGETS_MS[name],
            spread=spread,
        ),
        Row(
            "swap",
            f"{what}: longest pause, p99",
            percentile(pauses_ms, 0.99),
            "ms",
            P99_BEYOND_MS,
        ),
        Row("swap", f"{what}: RSS growth after {SETTLED}", growth_mb, "MB", GROWTH_MB),
    ]


async def _swap(
    pipeline: Pipeline, first: Subject, second: Subject, swaps: int
) -> tuple[list[float], float]:
    """Swap to and fro; return the pauses in ms and the growth of the RSS in MB."""
    executor = first_executor()
    sides = [first.placed(executor), second.placed(executor)]
    await pipeline.swap_in(sides[0])
    pipeline.commit(sides[0])
    await until_ready(pipeline)
    pauses_ms: list[float] = []
    settled_bytes = 0
    for number in range(1, swaps + 1):
        side = sides[number % 2]
        await pipeline.swap_in(side)
        pipeline.commit(side)
        snapshot = pipeline.snapshot()
        pauses_ms.append(snapshot.gap_s * 1e3)
        if number == SETTLED:
            settled_bytes = snapshot.worker_rss_bytes
    growth = pipeline.snapshot().worker_rss_bytes - settled_bytes
    return pauses_ms, growth / MB
