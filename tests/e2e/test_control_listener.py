"""The control listener of the real daemon, its papers made as the README says.

Everything that an operator does is a command of ``tinyward``; only what commands would
never ask for is asked by hand.
"""

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import Result

from agent.publish.authority import Authority
from agent.publish.slices import Choice, export_slice
from tests.e2e.conftest import POLL_S, Table, watched_daemon
from tests.fakes.certificates import Pair
from tests.fakes.daemon_process import NAME, DaemonProcess, Json
from tests.fakes.fleet import GROUP, MODEL, Fleet, bundle
from tests.fakes.packed_candidates import on_trial
from tests.fakes.watched_board import WatchedBoard, tinyward

BOARD = "pi-7"
SECRET = b"correct horse"
DAY_S = 86_400.0
LOCAL = ("--name", BOARD, "--dns", "localhost", "--ip", "127.0.0.1")


@dataclass
class Office:
    """A fleet's CA, the board that trusts it, and who may talk to it."""

    home: Path
    papers: dict[str, Pair] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the CA and the board's certificate: three commands on two machines."""
        self.ca = self.home / "CA"
        self.identity = self.home / "identity"
        self.secret = self.home / "passphrase"
        self.secret.write_bytes(SECRET)
        self.say("ca", "init", str(self.ca))
        made = tinyward("identity", "init", "--dir", str(self.identity), *LOCAL)
        assert made.exit_code == 0, made.output
        csr, crt = self.identity / "board.csr", self.identity / "board.crt"
        self.say("ca", "sign", str(self.ca), str(csr), "-o", str(crt))
        for role in ("operator", "observer"):
            self.issue(role)

    def say(self, *words: str) -> Result:
        """Run a command of the CA's keeper, who knows the passphrase."""
        result = tinyward(*words, "--passphrase-file", str(self.secret))
        assert result.exit_code == 0, result.output
        return result

    def issue(self, role: str, name: str = "") -> Pair:
        """Issue a client's certificate."""
        name = name or role
        out = self.home / name
        who = ("--role", role, "--name", name, "-o", str(out))
        self.say("ca", "issue", str(self.ca), *who)
        self.papers[name] = Pair(f"{out}.crt", f"{out}.key")
        return self.papers[name]

    def control(self) -> dict[str, object]:
        """Return the board's table [control]."""
        crt, key = self.identity / "board.crt", self.identity / "board.key"
        trusted = self.ca / "ca.crt"
        return {
            "listen": "127.0.0.1:0",
            "certificate": crt,
            "key": key,
            "client_ca": trusted,
        }

    def options(self, name: str = "operator") -> tuple[str, ...]:
        """Return the options with somebody's papers."""
        own = self.papers[name]
        ca = str(self.ca / "ca.crt")
        return ("--cert", own.certificate, "--key", own.key, "--ca", ca)

    def serial(self, name: str) -> str:
        """Return the serial number of what was issued last to a name."""
        listed = json.loads(tinyward("ca", "list", str(self.ca), "--json").stdout)
        found: list[str] = [it["serial"] for it in listed if it["name"] == name]
        return found[-1]


@dataclass
class Controlled:
    """A board with a control listener, and its office."""

    office: Office
    watched: WatchedBoard

    @property
    def board(self) -> DaemonProcess:
        """The daemon."""
        return self.watched.board

    @property
    def port(self) -> int:
        """Where the control listener is."""
        before = "listening on https://127.0.0.1:"
        self.board.wait_said(before)
        _, _, rest = self.board.words().partition(before)
        return int(rest.split()[0])

    @property
    def address(self) -> str:
        """How an operator names the board."""
        return f"{BOARD}@127.0.0.1:{self.port}"

    def push(self, *words: str, board: str = "", name: str = "operator") -> Result:
        """Run ``tinyward push``."""
        options = self.office.options(name)
        return tinyward("push", board or self.address, *options, *words)

    def push_repository(self) -> Result:
        """Push the fleet's repository, which has to work."""
        result = self.push("--repository", str(self.watched.fleet.path))
        assert result.exit_code == 0, result.output
        return result

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        name: str = "operator",
        **headers: str,
    ) -> tuple[int, Json]:
        """Ask by hand."""
        context = ssl.create_default_context(cafile=str(self.office.ca / "ca.crt"))
        own = self.office.papers[name]
        context.load_cert_chain(own.certificate, own.key)
        line = http.client.HTTPSConnection("127.0.0.1", self.port, context=context)
        try:
            spelled = {key.replace("_", "-"): value for key, value in headers.items()}
            if body[:1] == b"{":
                spelled["Content-Type"] = "application/json"
            line.request(method, path, body or None, spelled)
            answer = line.getresponse()
            said: Json = json.loads(answer.read() or b"{}")
            return answer.status, said
        finally:
            line.close()

    def shown_serial(self) -> str:
        """Return the serial number that the listener shows."""
        return str(self.ask("GET", "/v1/identity")[1]["certificate"]["serial"])


