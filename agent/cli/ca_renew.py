"""``tinyward ca renew``: a board's next certificate, over its control listener.

The rules this module keeps:
 * What is signed is the request of the board at the other end: its key is the one in
   the certificate that this very connection verified, and its names are those.
 * Whoever answers in a board's place gains nothing: it has to hold a key that this CA
   has certified, and gets no name that it does not have.
"""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from msgspec import Struct

from agent.cli.board_link import BoardLink
from agent.cli.connections import (
    BoardConnection,
    Papers,
    TlsConnection,
    parse_address,
)
from agent.cli.passphrase import ask_passphrases, one_passphrase_option
from agent.cli.plain_text import plain
from agent.cli.repo_options import Directory, read_clock
from agent.core.reasons import Reason
from agent.errors import RequestRefusedError


class Shown(Struct, frozen=True):
    """What a board says about its identity; other keys are not read."""

    request: str = ""
    certificate: dict[str, object] = {}


class WatchedConnection(TlsConnection):
    """A connection that remembers the certificate of the other end (DER)."""

    peer = b""

    def connect(self) -> None:
        """Connect, and remember."""
        super().connect()
        if isinstance(self.sock, ssl.SSLSocket):
            self.peer = self.sock.getpeercert(binary_form=True) or b""


class RenewalLink(BoardLink):
    """The part of a board's interface that is about its certificate."""

    def identity(self) -> Shown:
        """Return the board's certificate and its request for the next one."""
        return self._read("/v1/identity", Shown)

    def install(self, pem: bytes) -> Shown:
        """Give the board its next certificate; return what it shows from now on."""
        return self._send("PUT", "/v1/identity/certificate", Shown, pem)


@click.command(short_help="Renew a board's certificate over its listener.")
@click.argument("directory", metavar="DIR", type=Directory())
@click.argument("boards", metavar="[NAME@]HOST[:PORT]...", nargs=-1, required=True)
@click.option(
    "--cert",
    "certificate",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An operator's certificate (PEM).",
)
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its key, where that is in another file.",
)
@click.option(
    "--days",
    type=click.FloatRange(min=0.01, max=36_500),
    default=90.0,
    show_default=True,
    help="How long it is valid.",
)
@one_passphrase_option
def renew(
    directory: Path,
    boards: Sequence[str],
    certificate: Path,
    key: Path | None,
    days: float,
    passphrase_files: Sequence[Path],
) -> None:
    """Renew the certificates of running boards; their keys stay.

    NAME is the board's id, where HOST is not a name in its certificate.

    A board whose certificate has ended already is not reachable this way: sign its
    request by hand (`tinyward identity csr`, `tinyward ca sign`).
    """
    from agent.publish.authority import Authority
    from agent.publish.roles import spell, utc
    from agent.publish.signing_requests import parse_request

    addresses = [parse_address(board) for board in boards]
    papers = Papers(certificate, key, Authority(directory).certificate_path)
    context = papers.context()
    [(place, passphrase)] = ask_passphrases([directory], passphrase_files)
    authority = Authority(place, passphrase)
    for where, (name, host, port) in zip(boards, addresses, strict=True):
        connection = WatchedConnection(host, port, context, name)
        link = RenewalLink(where, _giver(connection))
        try:
            asked = parse_request(link.identity().request.encode())
            pem, line = authority.renew(
                connection.peer, asked, now=read_clock(), days=days
            )
            taken = link.install(pem)
        finally:
            link.close()
        check_taken(where, taken, line.serial)
        click.echo(f"{plain(line.name)}: valid until {spell(utc(line.ends))}")


def check_taken(where: str, shown: Shown, serial: str) -> None:
    """Check that a board shows the certificate it was given.

    Raises:
        RequestRefusedError: ``certificate``.
    """
    if shown.certificate.get("serial") != serial:
        raise RequestRefusedError(
            f"{where} did not take its new certificate",
            reason=Reason.CERTIFICATE,
            todo="Read the board's log.",
        )


def _giver(connection: BoardConnection) -> Callable[[], BoardConnection]:
    """Return what gives the same connection, also after it was closed."""
    return lambda: connection
