"""How bundles look to people: tables that fit 80 columns.

The rules this module keeps:
 * Names come from files of strangers: they are never markup, and whatever is not
   printable (terminal escapes, line feeds) is shown as ``?``.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.inspection import BundleFacts, Report, Trial, VariantFacts
from agent.core.manifest import TensorSpec

MAX_LABELS_SHOWN = 12  # two lines; --json has them all


def print_report(report: Report) -> None:
    """Print a report, in the order in which it was found out."""
    console = Console(highlight=False)
    kind = report.kind or "neither a bundle nor a .tflite file"
    console.print(_plain(f"{report.file}  {kind}, {render_size(report.size)}"))
    console.print(Text(f"sha256 {report.sha256}", style="dim"))
    if report.bundle:
        _print_bundle(console, report.bundle)
    if report.variants:
        console.print(_variants_table(report.variants))
        console.print(_tensors_table(report.variants))
    if report.trials:
        console.print(_trials_table(report.trials, ran=report.ran))


def render_size(count: int) -> str:
    """Return bytes for people.

    >>> render_size(999), render_size(45_368), render_size(2_000_000)
    ('999 B', '45.4 kB', '2.0 MB')
    """
    if count < 1000:
        return f"{count} B"
    for unit, size in (("kB", 1e3), ("MB", 1e6)):
        if count < size * 999.95:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def _plain(value: str, style: str = "") -> Text:
    """Return a stranger's text as just that."""
    return Text("".join(c if c.isprintable() else "?" for c in value), style=style)


def _print_bundle(console: Console, facts: BundleFacts) -> None:
    """Print what the manifest says beside its variants."""
    name = f" ({facts.version_name})" if facts.version_name else ""
    console.print(_plain(f"\n{facts.model} {facts.version}{name}".lstrip(), "bold"))
    labels = ", ".join(facts.labels[:MAX_LABELS_SHOWN])
    more = len(facts.labels) - MAX_LABELS_SHOWN
    steps = " > ".join(type(step).__name__.lower() for step in facts.preprocess)
    budgets = facts.budgets
    rows = {
        "task": f"{facts.task}, {facts.io} tensors, schema {facts.schema}",
        "labels": labels + (f" and {more} more" if more > 0 else ""),
        "preprocess": steps,
        "budgets": f"p95 {budgets.p95_ms:g} ms, {budgets.ram_mb:g} MB",
        "golden": f"{facts.golden_samples} samples",
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value:
            table.add_row(Text(key, style="dim"), _plain(value))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    """Return an empty table whose long cells fold."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in columns:
        right = column in ("Size", "RAM", "Tolerance", "p50 ms", "p95 ms", "Differs")
        table.add_column(
            column,
            justify="right" if right else "left",
            overflow="fold",
            header_style="dim",
            no_wrap=right,
        )
    return table


def _variants_table(variants: Sequence[VariantFacts]) -> Table:
    """Return sizes, needs and operators."""
    table = _table(
        "\nVariants", "Variant", "Size", "RAM", "Tolerance", "May use", "Operators"
    )
    for facts in variants:
        tolerance = "-" if facts.tolerance is None else f"{facts.tolerance:g}"
        table.add_row(
            _plain(facts.name),
            render_size(facts.size),
            render_size(facts.ram_bytes),
            tolerance,
            _plain(", ".join([*(facts.runtimes or ["any"]), *facts.delegates])),
            _plain(", ".join(facts.operators) or "?"),
        )
    return table


def _tensors_table(variants: Sequence[VariantFacts]) -> Table:
    """Return the tensor contract."""
    table = _table("\nTensors", "Variant", "", "Name", "Shape", "Type", "Real value")
    for facts in variants:
        for way, specs in (("in", facts.inputs), ("out", facts.outputs)):
            for spec in specs:
                shape = " x ".join(map(str, spec.shape)) or "scalar"
                table.add_row(
                    _plain(facts.name),
                    way,
                    _plain(spec.name),
                    shape,
                    spec.dtype,
                    _render_quantisation(spec),
                )
    return table


def _render_quantisation(spec: TensorSpec) -> str:
    """Return how a stored value becomes a real one."""
    if not spec.scale:
        return "as stored"
    sign = "+" if spec.zero_point < 0 else "-"
    offset = f" {sign} {abs(spec.zero_point)}" if spec.zero_point else ""
    return f"(q{offset}) * {spec.scale:.4g}" if offset else f"q * {spec.scale:.4g}"


def _trials_table(trials: Sequence[Trial], *, ran: bool) -> Table:
    """Return what this board would try, or how it went."""
    if not ran:
        table = _table("\nThis board would try", "Variant", "Executor")
        for trial in trials:
            table.add_row(_plain(trial.variant), _plain(trial.executor))
        return table
    table = _table(
        "\nTried in a preflight child",
        *("Variant", "Executor", "p50 ms", "p95 ms", "Differs", "RAM", "Verdict"),
    )
    for trial in trials:
        table.add_row(*_trial_row(trial))
    return table


def _trial_row(trial: Trial) -> list[Text]:
    """Return one line of how it went."""
    found = trial.finding
    cells = [trial.variant, trial.executor]
    if found is None:
        return [*map(_plain, cells), *[Text("-")] * 4, Text("not tried", style="red")]
    if found.reason:
        cells += ["-"] * 4
        verdict = _plain(f"{found.reason}: {found.detail}", "red")
        return [*map(_plain, cells), verdict]
    cells += [f"{found.p50_ms:.3f}", f"{found.p95_ms:.3f}"]
    cells += [f"{found.max_difference:.2g}", render_size(found.ram_bytes)]
    verdict = Text("chosen", style="bold green") if trial.chosen else Text("agrees")
    return [*map(_plain, cells), verdict]
