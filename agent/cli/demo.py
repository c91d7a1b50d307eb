"""``tinyward demo``: the whole story on this machine, in less than a minute."""

import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from agent.demo.owner import Owner


@click.command(short_help="See a signed model run, improve, and withstand attacks.")
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=15.0,
    show_default=True,
    help="How long to watch the board, beside what the steps themselves take.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 5000),
    default=200.0,
    show_default=True,
    help="Samples a second.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print only the summary, as JSON."
)
@click.option("--keep", is_flag=True, help="Leave the daemon running at the end.")
@click.pass_context
def command(
    ctx: click.Context,
    seconds: float,
    rate: float,
    as_json: bool,  # noqa: FBT001 - click passes options so
    keep: bool,  # noqa: FBT001
) -> None:
    """See a signed model answer, be replaced under load, and withstand two attacks.

    In a temporary directory this makes keys and a TUF repository, publishes version 1
    of a model of handwritten digits, and starts the real daemon on 600 real samples
    it has never seen. Then it publishes version 2, which is swapped in without losing
    a sample, and offers a bundle with one flipped bit and one that a stranger signed.
    Exit code 0 only if every claim of the summary held.
    """
    directory = Path(tempfile.mkdtemp(prefix="tinyward-demo-"))
    kept = False
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal is a Ctrl-C, too
        if signal.getsignal(number) is not signal.SIG_IGN:  # not so under nohup
            signal.signal(number, signal.default_int_handler)
    try:
        held, kept = _tell(directory, seconds, rate, as_json=as_json, keep=keep)
    finally:
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)
    ctx.exit(0 if held else 1)


def _tell(
    directory: Path, seconds: float, rate: float, *, as_json: bool, keep: bool
) -> tuple[bool, bool]:
    """Build the story, tell it, and say how it ended: (all claims held, kept)."""
    from rich.console import Console

    from agent.demo.board import DemoBoard
    from agent.demo.story import Story
    from agent.demo.view import ConsoleView, show_summary

    out = Console(stderr=as_json, quiet=as_json and not sys.stderr.isatty())
    owner = _owner(directory)
    board = DemoBoard(directory, owner.directory, owner.root, rate, seconds)
    kept = False
    try:
        with ConsoleView(out) as view:
            summary = Story(owner, board, _truth(), view, seconds).tell()
        kept = keep
    finally:
        if not kept:
            board.stop()
    if as_json:
        click.echo(json.dumps(summary.render()))
    else:
        show_summary(out, summary)
    if kept:
        _say_kept(board.address, board.pid, directory)
    return summary.held, kept


def _owner(directory: Path) -> Owner:
    """Make the owner, with the functions that ``tinyward pack`` and ``repo`` use."""
    from agent.cli.examiner import ChildExaminer
    from agent.publish.description import parse_description
    from agent.publish.pack import pack
    from agent.publish.repository import Repository, init_repository

    examiner = ChildExaminer()

    def found(path: Path, passphrase: bytes, now: float) -> Repository:
        return init_repository(path, None, passphrase, now=now)

    def packed(raw: bytes, base: Path) -> bytes:
        return pack(parse_description(raw), base, examiner)

    return Owner(directory / "fleet-repo", found, packed, time.time)  # noqa: TID251 - the demo is its own composition root


def _truth() -> list[int]:
    """Return the digit that each sample of the stream shows."""
    import numpy as np

    from agent.demo.owner import ASSETS

    with np.load(ASSETS / "digits-stream.npz", allow_pickle=False) as stream:
        return [int(label) for label in stream["labels"]]


def _say_kept(address: str, pid: int, directory: Path) -> None:
    """Say where everything is that was left running."""
    click.echo(f"still running: {address}/ (process {pid})", err=True)
    click.echo(f"stop it: kill {pid} && rm -r {directory}", err=True)
