"""The DDI client's HTTP on a real socket: limits, origins, credentials, TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import AgentError, BundleRefusedError, DeviceError, SettingsError
from agent.update.ddi_links import Controller
from agent.update.ddi_needs import Answer
from agent.update.ddi_wire import HttpWire
from tests.fakes.certificates import Authority

SERVER = "https://hawkbit.example"
OURS = Controller(SERVER, "default", "pi-0042")
SECRET = "TargetToken 0123456789abcdef"  # noqa: S105 - nobody's


class Server:
    """A server that sends bytes.

    Attributes:
        answers: One for each request, in turn; the last one stays.
        requests: What was sent to it, up to the end of the headers.
        connections: How many there were.
    """

    def __init__(self, *answers: bytes, context: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.connections = 0
        self.url = ""
        self._context = context
        self._over = asyncio.Event()
        self._talking = 0

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        self._talking += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                answer = self.answers[0]
                if len(self.answers) > 1:
                    self.answers.pop(0)
                writer.write(answer.removesuffix(b"..."))
                await writer.drain()
                if answer.endswith(b"..."):
                    await self._over.wait()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._talking -= 1

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Server"]:
        """Listen as long as the block lasts."""
        server = await asyncio.start_server(
            self._talk, "127.0.0.1", 0, ssl=self._context
        )
        port = server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._context else 'http'}://127.0.0.1:{port}"
        async with server:
            try:
                yield self
            finally:
                self._over.set()
                while self._talking:  # noqa: ASYNC110 - asyncio's server tells nobody
                    await asyncio.sleep(0.001)


def answer(body: bytes = b"{}", status: str = "200 OK", headers: str = "") -> bytes:
    """Return an answer's bytes."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def wire_to(server: Server, secret: str = SECRET, total_s: float = 20.0) -> HttpWire:
    """Return a wire without TLS."""
    return HttpWire(server.url, lambda: None, lambda: secret, total_s)


def ask(server: Server, path: str = "/a", total_s: float = 20.0) -> Answer:
    """Ask once and return the answer."""

    async def course() -> Answer:
        async with server.listening():
            wire = wire_to(server, total_s=total_s)
            try:
                return await wire.ask("GET", server.url + path, max_bytes=100)
            finally:
                await wire.close()

    return asyncio.run(course())


def refused(server: Server, total_s: float = 20.0) -> AgentError:
    """Ask once and return the error."""
    with pytest.raises(AgentError) as caught:
        ask(server, total_s=total_s)
    return caught.value


