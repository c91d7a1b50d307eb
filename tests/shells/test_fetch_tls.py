"""TLS to a repository's server: nginx with certificates of every wrong kind.

The numbers are those of the attack list (ota.md, section 4).
"""

import os
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.fetcher import Fetcher, Seen
from agent.trust.http_fetcher import HttpFetcher
from agent.trust.refusals import reasons_for_look
from agent.trust.transport import Transport
from tests.conftest import missing
from tests.fakes.certificates import Authority, Pair, year
from tests.fakes.static_server import StaticServer, find_nginx

FILE = "metadata/timestamp.json"
CONTENT = b"{}"
MAX_BYTES = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a directory to serve."""
    if find_nginx() is None:
        missing("the program nginx")
    (tmp_path / "www/metadata").mkdir(parents=True)
    (tmp_path / "www" / FILE).write_bytes(CONTENT)
    return tmp_path / "www"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give the fleet's CA."""
    return Authority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, root: Path, authority: Authority) -> Iterator[StaticServer]:
    """Give an honest server."""
    with StaticServer(tmp_path / "nginx", root, authority.issue()) as running:
        yield running


def look(fetcher: Fetcher) -> bytes:
    """Read the file."""
    with reasons_for_look(FILE):
        return fetcher.download_bytes(FILE, MAX_BYTES)


def refusal(fetcher: Fetcher) -> tuple[str, str]:
    """Return reason and message of a refused look."""
    with pytest.raises(BundleRefusedError) as caught:
        look(fetcher)
    return caught.value.reason, str(caught.value)


def test_a_server_with_the_pinned_ca_is_read(
    server: StaticServer, authority: Authority
) -> None:
    """TLS 1.3, one connection for several files, and its session for the next one."""
    fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
    assert look(fetcher) == CONTENT
    assert look(fetcher) == CONTENT
    fetcher._pools.clear()  # type: ignore[union-attr]  # it was opened above
    assert look(fetcher) == CONTENT
    fields = [line.rsplit(" ", 3)[1:] for line in server.log]
    assert [(tls, reused) for tls, reused, _ in fields] == [
        ("TLSv1.3", "."),
        ("TLSv1.3", "."),
        ("TLSv1.3", "r"),
    ]
    assert len({connection for _, _, connection in fields}) == 2


def test_a_session_is_resumed_again_and_again(
    server: StaticServer, authority: Authority
) -> None:
    """A resumed connection brings no other session: asking for one leaks memory."""
    fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
    kept = []
    for _ in range(4):
        assert look(fetcher) == CONTENT
        assert fetcher._context is not None
        kept.append(fetcher._context._session)
        fetcher._pools.clear()  # type: ignore[union-attr]  # it was opened above
    assert [it is kept[0] for it in kept] == [True] * 4
    reused = [line.rsplit(" ", 2)[1] for line in server.log]
    assert reused == [".", "r", "r", "r"]


def test_42_another_ca_is_refused(tmp_path: Path, server: StaticServer) -> None:
    """Neither another CA nor the system's speak for a server of the pinned one."""
    stranger = Authority(tmp_path, "stranger")
    for ca in (stranger.file, ""):
        reason, text = refusal(HttpFetcher(server.url, Transport(ca=ca)))
        assert reason == Reason.TLS
        assert "a CA that is not trusted here (update.ca)" in text


@pytest.mark.parametrize(
    ("starts", "ends", "words"),
    [
        (year(2001), year(2002), "has expired"),
        (year(2090), year(2099), "is not valid yet: is this board's clock slow?"),
    ],
)
def test_42_certificates_out_of_time_are_refused(
    tmp_path: Path,
    root: Path,
    authority: Authority,
    starts: datetime,
    ends: datetime,
    words: str,
) -> None:
    """Before it begins and after it ended, a certificate speaks for nobody."""
    pair = authority.issue(starts=starts, ends=ends)
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
        reason, text = refusal(fetcher)
    assert (reason, words in text) == (Reason.TLS, True)