def controlled(home: Path, orchestrator: str) -> Controlled:
    """Return a board without a repository: what it gets comes through the listener."""
    fleet, office = Fleet(home), Office(home)
    update = {**fleet.update_table(POLL_S), "repository": ""}
    tables: dict[str, Table] = {"control": office.control(), "board": {"id": BOARD}}
    table = {**update, "orchestrator": orchestrator}
    board = watched_daemon(home / "board", table, tables)
    return Controlled(office, WatchedBoard(fleet, board))


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    """Give a board with orchestrator ``tuf`` that runs version 1, pushed to it."""
    made = controlled(tmp_path_factory.mktemp("follower"), "tuf")
    with made.board:
        publish(made)
        made.push_repository()
        yield made


def publish(made: Controlled, content: bytes | None = None) -> int:
    """Publish the next version, which no board sees before it is pushed."""
    watched = made.watched
    watched.good = watched.next()
    watched.fleet.publish(watched.good, content)
    return watched.good


def test_a_slice_is_pushed_and_runs(follower: Controlled) -> None:
    """Phases pass by while the model before answers; pushed twice is pushed once."""
    with_trial = follower.watched.next()
    follower.watched.good = with_trial
    content = on_trial(with_trial, shadow_samples=50, probation_s=0.5)
    follower.watched.fleet.publish(with_trial, content)
    result = follower.push_repository()
    assert follower.board.version() == with_trial
    shown = result.stderr
    for phase in ("SHADOWING", "PROBATION", "committed"):
        assert phase in shown
    follower.push_repository()
    assert follower.board.version() == with_trial
    follower.watched.answers()


def test_a_push_goes_on_where_one_was_cut(follower: Controlled) -> None:
    """Half a bundle came over before: it is not sent again."""
    version = publish(follower)
    content = bundle(version)
    half = len(content) // 2
    digest = sha256(content).hexdigest()
    file = follower.watched.fleet.spoiled.bundle_file(MODEL, version)
    path = file.relative_to(follower.watched.fleet.path)
    status, said = follower.ask(
        "PUT",
        f"/v1/uploads/{digest}?path={path}",
        content[:half],
        Content_Range=f"bytes 0-{half - 1}/{len(content)}",
    )
    assert (status, said["offset"], said["complete"]) == (200, half, False)
    result = follower.push_repository()
    assert follower.board.version() == version
    assert "were there already" in result.stderr


def test_42_who_may_do_what(follower: Controlled, tmp_path: Path) -> None:
    """Roles, expired papers, strangers, other boards: each refused with its reason."""
    watched = follower.watched
    with watched.undisturbed():
        assert follower.ask("GET", "/v1/state", name="observer")[0] == 200
        status, said = follower.ask("POST", "/v1/rollback", b"{}", name="observer")
        assert (status, said["reason"]) == (403, "role")
        desired = {"generation": 9, "pipelines": {}}
        body = json.dumps(desired).encode()
        status, said = follower.ask("PUT", "/v1/desired", body)
        assert (status, said["reason"]) == (409, "not_orchestrator")
        assigned = follower.push("--assign", f"{NAME}=1")
        assert (assigned.exit_code, "[not_orchestrator]" in assigned.stderr) == (1, 1)
        office = follower.office
        _expired(office)
        stranger = Office(_folder(tmp_path / "other")).papers["operator"]
        office.papers["stranger"] = stranger
        crt, key = office.identity / "board.crt", office.identity / "board.key"
        office.papers["board"] = Pair(str(crt), str(key))
        for name in ("expired", "stranger"):
            result = follower.push("--repository", str(watched.fleet.path), name=name)
            assert result.exit_code == 1
            assert "[certificate]" in result.stderr, result.stderr
        status, said = follower.ask("POST", "/v1/updates", name="board")
        assert (status, said["reason"]) == (403, "role")
        elsewhere = f"pi-8@127.0.0.1:{follower.port}"
        result = follower.push("--repository", str(watched.fleet.path), board=elsewhere)
        assert (result.exit_code, "pi-7" in result.stderr) == (1, True)


def test_a_revoked_operator_is_let_in_no_more(follower: Controlled) -> None:
    """Revoked by serial in the signed slice that a colleague pushes."""
    office, watched = follower.office, follower.watched
    office.issue("operator", "mallory")
    assert follower.ask("GET", "/v1/updates", name="mallory")[0] == 200
    serial = office.serial("mallory")
    repository = str(watched.fleet.path)
    assert tinyward("repo", "revoke", repository, "--operator", serial).exit_code == 0
    publish(follower)
    follower.push_repository()
    status, said = follower.ask("GET", "/v1/updates", name="mallory")
    assert (status, said["reason"]) == (403, "certificate")
    assert follower.ask("GET", "/v1/updates")[0] == 200
    watched.answers()


