"""Test CAs, and the PEM files that servers and boards want."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """Files of a certificate (chain included) and its key."""

    certificate: str
    key: str


class Authority:
    """A CA with a folder for what it issues.

    Attributes:
        file: Its own certificate (PEM).
    """

    def __init__(self, home: Path, name: str = "ca") -> None:
        self._home = home / name
        self._home.mkdir(parents=True)
        self._ca = trustme.CA()
        self.file = str(self._home / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self,
        name: str = "server",
        *hosts: str,
        starts: datetime | None = None,
        ends: datetime | None = None,
    ) -> Pair:
        """Issue a certificate for hosts (loopback if none are named)."""
        issued = self._ca.issue_cert(
            *(hosts or ("127.0.0.1", "localhost")), not_before=starts, not_after=ends
        )
        pair = Pair(str(self._home / f"{name}.pem"), str(self._home / f"{name}.key"))
        Path(pair.certificate).write_bytes(b"")
        for part in issued.cert_chain_pems:
            part.write_to_path(pair.certificate, append=True)
        issued.private_key_pem.write_to_path(pair.key)
        return pair

    def sign(self, builder: x509.CertificateBuilder) -> bytes:
        """Sign any certificate and return it (PEM)."""
        own = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        raw = self._ca.private_key_pem.bytes()
        key = serialization.load_pem_private_key(raw, None)
        assert isinstance(key, EllipticCurvePrivateKey)
        signed = builder.issuer_name(own.subject).sign(key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def year(number: int) -> datetime:
    """Return the beginning of a year."""
    return datetime(number, 1, 1, tzinfo=UTC)
