"""``tinyward install``: let this slot run as the board's service."""

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.cli.installing import Session
    from agent.install.wanted import Wanted

EXTRAS = ("camera", "sound", "jit", "clock", "credentials", "seal")
HELP = """Let the slot that this program lies in run as the board's service.

\b
sudo sh -c 'python3 -m venv /opt/tinyward/a && \\
    /opt/tinyward/a/bin/pip install . && /opt/tinyward/a/bin/tinyward install'

\b
It makes the user tinyward, the directories, /etc/tinyward/agent.toml with a demo that
works as it is, the units, and the command tinyward; then it starts the service and
waits until it is ready. What is so already is left alone: run it again at any time.
--dry-run shows all of it and changes nothing.

\b
Upgrade: the same line with /opt/tinyward/b, next time with a again. The state, the
settings and the models stay. A new version that does not get ready makes way for the
one before, also after a lost connection or a power cut (exit code 1). To go back by
hand, run `install` of the other slot.

\b
A board of a fleet: name its repository and its root.json, and its own id:
tinyward install --repository https://models.example/fleet --root root.json \\
    --board-id door-7

\b
Exit code 0 if all is as it should be, 1 if a step failed, 2 if something is in the way
that only you may remove; then nothing was changed."""
_file = click.Path(dir_okay=False, path_type=Path)


class Options(TypedDict):
    """What was asked for."""

    config: Path | None
    extras: tuple[str, ...]
    identity: bool
    board: str | None
    repository: str | None
    fleet_root: Path | None
    groups: tuple[str, ...]
    replace_root: bool
    image: bool
    dry_run: bool
    as_json: bool
    root: Path


@click.command(help=HELP, short_help="Run this slot as the board's service.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; needs no root.")
@click.option(
    "--config", "-c", type=_file, help="Your own agent.toml, where no own is."
)
@click.option(
    "--with",
    "extras",
    type=click.Choice(EXTRAS),
    multiple=True,
    help="Open the sandbox for programs that need it (repeatable).",
)
@click.option("--identity", is_flag=True, help="Make the board's key and request.")
@click.option("--board-id", "board", help="The same, for this id.  [default: host]")
@click.option("--repository", metavar="URL", help="The fleet's repository.")
@click.option("--root", "fleet_root", type=_file, help="The fleet's first root.json.")
@click.option("--group", "groups", multiple=True, help="Of the fleet.  [default: all]")
@click.option("--replace-root", is_flag=True, help="Trust another fleet from now on.")
@click.option("--image", is_flag=True, help="In a chroot: files only, nothing starts.")
@click.option("--fall-back", is_flag=True, help="Go back from a version on trial.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option(
    "--root-directory",
    "root",
    type=click.Path(path_type=Path),
    default=Path("/"),
    hidden=True,  # how the tests have a machine of their own
)
@click.pass_context
def command(ctx: click.Context, *, fall_back: bool, **options: Unpack[Options]) -> None:
    """Install, upgrade, or go back.

    Raises:
        AgentError: Something is in the way, or a step failed.
    """
    from agent.cli.installing import Session

    session = Session.begin(options["root"], image=options["image"])
    if fall_back:
        session.fall_back()
        return
    slot = session.slot(may_guess=options["dry_run"])
    wanted = _wanted(session, slot, options)
    ctx.exit(session.install(wanted, options["dry_run"], options["as_json"]))


def _wanted(session: "Session", slot: str, options: Options) -> "Wanted":
    """Return what is to be there, all that was named read and checked.

    Raises:
        SettingsError: A file cannot be used, or options contradict each other.
    """
    import socket

    from agent import __version__
    from agent.cli.workshop import slot_digest
    from agent.install.shipped import installed_extras, read_shipped
    from agent.install.wanted import Wanted
    from agent.store.schema import SCHEMA
    from agent.trust.own_key import Names, name_everything

    _check_options(options)
    shipped = read_shipped()
    fleet_root = _read_root(options["fleet_root"])
    board = options["board"] or (socket.gethostname() if options["identity"] else "")
    if board:
        name_everything(Names(board))  # refused before anything is changed
    extras = {*options["extras"], *installed_extras(session.places)}
    return Wanted(
        slot=slot,
        version=__version__,
        digest=slot_digest(),
        schema=SCHEMA,
        shipped=shipped,
        drop_ins=shipped.drop_ins(sorted(extras)),
        settings=_settings(options, board, fleet=fleet_root is not None),
        own_settings=options["config"] is not None,
        fleet_root=fleet_root,
        replace_root=options["replace_root"],
        board=board,
        starts=session.systemd.runs,
    )


def _check_options(options: Options) -> None:
    """Refuse what contradicts itself.

    Raises:
        click.UsageError: It does.
    """
    if options["repository"] and not options["fleet_root"]:
        raise click.UsageError(
            "--repository needs --root: whom models are believed from"
        )
    if options["groups"] and not options["fleet_root"]:
        raise click.UsageError("--group needs --root")
    # Two sources of one file: whichever lost would be lost silently.
    if options["config"] and (options["fleet_root"] or options["groups"]):
        raise click.UsageError("--config says all of it: name no fleet beside it")
    image = options["image"] or options["root"] != Path("/")
    if image and (options["identity"] or options["board"]):
        raise click.UsageError("an image has no identity: a real board makes its own")


def _settings(options: Options, board: str, *, fleet: bool) -> bytes:
    """Return the content of agent.toml where there is none.

    Raises:
        SettingsError: The operator's own is wrong.
    """
    from agent.cli.places import read_raw, read_settings
    from agent.install.places import SETTINGS
    from agent.install.settings_file import Asked, render_settings
    from agent.settings import parse_settings

    if options["config"]:
        read_settings(options["config"])
        return read_raw(options["config"])
    asked = Asked(
        fleet=fleet,
        repository=options["repository"] or "",
        groups=options["groups"] or ("all",),
        board=board,
    )
    content = render_settings(asked, SETTINGS)
    parse_settings(content)  # groups and ids are of the operator's choice
    return content


def _read_root(path: Path | None) -> bytes | None:
    """Return a fleet's root.json, found to be one that signs itself.

    Raises:
        SettingsError: It cannot be read, or is none.
    """
    if path is None:
        return None
    from agent.cli.fleet_root import check_root

    try:
        content = path.read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name the repository's metadata/1.root.json.",
        ) from err
    check_root(content, str(path))
    return content
