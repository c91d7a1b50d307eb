"""A small fleet's own certificate authority: one key, one book, plain files.

The rules this module keeps:
 * The CA's key is encrypted like the repository's (``agent.publish.vault``).
 * What is signed stands in the book, durably, before anybody gets it: nothing is out
   there whose serial number is not known.
 * A board's id belongs to one key; another needs ``replace``.
 * Boards get both uses, and only names that ``signing_requests`` allows; clients get
   one role and nothing else.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from msgspec import Struct

from agent.core.certificates import role_uri, spell_serial
from agent.core.reasons import Reason
from agent.errors import RequestRefusedError, SettingsError
from agent.publish.files import locked, owners_disk, write_durably
from agent.publish.issuing import CLIENT, SERVER, Leaf, make_ca, make_leaf
from agent.publish.roles import utc
from agent.publish.signing_requests import (
    BoardRequest,
    check_key,
    digest_of,
    only_refusals,
)
from agent.publish.vault import PrivateKey, Vault

KeyKind = Literal["ed25519", "p256"]
_KEY, _CERTIFICATE, _BOOK = "ca.key", "ca.crt", "issued.json"


class Issued(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the book.

    Attributes:
        serial: Lower case hex, as ``tinyward repo revoke --operator`` takes it.
        kind: ``board``, or the role of a client.
        name: The board's id or the client's name.
        names: The alternative names.
        begins: Unix seconds, until ``ends``.
        key: SHA-256 of the public key, hexadecimal.
    """

    serial: str
    kind: str
    name: str
    names: tuple[str, ...]
    begins: float
    ends: float
    key: str


