"""``tinyward fleet status``: every board of an inventory at a glance, trouble first.

The rules this module keeps:
 * Boards are asked at the same time, ``AT_ONCE`` of them; one that does not answer
   holds up nobody, and is a row with why.
 * Nothing is changed on any board: an observer's certificate is enough.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Unpack

import click

from agent.cli.fleet_boards import group_option, inventory_option
from agent.cli.reach import INTERRUPTED, Remote, remote_options
from agent.errors import AgentError

if TYPE_CHECKING:
    from rich.console import Console, Group

    from agent.cli.board_link import BoardLink
    from agent.cli.fleet_rows import BoardRow
    from agent.cli.patience import Patience
    from agent.core.inventory import BoardTable

# Boards that are gone take 10 s each: a hundred of a thousand are known in half a
# minute, and a laptop has threads and sockets for it.
AT_ONCE = 32
# A look at a board takes it a few milliseconds: every other second it does not notice.
WATCH_S = 2.0
REDRAWS_PER_S = 4  # sorting ten thousand rows takes 20 ms
KEEP_OPEN = 256  # connections between two looks; shells allow 1,024 files
HELP = """Show every board of an inventory: health, version, drift, and why.

\b
tinyward fleet status --inventory fleet.toml
tinyward fleet status --group canary --watch
tinyward fleet status --json | jq '.boards[] | select(.health != "well")'

\b
HEALTH  unreachable  it did not answer
        failing      it gives no answers, wrong ones, or refused its update
        warned       its model answers; something needs a person soon
        updating     an update is under way
        well         nobody has to do anything

Papers (an observer's are enough) come from [papers] of the inventory or from the
options. Exit code 0 if all boards answered and are well or updating, 1 otherwise."""


@click.command(help=HELP, short_help="Show all boards, trouble first.")
@inventory_option
@group_option
@remote_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.option("--watch", is_flag=True, help="Look again and again; Ctrl-C ends.")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    inventory: Path,
    group: str,
    as_json: bool,
    watch: bool,
    **papers: Unpack[Remote],
) -> None:
    """Ask every board and show what they say.

    Raises:
        AgentError: The inventory or a file cannot be used.
        click.UsageError: Two options do not go together, or papers are missing.
    """
    from rich.console import Console

    from agent.cli.fleet_table import describe_fleet, is_well, render_fleet
    from agent.cli.status_view import show_lines

    console = Console(highlight=False)
    if watch and not as_json and not console.is_terminal:
        raise click.UsageError("--watch needs a terminal; --json --watch does not")
    look = _find_boards(inventory, group, papers)
    try:
        if watch and not as_json:
            _watch(look, console)
        while watch:
            click.echo(json.dumps(describe_fleet(look.all())))
            look.patience.pause(WATCH_S)
        rows = look.all() if as_json else _show_progress(look)
    except KeyboardInterrupt:
        look.break_off()
        ctx.exit(0 if watch else INTERRUPTED)
    if as_json:
        click.echo(json.dumps(describe_fleet(rows), indent=2))
    else:
        show_lines(console, render_fleet(rows))
    ctx.exit(0 if is_well(rows) else 1)


class Look:
    """All boards of a fleet, asked at the same time.

    Args:
        boards: Rows of the inventory.
        links: The link to each, in the same order.
        patience: What the links wait with.
    """

    def __init__(
        self,
        boards: "Sequence[BoardTable]",
        links: "Sequence[BoardLink]",
        patience: "Patience",
    ) -> None:
        self.boards = boards
        self.patience = patience
        self._links = links

    def rows(self) -> "Iterator[BoardRow]":
        """Ask every board once; yield their rows as the answers come."""
        from agent.cli.fleet_threads import broken_off

        pairs = zip(self.boards, self._links, strict=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(self._ask, *pair) for pair in pairs]
            try:
                with broken_off(self._links, self.patience):
                    for future in as_completed(futures):
                        yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def all(self) -> "list[BoardRow]":
        """Ask every board once, and wait for all of them."""
        return list(self.rows())

    def break_off(self) -> None:
        """End what is being waited for."""
        self.patience.end()
        for link in self._links:
            link.break_off()

    def _ask(self, board: "BoardTable", link: "BoardLink") -> "BoardRow":
        """Ask one board."""
        from agent.cli.fleet_rows import describe_row, unreachable_row

        try:
            state = link.state()
        except AgentError as err:
            return unreachable_row(board, err)
        finally:
            if len(self.boards) > KEEP_OPEN:
                link.close()
        now = time.time()  # noqa: TID251 - for boards without a clock of their own
        return describe_row(board, state, now)


def _find_boards(inventory: Path, group: str, papers: Remote) -> Look:
    """Read the inventory and link its boards."""
    from agent.cli.fleet_boards import choose_papers, link_boards, read_inventory
    from agent.cli.patience import Patience

    patience = Patience()
    fleet = read_inventory(inventory)
    boards = fleet.chosen(group)
    files = choose_papers(fleet.papers, inventory, papers)
    return Look(boards, link_boards(boards, files, patience.pause), patience)


def _show_progress(look: Look) -> "list[BoardRow]":
    """Ask all boards, with a bar on a terminal while they answer."""
    with _counting(len(look.boards)) as count:
        rows = []
        for row in look.rows():
            rows.append(row)
            count()
    return rows


@contextmanager
def _counting(total: int) -> Iterator[Callable[[], None]]:
    """Give what counts one answer more; shown on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as it:
        task = it.add_task("asking boards", total=total)
        yield lambda: it.advance(task)


def _watch(look: Look, console: "Console") -> NoReturn:
    """Redraw the table in place, as answers come."""
    from rich.live import Live

    from agent.cli.fleet_table import render_fleet

    known: dict[str, BoardRow] = {}
    asked = len(look.boards)

    def shown() -> "Group":
        # One step of the interpreter: rows are added meanwhile.
        return render_fleet(list(known.values()), asked, console)

    with Live(get_renderable=shown, console=console, refresh_per_second=REDRAWS_PER_S):
        while True:
            for row in look.rows():
                known[row.board.id] = row
            look.patience.pause(WATCH_S)
