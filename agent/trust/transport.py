"""How a repository is reached: what kind of address it is, and by which rules.

The rules this module keeps:
 * A repository is a directory or lies behind TLS. Plain ``http`` is for the loopback
   interface alone, where nobody listens in between.
 * An address has neither a name and password (they would end up in logs) nor a query.
 * Nothing of the environment counts, proxy variables least of all.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from agent.core.reasons import Reason
from agent.errors import SettingsError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class Transport:
    """By which rules a server is spoken to.

    Attributes:
        ca: File with the CAs (PEM) that may vouch for the server; empty means the
            system's.
        certificate: File with this board's client certificate (PEM), ``key`` its
            private key; empty means none.
        proxy: ``http://host:port``, or empty for a direct connection.
        min_kbps: Kilobytes a second that a server has to send.
        deadline_s: How long one metadata file, or one connection for a bundle, may
            take in all.
        window_s: Over how long the speed is measured: long enough for the gaps of a
            mobile network, short enough to leave a server that only pretends.
        connect_s: How long TCP and TLS may take to connect to one address.
        pause_s: Pause before the first retry within a call; doubled each time.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    proxy: str = ""
    min_kbps: float = 1.0
    deadline_s: float = 3600.0
    window_s: float = 10.0
    connect_s: float = 10.0
    pause_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Address:
    """Where a repository is: one of the two is set.

    Attributes:
        directory: A directory of this machine.
        url: ``https://...`` (or ``http://`` of this machine), no slash at its end.
    """

    directory: Path | None = None
    url: str = ""


def parse_address(repository: str) -> Address:
    """Return what ``update.repository`` names: a path, a file URL or a web address.

    Raises:
        SettingsError: It is empty, another kind of address, or unencrypted.
    """
    try:
        parts = urlsplit(repository)
        port = parts.port
    except ValueError as err:
        raise _wrong(repository, f"is no address: {err}") from err
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Address(directory=Path(unquote(parts.path)))
    if parts.scheme in {"http", "https"} and port != 0:
        _check_url(repository, parts)
        return Address(url=repository.rstrip("/"))
    if not repository or "://" in repository:
        raise _wrong(repository, "is neither a directory nor an https:// address")
    return Address(directory=Path(repository).expanduser())


def _check_url(repository: str, parts: SplitResult) -> None:
    """Refuse web addresses that are unencrypted, or say more than where."""
    if not parts.hostname:
        raise _wrong(repository, "names no host")
    if parts.username is not None or parts.query or parts.fragment:
        raise _wrong(parts.hostname, "must not carry a password, query or fragment")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise _wrong(repository, "is unencrypted")


def _wrong(repository: str, what: str) -> SettingsError:
    """Return the error for an address that cannot be used."""
    return SettingsError(
        f"update.repository: {repository!r} {what}",
        reason=Reason.SETTINGS,
        todo="Name a directory, a file:// URL of one, or an https:// address.",
    )
