"""``tinyward repo``: keep a TUF repository of bundles as plain files."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.passphrase import ask_passphrases, passphrase_option
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.publish.repository import Repository

_EXPLAINED = """Keep a TUF repository of bundles as plain files.

\b
The Update Framework (TUF) in ten lines:
 1. A repository is files. Whoever serves or copies them need not be trusted.
 2. `root` says which keys may sign what. Boards get the first root.json at
    installation and follow every later one, signed by old and new keys.
 3. `targets` lists the bundles, with length and digest. Its keys are offline.
 4. A threshold of 2 means: one stolen key signs nothing.
 5. `fleet` says which group runs which version. Whoever steals its key can
    choose among signed versions, and publish none.
 6. `snapshot` says which versions of these belong together: no mixing.
 7. `timestamp` says which snapshot is newest, and expires soon: no freezing.
 8. Boards never go back to an older version of any of them.
 9. `add` and `assign` stage without any key. `publish` signs; run it at least
    every 7 days, or boards stop updating (their models keep running).
10. Stolen key? `rotate ROLE` makes new ones that sign again what REPO lists:
    look at `status` first, restore a copy if it lists what you never added.
"""


class _Directory(click.Path):
    """A directory argument; it need not exist unless asked."""

    def __init__(self, *, exists: bool = True) -> None:
        super().__init__(exists=exists, file_okay=False, path_type=Path)


class KeyCounts(TypedDict):
    """Options of ``init``: keys and thresholds, None where another one decides."""

    threshold: int
    root_keys: int | None
    targets_keys: int | None
    targets_threshold: int | None


class Rollout(TypedDict):
    """Options of ``assign``, None where the group keeps what it says."""

    percent: float | None
    salt: str | None
    paused: bool | None
    not_before: str | None
    window: str | None


# As in agent.publish.roles, whose import takes longer than help or completion may.
ROLE_NAMES = ("root", "targets", "fleet", "snapshot", "timestamp")

repository_argument = click.argument("repository", metavar="REPO", type=_Directory())
keys_option = click.option(
    "--keys",
    multiple=True,
    type=_Directory(exists=False),
    help="Directory of keys; one for each holder.  [default: REPO-keys]",
)


@click.group("repo", help=_EXPLAINED)
def command() -> None:
    """Group the commands below."""


@command.command()
@click.argument("repository", metavar="REPO", type=_Directory(exists=False))
@keys_option
@click.option(
    "--threshold",
    default=1,
    show_default=True,
    help="How many keys of root and of targets have to sign.",
)
@click.option("--root-keys", type=int, help="Keys of root.  [default: threshold]")
@click.option("--targets-keys", type=int, help="Keys of targets.  [default: threshold]")
@click.option(
    "--targets-threshold", type=int, help="For targets, instead of --threshold."
)
@passphrase_option
def init(
    repository: Path,
    keys: Sequence[Path],
    passphrase_files: Sequence[Path],
    **counts: Unpack[KeyCounts],
) -> None:
    """Make a repository and its keys, and publish it empty.

    With several --keys, the keys of root and targets are shared out among them.
    """
    from agent.publish.repository import KeyPlan, default_keys, init_repository

    of_root, of_targets = counts["threshold"], counts["targets_threshold"]
    of_targets = of_root if of_targets is None else of_targets
    root_keys, targets_keys = counts["root_keys"], counts["targets_keys"]
    plan = KeyPlan(
        root_keys=of_root if root_keys is None else root_keys,
        root_threshold=of_root,
        targets_keys=of_targets if targets_keys is None else targets_keys,
        targets_threshold=of_targets,
    )
    places = keys or [default_keys(repository)]
    first, *others = ask_passphrases(places, passphrase_files, new=True)
    init_repository(repository, *first, now=_now(), plan=plan, holders=others)
    where = " and ".join(str(place) for place in places)
    click.echo(f"made {repository}, its keys are in {where}")
    click.echo(f"give boards {repository / 'metadata' / '1.root.json'} as their root")
    click.echo("keep the keys of root and targets offline, and a copy of all of them")


@command.command()
@repository_argument
@click.argument(
    "bundles",
    metavar="BUNDLE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--hardware", multiple=True, help="Only for this hardware (repeatable).")
@click.option("--min-agent", default="", help="Oldest agent that may run it: 1.2.3.")
def add(
    repository: Path,
    bundles: Sequence[Path],
    hardware: Sequence[str],
    min_agent: str,
) -> None:
    """Stage bundles; `publish` signs them."""
    from agent.publish.repository import Repository
    from agent.trust.bundle import open_bundle

    opened = Repository.open(repository)
    for path in bundles:
        content = _read(path)
        manifest = open_bundle(content, max_bytes=len(content)).manifest
        target = opened.add(
            content,
            model=manifest.model,
            version=manifest.version,
            hardware=hardware,
            min_agent=min_agent,
        )
        click.echo(f"staged {target.path} ({target.length} bytes)")


@command.command()
@repository_argument
@click.argument("group", metavar="group:NAME")
@click.argument("pipelines", metavar="[PIPELINE=[MODEL@]VERSION]...", nargs=-1)
@click.option("--percent", type=float, help="Share of boards that take part.")
@click.option(
    "--salt", help="Draws those boards; kept from one assignment to the next."
)
@click.option("--paused/--resumed", default=None, help="Start nothing new.")
@click.option("--not-before", metavar="UTC", help="Such as 2026-01-31T12:00:00Z.")
@click.option("--window", metavar="HH:MM-HH:MM", help="Maintenance window.")
@click.option("--remove", multiple=True, help="A pipeline to say nothing about.")
def assign(
    repository: Path,
    group: str,
    pipelines: Sequence[str],
    remove: Sequence[str],
    **rollout: Unpack[Rollout],
) -> None:
    """Stage what a group of boards shall run; `publish` signs it.

    PIPELINE=VERSION keeps the pipeline's model, or takes the one of its name.
    Pipelines that are not named stay as they are.
    """
    from agent.publish.repository import Repository
    from agent.publish.staging import Assignment

    opened = Repository.open(repository)
    name = parse_group_name(group)
    known = opened.models(name)
    wanted = dict(parse_pipeline(text, known) for text in pipelines)
    asked = Assignment(**rollout, removed=tuple(remove))
    file = opened.assign(name, wanted, assignment=asked)
    for pipeline, version in sorted(file.pipelines.items()):
        click.echo(f"group:{name} {pipeline} = {version.model} {version.version}")
    click.echo(f"staged generation {file.generation}, for {file.percent:g} % of boards")


@command.command(short_help="Sign what is staged, renew what would expire.")
@repository_argument
@keys_option
@passphrase_option
def publish(
    repository: Path, keys: Sequence[Path], passphrase_files: Sequence[Path]
) -> None:
    """Sign what is staged; with nothing staged, renew what would expire."""
    opened = _open(repository, keys, passphrase_files)
    opened.publish(_now(), told=click.echo)
    click.echo(f"published {repository}")


@command.command()
@repository_argument
@click.argument("role", type=click.Choice(ROLE_NAMES))
@keys_option
@passphrase_option
def rotate(
    repository: Path,
    role: str,
    keys: Sequence[Path],
    passphrase_files: Sequence[Path],
) -> None:
    """Replace the keys of a ROLE by new ones, and publish.

    The new keys sign what REPO lists now; each bundle and group is named. Boards
    forget which versions and times the old keys made them remember. Old key files
    stay where they are; nothing needs them any more.
    """
    opened = _open(repository, keys, passphrase_files)
    opened.rotate(role, _now(), told=click.echo)
    click.echo(f"published {repository} with new keys for {role}")


@command.command()
@repository_argument
@keys_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(repository: Path, keys: Sequence[Path], *, as_json: bool) -> None:
    """Show roles, bundles, groups, and what waits for a signature."""
    from agent.cli.repo_status import render_json, show_tables
    from agent.publish.repository import Repository, default_keys

    first, *others = [(place, b"") for place in keys or [default_keys(repository)]]
    found = Repository.open(repository, *first, holders=others).status()
    if as_json:
        click.echo(render_json(found))
    else:
        show_tables(found, _now())


def _open(
    repository: Path, keys: Sequence[Path], passphrase_files: Sequence[Path]
) -> "Repository":
    """Open a repository to sign with the keys of all holders that are named."""
    from agent.publish.repository import Repository, default_keys

    places = keys or [default_keys(repository)]
    first, *others = ask_passphrases(places, passphrase_files)
    return Repository.open(repository, *first, holders=others)


def parse_group_name(text: str) -> str:
    """Return NAME of ``group:NAME``.

    Raises:
        SettingsError: It is written otherwise.
    """
    name = text.removeprefix("group:")
    if name == text or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise SettingsError(
            f"{text!r} is not group:NAME (a-z, 0-9, - and _)",
            reason=Reason.SETTINGS,
            todo="Write the group as in `tinyward repo assign REPO group:all ...`.",
        )
    return name


def parse_pipeline(text: str, known: dict[str, str]) -> tuple[str, tuple[str, int]]:
    """Return (pipeline, (model, version)) of ``PIPELINE=[MODEL@]VERSION``.

    Args:
        text: As it was typed.
        known: Pipeline -> model, for the short form.

    Raises:
        SettingsError: It is written otherwise.
    """
    match = re.fullmatch(r"([^=@]+)=(?:([^=@]+)@)?([0-9]{1,10})", text, re.ASCII)
    if match is None:
        raise SettingsError(
            f"{text!r} is not PIPELINE=VERSION or PIPELINE=MODEL@VERSION",
            reason=Reason.SETTINGS,
            todo="Write it as in `tinyward repo assign REPO group:all door=kws@2`.",
        )
    pipeline, model, version = match.groups()
    return pipeline, (model or known.get(pipeline, pipeline), int(version))


def _read(path: Path) -> bytes:
    """Read a file the user named."""
    try:
        return path.read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name a bundle made by `tinyward pack` that you may read.",
        ) from err


def _now() -> float:
    """Read the clock: a command is its own composition root, as daemon.py is."""
    return time.time()  # noqa: TID251 - passed on as an argument from here
