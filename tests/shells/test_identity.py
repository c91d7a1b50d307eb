"""A board's own key and certificate: made once, shown, asked for again, renewed."""

import errno
import os
import resource
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.core.certificates import role_uri
from agent.core.reasons import Reason
from agent.endpoint.needs import Identity as NeededIdentity
from agent.errors import AgentError, DeviceError, RequestRefusedError, SettingsError
from agent.publish.issuing import CLIENT, SERVER, Leaf, make_ca, make_leaf
from agent.publish.roles import utc
from agent.publish.signing_requests import parse_request
from agent.trust.certificates import parse_certificates, read_facts
from agent.trust.identity import Identity
from agent.trust.own_key import (
    KEY_KINDS,
    KeyKind,
    Names,
    load_key,
    make_key,
    name_everything,
)
from tests.fakes.papers import DAY_S, Files, Papers

NOW = 1_790_000_000.0


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path, NOW)


@pytest.fixture
def board(papers: Papers) -> Files:
    return papers.board()


def expect(
    kind: type[AgentError], reason: Reason, call: Callable[[], object]
) -> AgentError:
    """Expect one error with one reason."""
    with pytest.raises(kind) as caught:
        call()
    assert reason == caught.value.reason
    return caught.value


def renewed(papers: Papers, files: Files, **changes: object) -> bytes:
    """Return a certificate that would renew a board's, but for some changes."""
    request = parse_request(papers.identity(files).request())
    fields: dict[str, object] = {
        "name": request.board,
        "names": request.names,
        "uses": (SERVER, CLIENT),
        "key": request.key,
        "ends": utc(NOW + 180 * DAY_S),
    }
    leaf = Leaf(**{**fields, **changes})  # type: ignore[arg-type]  # changes are leaf fields
    ca, private = papers.authority.certificate, papers.authority._private()
    return make_leaf(ca, private, leaf, utc(NOW)).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_key_is_made_once_and_private(tmp_path: Path, kind: KeyKind) -> None:
    """0600 below 0700, and a second one is refused with the first untouched."""
    path = tmp_path / "identity" / "board.key"
    private = make_key(path, kind)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()
    expect(SettingsError, Reason.SETTINGS, lambda: make_key(path, kind))
    assert before == path.read_bytes()
    assert load_key(path).public_key() == private.public_key()
    assert [found.name for found in path.parent.iterdir()] == ["board.key"]


def test_what_a_crash_left_of_a_key_is_no_key(tmp_path: Path) -> None:
    """A half-written file has another name; the next attempt replaces it."""
    path = tmp_path / "board.key"
    (tmp_path / ".board.key.tmp").write_bytes(b"-----BEGIN")
    make_key(path)
    load_key(path)
    assert [found.name for found in tmp_path.iterdir()] == ["board.key"]


def test_67_no_link_chooses_where_a_key_goes(tmp_path: Path) -> None:
    """A link in the key's place is never followed, also one that leads nowhere."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "board.key").symlink_to(elsewhere)
    expect(SettingsError, Reason.SETTINGS, lambda: make_key(tmp_path / "board.key"))
    (tmp_path / ".second.key.tmp").symlink_to(elsewhere)
    make_key(tmp_path / "second.key")
    assert not elsewhere.exists()


def test_the_certificate_is_described(papers: Papers, board: Files) -> None:
    """The facts that /v1/identity shows, in JSON's own types."""
    identity: NeededIdentity = papers.identity(board)
    facts = identity.describe()
    line = papers.authority.book()[0]
    assert facts["subject"] == "CN=pi-7"
    assert facts["issuer"] == "CN=test CA"
    assert facts["serial"] == line.serial
    assert facts["key"] == line.key
    assert facts["names"] == [
        "DNS:localhost",
        "IP:127.0.0.1",
        "URI:urn:tinyward:board:pi-7",
    ]
    assert facts["uses"] == ["clientAuth", "serverAuth"]
    assert (facts["begins"], facts["ends"]) == (NOW - 3600, NOW + 90 * DAY_S)
    assert facts == msgspec.json.decode(msgspec.json.encode(facts))


def test_the_request_keeps_names_and_key(papers: Papers, board: Files) -> None:
    """What a renewal asks for is what the board has."""
    identity = papers.identity(board)
    first = parse_request((board.key.parent / "board.csr").read_bytes())
    again = parse_request(identity.request())
    assert (again.board, again.key_digest) == ("pi-7", first.key_digest)
    assert set(again.names) == set(first.names)
    board.certificate.unlink()
    bare = parse_request(papers.identity(board).request())
    assert bare.spelled() == ["urn:tinyward:board:pi-7"]


def test_a_renewed_certificate_is_installed(papers: Papers, board: Files) -> None:
    """Same key, same CA, longer: the file is replaced, and expiry follows."""
    identity = papers.identity(board)
    assert identity.expires() == NOW + 90 * DAY_S
    pem = renewed(papers, board)
    identity.install(pem)
    assert board.certificate.read_bytes() == pem
    assert identity.expires() == NOW + 180 * DAY_S
    assert identity.describe()["serial"] == _serial(pem)


