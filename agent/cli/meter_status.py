"""``tinyward meter status``: what is left, and what a power cut would cost."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Unpack

import click

from agent.cli.meter_link import (
    PipelineAnswer,
    StatusAnswer,
    Where,
    board_option,
    meter_link,
    read_answer,
)
from agent.cli.plain_text import plain, span_text
from agent.cli.reach import local_options, remote_options
from agent.core.meter_status import say_thinned
from agent.core.reasons import Reason
from agent.core.voucher import MAX_TOTAL


@click.command("status", short_help="Show what is left, by pipeline.")
@local_options
@board_option
@remote_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def command(*, board: str | None, as_json: bool, **where: Unpack[Where]) -> None:
    """Show what is paid for and left; `key` is what the vendor asks for."""
    link = meter_link(board, where)
    if as_json:
        click.echo(json.dumps(link.read_all("/v1/meter"), indent=2))
        return
    status = read_answer(link, "/v1/meter", StatusAnswer)
    for line in render_status(status):
        click.echo(line)


def render_status(status: StatusAnswer) -> Iterator[str]:
    """Yield the lines for people."""
    yield f"left      {_left(status)}"
    yield f"used      {status.used:,} of {status.bought:,} bought{_aside(status)}"
    # Who knows what was handed out is this boot alone: a refund needs it.
    back = ", a crash of the agent less (refund)" if status.refund else ""
    yield (
        f"lease     {status.lease:,}; a power cut now costs {status.reserved:,} at most"
        f"{back}"
    )
    if status.trouble:
        yield f"trouble   the disk takes no lease: {plain(status.trouble)}"
    yield f"voucher   the highest number redeemed is {status.voucher}"
    yield f"key       {plain(status.board)}"
    for name, pipeline in status.pipelines.items():
        yield f"pipeline  {plain(name)}: {_describe(pipeline, status.owed)}"


def _left(status: StatusAnswer) -> str:
    """Say what may still be answered."""
    said = [f"{status.left:,} units"]
    if status.until:
        end = datetime.fromtimestamp(min(status.until, 253_402_300_799), UTC)
        said.append(f"unlimited until {end:%Y-%m-%d %H:%M} UTC")
    if status.seconds:
        said.append(f"unlimited for {span_text(min(status.seconds, MAX_TOTAL))}")
    if status.owed:
        said.append(f"{status.owed:,} owed")
    return ", ".join(said)


def _aside(status: StatusAnswer) -> str:
    """Say what was not as usual."""
    said = [
        f"{count:,} {word}"
        for count, word in (
            (status.lost, "lost in crashes"),
            (status.free, "answered for nothing"),
            (status.failed, "failed"),
        )
        if count
    ]
    return f" ({', '.join(said)})" if said else ""


def _describe(pipeline: PipelineAnswer, owed: int) -> str:
    """Say what one pipeline has and does."""
    used = f"{pipeline.used:,} used"
    if pipeline.reason == Reason.UNPAID:
        ends = {
            "stop": "unpaid: stopped",
            "grace": f"unpaid: stopped, its grace of {pipeline.grace:,} is used up",
            "degrade": say_thinned(pipeline.every),
        }
        return f"{used}, {ends.get(pipeline.policy, Reason.UNPAID)}"
    policies = {
        "stop": "then stops",
        "grace": f"then {max(0, pipeline.grace - owed):,} more are owed at most",
        "degrade": f"then answers one in {pipeline.every:,}",
    }
    then = policies.get(pipeline.policy, plain(pipeline.policy))
    holds = plain(pipeline.reason) or f"may answer {pipeline.allowed:,} at once"
    return f"{used}, {holds}, {then}"