class TestWire:
    """Requests and answers."""

    def test_answer(self) -> None:
        """Status, headers in lower case, body; a token for each request."""
        server = Server(answer(b'{"a":1}', "202 Accepted", 'ETag: "x"\r\n'))
        found = ask(server)
        assert (found.status, found.body) == (202, b'{"a":1}')
        assert found.headers["etag"] == '"x"'
        (head,) = server.requests
        assert f"Authorization: {SECRET}" in head
        assert "Accept-Encoding: identity" in head
        assert "Cookie" not in head

    def test_one_connection(self) -> None:
        """Requests share a connection; a rotated token works at once."""
        server, secrets = Server(answer()), ["TargetToken one", "TargetToken two"]

        async def course() -> None:
            async with server.listening():
                tokens = list(secrets)
                wire = HttpWire(server.url, lambda: None, lambda: tokens.pop(0))
                for _ in secrets:
                    await wire.ask("POST", server.url + "/a", body=b"{}")
                await wire.close()

        asyncio.run(course())
        assert server.connections == 1
        for secret, head in zip(secrets, server.requests, strict=True):
            assert f"Authorization: {secret}\r\n" in head

    def test_no_redirects_and_no_cookies(self) -> None:
        """A redirect is an answer; what it sets is not sent back."""
        headers = "Location: https://evil.example/\r\nSet-Cookie: a=b\r\n"
        server = Server(answer(b"", "302 Found", headers), answer())
        assert ask(server).status == 302

    def test_nothing_is_unpacked(self) -> None:
        """What calls itself packed arrives as it is: there are no bombs."""
        server = Server(answer(b"\x1f\x8bxx", headers="Content-Encoding: gzip\r\n"))
        assert ask(server).body == b"\x1f\x8bxx"

    def test_proxies_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever sets the environment does not read the token."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        assert ask(Server(answer())).status == 200

    @pytest.mark.parametrize(
        "server",
        [
            Server(answer(b"x" * 101)),
            Server(
                b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 200
            ),
            Server(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"c8\r\n" + b"x" * 200 + b"\r\n..."
            ),
        ],
    )
    def test_too_large(self, server: Server) -> None:
        """No more is read than was allowed, whatever length was promised."""
        assert refused(server).reason == "too_large"

    @pytest.mark.parametrize(
        "sent",
        [
            b"...",
            b"HTTP/1.1 200 OK\r\n...",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nx...",
        ],
    )
    def test_silence(self, sent: bytes) -> None:
        """A server that stops in the middle is left when the time is over."""
        assert refused(Server(sent), total_s=0.3).reason == "too_slow"

    @pytest.mark.parametrize(
        "sent", [b"...", b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + b"..."]
    )
    def test_no_head(self, sent: bytes) -> None:
        """Who sends no head is left early, however much comes instead of it."""

        async def course() -> None:
            async with Server(sent).listening() as server:
                wire = HttpWire(server.url, lambda: None, lambda: "", patience_s=0.2)
                with pytest.raises(BundleRefusedError) as caught:
                    await asyncio.wait_for(wire.ask("GET", server.url), 20)
                assert caught.value.reason == "too_slow"
                await wire.close()

        asyncio.run(course())

    def test_dripping(self) -> None:
        """A body that is slower than the least is not waited for."""

        async def course() -> AgentError:
            over = asyncio.Event()

            async def drip(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                with contextlib.suppress(ConnectionError):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
                    while not writer.is_closing():
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.02)
                writer.close()
                over.set()

            server = await asyncio.start_server(drip, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            wire = HttpWire(url, lambda: None, lambda: "", patience_s=0.2)
            async with server:
                try:
                    await wire.ask("GET", url)
                except BundleRefusedError as err:
                    return err
                finally:
                    await wire.close()
                    await over.wait()
            raise AssertionError

        error = asyncio.run(course())
        assert error.reason == "too_slow"
        assert "bytes in" in str(error)

    @pytest.mark.parametrize(
        "sent",
        [
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\0: \r\n\r\n",
            b"HTTP/1.1 999999\r\n\r\n",
        ],
    )
    def test_no_http(self, sent: bytes) -> None:
        """What is no HTTP is a server that cannot be reached, and no accident."""
        assert refused(Server(sent)).reason == "unreachable"

    def test_nobody_there(self) -> None:
        """Nobody listens: unreachable, and the secret is in no message."""
        wire = HttpWire("http://127.0.0.1:1", lambda: None, lambda: SECRET)

        async def course() -> str:
            try:
                await wire.ask("GET", "http://127.0.0.1:1/a")
            except BundleRefusedError as err:
                return f"{err.reason} {err} {err.__cause__!r}"
            finally:
                await wire.close()
            return ""

        said = asyncio.run(course())
        assert said.startswith("unreachable")
        assert "0123456789" not in said

    @pytest.mark.parametrize(
        "secret", ["TargetToken a\r\nX: y", "TargetToken ü", "a\0"]
    )
    def test_tokens_that_are_none(self, secret: str) -> None:
        """What would be more than a header is refused, and not shown."""
        server = Server(answer())

        async def course() -> None:
            async with server.listening():
                await wire_to(server, secret).ask("GET", server.url)

        with pytest.raises(DeviceError) as caught:
            asyncio.run(course())
        assert caught.value.reason == "permission"
        assert secret not in str(caught.value)
        assert server.requests == []

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.2:80/a",
            "https://evil.example/a",
            "ftp://127.0.0.1/a",
            "http://[::1",
            "",
        ],
    )
    def test_other_places(self, url: str) -> None:
        """Nothing is sent to any other origin, no token least of all."""

        def credentials() -> str:
            raise AssertionError

        wire = HttpWire("http://127.0.0.1:80", lambda: None, credentials)
        with pytest.raises(BundleRefusedError) as caught:
            asyncio.run(wire.ask("GET", url))
        assert caught.value.reason == "foreign_url"


class TestTls:
    """The context is the daemon's: what it refuses is refused."""

    def test_contexts(self, tmp_path: Path) -> None:
        """Another context is another connection; one that knows no CA gets none."""
        authority = Authority(tmp_path)
        pair = authority.issue()
        served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        served.load_cert_chain(pair.certificate, pair.key)
        server = Server(answer(), context=served)
        trusted = [ssl.create_default_context(cafile=authority.file) for _ in "12"]
        stranger = ssl.create_default_context(cafile=Authority(tmp_path, "other").file)
        contexts = [trusted[0], trusted[0], trusted[1], stranger]
        happened: list[str] = []

        async def course() -> None:
            async with server.listening():
                ahead = list(contexts)
                wire = HttpWire(server.url, lambda: ahead.pop(0), lambda: SECRET)
                for _ in contexts:
                    try:
                        got = await wire.ask("GET", server.url)
                        happened.append(f"{got.status} {server.connections}")
                    except BundleRefusedError as err:
                        happened.append(str(err.reason))
                await wire.close()

        asyncio.run(course())
        assert happened == ["200 1", "200 1", "200 2", "tls"]
        assert len(server.requests) == 3

    def test_papers_that_cannot_be_read(self) -> None:
        """Where our own papers are unusable, that is what is said."""

        def context() -> ssl.SSLContext:
            raise DeviceError("no key", reason="certificate")

        wire = HttpWire(SERVER, context, lambda: "")
        with pytest.raises(DeviceError) as caught:
            asyncio.run(wire.ask("GET", SERVER))
        assert caught.value.reason == "certificate"