def _serial(pem: bytes) -> str:
    """Return the serial of a certificate."""
    return read_facts(parse_certificates(pem)[0]).serial


def test_the_chain_behind_the_certificate_stays(papers: Papers, board: Files) -> None:
    """CAs come from the board's own files; what a renewal sends along is left out."""
    ca = papers.ca.read_bytes()
    board.certificate.write_bytes(board.certificate.read_bytes() + ca)
    identity = Identity(board.certificate, board.key, board="pi-7")
    stranger = Papers(papers.home / "stranger", NOW)
    pem = renewed(papers, board)
    identity.install(pem + stranger.ca.read_bytes())
    assert board.certificate.read_bytes() == pem + ca


def test_42_what_does_not_renew_is_not_installed(papers: Papers, board: Files) -> None:
    """Foreign key, CA, board or use, a role, a CA, an earlier end: all refused."""
    identity, before = papers.identity(board), board.certificate.read_bytes()
    other = papers.board("pi-8")
    stranger = Papers(papers.home / "stranger", NOW)
    names = parse_request(identity.request()).names
    role = x509.UniformResourceIdentifier(role_uri("operator"))
    moment = utc(NOW)
    private = load_key(board.key)
    own_ca = make_ca(private, "pi-7", moment, utc(NOW + 999 * DAY_S))
    refused = {
        "another key": renewed(papers, board, key=load_key(other.key).public_key()),
        "another CA": renewed(stranger, board),
        "signed by itself": own_ca.public_bytes(Encoding.PEM),
        "another board": renewed(
            papers, board, names=parse_request(papers.identity(other).request()).names
        ),
        "fewer names": renewed(papers, board, names=names[:1]),
        "a role": renewed(papers, board, names=[*names, role]),
        "two boards": renewed(
            papers,
            board,
            names=[*names, *name_everything(Names("pi-9"))],
        ),
        "server only": renewed(papers, board, uses=(SERVER,)),
        "no later": renewed(papers, board, ends=utc(NOW + 90 * DAY_S)),
        "the same": before,
        "nothing": b"",
        "no certificate": (board.key.parent / "board.csr").read_bytes(),
        "too long": before * 200,
    }
    for word, pem in refused.items():
        error = expect(
            RequestRefusedError,
            Reason.CERTIFICATE,
            lambda: identity.install(pem),  # noqa: B023 - called at once
        )
        assert "not taken" in str(error), word
        assert before == board.certificate.read_bytes(), word
    assert list(board.certificate.parent.glob(".*")) == []


def test_42_the_name_of_the_ca_is_not_enough(papers: Papers, board: Files) -> None:
    """A CA that calls itself the same has another key, and signs nothing for us."""
    impostor = Papers(papers.home / "impostor", NOW)
    assert papers.authority.certificate.subject == (
        impostor.authority.certificate.subject
    )
    expect(
        RequestRefusedError,
        Reason.CERTIFICATE,
        lambda: papers.identity(board).install(renewed(impostor, board)),
    )


def test_a_certificate_that_has_ended_is_not_installed(
    papers: Papers, board: Files
) -> None:
    """With a clock, a later end is not enough: it has to lie ahead."""
    pem = renewed(papers, board)
    for now, taken in ((NOW + 200 * DAY_S, False), (NOW + 170 * DAY_S, True)):
        identity = Identity(
            board.certificate,
            board.key,
            board="pi-7",
            cas=[papers.ca],
            clock=lambda: now,  # noqa: B023 - used at once
        )
        if taken:
            identity.install(pem)
        else:
            expect(
                RequestRefusedError,
                Reason.CERTIFICATE,
                lambda: identity.install(pem),  # noqa: B023 - called at once
            )


def test_without_a_known_ca_nothing_is_installed(papers: Papers, board: Files) -> None:
    """A board that knows no CA cannot tell who signed, and says so."""
    identity = Identity(board.certificate, board.key, board="pi-7")
    error = expect(
        RequestRefusedError,
        Reason.CERTIFICATE,
        lambda: identity.install(renewed(papers, board)),
    )
    assert "CA of the certificate in use is not known" in str(error)


def test_the_first_certificate_can_be_installed(papers: Papers, board: Files) -> None:
    """Before there is one, the board's own id and both uses are asked for."""
    pem = renewed(papers, board)
    wrong = renewed(papers, board, uses=(CLIENT,))
    board.certificate.unlink()
    identity = papers.identity(board)
    assert identity.expires() == 0.0
    expect(RequestRefusedError, Reason.CERTIFICATE, lambda: identity.install(wrong))
    other = papers.identity(board, board="pi-8")
    expect(RequestRefusedError, Reason.CERTIFICATE, lambda: other.install(pem))
    identity.install(pem)
    assert identity.expires() == NOW + 180 * DAY_S