def test_two_operators_at_once(follower: Controlled) -> None:
    """The second is told the phase; who only wants a look is shown the first's."""
    watched, board = follower.watched, follower.board
    version = watched.next()
    watched.fleet.publish(version, on_trial(version, probation_s=3.0))
    pushed = follower.push("--repository", str(watched.fleet.path), "--no-wait")
    assert pushed.exit_code == 0
    board.wait_for(lambda: board.state()["update"]["phase"] == "PROBATION", "trial")
    status, said = follower.ask("POST", "/v1/updates")
    assert (status, said["reason"]) == (409, "busy")
    assert "PROBATION" in said["detail"]
    looked = watched.say("update", "now")
    assert (looked.exit_code, "under way already" in looked.stderr) == (0, True)
    assert "committed" in looked.stderr
    assert board.version() == version
    watched.good = version


def test_a_rollback_holds_until_a_newer_generation(follower: Controlled) -> None:
    """By the control listener; ``tinyward status`` says so at once."""
    watched, board = follower.watched, follower.board
    before = board.version()
    publish(follower)
    follower.push_repository()
    status, said = follower.ask("POST", "/v1/rollback", b'{"pipeline": ""}')
    assert (status, said["pipeline"]) == (202, NAME)
    board.wait_version(before)
    watched.wait_decision("waits", "held")
    assert "[held]" in watched.status()
    status, said = follower.ask("POST", "/v1/rollback", b'{"pipeline": ""}')
    assert (status, said["reason"]) == (409, "no_previous")
    follower.push_repository()
    assert board.version() == before
    version = publish(follower)
    follower.push_repository()
    assert board.version() == version
    watched.answers()


def test_a_certificate_is_renewed_without_a_restart(follower: Controlled) -> None:
    """``tinyward ca renew``: the key stays, new connections see the new one."""
    office, board = follower.office, follower.board
    before, pid, key = follower.shown_serial(), board.pid, _key(office)
    ends = board.state()["update"]["certificate_expires"]
    own = office.papers["operator"]
    words = ("--cert", own.certificate, "--key", own.key, "--days", "365")
    with follower.watched.undisturbed():
        office.say("ca", "renew", str(office.ca), follower.address, *words)
        assert follower.shown_serial() != before
        assert (board.pid, _key(office)) == (pid, key)
        later = board.state()["update"]["certificate_expires"]
        assert later > ends + 200 * DAY_S


def test_an_import_from_a_stick(follower: Controlled, tmp_path: Path) -> None:
    """``tinyward update import`` of a folder and of a .tar: the same rules."""
    watched = follower.watched
    chosen = Choice(groups=(GROUP,))
    version = 0
    for name in ("stick", "stick.tar"):
        version = publish(follower)
        export_slice(watched.fleet.path, tmp_path / name, chosen)
        result = watched.say("update", "import", str(tmp_path / name))
        assert (result.exit_code, follower.board.version()) == (0, version)
    old = watched.say("update", "import", str(tmp_path / "stick"))
    assert (old.exit_code, follower.board.version()) == (1, version)
    assert "[replayed]" in old.output
    watched.answers()


def test_a_board_that_takes_orders_from_a_push(tmp_path: Path) -> None:
    """``--assign`` says what runs; the next one may be an older order no more."""
    made = controlled(tmp_path, "push")
    watched, board = made.watched, made.board
    with board:
        first, second = publish(made), publish(made)
        repository = ("--repository", str(watched.fleet.path), "--all")
        for version in (first, second):
            result = made.push(*repository, "--assign", f"{NAME}={version}")
            assert (result.exit_code, board.version()) == (0, version), result.output
        assert watched.decision()["source"] == "push"
        wanted = {NAME: {"model": MODEL, "version": first}}
        body = json.dumps({"generation": 1, "pipelines": wanted}).encode()
        with watched.undisturbed():
            status, said = made.ask("PUT", "/v1/desired", body)
            assert (status, said["reason"]) == (409, "replayed")
            result = made.push("--assign", "typo=1")
            told = "[unknown_pipeline]" in result.stderr
            assert (result.exit_code, told) == (1, True)


def _folder(path: Path) -> Path:
    """Make a folder."""
    path.mkdir()
    return path


def _key(office: Office) -> bytes:
    """Return the board's private key."""
    return (office.identity / "board.key").read_bytes()


def _expired(office: Office) -> None:
    """Issue an operator's certificate that ended ten days ago."""
    then = time.time() - 40 * DAY_S  # noqa: TID251 - certificates are read by real clocks
    authority = Authority(office.ca, SECRET)
    key, crt, _ = authority.issue_client("operator", "expired", now=then, days=30.0)
    stem = office.home / "expired"
    pair = Pair(f"{stem}.crt", f"{stem}.key")
    Path(pair.certificate).write_bytes(crt)
    Path(pair.key).write_bytes(key)
    office.papers["expired"] = pair
