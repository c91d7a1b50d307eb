"""Tables of the README that are rendered from code, and the way to renew them.

``python -m tests.architecture.readme_tables`` rewrites the marked blocks of README.md;
the tests only compare.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from agent.cli.settings_text import describe_keys
from agent.core.explanations import EXPLANATIONS
from agent.core.update_machine import render_diagram
from agent.telemetry.families import METRICS
from tests.architecture.promises import render_promises

README = Path(__file__).resolve().parents[2] / "README.md"
RESULTS = README.parent / "benchmarks" / "results"
BENCHMARKS = (
    *("loop", "locks", "swap", "preflight", "start", "memory", "scrape"),
    *("watch", "page"),
    *("service", "soak"),
    *("update", "publish", "poll", "delta", "fleet", "faults", "fuzz"),
    *("unseal", "receipts", "proof", "meter", "audit", "integrity", "watermark"),
)
# Of these only rows with a target are shown.
SHORT = frozenset({"watch", "fleet", "integrity", "audit"})


def render_reasons() -> str:
    """Render the table of reasons: who acts, what happened, what to do."""
    rows = [
        (f"`{reason}`", known.what, known.actor, known.todo)
        for reason, known in EXPLANATIONS.items()
    ]
    return _table(("reason", "what happened", "who acts", "what to do"), rows)


def render_settings() -> str:
    """Render the table of every key of agent.toml."""
    rows = [
        (
            f"`{row.key}`",
            row.accepts,
            f"`{row.default}`" if row.default else "",
            row.text.replace("``", "`"),
        )
        for row in describe_keys()
    ]
    return _table(("key", "takes", "default", "meaning"), rows)


def render_metrics_table() -> str:
    """Render the table of metrics."""
    rows = [
        (f"`{row.name}`", row.kind, ", ".join(row.labels), row.text)
        for row in METRICS.values()
    ]
    return _table(("name", "type", "labels", "meaning"), rows)


def render_machine() -> str:
    """Render the update machine's table as a diagram."""
    return f"```mermaid\n{render_diagram()}\n```\n"


def render_benchmarks() -> str:
    """Render what the benchmarks measured last, with targets and verdicts."""
    rows: list[tuple[str, ...]] = []
    for name in BENCHMARKS:
        place = RESULTS / f"{name}.json"
        if not place.exists():  # not measured yet
            continue
        content = json.loads(place.read_text())
        date = content["measured_on"].get("date", "")
        for row in content["rows"]:
            if row["measure"].startswith("of "):  # parts of a sum, for the curious
                continue
            # 100 rows of single shifts, and what else was seen of a fleet or of flips.
            if name in SHORT and row["target"] is None:
                continue
            bound = "<=" if row["better"] == "below" else ">="
            target = "" if row["target"] is None else f"{bound} {row['target']:g}"
            verdict = {True: "reached", False: "**missed**", None: ""}[row["ok"]]
            value = f"{row['value']:.4g} {row['unit']}".strip()
            rows.append((f"`{name}`", row["measure"], value, target, verdict, date))
    return _table(("benchmark", "measure", "median", "target", "", "date"), rows)


BLOCKS = {
    "machine": render_machine,
    "benchmarks": render_benchmarks,
    "reasons": render_reasons,
    "settings": render_settings,
    "metrics": render_metrics_table,
    "promises": render_promises,
}


def find_block(readme: str, name: str) -> str:
    """Return the text between a block's marks."""
    marks = rf"<!-- {name}:begin -->\n(?P<text>.*?)<!-- {name}:end -->"
    found = re.search(marks, readme, re.DOTALL)
    assert found is not None, f"README.md has no block {name}"
    return found["text"]


def renew(readme: str) -> str:
    """Return the README with all blocks as the code says."""
    for name, render in BLOCKS.items():
        block = f"<!-- {name}:begin -->\n{render()}<!-- {name}:end -->"
        before, _, rest = readme.partition(f"<!-- {name}:begin -->")
        readme = before + block + rest.partition(f"<!-- {name}:end -->")[2]
    return readme


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


if __name__ == "__main__":
    README.write_text(renew(README.read_text()))