def test_42_another_hosts_certificate_is_refused(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """The right CA is not enough: the name has to be the server's."""
    pair = authority.issue("other", "other.example")
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        by_address = refusal(HttpFetcher(server.url, Transport(ca=authority.file)))
        named = server.url.replace("127.0.0.1", "localhost")
        by_name = refusal(HttpFetcher(named, Transport(ca=authority.file)))
    assert by_address[0] == by_name[0] == Reason.TLS
    assert "is another address's" in by_address[1]
    assert "is another host's" in by_name[1]


def test_42_a_clients_certificate_is_no_servers(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """Whoever stole a board's certificate cannot play the repository with it."""
    pair = client_only(tmp_path, authority)
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        reason, text = refusal(HttpFetcher(server.url, Transport(ca=authority.file)))
    assert (reason, "is not meant for a server" in text) == (Reason.TLS, True)


def client_only(home: Path, authority: Authority) -> Pair:
    """Issue a certificate for 127.0.0.1 that is meant for clients alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    signed = authority.sign(
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(year(2020))
        .not_valid_after(year(2090))
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
    )
    pair = Pair(str(home / "client-only.pem"), str(home / "client-only.key"))
    Path(pair.certificate).write_bytes(signed)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    raw = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
    Path(pair.key).write_bytes(raw)
    return pair


def test_43_tls_1_2_is_refused(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """A server that cannot do better is not spoken to."""
    old = "ssl_protocols TLSv1.2;"
    with StaticServer(tmp_path / "nginx", root, authority.issue(), old) as server:
        reason, text = refusal(HttpFetcher(server.url, Transport(ca=authority.file)))
    assert (reason, "no TLS 1.3 connection" in text) == (Reason.TLS, True)


def test_43_a_server_without_tls_is_refused(root: Path, tmp_path: Path) -> None:
    """Somebody who answers https in plain text gets no request."""
    with StaticServer(tmp_path / "nginx", root) as server:
        fetcher = HttpFetcher(server.url.replace("http:", "https:"), Transport())
        assert refusal(fetcher)[0] == Reason.TLS
        assert not [line for line in server.log if "GET" in line]


MUTUAL = "ssl_client_certificate {ca}; ssl_verify_client on;"


def test_42_the_board_shows_its_own_certificate(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """A server that asks for a certificate gets it; none or a stranger's is refused."""
    own = authority.issue("board", "board-1")
    stranger = Authority(tmp_path, "stranger").issue("board", "board-1")
    more = MUTUAL.format(ca=authority.file)

    nobody = Pair("", "")
    pair = authority.issue()
    with StaticServer(tmp_path / "nginx", root, pair, more) as running:

        def shown(own: Pair) -> HttpFetcher:
            transport = Transport(authority.file, own.certificate, own.key)
            return HttpFetcher(running.url, transport)

        assert look(shown(own)) == CONTENT
        for wrong in (nobody, stranger):
            reason, text = refusal(shown(wrong))
            assert reason in {Reason.TLS, Reason.UNREACHABLE}
            assert "update.certificate" in text


def test_a_renewed_certificate_is_used_without_a_restart(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """Files are read again when they were replaced."""
    board = Authority(tmp_path, "stranger").issue("board", "board-1")
    more = MUTUAL.format(ca=authority.file)
    pair = authority.issue()
    with StaticServer(tmp_path / "nginx", root, pair, more) as server:
        transport = Transport(authority.file, board.certificate, board.key)
        fetcher = HttpFetcher(server.url, transport)
        refusal(fetcher)
        renewed = authority.issue("renewed", "board-1")
        shutil.copy(renewed.key, board.key)
        shutil.copy(renewed.certificate, board.certificate)
        assert look(fetcher) == CONTENT


@pytest.mark.parametrize("wrong", ["absent.pem", "garbage.pem"])
def test_own_files_that_cannot_be_used_are_the_operators(
    tmp_path: Path, wrong: str
) -> None:
    """A missing or damaged file of ours is no fault of the server's."""
    (tmp_path / "garbage.pem").write_bytes(b"garbage")
    name = str(tmp_path / wrong)
    for transport in (Transport(ca=name), Transport(certificate=name, key=name)):
        with pytest.raises(DeviceError) as caught:
            look(HttpFetcher("https://127.0.0.1:9", transport))
        assert caught.value.reason == Reason.CERTIFICATE


FLOOR_S = year(2040).timestamp()  # the clock floor of a board that sees the future


@pytest.mark.parametrize(
    ("starts", "ends", "refused"),
    [
        # Its clock says 1970; the floor proves that it is at least 2040 by now.
        (2000, 2090, False),
        (2050, 2090, False),  # renewed after the last news: may well have begun by now
        (2000, 2039, True),
    ],
)
def test_20_a_clock_in_1970_judges_certificates_by_its_floor(
    tmp_path: Path,
    root: Path,
    authority: Authority,
    starts: int,
    ends: int,
    refused: bool,  # noqa: FBT001 - a case
) -> None:
    """A board without a clock reaches its server, but not one that surely expired."""
    pair = authority.issue(starts=year(starts), ends=year(ends))
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
        fetcher.judge_by(0.0, FLOOR_S, FLOOR_S)
        if refused:
            reason, text = refusal(fetcher)
            assert (reason, "has expired" in text) == (Reason.TLS, True)
        else:
            assert look(fetcher) == CONTENT


def test_23b_a_floor_that_online_keys_moved_ends_no_certificate(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """The clock floor says 2040, offline keys vouch for 2025, the clock is between."""
    pair = authority.issue(starts=year(2020), ends=year(2030))
    offline_s = year(2025).timestamp()
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
        fetcher.judge_by(year(2028).timestamp(), FLOOR_S, offline_s)
        assert look(fetcher) == CONTENT
        fetcher.judge_by(year(2031).timestamp(), FLOOR_S, offline_s)
        fetcher._pools.clear()  # type: ignore[union-attr]  # it was opened above
        assert refusal(fetcher)[0] == Reason.TLS


def test_20_a_wrong_clock_excuses_nothing_else(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """With dates judged by the floor, CA and name are checked as ever."""
    pair = authority.issue("other", "other.example")
    stranger = Authority(tmp_path, "stranger")
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        for ca in (authority.file, stranger.file):
            fetcher = HttpFetcher(server.url, Transport(ca=ca))
            fetcher.judge_by(0.0, FLOOR_S, year(2025).timestamp())
            assert refusal(fetcher)[0] == Reason.TLS


def test_22_a_clock_that_is_right_again_judges_by_itself(
    tmp_path: Path, root: Path, authority: Authority
) -> None:
    """The exception ends with its cause, and so do the sessions made under it."""
    pair = authority.issue(starts=year(2090), ends=year(2099))
    with StaticServer(tmp_path / "nginx", root, pair) as server:
        fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
        fetcher.judge_by(0.0, FLOOR_S, FLOOR_S)
        assert look(fetcher) == CONTENT
        fetcher.judge_by(FLOOR_S + 1, FLOOR_S, FLOOR_S)
        fetcher._pools.clear()  # type: ignore[union-attr]  # it was opened above
        assert refusal(fetcher)[0] == Reason.TLS


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a while."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_50_proxies_of_the_environment_are_not_used(
    server: StaticServer, authority: Authority
) -> None:
    """Whoever sets variables for our service does not see where we go."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy")
        with environment(dict.fromkeys(names, proxy)):
            fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
            assert look(fetcher) == CONTENT
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_proxy_that_was_named_carries_tls_through(
    server: StaticServer, authority: Authority
) -> None:
    """The proxy sees CONNECT and bytes; the certificate checked is the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seen: list[bytes] = []
        thread = threading.Thread(target=relay, args=(listener, seen))
        thread.start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fetcher = HttpFetcher(server.url, Transport(authority.file, proxy=proxy))
        assert look(fetcher) == CONTENT
        fetcher._pools.clear()  # type: ignore[union-attr]  # it was opened above
        thread.join(10)
    address = server.url.removeprefix("https://").encode()
    assert seen[0].startswith(b"CONNECT " + address)


def relay(listener: socket.socket, seen: list[bytes]) -> None:
    """Be a proxy for one connection."""
    inner, _ = listener.accept()
    seen.append(inner.recv(4096))
    host, _, port = seen[0].split(b" ")[1].decode().partition(":")
    outer = socket.create_connection((host, int(port)))
    inner.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
    back = threading.Thread(target=pump, args=(outer, inner))
    back.start()
    pump(inner, outer)
    back.join(10)
    inner.close()
    outer.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass bytes on until either side ends."""
    try:
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_50_a_proxy_that_is_down_is_named(authority: Authority) -> None:
    """The message says that it is the proxy, not the server."""
    transport = Transport(authority.file, proxy="http://127.0.0.1:9")
    reason, text = refusal(HttpFetcher("https://127.0.0.1:10", transport))
    assert (reason, "update.proxy" in text) == (Reason.UNREACHABLE, True)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:9", "https://repository.invalid", "https://[::1]:9"]
)
def test_50_a_server_that_is_not_there_is_unreachable(url: str) -> None:
    """No listener, no such name: a reason, not a crash."""
    assert refusal(HttpFetcher(url, Transport()))[0] == Reason.UNREACHABLE


def test_50_a_black_hole_ends_in_time() -> None:
    """Packets that vanish cost one connect timeout, not minutes."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        # A full backlog drops what comes next, as a firewall does.
        waiting = [socket.socket() for _ in range(8)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(address)
        url = f"https://127.0.0.1:{address[1]}"
        reason, _ = refusal(HttpFetcher(url, Transport(connect_s=0.2)))
        for sock in waiting:
            sock.close()
    assert reason in {Reason.TOO_SLOW, Reason.UNREACHABLE}


def test_45_a_handshake_that_stalls_ends_in_time() -> None:
    """A listener that never speaks TLS costs one connect timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        reason, _ = refusal(HttpFetcher(url, Transport(connect_s=0.2)))
    assert reason == Reason.TOO_SLOW


def test_a_key_log_is_never_written(
    tmp_path: Path,
    server: StaticServer,
    authority: Authority,
) -> None:
    """The environment cannot make us write session keys down."""
    log = tmp_path / "keys.log"
    with environment({"SSLKEYLOGFILE": str(log)}):
        look(HttpFetcher(server.url, Transport(ca=authority.file)))
    assert not log.exists()


def test_nothing_new_is_told_without_a_body(
    server: StaticServer, authority: Authority, root: Path
) -> None:
    """A conditional request by nginx's own ETag: 304, and 200 when it changed."""
    fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
    os.utime(root / FILE, (1, 1))
    seen = fetcher.look(FILE, Seen(), MAX_BYTES)
    assert fetcher.look(FILE, seen, MAX_BYTES) is seen
    assert server.log[-1].split(" ")[2:4] == ["304", "0"]
    (root / FILE).write_bytes(b"[1]")
    assert fetcher.look(FILE, seen, MAX_BYTES) == Seen(b"[1]", "")


def test_two_publications_within_a_second_are_two(
    server: StaticServer, authority: Authority, root: Path
) -> None:
    """nginx's ETag is seconds and length: it may not prove that nothing is new."""
    fetcher = HttpFetcher(server.url, Transport(ca=authority.file))
    (root / FILE).write_bytes(b"[1]")
    written = (root / FILE).stat().st_mtime
    seen = fetcher.look(FILE, Seen(), MAX_BYTES)
    (root / FILE).write_bytes(b"[2]")
    os.utime(root / FILE, (written, written))
    assert fetcher.look(FILE, seen, MAX_BYTES).content == b"[2]"


def test_the_context_is_as_strict_as_pythons_default(authority: Authority) -> None:
    """Certificate and name are required, and nothing below TLS 1.3 is offered."""
    from agent.trust.tls import server_context

    context = server_context(Transport(ca=authority.file))
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
