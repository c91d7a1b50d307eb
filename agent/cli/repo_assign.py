"""``tinyward repo assign|pause|percent``: what groups and single boards shall run."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.repo_options import (
    open_keyless,
    parse_place,
    place_argument,
    repository_argument,
)
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.core.targets import GroupFile
    from agent.publish.staging import Assignment


class Rollout(TypedDict):
    """Options of ``assign``, None where the group keeps what it says."""

    percent: float | None
    salt: str | None
    paused: bool | None
    not_before: str | None
    window: str | None


@click.command()
@repository_argument
@place_argument
@click.argument("pipelines", metavar="[PIPELINE=[MODEL@]VERSION]...", nargs=-1)
@click.option("--percent", type=float, help="Share of boards that take part.")
@click.option(
    "--salt", help="Draws those boards; kept from one assignment to the next."
)
@click.option("--paused/--resumed", default=None, help="Start nothing new.")
@click.option("--not-before", metavar="UTC", help="Such as 2026-01-31T12:00:00Z.")
@click.option(
    "--window",
    metavar="'HH:MM-HH:MM[ local]'",
    help="Maintenance window in UTC, or in each board's local time.",
)
@click.option("--remove", multiple=True, help="A pipeline to say nothing about.")
def assign(
    repository: Path,
    place: str,
    pipelines: Sequence[str],
    remove: Sequence[str],
    **rollout: Unpack[Rollout],
) -> None:
    """Stage what a group or one board shall run; `publish` signs it.

    PIPELINE=VERSION keeps the pipeline's model, or takes the one of its name.
    Pipelines that are not named stay as they are. A board follows its own
    device:ID first, then its groups; at most 500 boards have one of their own.
    """
    from agent.publish.staging import Assignment

    opened, path = open_keyless(repository), parse_place(place)
    known = opened.models(path)
    wanted = dict(parse_pipeline(text, known) for text in pipelines)
    asked = Assignment(**rollout, removed=tuple(remove))
    show_staged(place, opened.desire(path, wanted, asked))


@click.command()
@repository_argument
@place_argument
@click.option("--resume", is_flag=True, help="Go on instead.")
def pause(repository: Path, place: str, *, resume: bool) -> None:
    """Stage that boards start nothing new; what runs goes on running."""
    from agent.publish.staging import Assignment

    _change(repository, place, Assignment(paused=not resume))


@click.command()
@repository_argument
@place_argument
@click.argument("percent", type=float)
@click.option("--salt", help="Draw other boards than before.")
def percent(repository: Path, place: str, percent: float, salt: str | None) -> None:
    """Stage how many boards take part.

    Boards that take part at one percentage do so at every higher one, as long as
    --salt stays the same.
    """
    from agent.publish.staging import Assignment

    _change(repository, place, Assignment(percent=percent, salt=salt))


def _change(repository: Path, place: str, asked: "Assignment") -> None:
    """Stage a change to a desired state that there is."""
    opened, path = open_keyless(repository), parse_place(place)
    if not opened.models(path):
        raise SettingsError(
            f"{place} has no desired state",
            reason=Reason.SETTINGS,
            todo=f"Run `tinyward repo assign {repository} {place} ...` first.",
        )
    show_staged(place, opened.desire(path, {}, asked))


def show_staged(place: str, file: "GroupFile") -> None:
    """Say what boards will be told."""
    for pipeline, version in sorted(file.pipelines.items()):
        click.echo(f"{place} {pipeline} = {version.model} {version.version}")
    paused = ", paused" if file.paused else ""
    share = f"for {file.percent:g} % of boards{paused}"
    click.echo(f"staged generation {file.generation}, {share}")


def parse_pipeline(text: str, known: dict[str, str]) -> tuple[str, tuple[str, int]]:
    """Return (pipeline, (model, version)) of ``PIPELINE=[MODEL@]VERSION``.

    Args:
        text: As it was typed.
        known: Pipeline -> model, for the short form.

    Raises:
        SettingsError: It is written otherwise.
    """
    match = re.fullmatch(r"([^=:@]+)=(?:([^=:@]+)[@:])?([0-9]{1,10})", text, re.ASCII)
    if match is None:
        raise SettingsError(
            f"{text!r} is not PIPELINE=VERSION or PIPELINE=MODEL@VERSION",
            reason=Reason.SETTINGS,
            todo="Write it as in `tinyward repo assign REPO group:all door=kws@2`.",
        )
    pipeline, model, version = match.groups()
    return pipeline, (model or known.get(pipeline, pipeline), int(version))
