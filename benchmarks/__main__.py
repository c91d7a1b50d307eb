"""``python -m benchmarks [--json] [NAME [options]] ...``: measure, print, save."""

import asyncio
import json
from pathlib import Path

import click
from rich.console import Console

from benchmarks.rows import Row, save, show

QUICK = (
    *("loop", "locks", "swap", "preflight", "start", "memory", "scrape"),
    *("publish", "poll"),
)


class Report:
    """Prints each benchmark as it ends; keeps the rows for ``--json``."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.rows: list[Row] = []
        self.console = Console(stderr=as_json)

    def add(self, name: str, rows: list[Row], *, whole: bool = True) -> None:
        """Take the rows of one benchmark; what is only a part of it is not saved."""
        if whole:
            save(name, rows)
        show(rows, self.console)
        self.rows += rows


@click.group(chain=True, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list on stdout.")
@click.pass_context
def main(ctx: click.Context, as_json: bool) -> None:  # noqa: FBT001 - click passes it
    """Measure what Tinyward costs; without a NAME, everything that is quick.

    Writes benchmarks/results/NAME.json. Nothing here is a gate: machines differ.
    """
    ctx.obj = Report(as_json=as_json)
    if ctx.invoked_subcommand is None:
        for name in QUICK:
            ctx.invoke(main.commands[name])
        _finish(ctx.obj)


@main.result_callback()
@click.pass_obj
def _end(report: Report, /, *_results: object, **_options: object) -> None:
    """Print the JSON list after the last named benchmark."""
    _finish(report)


def _finish(report: Report) -> None:
    """Print everything once more, for scripts."""
    if report.as_json and report.rows:
        click.echo(json.dumps([row.render() for row in report.rows]))
        report.rows = []


@main.command()
@click.option("--rounds", default=25, show_default=True, help="Alternating rounds.")
@click.option("--seconds", default=0.15, show_default=True, help="Of each side.")
@click.pass_obj
def loop(report: Report, rounds: int, seconds: float) -> None:
    """Throughput and added time per sample, beside the bare interpreter."""
    from benchmarks.loop import run

    report.add("loop", run(rounds, seconds))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Alternating rounds.")
@click.option("--seconds", default=0.5, show_default=True, help="Of each side.")
@click.pass_obj
def locks(report: Report, rounds: int, seconds: float) -> None:
    """Throughput of a worker inside its locks, beside one without them."""
    from benchmarks.locks import run

    report.add("locks", asyncio.run(run(rounds, seconds)))


@main.command()
@click.option("--rounds", default=80, show_default=True, help="Alternating rounds.")
@click.option("--seconds", default=0.06, show_default=True, help="Of each side.")
@click.pass_obj
def receipts(report: Report, rounds: int, seconds: float) -> None:
    """What a receipt costs each inference, and what the loop loses by it."""
    from benchmarks.receipts import run

    report.add("receipts", run(rounds, seconds))


@main.command()
@click.option("--records", default=1_000_000, show_default=True, help="In the log.")
@click.option("--proofs", default=200, show_default=True, help="Of any of them.")
@click.pass_obj
def proof(report: Report, records: int, proofs: int) -> None:
    """Prove one receipt among a million, verify it, start with them."""
    from benchmarks.proof import run

    report.add("proof", run(records, proofs), whole=records >= 1_000_000)


@main.command()
@click.option("--flips", default=200, show_default=True, help="In each place.")
@click.option("--model", "models", multiple=True, help="demo, kws, resnet, vww.")
@click.pass_obj
def integrity(report: Report, flips: int, models: tuple[str, ...]) -> None:
    """Flip weight bits of a running worker; which check finds them, and when."""
    from benchmarks.integrity import MODELS, run

    rows = asyncio.run(run(models or MODELS, flips))
    report.add("integrity", rows, whole=not models)


@main.command()
@click.option("--inputs", default=100, show_default=True, help="Of each model.")
@click.option("--audits", default=400, show_default=True, help="Seeds a share.")
@click.pass_obj
def audit(report: Report, inputs: int, audits: int) -> None:
    """How often computing anew finds a board that cheats, against theory."""
    from benchmarks.audit import run

    report.add("audit", run(inputs, audits))


@main.command()
@click.option("--swaps", default=200, show_default=True, help="Swaps in a row.")
@click.pass_obj
def swap(report: Report, swaps: int) -> None:
    """Swaps under full load: pauses, losses, attribution, memory."""
    from benchmarks.swap import run

    report.add("swap", asyncio.run(run(swaps)))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Alternating rounds.")
@click.option("--seconds", default=2.0, show_default=True, help="Of each side.")
@click.pass_obj
def scrape(report: Report, rounds: int, seconds: float) -> None:
    """Duration of a scrape, and what ten a second do to the loop's p99."""
    from benchmarks.scrape import run

    report.add("scrape", asyncio.run(run(rounds, seconds)))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Starts.")
