"""A small fleet's CA: what it signs, what it refuses, what its book knows."""

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import AgentError, RequestRefusedError, SettingsError
from agent.publish.authority import Authority, KeyKind
from agent.publish.signing_requests import BoardRequest, parse_request
from agent.trust.own_key import Names, name_everything, render_request
from tests.fakes.papers import DAY_S, Files, Papers, shake_hands

NOW = 1_790_000_000.0
PASSPHRASE = b"correct horse battery staple"
URI = x509.UniformResourceIdentifier
OWN = URI("urn:tinyward:board:pi-7")


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path, NOW)


def expect(
    kind: type[AgentError], reason: Reason, call: Callable[[], object]
) -> AgentError:
    """Expect one error with one reason."""
    with pytest.raises(kind) as caught:
        call()
    assert reason == caught.value.reason
    return caught.value


def request(*names: x509.GeneralName, subject: str = "pi-7") -> bytes:
    """Return a request with these names."""
    return render_request(ed25519.Ed25519PrivateKey.generate(), subject, list(names))


def board_request(
    board: str = "pi-7", dns: tuple[str, ...] = ()
) -> tuple[ed25519.Ed25519PrivateKey, BoardRequest]:
    """Return a board's key and what it asks for."""
    private = ed25519.Ed25519PrivateKey.generate()
    names = name_everything(Names(board, dns))
    return private, parse_request(render_request(private, board, names))


def verify(openssl: Path, ca: Path, file: Path, purpose: str, at: float) -> bool:
    """Return whether openssl accepts a certificate for a purpose at a time."""
    ran = subprocess.run(
        [
            *(openssl, "verify", "-x509_strict", "-purpose", purpose),
            *("-attime", str(int(at)), "-CAfile", ca, file),
        ],
        capture_output=True,
        check=False,
    )
    return ran.returncode == 0


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_openssl_believes_what_is_signed(
    tmp_path: Path, require_tool: Callable[[str], Path], kind: KeyKind
) -> None:
    """Boards may serve and ask, clients only ask; in time, and by this CA alone."""
    openssl, papers = require_tool("openssl"), Papers(tmp_path, NOW, kind)
    board, client = papers.board().certificate, papers.client().certificate
    accepted = {
        (name, purpose): verify(openssl, papers.ca, file, purpose, NOW)
        for name, file in (("board", board), ("client", client))
        for purpose in ("sslserver", "sslclient")
    }
    assert accepted == {
        ("board", "sslserver"): True,
        ("board", "sslclient"): True,
        ("client", "sslserver"): False,
        ("client", "sslclient"): True,
    }
    assert not verify(openssl, papers.ca, board, "sslserver", NOW + 91 * DAY_S)
    assert not verify(openssl, papers.ca, board, "sslserver", NOW - 2 * 3600)
    stranger = Papers(tmp_path / "stranger", NOW, kind)
    assert not verify(openssl, stranger.ca, board, "sslserver", NOW)


