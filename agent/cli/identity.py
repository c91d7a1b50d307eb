"""``tinyward identity``: this board's own key, certificate, and request for one."""

import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.identity_seal import command as seal
from agent.cli.identity_seal import seal_line
from agent.cli.plain_text import plain
from agent.cli.repo_options import read_clock
from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError

if TYPE_CHECKING:
    from agent.trust.certificates import CertificateFacts
    from agent.trust.own_key import KeyKind, Names

DIRECTORY = Path("/var/lib/tinyward/identity")  # the daemon renews what lies in there
SETTINGS = Path("/etc/tinyward/agent.toml")
_DAY_S = 86_400

_EXPLAINED = """Make and show this board's key, certificate and CSR.

\b
 1. On the board:        tinyward identity init --name door-7 --dns door-7.example
 2. On the CA's machine: tinyward ca sign CA board.csr -o board.crt
 3. On the board:        put board.crt beside board.key, and the CA's ca.crt; name
                         all three in [control]
Renewal (`tinyward ca renew`) keeps the key and needs no hand on the board.
Sealed models need a key of another kind: `seal` makes it and prints its public line.
"""

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="Where board.key and board.crt are; the daemon has to be able to write there.",
)
name_option = click.option("--name", help="The board's id.  [default: the host's name]")
dns_option = click.option("--dns", multiple=True, help="A host name (repeatable).")
ip_option = click.option("--ip", multiple=True, help="An address (repeatable).")


@click.group("identity", help=_EXPLAINED, short_help="Make and show this board's key.")
def command() -> None:
    """Group the commands below."""


@command.command(short_help="Make board.key and board.csr.")
@directory_option
@name_option
@dns_option
@ip_option
@click.option(
    "--kind",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    show_default=True,
    help="p256 (ECDSA) for CAs and clients that do not know Ed25519.",
)
def init(
    directory: Path,
    name: str | None,
    dns: Sequence[str],
    ip: Sequence[str],
    kind: "KeyKind",
) -> None:
    """Make the board's key, once, and a request for a certificate.

    The key never leaves the board. Run this as the daemon's user.
    """
    from agent.trust.certificates import digest_key
    from agent.trust.own_key import make_key, name_everything, render_request

    names = _names(name, dns, ip)
    spelled = name_everything(names)  # refused before a key is made
    private = make_key(directory / "board.key", kind)
    request = render_request(private, names.board, spelled)
    _write(directory / "board.csr", request)
    click.echo(f"made {directory / 'board.key'} and {directory / 'board.csr'}")
    click.echo(f"key sha256 {digest_key(private.public_key())}")
    click.echo(f"sign it: tinyward ca sign CA {directory / 'board.csr'} -o board.crt")
    click.echo(f"then put board.crt and ca.crt into {directory}, and into agent.toml:")
    click.echo(_settings_lines(directory.absolute(), names.board))


@command.command(short_help="Print a request for the key there is.")
@directory_option
@name_option
@dns_option
@ip_option
def csr(
    directory: Path, name: str | None, dns: Sequence[str], ip: Sequence[str]
) -> None:
    """Print a request for a certificate (PEM) for the key there is.

    Its names are those of the certificate or of the request there is, or the ones
    that are given here.
    """
    from agent.trust.identity import Identity
    from agent.trust.own_key import load_key, name_everything, render_request

    known = directory / "board.csr"
    if name or dns or ip:
        names = _names(name, dns, ip)
        private = load_key(directory / "board.key")
        request = render_request(private, names.board, name_everything(names))
    elif (directory / "board.crt").exists() or not known.exists():
        board = _names(None, (), ()).board
        own = Identity(directory / "board.crt", directory / "board.key", board=board)
        request = own.request()
    else:
        request = known.read_bytes()
    click.echo(request.decode(), nl=False)


@command.command(short_help="Show the board's certificates.")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    default=SETTINGS,
    show_default=True,
    help="The settings that name the certificates.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON list on stdout.")
def show(file: Path | None, config: Path, *, as_json: bool) -> None:
    """Show the certificate in FILE, or those that the settings name.

    Of the key for sealed models, its public line is shown.

    Exit code 1 where one has ended.
    """
    from agent.trust.certificates import parse_certificates, read_facts
    from agent.trust.own_key import own_files, read_own

    paths = [file] if file else _configured(config)
    line = "" if file else seal_line(config)
    found = []
    for path in paths:
        with own_files(path):
            found.append((path, read_facts(parse_certificates(read_own(path))[0])))
    now = read_clock()
    if as_json:
        click.echo(json.dumps([_as_json(*one, now) for one in found], indent=2))
    else:
        for path, facts in found:
            _show(path, facts, now)
        if line:
            click.echo(line)
    for path, facts in found:
        if facts.ends <= now:
            raise DeviceError(f"{path} has ended", reason=Reason.CERTIFICATE)


command.add_command(seal)


def _show(path: Path, facts: "CertificateFacts", now: float) -> None:
    """Print a certificate for people."""
    begins, ends = (
        f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
        for at in (facts.begins, facts.ends)
    )
    rows = {
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "names": " ".join(facts.names) or "none",
        "uses": " ".join(facts.uses) or "any",
        "valid": f"{begins} to {ends} UTC, {_left_days(facts, now):.0f} days left",
        "sha256": facts.fingerprint,
        "key": facts.key,
    }
    click.echo(plain(path))
    for word, value in rows.items():
        # Whoever made the certificate chose its names, also for this terminal.
        click.echo(f"  {word:8} {plain(value)}")


def _as_json(path: Path, facts: "CertificateFacts", now: float) -> dict[str, object]:
    """Return a certificate for programs."""
    import msgspec

    left = round(_left_days(facts, now), 2)
    return {"file": str(path), **msgspec.to_builtins(facts), "days_left": left}


def _left_days(facts: "CertificateFacts", now: float) -> float:
    """Return how many days a certificate is still valid; negative once it is not."""
    return (facts.ends - now) / _DAY_S


def _configured(config: Path) -> list[Path]:
    """Return the certificates that the settings name, each once."""
    from agent.cli.places import read_settings

    settings = read_settings(config)
    named = [settings.control.certificate, settings.update.certificate]
    paths = [Path(name).expanduser() for name in dict.fromkeys(named) if name]
    if not paths and not (settings.seal.key or settings.seal.credential):
        raise SettingsError(
            f"{config} names no certificate",
            reason=Reason.SETTINGS,
            todo="Name one in [control], or a FILE to show.",
        )
    return paths


def _names(name: str | None, dns: Sequence[str], ip: Sequence[str]) -> "Names":
    """Return what the certificate shall say."""
    from agent.trust.own_key import Names

    return Names(name or socket.gethostname(), tuple(dns), tuple(ip))


def _settings_lines(directory: Path, board: str) -> str:
    """Return what agent.toml has to say about this identity."""
    files = {"certificate": "board.crt", "key": "board.key", "client_ca": "ca.crt"}
    lines = [f'{key} = "{directory / name}"' for key, name in files.items()]
    return "\n".join(
        [
            "  [board]",
            f'  id = "{board}"',
            "  [control]",
            '  listen = "0.0.0.0:8443"',
            *(f"  {line}" for line in lines),
        ]
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file that is no secret, durably."""
    from agent.trust.durable import write_durably
    from agent.trust.own_key import own_files

    with own_files(path):
        write_durably(path, content)
