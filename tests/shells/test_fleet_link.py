"""The link to a fleet's server: TLS as asyncio speaks it, what is counted and shown."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console

from agent.cli.board_answers import Refusal, ServerAnswer, State, Updates, UpdateState
from agent.cli.status_view import render_status
from agent.cli.symptoms_service import look_at_workers
from agent.cli.symptoms_state import look_at_papers
from agent.core.fleet_settings import DdiSettings, FleetSettings
from agent.errors import BundleRefusedError, SettingsError
from agent.fleet_link import CountedWire, result_of
from agent.settings import Settings, UpdateSettings, parse_settings
from agent.trust.tls import ServerContext, server_context
from agent.trust.transport import Transport
from agent.update.ddi_needs import Answer
from tests.conftest import missing
from tests.fakes.certificates import Authority, year
from tests.fakes.static_server import StaticServer, find_nginx

NOW = 1_790_000_000.0
YEAR_S = 365 * 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give the fleet's CA."""
    if find_nginx() is None:
        missing("the program nginx")
    (tmp_path / "www").mkdir()
    (tmp_path / "www/poll").write_bytes(b"{}")
    return Authority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[StaticServer]:
    """Give a server whose certificate ends in 2030."""
    pair = authority.issue("old", starts=year(2020), ends=year(2030))
    with StaticServer(tmp_path / "nginx", tmp_path / "www", pair) as running:
        yield running


async def ask(url: str, context: ServerContext) -> int:
    """Ask over a connection of its own."""
    connector = aiohttp.TCPConnector(ssl=context)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{url}/poll") as response,
    ):
        await response.read()
        return response.status


def test_20_a_clock_of_1970_locks_no_board_out(
    server: StaticServer, authority: Authority
) -> None:
    """With a wrong clock the end of certificates is judged by the floor, as for TUF."""
    context = server_context(Transport(ca=authority.file))
    before, after = year(2026).timestamp(), year(2031).timestamp()
    context.judge_by(0.0, before, before)
    assert asyncio.run(ask(server.url, context)) == 200
    context.judge_by(0.0, after, after)
    with pytest.raises(aiohttp.ClientConnectorCertificateError, match=r"ended|expired"):
        asyncio.run(ask(server.url, context))


def test_a_new_connection_resumes_the_last_ones_session(
    server: StaticServer, authority: Authority
) -> None:
    """Half the bytes of a poll; another judgement of the clock begins anew."""
    context = server_context(Transport(ca=authority.file))
    now = year(2026).timestamp()
    context.judge_by(now, 0.0)
    reused = []
    for _ in range(3):
        assert asyncio.run(ask(server.url, context)) == 200
        last = context._last
        assert isinstance(last, ssl.SSLObject)
        reused.append(last.session_reused)
    context.judge_by(0.0, now, now)
    assert asyncio.run(ask(server.url, context)) == 200
    last = context._last
    assert isinstance(last, ssl.SSLObject)
    assert [*reused, last.session_reused] == [False, True, True, False]


class ScriptedWire:
    """Answers with one status after the other; 0 is no answer."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = iter(statuses)

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 65_536,
    ) -> Answer:
        """Answer."""
        del method, url, headers, body, max_bytes
        status = next(self.statuses)
        if status == 0:
            raise BundleRefusedError("no route", reason="unreachable")
        return Answer(status, {}, b"")

    async def close(self) -> None:
        """Nothing is open."""


def test_every_request_is_counted_once_by_how_it_was_answered() -> None:
    """In four words, whatever the server thinks of."""
    statuses = (200, 201, 304, 401, 410, 500, 503, 0)
    requests: Counter[str] = Counter()

    async def live() -> None:
        wire = CountedWire(ScriptedWire(*statuses), requests)
        for _ in statuses[:-1]:
            await wire.ask("GET", "https://fleet.example/poll")
        with pytest.raises(BundleRefusedError):
            await wire.ask("GET", "https://fleet.example/poll")
        await wire.close()

    asyncio.run(live())
    assert requests == {"ok": 2, "unchanged": 1, "refused": 2, "failed": 3}
    assert {result_of(status) for status in range(100, 600)} == set(requests)


def shown(server: ServerAnswer) -> str:
    """Return the status of a board under a server's orders."""
    state = State(
        version="0.4.0",
        ready=True,
        now=NOW,
        update=UpdateState(orchestrator="ddi", ddi=server),
    )
    console = Console(width=100, highlight=False)
    with console.capture() as captured:
        console.print(render_status(state, Updates(), NOW))
    return captured.get()