def test_openssl_reads_our_requests_and_we_read_its(
    tmp_path: Path, require_tool: Callable[[str], Path]
) -> None:
    """A request is PKCS #10: ours verify there, and one made there is signed here."""
    openssl, mine = require_tool("openssl"), tmp_path / "mine.csr"
    _, ours = board_request()
    mine.write_bytes(request(OWN))
    checked = subprocess.run(
        [openssl, "req", "-in", mine, "-noout", "-verify"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OK" in checked.stdout + checked.stderr
    names = "subjectAltName=URI:urn:tinyward:board:pi-7,DNS:pi-7.lan,IP:10.0.0.7"
    made = subprocess.run(
        [
            *(openssl, "req", "-new", "-newkey", "ec", "-nodes", "-batch"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", tmp_path / "k.pem"),
            *("-subj", "/CN=pi-7", "-addext", names),
        ],
        capture_output=True,
        check=True,
    )
    theirs = parse_request(made.stdout)
    assert theirs.spelled() == ["urn:tinyward:board:pi-7", "pi-7.lan", "10.0.0.7"]
    assert theirs.board == ours.board


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_42_only_certificates_of_this_fleet_shake_hands(
    tmp_path: Path, now: float, kind: KeyKind
) -> None:
    """Board and operator meet; none, expired, foreign or misused ones do not."""
    papers = Papers(tmp_path, now, kind)
    board, operator = papers.board(), papers.client()
    assert shake_hands(board, operator, papers.ca) == ("", "")
    assert shake_hands(board, papers.board("pi-8"), papers.ca) == ("", "")
    server_said, _ = shake_hands(board, None, papers.ca)
    assert "did not return a certificate" in server_said
    expired = papers.client("observer", days=0.0)
    server_said, _ = shake_hands(board, expired, papers.ca)
    assert "expired" in server_said
    stranger = Papers(tmp_path / "stranger", now, kind)
    server_said, _ = shake_hands(board, stranger.client(), papers.ca)
    assert server_said != ""
    _, client_said = shake_hands(stranger.board(), operator, papers.ca)
    assert "verify failed" in client_said
    _, client_said = shake_hands(operator, operator, papers.ca)
    assert "purpose" in client_said
    old = papers.board("pi-9", days=1, begin=now - 2 * DAY_S)
    _, client_said = shake_hands(old, operator, papers.ca)
    assert "expired" in client_said


@pytest.fixture
def now() -> float:
    """The real time: handshakes read the clock themselves."""
    import time

    return time.time()  # noqa: TID251 - OpenSSL reads it too


def test_names_are_taken_from_the_request(papers: Papers) -> None:
    """The certificate says what was shown, the board's URI always, and no more."""
    _, asked = board_request(dns=("pi-7.lan", "pi-7.lan"))
    pem, line = papers.authority.sign_board(asked, now=NOW, days=90)
    made = x509.load_pem_x509_certificate(pem)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [OWN, x509.DNSName("pi-7.lan")]
    assert line.names == ("urn:tinyward:board:pi-7", "pi-7.lan")
    assert (line.begins, line.ends) == (NOW - 3600, NOW + 90 * DAY_S)
    assert len(line.serial) == 40


@pytest.mark.parametrize(
    "raw",
    [
        request(OWN, URI("urn:tinyward:role:operator")),
        request(OWN, URI("urn:tinyward:board:pi-8")),
        request(OWN, URI("https://example")),
        request(OWN, x509.RFC822Name("a@example.com")),
        request(OWN, x509.DNSName("*.example.com")),
        request(OWN, x509.DNSName("-a.example")),
        request(OWN, x509.DNSName("a" * 64)),
        request(OWN, x509.DNSName("a..b")),
        request(OWN, x509.DirectoryName(x509.Name([]))),
        request(x509.DNSName("pi-7")),
        request(OWN, subject="pi-8"),
        request(URI("urn:tinyward:board:../7"), subject="../7"),
        request(OWN, *(x509.DNSName(f"n{number}") for number in range(40))),
        b"",
        b"rubbish",
        b"x" * 20_000,
    ],
)
def test_42_requests_that_ask_for_more_are_refused(raw: bytes) -> None:
    """A role, another board, a wildcard, any other name: nothing is signed."""
    error = expect(RequestRefusedError, Reason.CERTIFICATE, lambda: parse_request(raw))
    assert "identity csr" in error.todo


def test_a_request_without_names_is_refused() -> None:
    """A common name alone is nobody's."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pi-7")])
    )
    made = builder.sign(ed25519.Ed25519PrivateKey.generate(), None)
    raw = made.public_bytes(Encoding.PEM)
    expect(RequestRefusedError, Reason.CERTIFICATE, lambda: parse_request(raw))


@pytest.mark.parametrize(
    "private",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=["rsa", "p384"],
)
def test_keys_of_other_kinds_are_refused(
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    """What parts of a fleet may not know is not signed."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    raw = builder.sign(private, SHA256()).public_bytes(Encoding.PEM)
    error = expect(RequestRefusedError, Reason.CERTIFICATE, lambda: parse_request(raw))
    assert "neither Ed25519" in str(error)


def test_a_request_signed_by_another_key_is_refused() -> None:
    """Whoever asks for a key's certificate has to hold that key."""
    der = bytearray(x509.load_pem_x509_csr(request(OWN)).public_bytes(Encoding.DER))
    der[-1] ^= 1
    error = expect(
        RequestRefusedError, Reason.CERTIFICATE, lambda: parse_request(_pem(bytes(der)))
    )
    assert "not signed by its own key" in str(error)


@settings(max_examples=200)
@given(st.data())
def test_mutated_requests_only_raise_our_error(data: st.DataObject) -> None:
    """Fuzz: whatever a board sends, a refusal comes back, or what it had signed.

    The latter where nothing is changed that the signature covers, such as the number
    of unused bits of the signature itself.
    """
    signed, asked = parse_request(REQUEST), x509.load_pem_x509_csr(REQUEST)
    covered = asked.tbs_certrequest_bytes
    whole = asked.public_bytes(Encoding.DER)
    der = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(der) - 1))
        der[place] ^= data.draw(st.integers(1, 255))
    assume(bytes(der) != whole)
    sent = _pem(bytes(der))
    with suppress(RequestRefusedError):
        assert parse_request(sent) == signed
        assert x509.load_pem_x509_csr(sent).tbs_certrequest_bytes == covered


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Fuzz: bytes that are no PEM, or PEM around no request."""
    for sent in (raw, _pem(raw)):
        with pytest.raises(RequestRefusedError):
            parse_request(sent)


REQUEST = request(OWN, x509.DNSName("pi-7.lan"))


def _pem(der: bytes) -> bytes:
    """Return PEM around anything."""
    import base64

    word = b"CERTIFICATE REQUEST-----\n"
    return b"-----BEGIN " + word + base64.encodebytes(der) + b"-----END " + word


def test_a_boards_id_belongs_to_one_key(papers: Papers) -> None:
    """A second key needs ``replace`` while the first one's certificate is valid."""
    sign = papers.authority.sign_board
    private, first = board_request()
    sign(first, now=NOW, days=90)
    sign(first, now=NOW, days=90)
    _, second = board_request()
    error = expect(
        RequestRefusedError,
        Reason.CERTIFICATE,
        lambda: sign(second, now=NOW, days=90),
    )
    assert "--replace" in error.todo
    sign(second, now=NOW + 91 * DAY_S, days=90)
    sign(first, now=NOW, days=1, replace=True)
    assert private.public_key() == first.key


def test_the_book_knows_everything_that_is_out_there(papers: Papers) -> None:
    """Serial, kind, name and end of each, in order; serials never repeat."""
    papers.board()
    papers.client("scraper")
    papers.client("operator")
    lines = papers.authority.book()
    assert [(line.kind, line.name) for line in lines] == [
        ("board", "pi-7"),
        ("scraper", "alice"),
        ("operator", "alice"),
    ]
    assert len({line.serial for line in lines}) == 3
    path = papers.home / "ca" / "issued.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"[")
    expect(SettingsError, Reason.SETTINGS, papers.authority.book)
    expect(SettingsError, Reason.SETTINGS, papers.client)


def test_what_cannot_stand_in_the_book_is_not_issued(papers: Papers) -> None:
    """The line comes first: a crash leaves no certificate that nobody knows."""
    (papers.home / "ca" / ".issued.json.tmp").mkdir()
    with pytest.raises(AgentError):
        papers.client()
    assert papers.authority.book() == []
    assert not (papers.home / "operator.crt").exists()


def test_the_key_of_the_ca_is_encrypted(tmp_path: Path) -> None:
    """A wrong passphrase signs nothing; listing needs none."""
    made = Authority.create(tmp_path / "ca", PASSPHRASE, name="x", now=NOW, days=3650)
    pem = (tmp_path / "ca" / "ca.key").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    _, asked = board_request()
    for wrong in (b"wrong", b""):
        opened = Authority(tmp_path / "ca", wrong)
        error = expect(
            SettingsError,
            Reason.SETTINGS,
            lambda: opened.sign_board(asked, now=NOW, days=1),  # noqa: B023 - called at once
        )
        assert "passphrase does not open" in str(error)
    assert made.book() == []
    made.sign_board(asked, now=NOW, days=1)


def test_a_ca_is_never_overwritten(papers: Papers) -> None:
    """A second one in the same place is refused, and another key is noticed."""
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: Authority.create(papers.home / "ca", b"", name="x", now=NOW, days=1),
    )
    other = Papers(papers.home / "other", NOW)
    (papers.home / "ca" / "ca.key").write_bytes(
        (other.home / "ca" / "ca.key").read_bytes()
    )
    error = expect(SettingsError, Reason.SETTINGS, papers.client)
    assert "is not the key of ca.crt" in str(error)


def test_other_directories_are_no_ca(tmp_path: Path) -> None:
    """Opening something else says how to make one."""
    error = expect(SettingsError, Reason.SETTINGS, lambda: Authority(tmp_path))
    assert "ca init" in error.todo


def test_nothing_outlives_its_ca(tmp_path: Path) -> None:
    """A certificate that would end after the CA is refused."""
    made = Authority.create(tmp_path / "ca", b"", name="x", now=NOW, days=30)
    _, asked = board_request()
    made.sign_board(asked, now=NOW, days=30)
    for days in (31, 1e12):
        expect(
            SettingsError,
            Reason.SETTINGS,
            lambda: made.sign_board(asked, now=NOW, days=days),  # noqa: B023 - called at once
        )


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_names_that_no_certificate_can_have(papers: Papers, name: str) -> None:
    """A common name has 1 to 64 characters; nothing is entered for others."""
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: papers.authority.issue_client("operator", name, now=NOW, days=1),
    )
    assert papers.authority.book() == []


