"""A small fleet's CA for tests: certificates with roles, and with every fault."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
ROLE = "urn:tinyward:role:"
BOARD = "urn:tinyward:board:"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, as files and as PEM."""

    certificate: Path
    key: Path
    serial: str
    pem: bytes


@dataclass(frozen=True)
class Wish:
    """What a certificate says.

    Attributes:
        uris: Its URI names.
        usage: Its extended key usages.
        begins: Unix seconds of its validity, until ``ends``.
    """

    name: str = "ada"
    uris: tuple[str, ...] = (f"{ROLE}operator",)
    usage: tuple[x509.ObjectIdentifier, ...] = (CLIENT,)
    begins: float = 0.0
    ends: float = 4e9  # 2096


@cache
def _key(name: str) -> ec.EllipticCurvePrivateKey:
    """Return the same key for the same name: making keys takes the time here."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


class FleetCA:
    """A CA whose certificates lie in a folder.

    Args:
        folder: Where files go.
        name: Its common name.
        ends: Unix seconds at which its own certificate ends.
        key: Which key it has; another one of the same name is an impostor.
        parent: Whoever signed it; it goes along with what it signs, then.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "fleet",
        ends: float = 4e9,
        key: str = "ca",
        parent: "FleetCA | None" = None,
    ) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._name = _named(name)
        self._key = _key(f"{key} {name}")
        built = (
            _builder(self._name, (parent or self)._name, self._key, Wish(ends=ends))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign((parent or self)._key, hashes.SHA256())
        )
        self.pem = built.public_bytes(serialization.Encoding.PEM)
        self._chain = self.pem if parent else b""
        self.certificate = self.folder / "ca.pem"
        self.certificate.write_bytes(self.pem)

    def issue(self, wish: Wish, file: str = "") -> Leaf:
        """Issue what is wished for."""
        key = _key(f"{self._name.rfc4514_string()} {wish.name}")
        local = ipaddress.ip_address("127.0.0.1")
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(local),
        ]
        names += [x509.UniformResourceIdentifier(uri) for uri in wish.uris]
        builder = _builder(_named(wish.name), self._name, key, wish)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if wish.usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(wish.usage), False)
        built = builder.sign(self._key, hashes.SHA256())
        stem = self.folder / (file or wish.name)
        pem = built.public_bytes(serialization.Encoding.PEM)
        stem.with_suffix(".pem").write_bytes(pem + self._chain)
        stem.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Leaf(
            stem.with_suffix(".pem"),
            stem.with_suffix(".key"),
            f"{built.serial_number:x}",
            pem,
        )

    def role(self, role: str, name: str = "") -> Leaf:
        """Issue a client certificate with one role."""
        return self.issue(Wish(name or role, (f"{ROLE}{role}",)))

    def board(self, board: str, file: str = "") -> Leaf:
        """Issue a board's own certificate."""
        wish = Wish(board, (f"{BOARD}{board}",), (SERVER, CLIENT))
        return self.issue(wish, file)


def client_context(ca: FleetCA, leaf: Leaf | None) -> ssl.SSLContext:
    """Return a client's TLS settings."""
    context = ssl.create_default_context(cafile=str(ca.certificate))
    if leaf is not None:
        context.load_cert_chain(leaf.certificate, leaf.key)
    return context


def _named(name: str) -> x509.Name:
    """Return a subject."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, wish: Wish
) -> x509.CertificateBuilder:
    """Begin a certificate."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(epoch + timedelta(seconds=wish.begins))
        .not_valid_after(epoch + timedelta(seconds=wish.ends))
    )