def test_status_shows_the_server_and_its_order() -> None:
    """Who orders, since when it is silent, what may begin, and what it was not told."""
    text = shown(
        ServerAnswer(
            url="https://hawkbit.example",
            last_poll=NOW - 90,
            next_poll=NOW + 210,
            action="17",
            said="downloaded",
            download="forced",
            update="skip",
            window_open=False,
            outbox=2,
            trouble=Refusal("unauthorized", "401: who are you?"),
        )
    )
    words = " ".join(text.split())
    assert "https://hawkbit.example, answered 1 min 30 s ago, asked in" in words
    assert "17: told downloaded, download at once, install no" in words
    assert "its maintenance window is closed" in words
    assert "2 things that the server has not taken yet" in words
    assert "401: who are you? [unauthorized] -> Give the board a token" in words


def test_status_of_a_server_that_is_out_of_reach_names_its_own_settings() -> None:
    """Not those of the repository, which is read all the time."""
    gone = Refusal("unreachable", "the fleet's server: connection refused")
    text = shown(ServerAnswer(url="https://hawkbit.example", trouble=gone))
    assert "-> Check `fleet.ddi.url`" in text


def test_status_of_a_server_that_never_answered() -> None:
    """No order, nothing untold: one line."""
    text = shown(ServerAnswer(url="https://hawkbit.example"))
    assert "https://hawkbit.example, no answer yet, being asked" in text
    assert "order " not in text


def test_the_doctor_looks_at_the_papers(tmp_path: Path) -> None:
    """Nothing is said of boards that no server orders about."""
    place = tmp_path / "token"
    place.write_text("0123456789abcdef")
    place.chmod(0o600)
    ddi = DdiSettings(url="https://fleet.example", token_file=str(place))
    update = UpdateSettings(orchestrator="ddi", repository="x", root="x")
    settings = Settings(update=update, fleet=FleetSettings(ddi=ddi))
    (green,) = look_at_papers(settings)
    assert (green.mark, "was not asked" in green.what) == ("green", True)
    place.chmod(0o644)
    (finding,) = look_at_papers(settings)
    assert (finding.mark, "chmod 600" in finding.todo) == ("yellow", True)
    wrong = FleetSettings(ddi=DdiSettings(url="http://fleet.example"))
    (finding,) = look_at_papers(Settings(update=update, fleet=wrong))
    assert finding.mark == "red"
    assert list(look_at_papers(Settings())) == []


def heard(server: dict[str, object]) -> tuple[str, str, str]:
    """Return mark, words and advice of what the daemon heard from its server."""
    found = look_at_workers(lambda: {"update": {"ddi": server}})
    (said,) = (it for it in found if it.topic == "fleet")
    return said.mark, said.what, said.todo


def test_the_doctor_asks_the_daemon_what_its_server_answered() -> None:
    """Papers that lie here say nothing of whether they are taken."""
    trouble = {"reason": "unauthorized", "message": "poll: answered 401"}
    mark, what, todo = heard({"last_poll": NOW, "trouble": trouble})
    assert (mark, "answered 401 [unauthorized]" in what) == ("yellow", True)
    assert "a token that is valid" in todo
    assert heard({"last_poll": 0.0})[0] == "yellow"
    assert heard({"url": "https://fleet.example", "last_poll": NOW}) == (
        *("green", "the daemon says: https://fleet.example answers"),
        "",
    )
    assert [it.topic for it in look_at_workers(dict)] == ["sandbox"]


@pytest.mark.parametrize("name", ["a/../b", "a b", "a%2fb", "a;b", "a\\b", "x" * 129])
def test_a_controller_is_one_segment_of_a_path(name: str) -> None:
    """What would name another board's place is refused with the key, in words."""
    with pytest.raises(SettingsError) as err:
        parse_settings(f"[fleet.ddi]\ncontroller = {json.dumps(name)}".encode())
    assert "fleet.ddi.controller: at most 128 of a-z" in str(err.value)


@pytest.mark.parametrize("name", ["", "pi-0042", "urn:imei:35", "aa:bb:cc", "a@b.c"])
def test_usual_names_of_controllers_are_taken(name: str) -> None:
    """Serial numbers, MAC addresses, URNs."""
    raw = f"[fleet.ddi]\ncontroller = {json.dumps(name)}".encode()
    assert parse_settings(raw).fleet.ddi.controller == name


def test_other_orchestrators_import_no_client() -> None:
    """The start of every board is short: only words of DDI are known to it."""
    program = (
        "import sys, agent.fleet_link, agent.update.poller\n"
        "print(*sorted(it for it in sys.modules if '.ddi_' in it))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