class TestLinks:
    """Which addresses are this board's."""

    @pytest.mark.parametrize(
        ("href", "url"),
        [
            (f"{OURS.url}/deploymentBase/5?c=-2", f"{OURS.url}/deploymentBase/5?c=-2"),
            ("HTTPS://HawkBit.example:443/default/controller/v1/pi-0042/a/b", "a/b"),
            ("/default/controller/v1/pi-0042/a/b#c", "a/b"),
            ("deploymentBase/5", "deploymentBase/5"),
            ("/DEFAULT/controller/v1/pi%2D0042/a/b", None),
        ],
    )
    def test_own(self, href: str, url: str | None) -> None:
        """Below our own path, however it is spelled; the tenant in capitals, too."""
        if url is None:
            url = f"{SERVER}{href}"
        elif "://" not in url:
            url = f"{OURS.url}/{url}"
        assert OURS.own(href) == url

    @pytest.mark.parametrize(
        "href",
        [
            "",
            OURS.url,
            "https://evil.example/default/controller/v1/pi-0042/a",
            "http://hawkbit.example/default/controller/v1/pi-0042/a",
            "https://hawkbit.example:8443/default/controller/v1/pi-0042/a",
            "https://a@hawkbit.example/default/controller/v1/pi-0042/a",
            "/default/controller/v1/pi-0043/a",
            "/default/controller/v1/PI-0042/a",
            "/default/controller/v1/pi-0042x/a",
            "/other/controller/v1/pi-0042/a",
            "/default/controller/v1/pi-0042/%2e%2e/pi-0043/a",
            "/default/controller/v1/pi-0042/a%2Fb",
            "/default/controller/v1/pi-0042/a%0d%0ab",
            "/default/controller/v1/pi-0042/a b",
            "/default/controller/v1/pi-0042/..\\a",
            "\t/default/controller/v1/pi-0042/a",
            "https://[::1/a",
            "javascript:alert(1)",
            "x" * 3000,
        ],
    )
    def test_foreign(self, href: str) -> None:
        """Anything else is foreign."""
        with pytest.raises(BundleRefusedError) as caught:
            OURS.own(href)
        assert caught.value.reason == "foreign_url"

    def test_ids(self) -> None:
        """A link ends with an id, or names no action."""
        assert OURS.action_at("cancelAction/-1?x") == "-1"
        for href in ("cancelAction", "cancelAction/", "cancelAction/5/x", "a/.hidden"):
            with pytest.raises(BundleRefusedError) as caught:
                OURS.action_at(href)
            assert caught.value.reason in {"protocol", "foreign_url"}

    def test_made(self) -> None:
        """Names are quoted, and a path above the tenant stays."""
        there = Controller("http://127.0.0.1:8080/fleet/", "t", "a/b c")
        base = "http://127.0.0.1:8080/fleet/t/controller/v1/a%2Fb%20c"
        assert there.resource("cancelAction", "5") == f"{base}/cancelAction/5"
        with pytest.raises(BundleRefusedError):  # a slash in a name is not a slash
            there.own("http://127.0.0.1:8080/fleet/t/controller/v1/a/b c/x")

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "hawkbit.example",
            "http://hawkbit.example",
            "ftp://hawkbit.example",
            "https://",
            "https://a:b@hawkbit.example",
            "https://hawkbit.example?x=1",
            "https://hawkbit.example:0",
            "https://[::1",
        ],
    )
    def test_settings(self, url: str) -> None:
        """Settings that name no server are said to before anything starts."""
        with pytest.raises(SettingsError):
            Controller(url, "default", "pi")

    @given(
        href=st.text(max_size=60)
        | st.from_regex(r"(/?[.%\w]{1,9}){1,9}", fullmatch=True)
    )
    def test_any_link(self, href: str) -> None:
        """Whatever a server writes, what is asked is ours, or nothing."""
        try:
            url = OURS.own(href)
        except BundleRefusedError as err:
            url, reason = OURS.url + "/", err.reason
        else:
            reason = "foreign_url"
        assert reason == "foreign_url"
        assert url.startswith(f"{SERVER}/")
        assert "/pi-0042/" in url.replace("%2D", "-").replace("%2d", "-") or "%" in url
        assert ".." not in url.split("?")[0].split("/")


def test_a_server_that_is_not_there_is_told_in_plain_words() -> None:
    """As everywhere else: no address twice, no word of the library's."""

    async def live() -> str:
        async with Server(b"").listening() as server:
            url = server.url  # nobody listens there afterwards
        wire = HttpWire(url, lambda: None, lambda: "")
        with pytest.raises(BundleRefusedError) as err:
            await wire.ask("GET", f"{url}/poll")
        await wire.close()
        return str(err.value)

    assert asyncio.run(live()) == "the fleet's server: connection refused"