def test_expiry_is_read_once_for_each_file(papers: Papers, board: Files) -> None:
    """A scrape costs a stat; a damaged or absent file counts as none."""
    identity = papers.identity(board)
    assert identity.expires() == NOW + 90 * DAY_S
    content, found = board.certificate.read_bytes(), board.certificate.stat()
    board.certificate.write_bytes(b"x" * len(content))
    os.utime(board.certificate, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert identity.expires() == NOW + 90 * DAY_S
    os.utime(board.certificate, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert identity.expires() == 0.0
    board.certificate.write_bytes(content)
    os.utime(board.certificate, ns=(found.st_atime_ns, found.st_mtime_ns + 2))
    assert identity.expires() == NOW + 90 * DAY_S
    board.certificate.unlink()
    assert identity.expires() == 0.0


def test_expiry_costs_little(papers: Papers, board: Files) -> None:
    """A thousand scrapes take no more than a few parses would."""
    identity = papers.identity(board)
    identity.expires()
    begin = time.process_time()
    for _ in range(1000):
        identity.expires()
    # Parsing a certificate takes 50 us and more; a stat 2 us. Wide for slow machines.
    assert time.process_time() - begin < 1.0


def test_damaged_files_are_the_operators(papers: Papers, board: Files) -> None:
    """Each says which file it is and what helps; nothing is overwritten."""
    pem = renewed(papers, board)
    identity = papers.identity(board)
    for path in (board.certificate, board.key, papers.ca):
        whole = path.read_bytes()
        path.write_bytes(b"rubbish")
        error = expect(
            DeviceError,
            Reason.CERTIFICATE,
            lambda: identity.install(pem),
        )
        assert (path.name in str(error), error.todo != "") == (True, True)
        path.write_bytes(whole)
    board.key.unlink()
    expect(DeviceError, Reason.CERTIFICATE, identity.request)
    board.certificate.unlink()
    expect(DeviceError, Reason.CERTIFICATE, identity.describe)


def test_keys_of_other_kinds_are_named(tmp_path: Path) -> None:
    """RSA and encrypted keys are not used by accident."""
    private = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "board.key"
    path.write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    error = expect(DeviceError, Reason.CERTIFICATE, lambda: load_key(path))
    assert "neither Ed25519 nor ECDSA" in str(error)


def test_61_a_full_disk_keeps_the_old_certificate(papers: Papers, board: Files) -> None:
    """A file that cannot be written is the operator's; the old one is still whole."""
    pem, before = renewed(papers, board), board.certificate.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(DeviceError) as caught:
            papers.identity(board).install(pem)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EFBIG
    assert before == board.certificate.read_bytes()


@pytest.mark.parametrize(
    "names",
    [
        Names(""),
        Names("a/b"),
        Names("a" * 65),
        Names("pi", addresses=("localhost",)),
        Names("pi", dns=("\u00e9",)),
    ],
)
def test_names_that_no_certificate_can_have(names: Names) -> None:
    """An id that is no id, or an address that is none, is refused before a key."""
    expect(SettingsError, Reason.SETTINGS, lambda: name_everything(names))


@settings(max_examples=150)
@given(st.data())
def test_mutated_certificates_only_raise_our_error(
    papers_once: tuple[Identity, bytes], data: st.DataObject
) -> None:
    """Fuzz: whatever is sent, only a refusal comes back, and nothing moves."""
    identity, pem = papers_once
    whole = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    der = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(der) - 1))
        der[place] ^= data.draw(st.integers(1, 255))
    assume(bytes(der) != whole)
    before = identity.certificate.read_bytes()
    with pytest.raises(RequestRefusedError):
        identity.install(_pem(bytes(der)))
    assert before == identity.certificate.read_bytes()


def test_a_serial_below_zero_is_refused(papers_once: tuple[Identity, bytes]) -> None:
    """What the library only warns of today, and refuses tomorrow, is refused."""
    identity, pem = papers_once
    whole = x509.load_pem_x509_certificate(pem)
    der = bytearray(whole.public_bytes(Encoding.DER))
    size = (whole.serial_number.bit_length() + 8) // 8
    der[der.index(bytes([2, size])) + 2] |= 0x80
    with pytest.raises(RequestRefusedError, match="serial number"):
        identity.install(_pem(bytes(der)))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(papers_once: tuple[Identity, bytes], raw: bytes) -> None:
    """Fuzz: bytes that are no PEM, or PEM around no certificate."""
    identity, _ = papers_once
    for sent in (raw, _pem(raw)):
        with pytest.raises(RequestRefusedError):
            identity.install(sent)


def _pem(der: bytes) -> bytes:
    """Return PEM around anything."""
    import base64

    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def papers_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, bytes]:
    papers = Papers(tmp_path_factory.mktemp("papers"), NOW)
    files = papers.board()
    return papers.identity(files), renewed(papers, files)
