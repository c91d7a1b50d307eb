"""``preflight``: the keyword model on three executors, child process included."""

import time

from agent.supervise.preflight import Wish, run_preflight
from benchmarks.rows import Row, median
from benchmarks.subjects import subject

TARGET_S = 2.0


async def run(rounds: int) -> list[Row]:
    """Return the duration of a whole preflight, and what it chose."""
    it = subject("kws")
    seconds: list[float] = []
    chosen, pairs = "", 0
    for _ in range(rounds):
        began = time.perf_counter()
        report = await run_preflight(it.bundle, Wish(threads=2, cpu_count=2))
        seconds.append(time.perf_counter() - began)
        pairs = len(report.plan)
        chosen = report.chosen.executor.describe() if report.chosen else "nothing"
    middle, spread = median(seconds)
    return [
        Row("preflight", f"kws: executors tried, chosen {chosen}", pairs, ""),
        Row("preflight", "kws: whole preflight", middle, "s", TARGET_S, spread=spread),
    ]
