"""``tinyward ca``: a small fleet's own certificate authority."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.ca_renew import renew
from agent.cli.passphrase import ask_passphrases, one_passphrase_option
from agent.cli.plain_text import plain
from agent.cli.repo_options import Directory, read_clock
from agent.core.certificates import ROLES
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.publish.authority import Authority, Issued, KeyKind
    from agent.publish.signing_requests import BoardRequest

_EXPLAINED = """Keep a small fleet's own certificate authority.

\b
Boards and operators meet over TLS with certificates on both sides. A board's says
which board it is, an operator's what it may do: `scraper` reads /metrics,
`observer` everything, `operator` also updates and rolls back.
 * Certificates are short-lived: renew boards' with `ca renew` (a month before they
   end: boards tell the days left), issue operators' anew.
 * A stolen operator's key: `tinyward repo revoke REPO --operator SERIAL` and publish;
   `ca list` shows serial numbers. A stolen board: see `ca list`, and use `repo`.
 * Keep the directory offline and a copy of it; anything that speaks X.509, such as
   step-ca, can take its place.
"""
_DAY_S = 86_400

directory_argument = click.argument("directory", metavar="DIR", type=Directory())
kind_option = click.option(
    "--kind",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    show_default=True,
    help="p256 (ECDSA) for clients that do not know Ed25519.",
)


class Client(TypedDict):
    """Options of ``issue``: who gets a certificate, and what kind of one."""

    role: str
    name: str
    days: float
    kind: "KeyKind"


@click.group("ca", help=_EXPLAINED)
def command() -> None:
    """Group the commands below."""


@command.command()
@click.argument("directory", metavar="DIR", type=Directory(exists=False))
@click.option("--name", help="The CA's name.  [default: that of the directory]")
@click.option(
    "--days",
    type=click.FloatRange(min=1, max=36_500),
    default=3650.0,
    show_default=True,
    help="How long it is valid.",
)
@kind_option
@one_passphrase_option
def init(
    directory: Path,
    name: str | None,
    days: float,
    kind: "KeyKind",
    passphrase_files: Sequence[Path],
) -> None:
    """Make a CA in the new directory DIR: ca.key, encrypted, and ca.crt."""
    from agent.publish.authority import Authority

    [(place, passphrase)] = ask_passphrases([directory], passphrase_files, new=True)
    name = name or f"{directory.absolute().name} fleet CA"
    made = Authority.create(
        place, passphrase, name=name, now=read_clock(), days=days, kind=kind
    )
    click.echo(f"made {made.certificate_path}: give it to boards and operators")
    click.echo(f"keep {directory} offline, and a copy of it")


@command.command(short_help="Sign a board's request.")
@directory_argument
@click.argument(
    "request",
    metavar="CSR",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the certificate goes.",
)
@click.option("--replace", is_flag=True, help="The board has a new key.")
@click.option(
    "--days",
    type=click.FloatRange(min=0.01, max=36_500),
    default=90.0,
    show_default=True,
    help="How long it is valid.",
)
@one_passphrase_option
def sign(
    directory: Path,
    request: Path,
    output: Path,
    days: float,
    passphrase_files: Sequence[Path],
    *,
    replace: bool,
) -> None:
    """Show what a board's request (PEM) asks for, and sign it.

    Compare the key with what the board shows before you type the passphrase.
    """
    from agent.publish.signing_requests import parse_request

    asked = parse_request(_read(request))
    show_request(asked)
    authority = open_authority(directory, passphrase_files)
    pem, line = authority.sign_board(
        asked, now=read_clock(), days=days, replace=replace
    )
    _write(output, pem)
    show_issued(line, output)
    click.echo(f"put it and {authority.certificate_path} beside the board's key")


@command.command(short_help="Make a key and a certificate for a client.")
@directory_argument
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it may do.")
@click.option("--name", required=True, help="Who it is, for logs.")
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="Files are OUTPUT.key, OUTPUT.crt and OUTPUT.ca.crt.",
)
@click.option(
    "--days",
    type=click.FloatRange(min=0.01, max=36_500),
    default=30.0,
    show_default=True,
    help="How long it is valid.",
)
@kind_option
@one_passphrase_option
def issue(
    directory: Path,
    output: Path,
    passphrase_files: Sequence[Path],
    **asked: Unpack[Client],
) -> None:
    """Make a key and a short-lived certificate for an operator or a program."""
    authority = open_authority(directory, passphrase_files)
    key_path = output.with_name(f"{output.name}.key")
    if key_path.exists():
        raise SettingsError(
            f"{key_path} exists: keys are never overwritten",
            reason=Reason.SETTINGS,
            todo="Name another --output.",
        )
    key, pem, line = authority.issue_client(**asked, now=read_clock())
    _write(key_path, key, mode=0o600)
    path = output.with_name(f"{output.name}.crt")
    _write(path, pem)
    ca = output.with_name(f"{output.name}.ca.crt")
    _write(ca, authority.certificate_path.read_bytes())
    show_issued(line, path)
    click.echo(f"use it: --cert {path} --key {key_path} --ca {ca}")


@command.command("list")
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def list_issued(directory: Path, *, as_json: bool) -> None:
    """Show what was issued, with serial numbers and days left."""
    import msgspec

    from agent.publish.authority import Authority

    lines = Authority(directory).book()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(lines), indent=2))
        return
    now = read_clock()
    for line in lines:
        left = (line.ends - now) / _DAY_S
        word = f"{left:.0f} days left" if left > 0 else "ended"
        click.echo(f"{line.serial}  {line.kind:8} {plain(line.name)}  {word}")
    if not lines:
        click.echo("nothing was issued yet")


def open_authority(directory: Path, passphrase_files: Sequence[Path]) -> "Authority":
    """Open a CA to sign with it.

    Raises:
        SettingsError: There is none, or nobody can type the passphrase.
    """
    from agent.publish.authority import Authority

    Authority(directory)  # a wrong directory is refused before a passphrase is asked
    [(place, passphrase)] = ask_passphrases([directory], passphrase_files)
    return Authority(place, passphrase)


def show_request(asked: "BoardRequest") -> None:
    """Say what is about to be signed, in words that move no cursor."""
    click.echo(f"board {plain(asked.board)} asks for a certificate for:")
    for name in asked.spelled():
        click.echo(f"  {plain(name)}")
    click.echo(f"  key sha256 {asked.key_digest}")


def show_issued(line: "Issued", path: Path) -> None:
    """Say what was signed."""
    from agent.publish.roles import spell, utc

    click.echo(f"{line.kind} {plain(line.name)}: serial {line.serial}")
    click.echo(f"wrote {path}, valid until {spell(utc(line.ends))}")


def _read(path: Path) -> bytes:
    """Read a request, a little more than is allowed at most."""
    from agent.publish.files import owners_disk
    from agent.publish.signing_requests import MAX_REQUEST_BYTES

    with owners_disk(), path.open("rb") as file:
        return file.read(MAX_REQUEST_BYTES + 1)


def _write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file durably; only keys are private."""
    from agent.publish.files import write_durably

    write_durably(path, content, mode=mode)


command.add_command(renew)