@click.pass_obj
def start(report: Report, rounds: int) -> None:
    """From ``tinyward run`` to the first answer and to ``/readyz`` 200."""
    from benchmarks.start import run

    report.add("start", run(rounds))


@main.command()
@click.option("--rounds", default=7, show_default=True, help="Updates in a row.")
@click.pass_obj
def update(report: Report, rounds: int) -> None:
    """The loop's p99 during an update of 10 MB, and what it loses."""
    from benchmarks.update import run_update

    report.add("update", asyncio.run(run_update(rounds)))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Updates in a row.")
@click.pass_obj
def publish(report: Report, rounds: int) -> None:
    """From publish to active on a board that polls each second, by phase."""
    from benchmarks.update import run_publish

    report.add("publish", asyncio.run(run_publish(rounds)))


@main.command()
@click.option("--rounds", default=15, show_default=True, help="Looks of each kind.")
@click.pass_obj
def poll(report: Report, rounds: int) -> None:
    """CPU time of a look at a repository with nothing new, and of a refresh."""
    from benchmarks.update import run_poll

    report.add("poll", asyncio.run(run_poll(rounds)))


@main.command()
@click.option("--rounds", default=5, show_default=True, help="Deltas of each kind.")
@click.pass_obj
def delta(report: Report, rounds: int) -> None:
    """Updates by delta: bytes, seconds to make and apply one, memory."""
    from benchmarks.delta import run

    report.add("delta", run(rounds))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Openings.")
@click.pass_obj
def unseal(report: Report, rounds: int) -> None:
    """A sealed bundle of 50 MB: milliseconds and memory to open it, envelopes."""
    from benchmarks.unseal import run

    report.add("unseal", run(rounds))


@main.command()
@click.option("--venv", is_flag=True, help="Also install into a new environment.")
@click.pass_obj
def memory(report: Report, venv: bool) -> None:  # noqa: FBT001 - click passes it
    """Resident and proportional memory of daemon and worker; installed size."""
    from benchmarks.memory import run

    report.add("memory", run(venv=venv))


@main.command()
@click.option("--rounds", default=5, show_default=True, help="Preflights.")
@click.pass_obj
def preflight(report: Report, rounds: int) -> None:
    """A preflight of the keyword model on three executors."""
    from benchmarks.preflight import run

    report.add("preflight", asyncio.run(run(rounds)))


@main.command()
@click.option("--full", is_flag=True, help="Every call, every kind of mount, daemons.")
@click.pass_obj
def faults(report: Report, full: bool) -> None:  # noqa: FBT001 - click passes it
    """Deaths, full disks and power cuts at every point of an update."""
    from benchmarks.faults import run

    report.add("faults", run(report.console, full=full))


@main.command()
@click.option("--inputs", default=100_000, show_default=True, help="Damaged inputs.")
@click.option("--seed", default=1, show_default=True, help="Other seeds, other inputs.")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.pass_obj
def fuzz(report: Report, inputs: int, seed: int, jobs: int) -> None:
    """Damaged metadata, bundles, messages and answers: what comes of them."""
    from benchmarks.fuzz import run

    report.add("fuzz", run(report.console, inputs, seed, jobs))


