"""``tinyward push``: TLS to boards, uploads that resume, orders, and many at once."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.cli import cli
from agent.cli.connections import check_name, explain_failure, parse_address
from agent.cli.delivery import next_desired
from agent.cli.plain_text import bytes_text
from agent.cli.push import parse_assignment
from agent.core.targets import GroupFile, Wanted
from agent.errors import SettingsError
from tests.fakes.board_server import (
    FakeBoard,
    Told,
    on_socket,
    over_tls,
    problem,
    running,
)
from tests.fakes.certificates import Authority, Pair, year
from tests.fakes.slices import bundle, group, make_tree, stored, write_tar, write_tree

NEW = bundle(8, 400_000)
TREE = make_tree({8: NEW}, {"fleet/groups/all": group(("door", 8))})
BUNDLE = stored("models/kws/8.bundle", NEW)
DIGEST = sha256(NEW).hexdigest()
SENT = sum(map(len, TREE.values())) - len(TREE["metadata/1.snapshot.json"])


class Operator:
    """An operator's files, and a repository to push.

    Attributes:
        fleet: The CA of boards and operators.
        mine: The operator's certificate and key.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.fleet = Authority(home, "fleet")
        self.mine = self.fleet.issue("operator", "operator.example")
        self.repository = write_tree(home / "repo", TREE)

    def server(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return the TLS side of a board."""
        issued = pair or self.fleet.issue("board")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(issued.certificate, issued.key)
        context.load_verify_locations(self.fleet.file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def run(
        self,
        *arguments: str,
        mine: Pair | None = None,
        ca: str = "",
        repository: bool = True,
    ) -> Result:
        """Run ``tinyward push``."""
        pair = mine or self.mine
        words = ["push", *arguments, "--ca", ca or self.fleet.file]
        words += ["--cert", pair.certificate, "--key", pair.key]
        if repository:
            words += ["--repository", str(self.repository)]
        return CliRunner().invoke(cli, words, env={"COLUMNS": "80"})


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator with a certificate of the fleet's CA."""
    return Operator(tmp_path)


@pytest.fixture
def board() -> FakeBoard:
    """A board that will commit what it is sent."""
    shown = FakeBoard()
    shown.script = [*shown.phases("FETCHING", "PREFLIGHT"), shown.end()]
    return shown


@pytest.fixture
def address(board: FakeBoard, operator: Operator) -> Iterator[str]:
    """Its control listener."""
    with over_tls(board, operator.server()) as where:
        yield where


def steps(result: Result) -> list[str]:
    """Return the steps that were shown, without their times."""
    return [line.partition(" s  ")[2] for line in result.stderr.splitlines()]


def test_push_uploads_rings_and_follows(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """What the board needs is there, byte for byte, before the doorbell rings."""
    result = operator.run(address)
    assert result.exit_code == 0, result.stderr
    assert set(board.places) == set(TREE) - {"metadata/1.snapshot.json"}
    assert {path: board.content(path) for path in board.places} == {
        path: TREE[path] for path in board.places
    }
    assert list(board.places)[-1] == "metadata/timestamp.json"
    assert "POST /v1/updates" not in board.asked[: board.asked.index(_last(board)) + 1]
    assert steps(result) == [
        f"sending 8 files, {bytes_text(SENT)}",
        f"sent {bytes_text(SENT)}",
        "asked to look (IDLE)",
        "door: kws 8 FETCHING, 1.2 MB",
        "door: kws 8 PREFLIGHT",
        "door: kws 8 committed",
    ]
    assert " ".join(result.stdout.split()) == (
        "BOARD PIPELINE STATE RUNS WHY "
        f"{address} door runs kws 8 as wanted by fleet/groups/all, generation 12"
    )
    assert [line for line in result.stdout.splitlines() if len(line) > 80] == []


def _last(board: FakeBoard) -> str:
    """Return the last upload that was asked for."""
    return [line for line in board.asked if "/v1/uploads/" in line][-1]


def test_push_from_an_archive(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """A .tar of the repository does as well."""
    operator.repository = write_tar(operator.home / "slice.tar", TREE, "slice/")
    assert operator.run(address).exit_code == 0
    assert board.content(BUNDLE) == NEW


def test_import_over_the_socket_does_the_same(
    operator: Operator, board: FakeBoard
) -> None:
    """The daemon on this machine needs no access to the path, nor any certificate."""
    with on_socket(board, operator.home / "control.sock") as socket:
        words = ["update", "import", str(operator.repository), "--socket", str(socket)]
        result = CliRunner().invoke(cli, words, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.stderr
    assert board.content(BUNDLE) == NEW
    assert "door      runs   kws 8  kws 8" in result.stdout


def test_46_a_connection_cut_in_the_middle_is_resumed(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Twice: what the board kept is not sent again, and the bytes are right."""
    board.cut_after = [150_000, 300_000]
    result = operator.run(address)
    assert result.exit_code == 0, result.stderr
    assert board.content(BUNDLE) == NEW
    assert f"sent {bytes_text(SENT)}, resumed 2 times" in steps(result)
    assert board.received < len(NEW) * 1.1


def test_a_second_push_sends_what_is_missing(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """An upload that was broken off goes on at the board's offset."""
    board.uploads[DIGEST] = bytearray(NEW[:300_000])
    result = operator.run(address)
    assert result.exit_code == 0
    missing = bytes_text(SENT - 300_000)
    assert f"sent {missing}, 300.0 kB were there already" in steps(result)
    assert board.content(BUNDLE) == NEW


def test_what_is_there_is_only_given_its_place(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """One byte is sent of a file that the board has whole."""
    board.uploads[DIGEST] = bytearray(NEW)
    result = operator.run(address)
    assert (result.exit_code, board.places[BUNDLE]) == (0, DIGEST)
    metadata = bytes_text(SENT - len(NEW))
    assert f"sent {metadata}, 400.0 kB were there already" in steps(result)


def test_two_paths_may_share_their_bytes(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Two groups that say the same each get their place."""
    same = group(("door", 8))
    tree = make_tree({8: NEW}, {f"fleet/groups/{name}": same for name in ("a", "b")})
    operator.repository = write_tree(operator.home / "same", tree)
    assert operator.run(address).exit_code == 0
    assert {stored(f"fleet/groups/{name}", same) for name in "ab"} <= set(board.places)


def test_a_board_that_takes_nothing_is_not_fed_for_ever(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """An offset that does not move ends the upload with an error."""
    board.told["PUT", "/v1/uploads"] = [Told(200, {"offset": 0, "complete": False})]
    result = operator.run(address)
    assert (result.exit_code, "it takes no more of" in result.stderr) == (1, True)
    assert sum(line.startswith("PUT") for line in board.asked) == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [(507, "quota"), (507, "disk_full"), (400, "digest"), (403, "role")],
)
def test_what_a_board_refuses_is_said_at_once(
    operator: Operator, board: FakeBoard, address: str, status: int, reason: str
) -> None:
    """Its reason and its words; nothing is tried again, no doorbell rings."""
    board.told["PUT", "/v1/uploads"] = [problem(status, reason, "no more than this")]
    result = operator.run(address)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error: {address}: no more than this [{reason}]" in result.stderr
    assert [line for line in board.asked if line.startswith("PUT")] == [_last(board)]
    assert "POST /v1/updates" not in board.asked


def test_44_a_body_that_was_too_slow_is_sent_again(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """408 is a matter of the network: the upload goes on in smaller pieces."""
    board.told["PUT", "/v1/uploads"] = [problem(408, "too_slow", "slower than 1 kB/s")]
    result = operator.run(address)
    assert (result.exit_code, board.content(BUNDLE)) == (0, NEW)


def test_a_board_that_is_busy_says_with_what(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Two operators at once: 409 with the phase; what was sent stays."""
    busy = problem(409, "busy", "an update of door is in PREFLIGHT")
    board.told["POST", "/v1/updates"] = [busy]
    result = operator.run(address)
    assert result.exit_code == 1
    assert "an update of door is in PREFLIGHT [busy]" in result.stderr
    assert board.content(BUNDLE) == NEW


def test_a_slice_that_the_board_refuses(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Verification is the board's: its refusal is the outcome."""

    def refuse() -> None:
        board.look_ended()
        said = {"reason": "signature", "message": "targets: not signed by our keys"}
        board.state["update"]["trouble"] = said

    board.script = [refuse]
    result = operator.run(address)
    assert result.exit_code == 1
    assert "[signature]" in result.stdout


# Orders


def test_assign_puts_the_next_generation(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Other pipelines keep what was pushed for them; pauses end."""
    board.state["update"]["orchestrator"] = "push"
    board.state["pipelines"]["gate"] = running(7)
    board.desired = {
        "generation": 41,
        "pipelines": {"gate": {"model": "kws", "version": 7}},
        "paused": True,
    }
    result = operator.run(address, "--assign", "door=8")
    assert result.exit_code == 0, result.stderr
    assert board.desired == {
        "generation": 42,
        "pipelines": {
            "door": {"model": "kws", "version": 8},
            "gate": {"model": "kws", "version": 7},
        },
        "paused": False,
        "percent": 100.0,
        "salt": "",
        "not_before": "",
        "window": "",
    }
    assert "ordered, generation 42" in steps(result)
    assert "POST /v1/updates" not in board.asked


def test_assign_sends_what_no_group_names(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """The bundle that is assigned goes along."""
    tree = make_tree({8: NEW}, {})
    operator.repository = write_tree(operator.home / "plain", tree)
    board.state["update"]["orchestrator"] = "push"
    assert operator.run(address, "--assign", "door=kws:8").exit_code == 0
    assert board.content(BUNDLE) == NEW


def test_assign_alone_needs_no_repository(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """A board with a repository of its own is only told what to run."""
    board.state["update"]["orchestrator"] = "push"
    words = (address, "--assign", "door=8", "--generation", "7", "--no-wait")
    result = operator.run(*words, repository=False)
    assert result.exit_code == 0
    assert (board.desired or {})["generation"] == 7
    assert board.uploads == {}


def test_assign_to_a_board_with_another_orchestrator(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Refused before anything is sent."""
    result = operator.run(address, "--assign", "door=8")
    assert (result.exit_code, "[not_orchestrator]" in result.stderr) == (1, True)
    assert (board.uploads, board.desired) == ({}, None)


def test_assign_to_a_pipeline_that_is_not_there(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """The error names those there are."""
    board.state["update"]["orchestrator"] = "push"
    result = operator.run(address, "--assign", "dor=8")
    assert result.exit_code == 1
    assert "no pipeline 'dor'; it has: door [unknown_pipeline]" in result.stderr


def test_a_generation_that_goes_back(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """The board's refusal, in its words."""
    board.state["update"]["orchestrator"] = "push"
    board.told["PUT", "/v1/desired"] = [problem(409, "replayed", "41 was here")]
    result = operator.run(address, "--assign", "door=8", "--generation", "3")
    assert (result.exit_code, "41 was here [replayed]" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("door=8", ("door", ("", 8))),
        ("door=kws:8", ("door", ("kws", 8))),
        ("door=kws@8", ("door", ("kws", 8))),
    ],
)
def test_how_assignments_are_written(
    text: str, parsed: tuple[str, tuple[str, int]]
) -> None:
    """As for ``repo assign``, and with a colon."""
    assert parse_assignment(text) == parsed


def test_assignments_are_shown_in_one_spelling() -> None:
    """The helps of ``push`` and of ``repo assign`` name the same form."""
    pushed, assigned = (
        CliRunner().invoke(cli, [*words, "--help"]).stdout
        for words in (["push"], ["repo", "assign"])
    )
    assert "PIPELINE=[MODEL@]VERSION" in pushed
    assert "PIPELINE=[MODEL@]VERSION" in assigned
    assert "kws:" not in pushed + assigned


@pytest.mark.parametrize("text", ["", "door", "door=", "door=x", "=8", "door=a:b:8"])
def test_how_assignments_are_not_written(text: str) -> None:
    """A usage error, with an example."""
    with pytest.raises(SettingsError, match="PIPELINE"):
        parse_assignment(text)


def test_a_first_order_is_generation_one() -> None:
    """Nothing was pushed before."""
    assert next_desired(None, {"door": ("kws", 8)}, 0) == GroupFile(
        generation=1, pipelines={"door": Wanted("kws", 8)}
    )


# Several boards


def test_several_boards(operator: Operator) -> None:
    """Each has its rows, in the order they were named; one that failed makes it 1."""
    boards = [FakeBoard() for _ in range(3)]
    for number in (0, 2):
        boards[number].script = [boards[number].end()]
    boards[1].told["PUT", "/v1/uploads"] = [problem(507, "quota", "no room")]
    with ExitStack() as running_boards:
        context = operator.server()
        where = [running_boards.enter_context(over_tls(b, context)) for b in boards]
        result = operator.run(*where, where[0])
    assert result.exit_code == 1
    rows = [line for line in result.stdout.splitlines()[1:] if line[0] != " "]
    assert [line.split()[:4] for line in rows] == [
        [where[0], "door", "runs", "kws"],
        [where[1], "-", "failed", "-"],
        [where[2], "door", "runs", "kws"],
    ]
    assert f"{where[1]}  given up: no room [quota]" in "\n".join(steps(result))


def test_several_boards_as_json(operator: Operator) -> None:
    """One object for each board, errors included; nothing on stderr."""
    good, bad = FakeBoard(), FakeBoard()
    good.script = [good.end()]
    bad.told["PUT", "/v1/uploads"] = [problem(507, "quota", "no room")]
    context = operator.server()
    with over_tls(good, context) as first, over_tls(bad, context) as second:
        result = operator.run(first, second, "--json")
    shown = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (1, "")
    assert [(each["board"], each["ok"]) for each in shown] == [
        (first, True),
        (second, False),
    ]
    assert shown[0]["upload"] == {"sent_bytes": SENT, "kept_bytes": 0}
    assert shown[1]["error"] == {"reason": "quota", "message": f"{second}: no room"}


def test_ctrl_c_leaves_the_boards_as_they_are(
    operator: Operator, board: FakeBoard, address: str
) -> None:
    """Said in words; exit code 130; no thread keeps the shell waiting."""
    board.script = board.phases(*["SHADOWING"] * 1000)
    pair = operator.mine
    words = ["push", address, "--ca", operator.fleet.file, "--cert", pair.certificate]
    words += ["--key", pair.key, "--repository", str(operator.repository)]
    with subprocess.Popen(
        [sys.executable, "-m", "agent", *words], stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stderr is not None
        while "SHADOWING" not in ran.stderr.readline():
            assert ran.poll() is None
        ran.send_signal(signal.SIGINT)
        _, said = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert "left the boards as they are" in said
    assert "Traceback" not in said


# TLS, and names


def test_43_nothing_older_than_tls_1_3(operator: Operator, board: FakeBoard) -> None:
    """A board that can do no better is not spoken to."""
    context = operator.server()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with over_tls(board, context) as where:
        result = operator.run(where)
    assert (result.exit_code, "[tls]" in result.stderr, board.asked) == (1, True, [])


def stranger(operator: Operator) -> dict[str, object]:
    """A board of another CA."""
    return {"pair": Authority(operator.home, "stranger").issue("board")}


def expired(operator: Operator) -> dict[str, object]:
    """A board whose certificate ended."""
    return {"pair": operator.fleet.issue("old", starts=year(2020), ends=year(2021))}


def misnamed(operator: Operator) -> dict[str, object]:
    """Another board of the same fleet."""
    return {"pair": operator.fleet.issue("other", "board-9.example")}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (stranger, "unable to get local issuer certificate"),
        (expired, "certificate has expired"),
        (misnamed, "it is for board-9.example, not for '127.0.0.1'"),
    ],
)
def test_42_boards_that_are_not_believed(
    operator: Operator,
    board: FakeBoard,
    make: Callable[[Operator], dict[str, Pair]],
    said: str,
) -> None:
    """Whoever answers at an address has to prove which board it is."""
    with over_tls(board, operator.server(make(operator)["pair"])) as where:
        result = operator.run(where)
    assert result.exit_code == 1
    assert f"the board's certificate is not accepted: {said}" in result.stderr
    assert "[certificate]" in result.stderr
    assert board.asked == []


@pytest.mark.parametrize("old", [True, False], ids=["expired", "of another CA"])
def test_42_operators_that_are_not_believed(
    operator: Operator, board: FakeBoard, address: str, *, old: bool
) -> None:
    """The board's alert is told as what it means: our certificate is at fault."""
    if old:
        mine = operator.fleet.issue("late", starts=year(2020), ends=year(2021))
    else:
        mine = Authority(operator.home, "elsewhere").issue("me")
    result = operator.run(address, mine=mine)
    assert (result.exit_code, board.asked) == (1, [])
    assert "the board refused our certificate" in result.stderr
    assert "Check --cert and --key" in result.stderr


def test_a_role_too_low(operator: Operator, board: FakeBoard, address: str) -> None:
    """403 comes with the role that is needed."""
    denied = problem(403, "role", "an observer may not do this")
    board.told["PUT", "/v1/uploads"] = [denied]
    result = operator.run(address)
    assert "an observer may not do this [role]" in result.stderr
    assert "tinyward ca issue --role operator" in result.stderr


def issue_board(operator: Operator, board_id: str) -> Pair:
    """Issue a certificate as boards have it: an id in a URI, and no address."""
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    uri = x509.UniformResourceIdentifier(f"urn:tinyward:board:{board_id}")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, board_id)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=3650))
        .not_valid_after(now + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    certificate = operator.home / f"{board_id}.pem"
    certificate.write_bytes(operator.fleet.sign(builder))
    raw = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (operator.home / f"{board_id}.key").write_bytes(raw)
    return Pair(str(certificate), str(operator.home / f"{board_id}.key"))


def test_a_board_is_known_by_its_id_wherever_it_is(
    operator: Operator, board: FakeBoard
) -> None:
    """``NAME@HOST``: its address is in no certificate, its id is."""
    context = operator.server(issue_board(operator, "board-7"))
    with over_tls(board, context) as where:
        assert operator.run(where).exit_code == 1
        assert operator.run(f"board-8@{where}").exit_code == 1
        assert board.asked == []
        assert operator.run(f"board-7@{where}").exit_code == 0
    assert board.content(BUNDLE) == NEW


@pytest.mark.parametrize(
    ("name", "held", "right"),
    [
        ("board-7", ("URI", "urn:tinyward:board:board-7"), True),
        ("board-7", ("URI", "urn:tinyward:board:board-77"), False),
        ("board-7", ("DNS", "BOARD-7"), True),
        ("board-7", ("DNS", "*"), False),
        ("a.example", ("DNS", "*.example"), False),
        ("2001:db8::7", ("IP Address", "2001:DB8:0:0:0:0:0:7"), True),
        ("10.0.0.7", ("DNS", "10.0.0.7"), True),
        ("10.0.0.7", ("URI", "urn:tinyward:role:operator"), False),
    ],
)
def test_which_name_is_whose(name: str, held: tuple[str, str], *, right: bool) -> None:
    """Exact names only: a wildcard would stand for a whole fleet."""
    certificate = {"subjectAltName": (held,)}
    if right:
        check_name(certificate, name)
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            check_name(certificate, name)


def test_an_empty_certificate_is_nobodys() -> None:
    """No names, no board."""
    with pytest.raises(ssl.SSLCertVerificationError, match="no name"):
        check_name({}, "board-7")


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("board.example", ("", "board.example", 8443)),
        ("board.example:9443", ("", "board.example", 9443)),
        ("b7@10.0.0.7:1", ("b7", "10.0.0.7", 1)),
        ("[2001:db8::7]", ("", "2001:db8::7", 8443)),
        ("b7@[2001:db8::7]:9443", ("b7", "2001:db8::7", 9443)),
    ],
)
def test_how_boards_are_named(text: str, parsed: tuple[str, str, int]) -> None:
    """A name, a host and a port, of which only the host has to be there."""
    assert parse_address(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        *("", ":8443", "host:", "host:x", "host:0", "host:70000", "2001:db8::7", "@"),
        *("a b", "https://host", "host:8443/path", "[::1", "host:\u0663"),
    ],
)
def test_how_boards_are_not_named(text: str) -> None:
    """A usage error, with an example."""
    with pytest.raises(SettingsError, match="HOST"):
        parse_address(text)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "permission"),
        (TimeoutError(), "unreachable"),
        (ConnectionResetError(104, "Connection reset by peer"), "unreachable"),
        (OSError(113, "No route to host"), "unreachable"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong"), "tls"),
        (ssl.SSLCertVerificationError("it is for b, not for 'a'"), "certificate"),
    ],
)
def test_failures_have_a_reason_and_a_place(error: OSError, reason: str) -> None:
    """Where it was, what it was, and something to do."""
    told = explain_failure("board-7", error)
    assert (told.reason, str(told).startswith("board-7: ")) == (reason, True)
    assert told.todo


def test_nobody_listens(operator: Operator) -> None:
    """A closed port is out of reach, not a trace."""
    result = operator.run("127.0.0.1:1")
    expected = "error: 127.0.0.1:1: connection refused [unreachable]"
    assert (result.exit_code, result.stderr.splitlines()[-2]) == (1, expected)


@pytest.mark.parametrize("missing", ["--cert", "--ca", "nothing to do"])
def test_what_has_to_be_named(operator: Operator, missing: str) -> None:
    """Usage errors end with 2."""
    words = ["push", "board.example", "--repository", str(operator.repository)]
    if missing != "--cert":
        words += ["--cert", operator.mine.certificate]
    if missing == "nothing to do":
        words = ["push", "board.example"]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, missing in result.stderr) == (2, True)


def test_files_that_are_no_certificates(operator: Operator) -> None:
    """The file that does not fit is named; exit code 2."""
    key = Path(operator.mine.key)
    junk = Pair(operator.fleet.file, str(key))
    result = operator.run("board.example", mine=junk)
    assert (result.exit_code, "[certificate]" in result.stderr) == (2, True)
    absent = operator.run("board.example", ca=str(operator.home / "none.pem"))
    assert (absent.exit_code, "none.pem" in absent.stderr) == (2, True)


def test_an_encrypted_key_needs_somebody_to_ask(operator: Operator) -> None:
    """Without a terminal nobody types the passphrase: an error, and no prompt."""
    path = Path(operator.mine.key)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a secret"),
        )
    )
    result = operator.run("board.example")
    assert (result.exit_code, "encrypted" in result.stderr) == (2, True)
    assert os.environ.get("SSLKEYLOGFILE") is None