class Authority:
    """One CA; its key is opened when it first signs.

    Attributes:
        directory: Where its files are.
        certificate: Its own certificate.
    """

    def __init__(self, directory: Path, passphrase: bytes = b"") -> None:
        """Open a CA.

        Raises:
            SettingsError: There is none, or it is damaged.
        """
        self.directory = directory
        self._vault = Vault(directory, passphrase)
        try:
            raw = (directory / _CERTIFICATE).read_bytes()
            self.certificate = x509.load_pem_x509_certificate(raw)
        except (OSError, ValueError) as err:
            raise SettingsError(
                f"{directory} is no certificate authority: {err}",
                reason=Reason.SETTINGS,
                todo="Make one with `tinyward ca init`.",
            ) from err

    @classmethod
    def create(
        cls,
        directory: Path,
        passphrase: bytes,
        *,
        name: str,
        now: float,
        days: float,
        kind: KeyKind = "ed25519",
    ) -> "Authority":
        """Make a CA in an empty directory.

        Raises:
            SettingsError: The directory is not empty, or the name is none.
            DeviceError: A file cannot be written.
        """
        private, moment = new_key(kind), utc(now)
        try:
            made = make_ca(private, name, moment, _end(moment, days))
        except ValueError as err:
            raise _unusable(f"a CA cannot be called {name!r}: {err}") from err
        vault = Vault.create(directory, passphrase)
        vault.keep(directory / _KEY, private)
        # The certificate comes last: what has one is complete.
        write_durably(directory / _CERTIFICATE, made.public_bytes(Encoding.PEM))
        return cls(directory, passphrase)

    @property
    def certificate_path(self) -> Path:
        """Where its certificate is: what boards and operators are given."""
        return self.directory / _CERTIFICATE

    def sign_board(
        self, request: BoardRequest, *, now: float, days: float, replace: bool = False
    ) -> tuple[bytes, Issued]:
        """Sign a board's request; return the certificate (PEM) and its line.

        Args:
            request: What the board asks for; somebody has looked at it.
            now: Unix seconds.
            days: How long it is valid.
            replace: The board has a new key; the old one's certificates stay valid
                until they end.

        Raises:
            RequestRefusedError: ``certificate``: the board has another key.
            SettingsError: The CA ends before, or the passphrase is wrong.
            DeviceError: The book cannot be written.
        """
        leaf = Leaf(
            request.board,
            request.names,
            (SERVER, CLIENT),
            request.key,
            _end(utc(now), days),
        )
        with locked(self.directory):
            if not replace:
                self._check_known_key(request, now)
            return self._issue(leaf, "board", now)

    def issue_client(
        self,
        role: str,
        name: str,
        *,
        now: float,
        days: float,
        kind: KeyKind = "ed25519",
    ) -> tuple[bytes, bytes, Issued]:
        """Make a key and a certificate for a person or a program.

        Returns:
            Key (PEM, not encrypted), certificate (PEM), and its line in the book.

        Raises:
            SettingsError: The name is none, the CA ends before, or the passphrase is
                wrong.
            DeviceError: The book cannot be written.
        """
        private = new_key(kind)
        names = [x509.UniformResourceIdentifier(role_uri(role))]
        ends = _end(utc(now), days)
        with locked(self.directory):
            try:
                leaf = Leaf(name, names, (CLIENT,), private.public_key(), ends)
                pem, line = self._issue(leaf, role, now)
            except ValueError as err:
                raise _unusable(f"nobody can be called {name!r}: {err}") from err
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key, pem, line

    def renew(
        self, running: bytes, request: BoardRequest, *, now: float, days: float
    ) -> tuple[bytes, Issued]:
        """Sign a request of the board that shows a certificate of this CA.

        The names are those of the running certificate, whatever the request says: a
        renewal gives nothing that the board does not have.

        Args:
            running: The certificate (DER) that a TLS handshake has verified.
            request: What the board asks for.
            now: Unix seconds.
            days: How long it is valid.

        Raises:
            RequestRefusedError: ``certificate``: the request is for another key or
                board.
            SettingsError: The CA ends before, or the passphrase is wrong.
            DeviceError: The book cannot be written.
        """
        with only_refusals():
            shown = x509.load_der_x509_certificate(running)
            alternatives = x509.SubjectAlternativeName
            names = shown.extensions.get_extension_for_class(alternatives).value
            digest = digest_of(check_key(shown.public_key()))
        if digest != request.key_digest:
            raise _refused(f"the request is not for the key {request.board} shows")
        own = request.names[0]
        if own not in names or not set(request.names) <= set(names):
            raise _refused(f"{request.board} asks for names it does not have")
        ends = _end(utc(now), days)
        uses = (SERVER, CLIENT)
        leaf = Leaf(request.board, list(names), uses, request.key, ends)
        with locked(self.directory):
            return self._issue(leaf, "board", now)

    def book(self) -> Sequence[Issued]:
        """Return everything that was issued, oldest first.

        Raises:
            SettingsError: The book is damaged.
        """
        path = self.directory / _BOOK
        try:
            with owners_disk():
                raw = path.read_bytes() if path.exists() else b"[]"
            return msgspec.json.decode(raw, type=list[Issued])
        except msgspec.MsgspecError as err:
            raise SettingsError(
                f"{path}: {err}",
                reason=Reason.SETTINGS,
                todo="Restore it from a copy: it holds the serial numbers.",
            ) from err

    def _issue(self, leaf: Leaf, kind: str, now: float) -> tuple[bytes, Issued]:
        """Sign a leaf and enter it into the book."""
        if leaf.ends > self.certificate.not_valid_after_utc:
            raise SettingsError(
                f"the CA itself ends {self.certificate.not_valid_after_utc:%Y-%m-%d}",
                reason=Reason.SETTINGS,
                todo="Ask for fewer --days, or make a new CA.",
            )
        private = self._private()
        made = make_leaf(self.certificate, private, leaf, utc(now))
        line = Issued(
            serial=spell_serial(made.serial_number),
            kind=kind,
            name=leaf.name,
            names=tuple(str(name.value) for name in leaf.names),
            begins=made.not_valid_before_utc.timestamp(),
            ends=made.not_valid_after_utc.timestamp(),
            key=digest_of(leaf.key),
        )
        lines = msgspec.json.encode([*self.book(), line])
        content = msgspec.json.format(lines, indent=2)
        write_durably(self.directory / _BOOK, content, mode=0o600)
        return made.public_bytes(Encoding.PEM), line

    def _private(self) -> PrivateKey:
        """Open the key, and check that it is the certificate's."""
        private = self._vault.open(self.directory / _KEY)
        public = self.certificate.public_key()
        if public != private.public_key():
            raise SettingsError(
                f"{self.directory / _KEY} is not the key of {_CERTIFICATE}",
                reason=Reason.SETTINGS,
                todo="Restore both from a copy.",
            )
        return private

    def _check_known_key(self, request: BoardRequest, now: float) -> None:
        """Refuse a second key for a board whose certificate is still valid."""
        for line in self.book():
            mine = (line.kind, line.name) == ("board", request.board)
            if mine and line.ends > now and line.key != request.key_digest:
                raise _refused(
                    f"board {request.board} has a certificate for another key "
                    f"(serial {line.serial})",
                    "If its key was made anew, say so with --replace.",
                )


def new_key(kind: KeyKind) -> PrivateKey:
    """Return a new private key."""
    if kind == "ed25519":
        return Ed25519PrivateKey.generate()
    return generate_private_key(SECP256R1())


def _end(moment: datetime, days: float) -> datetime:
    """Return when something that begins now ends, in whole seconds."""
    try:
        return moment + timedelta(seconds=int(days * 86_400))
    except (OverflowError, ValueError) as err:
        raise _unusable(f"{days} days is no time for a certificate") from err


def _unusable(what: str) -> SettingsError:
    """Return the error for something that no certificate can say."""
    return SettingsError(
        what, reason=Reason.SETTINGS, todo="See --help for what is allowed."
    )


def _refused(what: str, todo: str = "") -> RequestRefusedError:
    """Return the error for a certificate that is not given."""
    return RequestRefusedError(what, reason=Reason.CERTIFICATE, todo=todo)