@main.command()
@click.option("--quick", is_flag=True, help="A tenth of it, in about two minutes.")
@click.pass_obj
def watch(report: Report, quick: bool) -> None:  # noqa: FBT001 - click passes it
    """Drift: what the monitor finds, how soon, how often wrongly, and its cost."""
    from benchmarks.watch_needs import missing

    if absent := missing():
        raise click.ClickException(
            f"not installed: {', '.join(absent)}; tinyward[test] brings them"
        )
    from benchmarks.watch import FULL, QUICK, run

    rows = run(QUICK if quick else FULL, report.console.print)
    report.add("watch_quick" if quick else "watch", rows)


@main.command()
@click.option("--full", is_flag=True, help="All models, 10,000 copies: half an hour.")
@click.pass_obj
def watermark(report: Report, full: bool) -> None:  # noqa: FBT001 - click passes it
    """Marked copies: what marking costs, what attacks leave, who is named."""
    from agent.cli.watermark_runtime import quiet_arithmetic

    quiet_arithmetic()
    from benchmarks.watermark import FULL, QUICK, run

    rows = run(FULL if full else QUICK, report.console.print)
    report.add("watermark", rows)


@main.command()
@click.option("--rounds", default=7, show_default=True, help="Interleaved rounds.")
@click.option("--seconds", default=4.0, show_default=True, help="Of each side.")
@click.pass_obj
def page(report: Report, rounds: int, seconds: float) -> None:
    """The board's page: bytes, first paint, and what an open one costs."""
    from benchmarks.page import run

    report.add("page", run(rounds, seconds))


@main.command()
@click.option("--minutes", default=30.0, show_default=True, help="Ctrl-C: earlier.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Also draw it, as SVG.",
)
@click.pass_obj
def soak(report: Report, minutes: float, plot: Path | None) -> None:
    """Full load with updates and faults for a while: losses, leaks, p99."""
    from benchmarks.soak import Plan, run

    report.add("soak", run(Plan(minutes * 60), plot, report.console))


@main.command()
@click.option("--rounds", default=9, show_default=True, help="Boots, deaths, loops.")
@click.option("--minutes", default=5.0, show_default=True, help="Of an idle board.")
@click.pass_obj
def service(report: Report, rounds: int, minutes: float) -> None:
    """Under a real systemd, as root: boot, deaths, idle cost, the sandbox's price."""
    from benchmarks.service import run

    report.add("service", run(rounds, minutes))


@main.command()
@click.option("--boards", default=1000, show_default=True, help="In one process.")
@click.option("--poll-s", default=300.0, show_default=True, help="Simulated seconds.")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(("steady", "outage", "flapping", "waves", "canary")),
    help="Only this one; may be given again. Without it, all.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Also draw the outages, as SVG.",
)
@click.pass_obj
def fleet(
    report: Report,
    boards: int,
    poll_s: float,
    scenarios: tuple[str, ...],
    plot: Path | None,
) -> None:
    """A fleet against one nginx: polling, outages, bad networks, waves, a canary.

    Saved only as a whole, of 1,000 boards or more: smaller ones tell less.
    """
    from benchmarks.fleet import SCENARIOS, run

    wanted = tuple(name for name in SCENARIOS if not scenarios or name in scenarios)
    rows = run(boards, poll_s, wanted, plot, report.console)
    report.add("fleet", rows, whole=wanted == SCENARIOS and boards >= 1000)


@main.command()
@click.option("--rounds", default=15, show_default=True, help="Of each cost.")
@click.option("--kills", default=1000, show_default=True, help="Of metered boards.")
@click.option("--seed", default=1, show_default=True, help="Of the moments of death.")
@click.pass_obj
def meter(report: Report, rounds: int, kills: int, seed: int) -> None:
    """What counting paid units costs, and whether kill -9 lets any escape."""
    from benchmarks.meter import run

    report.add("meter", run(rounds, kills, seed), whole=kills >= 1000)


if __name__ == "__main__":
    main()
