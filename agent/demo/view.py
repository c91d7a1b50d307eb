"""How the demo is shown: steps that stay, and a live table that changes.

On a terminal the table is redrawn in place; elsewhere only the steps are printed.
"""

from collections.abc import Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.demo.board import Json
from agent.demo.owner import MODEL
from agent.demo.story import Summary

CLAIMS = {
    "lost_none": "no sample was lost",
    "swapped": "version 2 replaced version 1 under load",
    "flipped_refused": "the bundle with one flipped bit was refused",
    "stranger_refused": "the stranger's bundle was refused",
    "v2_better": "version 2 is better than version 1",
}
RECENT = 18  # predictions in the live view: as many as fit 80 columns


class ConsoleView:
    """Shows the story on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._number = 0
        self._last = (0.0, 0)
        self._rate = 0.0

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Take the live table away; the steps stay."""
        self._live.stop()

    def step(self, text: str) -> None:
        """Say what is done next."""
        self._number += 1
        self._console.print(Text(f"{self._number}. {text}", style="bold"))

    def done(self, text: str) -> None:
        """Say how it went."""
        self._console.print(Text(f"   {text}"))

    def live(self, state: Json, predictions: Sequence[Json]) -> None:
        """Show the board as it is now."""
        if self._console.is_terminal:
            self._live.update(self._board(state, predictions))

    def _board(self, state: Json, predictions: Sequence[Json]) -> Group:
        """Return the live table."""
        pipeline = state["pipelines"][MODEL]
        latency = pipeline["latency_ms"]
        table = Table.grid(padding=(0, 2))
        rows = {
            "model": _describe_model(pipeline["active"]),
            "update": state["update"]["phase"].lower(),
            "throughput": f"{self._per_second(predictions):.0f} samples/s",
            "latency": " ".join(
                f"{key} {latency[key]:.3f} ms" if latency[key] else f"{key} -"
                for key in ("p50", "p95", "p99")
            ),
            "memory": f"daemon {state['daemon_rss_bytes'] / 1e6:.0f} MB, "
            f"worker {pipeline['worker']['rss_bytes'] / 1e6:.0f} MB",
            "digits": " ".join(str(row["label"]) for row in predictions[-RECENT:]),
        }
        for name, value in rows.items():
            table.add_row(Text(f"   {name}", style="dim"), Text(value))
        return Group(table)

    def _per_second(self, predictions: Sequence[Json]) -> float:
        """Return the rate of predictions, from the times they carry."""
        if len(predictions) < 2:
            return 0.0
        recent = predictions[-200:]
        seconds = recent[-1]["t"] - recent[0]["t"]
        return float((len(recent) - 1) / seconds) if seconds > 0 else 0.0


def _describe_model(active: Json | None) -> str:
    """Say which model answers, and on what."""
    if active is None:
        return "none yet"
    return f"{active['model']} {active['version']} on {active['executor']}"


def show_summary(console: Console, summary: Summary) -> None:
    """Print the summary and whether each claim held."""
    samples, latency = summary.samples, summary.latency_ms
    ended = " + ".join(f"{samples[key]} {key}" for key in ("ok", "failed", "dropped"))
    rows = {
        "samples": f"{samples['in']} in = {ended}, lost = {samples['lost']}",
        "latency": ", ".join(f"{key} {value:.3f} ms" for key, value in latency.items()),
        "swap": f"{summary.swap['from']} -> {summary.swap['to']}, longest pause "
        f"{summary.swap['gap_ms']:.2f} ms",
        "refused": ", ".join(f"{r['what']}: {r['reason']}" for r in summary.refused),
        "accuracy": ", ".join(
            f"version {version}: {share:.1%}"
            for version, share in sorted(summary.accuracy.items())
        ),
        "memory": ", ".join(f"{k} {v:.0f} MB" for k, v in summary.rss_mb.items()),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(value))
    console.print()
    console.print(table)
    console.print()
    for claim, held in summary.claims.items():
        mark = Text("yes ", "green") if held else Text("NO  ", "bold red")
        console.print(Text("  ").append(mark).append(CLAIMS[claim]))