def der(files: Files) -> bytes:
    """Return a certificate as a handshake shows it."""
    made = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return made.public_bytes(Encoding.DER)


def test_a_renewal_keeps_key_and_names(papers: Papers) -> None:
    """The names are those of the running certificate, whatever is asked for."""
    files = papers.board()
    asked = parse_request(papers.identity(files).request())
    later = NOW + 60 * DAY_S
    pem, line = papers.authority.renew(der(files), asked, now=later, days=90)
    assert line.ends == later + 90 * DAY_S
    papers.identity(files).install(pem)
    fewer = BoardRequest(asked.board, asked.names[:1], asked.key, asked.key_digest)
    _, again = papers.authority.renew(der(files), fewer, now=later, days=90)
    assert again.names == line.names


def test_42_a_renewal_gives_nothing_new(papers: Papers) -> None:
    """Foreign key, other board, more names, a client's certificate: all refused."""
    files, other = papers.board(), papers.board("pi-8")
    operator = papers.client()
    asked = parse_request(papers.identity(files).request())
    more = BoardRequest(
        asked.board, (*asked.names, x509.DNSName("x")), asked.key, asked.key_digest
    )
    stranger = parse_request(papers.identity(other).request())
    _, stolen = board_request()  # the right board, by somebody else's key
    renew = papers.authority.renew
    for running, wrong in (
        (files, stranger),
        (files, stolen),
        (other, asked),
        (files, more),
        (operator, asked),
        (Files(papers.ca, papers.ca), asked),
    ):
        expect(
            RequestRefusedError,
            Reason.CERTIFICATE,
            lambda: renew(der(running), wrong, now=NOW, days=90),  # noqa: B023 - called at once
        )
    assert len(papers.authority.book()) == 3
