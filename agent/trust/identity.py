"""This board's own certificate: shown, asked for again, and renewed in place.

The rules this module keeps:
 * A certificate is replaced whole, and only by one that ``check_renewal`` admits.
 * Everything blocks. ``cryptography`` is imported when the first key or certificate is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.errors import DeviceError, RequestRefusedError
from agent.settings import Settings
from agent.trust.certificates import (
    CertificateFacts,
    check_renewal,
    only_value_errors,
    parse_certificates,
    public_bytes,
    read_facts,
    subject_names,
)
from agent.trust.durable import write_durably
from agent.trust.own_key import (
    Names,
    load_key,
    name_everything,
    own_files,
    read_own,
    render_request,
)

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


class Identity:
    """The certificate that a board shows, and the key for it.

    Satisfies ``agent.endpoint.needs.Identity``.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        board: str,
        cas: Sequence[Path] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Remember where things are; nothing is read yet.

        Args:
            certificate: The certificate (PEM), its chain behind it.
            key: Its private key.
            board: This board's id, for the first request.
            cas: Files with further CAs that may have signed the certificate.
            clock: Unix seconds; what has ended by then is not installed.
        """
        self.certificate, self.key = certificate, key
        self._board, self._cas, self._clock = board, tuple(cas), clock
        self._lock = Lock()
        self._stamp: tuple[int, ...] = ()
        self._ends = 0.0

    def describe(self) -> dict[str, object]:
        """Return the facts of the certificate; see ``CertificateFacts``.

        Raises:
            DeviceError: ``certificate``: there is none, or it cannot be read.
        """
        encoded = msgspec.json.encode(self.facts())
        return msgspec.json.decode(encoded, type=dict[str, object])

    def facts(self) -> CertificateFacts:
        """Return the facts of the certificate.

        Raises:
            DeviceError: ``certificate``: there is none, or it cannot be read.
        """
        with own_files(self.certificate):
            return read_facts(parse_certificates(read_own(self.certificate))[0])

    def expires(self) -> float:
        """Return when the certificate ends, Unix seconds; 0 without a readable one.

        Cheap enough for every scrape: the file is read only when it has changed.
        """
        try:
            found = self.certificate.stat()
        except OSError:
            return 0.0
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp != self._stamp:
            try:
                self._ends = self.facts().ends
            except DeviceError:
                self._ends = 0.0
            self._stamp = stamp
        return self._ends

    def request(self) -> bytes:
        """Return a request (PEM) with the names that the certificate has now.

        Raises:
            DeviceError: ``certificate``: the key or the certificate cannot be read.
        """
        chain, private = self._chain(), load_key(self.key)
        if not chain:
            names = name_everything(Names(self._board))
            return render_request(private, self._board, names)
        with own_files(self.certificate):
            board = read_facts(chain[0]).board or self._board
            return render_request(private, board, subject_names(chain[0]))

    def install(self, certificate: bytes) -> None:
        """Replace the certificate (PEM) by one that renews it.

        Of what is sent only the first certificate is taken; the chain behind it stays.

        Raises:
            RequestRefusedError: ``certificate``: it does not renew this one.
            DeviceError: It cannot be written, or what is here cannot be read.
        """
        with self._lock:
            chain, cas = self._chain(), self._authorities()
            public = public_bytes(load_key(self.key).public_key())
            try:
                new = parse_certificates(certificate)[0]
                self._check(new, public, chain, cas)
            except ValueError as err:
                raise RequestRefusedError(
                    f"the certificate is not taken: {err}",
                    reason=Reason.CERTIFICATE,
                    todo="Sign the request of GET /v1/identity by the CA of the "
                    "certificate in use: `tinyward ca renew`.",
                ) from err
            self._replace([new, *chain[1:]])

    def _check(
        self,
        new: "Certificate",
        public: bytes,
        chain: Sequence["Certificate"],
        cas: Sequence["Certificate"],
    ) -> None:
        """Refuse, by ``ValueError``, what does not renew the certificate."""
        with only_value_errors():
            if public_bytes(new.public_key()) != public:
                raise ValueError("it is for another key")
        in_use = chain[0] if chain else None
        check_renewal(new, in_use, self._board, [*chain[1:], *cas])
        if self._clock and new.not_valid_after_utc.timestamp() <= self._clock():
            raise ValueError("it has ended already")

    def _replace(self, chain: Sequence["Certificate"]) -> None:
        """Write the certificate and its chain, so that a power cut leaves one whole."""
        from cryptography.hazmat.primitives.serialization import Encoding

        pem = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
        try:
            write_durably(self.certificate, pem)
        except OSError as err:
            raise DeviceError(
                f"{self.certificate}: {err.strerror}",
                reason=disk_reason(err.errno),
                todo="Keep it where the daemon may write: below state_dir.",
            ) from err

    def _chain(self) -> list["Certificate"]:
        """Return the certificate and what stands behind it; nothing without a file."""
        with own_files(self.certificate):
            if not self.certificate.exists():
                return []
            return parse_certificates(read_own(self.certificate))

    def _authorities(self) -> list["Certificate"]:
        """Return the CAs of the files that were named."""
        found: list[Certificate] = []
        for path in self._cas:
            with own_files(path):
                found += parse_certificates(read_own(path))
        return found


def own_identity(
    settings: Settings, board: str, clock: Callable[[], float]
) -> Identity | None:
    """Return a board's certificate: of its listener, else for the repository.

    Args:
        settings: The whole agent.toml; None is returned where neither names one.
        board: Its id.
        clock: The time by which certificates are judged, Unix seconds.
    """
    control, update = settings.control, settings.update
    table = control if control.certificate else update
    if not table.certificate:
        return None
    return Identity(
        Path(table.certificate).expanduser(),
        Path(table.key).expanduser(),
        board=board,
        cas=[Path(control.client_ca).expanduser()] if control.client_ca else [],
        clock=clock,
    )
