"""What the commands of ``tinyward repo`` share: options, names, and opening one."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.passphrase import ask_passphrases
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.publish.keyless import KeylessRepository
    from agent.publish.repository import Repository


class Directory(click.Path):
    """A directory argument; it need not exist unless asked."""

    def __init__(self, *, exists: bool = True) -> None:
        super().__init__(exists=exists, file_okay=False, path_type=Path)


def complete_place(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the groups and devices whose files lie in the repository."""
    del param
    offered = [
        f"{word}:{name}"
        for word, folder in (("group", "groups"), ("device", "devices"))
        for name in stored_names(ctx, f"fleet/{folder}/*")
    ]
    return [name for name in offered if name.startswith(incomplete)]


def complete_bundle(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the bundles whose files lie in the repository, as ``MODEL=VERSION``."""
    del param
    stored = stored_names(ctx, "models/*/*.bundle", parts=2)
    offered = [path.removesuffix(".bundle").replace("/", "=") for path in stored]
    return [name for name in offered if name.startswith(incomplete)]


def stored_names(ctx: click.Context, pattern: str, *, parts: int = 1) -> list[str]:
    """Return the last parts of target paths by their files alone, without digests.

    No metadata is read: completion runs on every TAB.
    """
    repository = ctx.params.get("repository")
    found = set()
    for path in Path(repository or ".", "targets").glob(pattern):
        folders = path.parts[-parts:-1]
        found.add("/".join((*folders, path.name.partition(".")[2])))
    return sorted(found)


repository_argument = click.argument("repository", metavar="REPO", type=Directory())
place_argument = click.argument(
    "place", metavar="group:NAME|device:ID", shell_complete=complete_place
)
keys_option = click.option(
    "--keys",
    multiple=True,
    type=Directory(exists=False),
    help="Directory of keys; one for each holder.  [default: REPO-keys]",
)


def open_keyless(repository: Path) -> "KeylessRepository":
    """Open a repository to stage or to read.

    Raises:
        SettingsError: It is none.
    """
    from agent.publish.repository import Repository

    return Repository.open(repository)


def open_with_keys(
    repository: Path, keys: Sequence[Path], passphrase_files: Sequence[Path]
) -> "Repository":
    """Open a repository to sign with the keys of all holders that are named.

    Raises:
        SettingsError: It is none, or a passphrase is missing.
    """
    from agent.publish.repository import Repository, default_keys

    places = keys or [default_keys(repository)]
    first, *others = ask_passphrases(places, passphrase_files)
    return Repository.open(repository, *first, holders=others)


def parse_place(text: str) -> str:
    """Return the target path of ``group:NAME`` or ``device:ID``.

    Raises:
        SettingsError: It is written otherwise.
    """
    from agent.core.targets import BOARD_ID_PATTERN, device_path, group_path

    word, _, name = text.partition(":")
    if word == "group" and re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        return group_path(name)
    if word == "device" and re.match(BOARD_ID_PATTERN, name):
        return device_path(name)
    rule = "A-Z, a-z, 0-9, -, _ and ." if word == "device" else "a-z, 0-9, - and _"
    raise SettingsError(
        f"{text!r} is not {'device:ID' if word == 'device' else 'group:NAME'} ({rule})",
        reason=Reason.SETTINGS,
        todo="Write it as in `tinyward repo assign REPO group:all ...`, or device:ID.",
    )


def parse_bundle(text: str) -> tuple[str, int]:
    """Return (model, version) of ``MODEL=VERSION``.

    Raises:
        SettingsError: It is written otherwise.
    """
    match = re.fullmatch(r"([a-z0-9][a-z0-9_-]{0,63})=([0-9]{1,10})", text, re.ASCII)
    if match is None:
        raise SettingsError(
            f"{text!r} is not MODEL=VERSION",
            reason=Reason.SETTINGS,
            todo="Write a model and its version, such as kws=7.",
        )
    return match[1], int(match[2])


def read_clock() -> float:
    """Read the clock: a command is its own composition root, as daemon.py is."""
    return time.time()  # noqa: TID251 - passed on as an argument from here
