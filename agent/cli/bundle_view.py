"""How bundles look to people: tables that fit 80 columns.

The rules this module keeps:
 * Names come from files of strangers: they are never markup, and whatever is not
   printable (terminal escapes, line feeds) is shown as ``?``.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.cli.inspection import BundleFacts, Report, SealedFacts, Trial, VariantFacts
from agent.cli.inspection_profile import ProfileFacts
from agent.core.manifest import TensorSpec

NUMBERS = (
    *("Size", "RAM", "Tolerance", "Accuracy", "p50 ms", "p95 ms", "Differs"),
    *("Samples", "Groups", "Features"),
)
MAX_LABELS_SHOWN = 12  # two lines; --json has them all


def print_report(report: Report) -> None:
    """Print a report, in the order in which it was found out."""
    console = Console(highlight=False)
    kind = report.kind or "neither a bundle nor a .tflite file"
    console.print(_plain(f"{report.file}  {kind}, {render_size(report.size)}"))
    console.print(Text(f"sha256 {report.sha256}", style="dim"))
    if report.sealed:
        _print_sealed(console, report.sealed)
    if report.bundle:
        _print_bundle(console, report.bundle)
    if report.variants:
        _print_table(console, "Variants", _variants_table(report.variants))
        _print_table(console, "Tensors", _tensors_table(report.variants))
    if report.profile:
        _print_profile(console, report.profile)
    if report.trials and report.ran:
        _print_table(console, "Tried in a child", _ran_table(report.trials))
        _print_reasons(console, report.trials)
    elif report.trials:
        _print_table(console, "This board would try", _plan_table(report.trials))


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


def count_of(number: int, thing: str) -> str:
    """Return a number of things.

    >>> count_of(1, "golden sample"), count_of(32, "golden sample")
    ('1 golden sample', '32 golden samples')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _plain(value: str, style: str = "") -> Text:
    """Return a stranger's text as just that."""
    return Text("".join(c if c.isprintable() else "?" for c in value), style=style)


def _print_sealed(console: Console, facts: SealedFacts) -> None:
    """Print what anybody may know of a sealed bundle."""
    shown = ", ".join(facts.boards[:MAX_LABELS_SHOWN])
    more = len(facts.boards) - MAX_LABELS_SHOWN
    marked = ", each with a copy of its own" if facts.marked else ""
    rows = {
        "sealed": f"{facts.model} {facts.version}, with {facts.algorithm}",
        "plain": render_size(facts.plain_bytes),
        "for": (shown + (f" and {more} more" if more > 0 else "") or "nobody") + marked,
        "opened": "" if facts.opened else "no: --seal-key KEY --board ID opens it",
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value:
            table.add_row(Text(key, style="dim"), _plain(value))
    console.print(table)


def _print_bundle(console: Console, facts: BundleFacts) -> None:
    """Print what the manifest says beside its variants."""
    name = f" ({facts.version_name})" if facts.version_name else ""
    console.print(_plain(f"\n{facts.model} {facts.version}{name}".lstrip(), "bold"))
    labels = ", ".join(facts.labels[:MAX_LABELS_SHOWN])
    more = len(facts.labels) - MAX_LABELS_SHOWN
    steps = [str(step.__struct_config__.tag) for step in facts.preprocess]
    budgets = facts.budgets
    rows = {
        "task": f"{facts.task}, {facts.io} tensors, schema {facts.schema}",
        "labels": labels + (f" and {more} more" if more > 0 else ""),
        "preprocess": ", then ".join(steps),
        "budgets": f"p95 {budgets.p95_ms:g} ms, {budgets.ram_mb:g} MB",
        "golden": count_of(facts.golden_samples, "sample"),
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value:
            table.add_row(Text(key, style="dim"), _plain(value))
    console.print(table)


def _print_table(console: Console, title: str, table: Table) -> None:
    """Print a table under its title."""
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)


def _table(*columns: str) -> Table:
    """Return an empty table; long names fold, numbers never do."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in NUMBERS else "left",
            no_wrap=column in (*NUMBERS, "Executor"),
            overflow="fold",
        )
    return table


def _variants_table(variants: Sequence[VariantFacts]) -> Table:
    """Return sizes, needs and operators."""
    stated = any(facts.accuracy is not None for facts in variants)
    column = ("Accuracy",) if stated else ()
    sizes = ("Size", "RAM", "Tolerance", *column)
    table = _table("Variant", *sizes, "May use", "Operators")
    for facts in variants:
        tolerance = "-" if facts.tolerance is None else f"{facts.tolerance:g}"
        accuracy = "-" if facts.accuracy is None else f"{facts.accuracy:.4g}"
        table.add_row(
            _plain(facts.name),
            render_size(facts.size),
            render_size(facts.ram_bytes),
            tolerance,
            *([accuracy] if stated else []),
            _plain(", ".join([*(facts.runtimes or ["any"]), *facts.delegates])),
            _plain(", ".join(facts.operators) or "?"),
        )
    return table


def _tensors_table(variants: Sequence[VariantFacts]) -> Table:
    """Return the tensor contract."""
    table = _table("Variant", "", "Name", "Shape", "Type", "Real value")
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


def _print_profile(console: Console, profile: ProfileFacts) -> None:
    """Print what the reference profile says of each variant, and what it lacks."""
    title = f"Reference profile, {render_size(profile.size)}"
    table = _table("Variant", "Samples", "Groups", "Features", "Calibration")
    for facts in profile.references:
        if facts.unusable:
            why = _plain(f"unusable: {facts.unusable}", "yellow")
            table.add_row(_plain(facts.variant), "-", "-", "-", why)
            continue
        table.add_row(
            _plain(facts.variant),
            f"{facts.samples:,}",
            str(facts.groups or "?"),
            str(len(facts.features)),
            facts.calibration,
        )
    _print_table(console, title, table)
    notes = dict.fromkeys(note for facts in profile.references for note in facts.notes)
    for note in notes:
        console.print(_plain(f"note: {note}", "dim"))


def _plan_table(trials: Sequence[Trial]) -> Table:
    """Return what this board would try, most wanted first."""
    table = _table("Variant", "Executor")
    for trial in trials:
        table.add_row(_plain(trial.variant), _plain(trial.executor))
    return table


def _ran_table(trials: Sequence[Trial]) -> Table:
    """Return how it went."""
    table = _table(
        "Variant", "Executor", "p50 ms", "p95 ms", "Differs", "RAM", "Verdict"
    )
    for trial in trials:
        found = trial.finding
        numbers = ["-"] * 4
        verdict = Text("not tried", style="red")
        if found and found.reason:
            verdict = Text(found.reason, style="red")
        elif found:
            numbers = [f"{found.p50_ms:.3f}", f"{found.p95_ms:.3f}"]
            numbers += [f"{found.max_difference:.2g}", render_size(found.ram_bytes)]
            verdict = Text("chosen", "bold green") if trial.chosen else Text("agrees")
        table.add_row(_plain(trial.variant), _plain(trial.executor), *numbers, verdict)
    return table


def _print_reasons(console: Console, trials: Sequence[Trial]) -> None:
    """Print why pairs did not pass, why one of the others runs, and why they do not."""
    for trial in trials:
        where = f"{trial.variant} on {trial.executor}"
        if trial.finding and trial.finding.reason:
            console.print(_plain(f"{where}: {trial.finding.detail}", "red"))
        elif trial.why:
            style = "green" if trial.chosen else "dim"
            console.print(_plain(f"{where}: {trial.why}", style))
