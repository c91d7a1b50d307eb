"""``tinyward push``: bring boards a repository slice over TLS, and watch it."""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import INTERRUPTED, Remote, remote_links, remote_options
from agent.errors import AgentError

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink
    from agent.cli.delivery import Order
    from agent.cli.patience import Patience
    from agent.cli.push_results import Result
    from agent.cli.update_view import UpdateView

AT_ONCE = 4  # boards; more would share an operator's uplink too thinly
HELP = """Send boards what they need of a repository over TLS, and watch them update.

\b
tinyward push board-7.example --repository ./fleet-repo \\
    --cert me.pem --key me.key --ca fleet-ca.pem
tinyward push board-7@10.0.0.7:8443 board-8@10.0.0.8:8443 \\
    --repository ./fleet-repo --assign door=kws@8 --cert me.pem --ca fleet-ca.pem

BOARD is [NAME@]HOST[:PORT]. NAME is what the board's certificate has to say if that
is not its address: its id in the fleet, or a DNS name. The port is 8443 without one.

Files go in pieces, and go on where a connection broke, also when the command is run
again. Each board verifies them as if it had fetched them itself: who pushes need not
be trusted for content.

With --assign a board whose orchestrator is `push` is told what to run; all others
follow the desired state in the repository.

\b
Exit code 0 if every board runs as desired or waits, 1 if any does not.
Ctrl-C leaves the boards as they are; updates under way go on there."""


class Orders(Remote):
    """What to deliver, as options say it."""

    repository: Path | None
    assign: tuple[str, ...]
    generation: int | None
    everything: bool
    wait: bool


@click.command(help=HELP, short_help="Send a repository slice to boards over TLS.")
@click.argument("boards", metavar="BOARD...", nargs=-1, required=True)
@remote_options
@click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help="A repository, or a .tar or .zip of one.",
)
@click.option(
    "--assign",
    multiple=True,
    metavar="PIPELINE=[MODEL@]VERSION",
    help="What a pipeline shall run; may be given several times.",
)
@click.option(
    "--generation",
    type=click.IntRange(1),
    help="Of the desired state, instead of one more than the last.",
)
@click.option("--all", "everything", is_flag=True, help="Send every file it holds.")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Watch until it has ended.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    boards: tuple[str, ...],
    *,
    as_json: bool,
    **options: Unpack[Orders],
) -> None:
    """Deliver to every board and show how it went.

    Raises:
        AgentError: A file, a repository or an address cannot be used.
    """
    from agent.cli.patience import Patience

    if options["repository"] is None and not options["assign"]:
        raise click.UsageError("nothing to do: name --repository, --assign or both")
    # A board named twice would be sent everything twice, by two threads at once.
    patience = Patience()
    links = remote_links(list(dict.fromkeys(boards)), options, patience.pause)
    with ExitStack() as opened:
        order = _order(options, opened)
        try:
            results = _deliver(links, order, patience, quiet=as_json)
        except KeyboardInterrupt:
            click.echo(
                "left the boards as they are: updates under way go on there, and what "
                "was sent stays for the next push",
                err=True,
            )
            ctx.exit(INTERRUPTED)
    only = results[0].error if len(results) == 1 else None
    if only is not None and not as_json:
        raise only
    _show(results, as_json=as_json)
    ctx.exit(0 if all(result.good for result in results) else 1)


def _order(options: Orders, opened: ExitStack) -> "Order":
    """Return what is to be delivered, its slice open."""
    from agent.cli.delivery import Order
    from agent.cli.slice_files import open_slice

    path = options["repository"]
    return Order(
        files=opened.enter_context(open_slice(path)) if path else None,
        assign=parse_assignments(options["assign"]),
        generation=options["generation"] or 0,
        everything=options["everything"],
        wait=options["wait"],
    )


def parse_assignments(texts: "Sequence[str]") -> dict[str, tuple[str, int]]:
    """Return pipeline -> (model, version), as ``parse_assignment`` reads each.

    Raises:
        SettingsError: ``settings``: one is written otherwise, or a pipeline is named
            twice.
    """
    from agent.core.reasons import Reason
    from agent.errors import SettingsError

    rows = [parse_assignment(text) for text in texts]
    names = [name for name, _ in rows]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"--assign names pipeline {name!r} twice",
                reason=Reason.SETTINGS,
                todo="Assign one version to each pipeline.",
            )
    return dict(rows)


def parse_assignment(text: str) -> tuple[str, tuple[str, int]]:
    """Return (pipeline, (model, version)); the model may be left out and is then empty.

    Raises:
        SettingsError: ``settings``: it is written otherwise.
    """
    import re

    from agent.core.manifest import MAX_VERSION
    from agent.core.reasons import Reason
    from agent.errors import SettingsError

    match = re.fullmatch(r"([^=:@]+)=(?:([^=:@]+)[:@])?([0-9]{1,10})", text, re.ASCII)
    if match is None:
        raise SettingsError(
            f"{text!r} is not PIPELINE=VERSION or PIPELINE=MODEL@VERSION",
            reason=Reason.SETTINGS,
            todo="Write it as in `--assign door=kws@8`.",
        )
    pipeline, model, version = match.groups()
    if not 1 <= int(version) <= MAX_VERSION:
        raise SettingsError(
            f"{text!r}: versions of PIPELINE go from 1 to {MAX_VERSION}",
            reason=Reason.SETTINGS,
            todo="Name a version that was packed.",
        )
    return pipeline, (model or "", int(version))


def _deliver(
    links: "Sequence[BoardLink]", order: "Order", patience: "Patience", *, quiet: bool
) -> "list[Result]":
    """Deliver to a few boards at once; return the results in their order."""
    from rich.console import Console

    from agent.cli.update_view import UpdateView

    silent = quiet and not sys.stderr.isatty()
    console = Console(stderr=True, highlight=False, quiet=silent)
    width = max(len(link.where) for link in links) if len(links) > 1 else 0
    with UpdateView(console, width) as view, ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(_serve, link, order, view, patience) for link in links]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            # Threads cannot be interrupted; what they wait for can be ended.
            patience.end()
            for link in links:
                link.break_off()
            pool.shutdown(cancel_futures=True)
            raise


def _serve(
    link: "BoardLink", order: "Order", view: "UpdateView", patience: "Patience"
) -> "Result":
    """Deliver to one board."""
    from agent.cli.delivery import Delivery
    from agent.cli.push_results import Result, without_place

    shown = view.board(link.where)
    delivery = Delivery(link, shown, patience.pause)
    result = Result(link.where)
    try:
        result.outcomes = delivery.carry_out(order)
    except AgentError as err:
        result.error = err
        if view.several:
            shown.say(f"given up: {without_place(err, link.where)} [{err.reason}]")
    finally:
        shown.end()
        link.close()
    result.sent = {
        "sent_bytes": delivery.sent.sent_bytes,
        "kept_bytes": delivery.sent.kept_bytes,
    }
    return result


def _show(results: "Sequence[Result]", *, as_json: bool) -> None:
    """Print how it went, board by board."""
    from rich.console import Console

    from agent.cli.push_results import describe_result, results_table
    from agent.cli.status_view import show_lines

    if as_json:
        click.echo(
            json.dumps([describe_result(result) for result in results], indent=2)
        )
    else:
        show_lines(Console(highlight=False), results_table(results))
