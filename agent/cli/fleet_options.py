"""What the commands of a rollout share: options, and where its file is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.cli.reach import Remote

NOT_PUBLISHED = (
    "boards follow the signed group file, and no rollout runs that could publish it: "
    "hold them with `tinyward repo pause` and `publish`"
)
Command = TypeVar("Command", bound=Callable[..., Any])


class Options(Remote):
    """What to roll out, and how, as options say it; None where they do not."""

    assign: tuple[str, ...]
    repository: Path | None
    by_percent: str | None
    keys: tuple[Path, ...]
    passphrase_files: tuple[Path, ...]
    wave: tuple[str, ...]
    salt: str | None
    state: Path | None
    patience: float
    retry: bool
    restart: bool


def state_option(command: Command) -> Command:
    """Add --state."""
    return click.option(
        "--state",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Where the rollout is kept.  [default: INVENTORY.rollout.json]",
    )(command)


def state_path(inventory: Path, state: Path | None) -> Path:
    """Return where a rollout is kept: beside its inventory unless told otherwise."""
    return state or inventory.with_name(f"{inventory.name}.rollout.json")
