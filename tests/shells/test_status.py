"""``tinyward status``: what people read in 80 columns and in a pipe; what fails."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.cli import cli
from agent.cli.board_answers import State, Updates
from agent.cli.outcome import describe_pipelines
from agent.cli.plain_text import bytes_text, plain, span_text
from agent.cli.reach import complete_pipelines, find_socket
from agent.cli.status_room import fit_status
from agent.cli.status_view import render_status, show_lines
from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import SettingsError
from tests.fakes.board_server import (
    NOW,
    FakeBoard,
    Json,
    Told,
    decision,
    on_socket,
    problem,
    progress,
    report,
    running,
)

FLOOR = "kws 3 is lower than 5, the highest version ever committed here"
BUSY = """\
board-7: tinyward 0.3.0 - litert 2.3.0 - NOT READY

PIPELINE  STATE    RUNS   WANTED  WHY
door      runs     kws 7  kws 7   as wanted by fleet/groups/all, generation 12
gate      waits    kws 6  kws 8   waits for window until 2026-11-18 22:00 UTC
                                  [window]
hall      refused  -      kws 3   kws 3 is lower than 5, the highest version
                                  ever committed here [version_floor]
                                  -> Publish the old model again under a higher
                                  version.

orders        from the signed repository (tuf)
phase         SHADOWING (door: kws 8, for 12 s)
looks         last success 1 min 30 s ago, looking now
trouble       https://models.example/fleet-repo: connection refused
              [unreachable]
              -> Check `update.repository`, the mount, the cable.
last refusal  kws 3 is lower than 5 [version_floor]
              -> Publish the old model again under a higher version.
metadata      issued 2 h 5 min ago
              timestamp EXPIRED 2 h ago (2026-11-18 09:06 UTC)
              fleet expires in 2 d (2026-11-20 11:06 UTC)
clock         fine: not before the newest signed time (2026-11-18 09:01 UTC)
certificate   expires in 60 d (2027-01-17 11:06 UTC)
set aside     3f2a3f2a3f2a3f2\u2026 [crash], 1 h 56 min ago
revoked       2 bundles, by the owner

UPDATE       PIPELINE  MODEL  RESULT       WHY
50 min ago   door      kws 3  refused      kws 3 is lower than 5, the highest
                                           version ever committed here
                                           [version_floor]
2 h ago      door      kws 7  committed    -
1 d 1 h ago  door      kws 6  rolled back  p95 12.1 ms, at most 10 ms allowed
                                           [latency]
"""


@pytest.fixture
def board() -> FakeBoard:
    """A board where all is well."""
    return FakeBoard()


@pytest.fixture
def socket(board: FakeBoard, tmp_path: Path) -> Iterator[Path]:
    """Its unix socket."""
    with on_socket(board, tmp_path / "control.sock") as path:
        yield path


def make_busy(board: FakeBoard) -> None:
    """Let everything happen at once that a status can show."""
    board.state["ready"] = False
    board.state["pipelines"] |= {"gate": running(6), "hall": running(2)}
    board.state["pipelines"]["hall"] |= {"active": None, "ready": False}
    window = "waits for window until 2026-11-18 22:00 UTC"
    board.decide(
        decision("door", "runs", 7),
        decision("gate", "waits", 8, reason="window", detail=window),
        decision("hall", "refused", 3, reason="version_floor", detail=FLOOR),
    )
    where = "https://models.example/fleet-repo"
    board.state["update"] |= {
        "last_refusal": {"reason": "version_floor", "message": "kws 3 is lower than 5"},
        "trouble": {"reason": "unreachable", "message": f"{where}: connection refused"},
        "metadata_expires": {
            "root": NOW + 300 * 86_400,
            "timestamp": NOW - 7200,
            "fleet": NOW + 2 * 86_400,
        },
        "next_look": 0.0,
        "revoked": 2,
    }
    slow = "p95 12.1 ms, at most 10 ms allowed"
    floor = {"reason": "version_floor", "detail": FLOOR, "ended_at": NOW - 3000}
    board.updates = {
        "progress": progress("SHADOWING"),
        "quarantine": [{"sha256": "3f2a" * 16, "reason": "crash", "at": NOW - 7000}],
        "reports": [
            report(8, "refused", 3) | floor,
            report(7, "committed", 7),
            report(6, "rolled_back", 6)
            | {"reason": "latency", "detail": slow, "ended_at": NOW - 90_000},
        ],
    }


def rendered(state: Json, updates: Json, *, terminal: bool, width: int = 80) -> str:
    """Return what a console of some width shows."""
    console = Console(
        width=width, force_terminal=terminal, color_system="standard", highlight=False
    )
    shown = render_status(
        msgspec.convert(state, State), msgspec.convert(updates, Updates), NOW
    )
    with console.capture() as captured:
        show_lines(console, shown)
    return captured.get()


def run(*arguments: str | Path, **environment: str) -> Result:
    """Run ``tinyward status``."""
    env = {"COLUMNS": "80", **environment}
    return CliRunner().invoke(cli, ["status", *map(str, arguments)], env=env)


def test_everything_at_once_in_a_pipe(board: FakeBoard, socket: Path) -> None:
    """Every fact in its place, no line beyond 80 columns, no control codes."""
    make_busy(board)
    result = run("--socket", socket)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == BUSY


def test_a_terminal_shows_the_same_words_in_colour(board: FakeBoard) -> None:
    """Colours only repeat what the words say."""
    make_busy(board)
    shown = rendered(board.state, board.updates, terminal=True)
    assert "\x1b[1;31mrefused\x1b[0m" in shown
    plainly = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert [line.rstrip() for line in plainly.splitlines()] == BUSY.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_line_is_wider_than_the_terminal(
    board: FakeBoard, width: int, *, terminal: bool
) -> None:
    """What is long is folded, not cut: every word of a reason stays."""
    make_busy(board)
    shown = rendered(board.state, board.updates, terminal=terminal, width=width)
    plainly = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert [line for line in plainly.splitlines() if len(line.rstrip()) > width] == []


def test_all_is_well(socket: Path) -> None:
    """A board without trouble has a short status, and no row about trouble."""
    lines = run("--socket", socket).stdout.splitlines()
    assert lines[0] == "board-7: tinyward 0.3.0 - litert 2.3.0 - ready"
    assert lines[3] == (
        "door      runs   kws 7  kws 7   as wanted by fleet/groups/all, generation 12"
    )
    facts = [line.split("  ")[0] for line in lines[5:] if line and line[0] != " "]
    assert facts == ["orders", "phase", "looks", "metadata", "clock", "certificate"]


@pytest.mark.parametrize("ordered", ["runs", "unassigned", "waits"])
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("unpaid", "-> Redeem a voucher: `tinyward meter redeem FILE`."),
        ("log", "-> `tinyward audit verify`"),
        ("seal_key", "-> `tinyward identity seal`"),
        ("envelope", "-> Put the board's own key back"),
    ],
)
def test_orders_that_are_followed_hide_no_silence(
    board: FakeBoard, reason: str, told: str, ordered: str
) -> None:
    """Whoever answers nothing is not said to run as wanted; what to do is said."""
    board.decide(decision("door", ordered, 7, reason="window"))
    board.state["pipelines"]["door"] |= {"ready": False, "reason": reason}
    shown = rendered(board.state, board.updates, terminal=False, width=200)
    row = next(line for line in shown.splitlines() if line.startswith("door"))
    assert "silent" in row
    assert "answers nothing: " in row
    assert EXPLANATIONS[Reason(reason)].what[1:-1] in row
    assert f"[{reason}]" in row
    assert "as wanted" not in row
    assert told in shown


def test_a_pipeline_that_begins_is_not_silent(board: FakeBoard) -> None:
    """It passes within a moment, and nobody has to act."""
    board.state["pipelines"]["door"] |= {"ready": False, "reason": "starting"}
    state = msgspec.convert(board.state, State)
    assert [(it.state, it.good) for it in describe_pipelines(state)] == [("runs", True)]


def test_one_in_so_many_is_told(board: FakeBoard) -> None:
    """Who degrades for want of units runs, and says so, and what to do."""
    paid = {"policy": "degrade", "grace": 0, "every": 10, "reason": "unpaid"}
    board.state["meter"] = {"left": 0, "pipelines": {"door": paid | {"allowed": 9}}}
    shown = rendered(board.state, board.updates, terminal=False, width=200)
    row = next(line for line in shown.splitlines() if line.startswith("door"))
    assert "unpaid: answers 1 in 10; as wanted by" in row
    assert "-> Redeem a voucher" in shown
    board.state["meter"]["pipelines"]["door"]["reason"] = ""
    shown = rendered(board.state, board.updates, terminal=False, width=200)
    assert "1 in 10" not in shown


@pytest.mark.parametrize(
    ("said", "row"),
    [
        ({"copy": "own", "sealed": True}, "sealed, this board's own copy, verified at"),
        ({"copy": "", "sealed": True}, "sealed, the same for all boards"),
        (
            {"copy": "marked", "sealed": True},
            "sealed, marked as this board's copy, not",
        ),
        ({"copy": "", "sealed": False}, ""),
        ({"copy": None}, ""),
        ({}, ""),
    ],
)
def test_whose_copy_runs_is_one_row(
    board: FakeBoard, said: dict[str, object], row: str
) -> None:
    """Where it is this board's own, or sealed; a board that says nothing has none."""
    board.state["pipelines"]["door"] |= said
    shown = rendered(board.state, board.updates, terminal=False, width=120)
    # Behind the bold word, with or without the console's marks for that.
    found = [line for line in shown.splitlines() if re.match(r"\W*(1m)?copy\b", line)]
    assert [row in line and "door: " in line for line in found] == [True] * bool(row)


def test_alarms_of_monitors_are_told(board: FakeBoard, socket: Path) -> None:
    """A line for each that is active, critical ones first; a model that answers is no
    failure, so the exit code stays."""
    quiet: Json = {
        "anchor": "shipped",
        "scope": "all",
        "severity": "warning",
        "raised": 3,
    }
    warning = quiet | {"scope": "input", "active": True, "at": NOW - 60}
    critical: Json = {"anchor": "site", "scope": "output", "severity": "critical"}
    critical |= {"active": True, "confirmed": True, "at": 0.0}
    gone = {"model": "kws", "version": 6, "alarms": [critical]}
    board.state["pipelines"] = {
        "door": running(7)
        | {"watch": [gone, {"model": "kws", "version": 7, "alarms": [quiet, warning]}]},
        "gate": running(7)
        | {"watch": [{"model": "kws", "version": 7, "alarms": [warning, critical]}]},
    }
    result = run("--socket", socket)
    assert result.exit_code == 0
    told = [line for line in result.stdout.splitlines() if "ALARM" in line]
    assert told == [
        "ALARM  gate: site output (critical), confirmed",
        "ALARM  door: shipped input (warning), last raised 1 min ago",
        "ALARM  gate: shipped input (warning), last raised 1 min ago",
    ]
    state = msgspec.convert(board.state, State)
    updates = msgspec.convert(board.updates, Updates)
    # In few lines, too: they are what matters most.
    small = Console(width=80, height=6, force_terminal=True)
    with small.capture() as captured:
        small.print(fit_status(small, state, updates, NOW))
    assert captured.get().count("ALARM") == 3


def test_what_ended_the_same_way_is_one_row(board: FakeBoard, socket: Path) -> None:
    """A refusal that is tried again every hour leaves room for what was before it."""
    refused = [
        report(9 - n, "refused") | {"reason": "digest", "ended_at": NOW - 3600 * n}
        for n in range(1, 9)
    ]
    board.updates["reports"] = [*refused, report(0, "committed", 7)]
    rows = run("--socket", socket).stdout.splitlines()[-2:]
    assert [" ".join(row.split()) for row in rows] == [
        "1 h ago door kws 8 refused (8 times) digest",
        "2 h ago door kws 7 committed -",
    ]


def test_a_clock_behind_what_was_signed_is_said(board: FakeBoard, socket: Path) -> None:
    """A board that woke up in 1970 says how far it is off."""
    board.state["update"]["clock_floor_lag_s"] = 86_400.0 * 400
    shown = run("--socket", socket).stdout
    assert "clock        WRONG: 400 d behind the newest signed time (2026" in shown


def test_a_clock_in_1970_makes_nothing_last_longer(
    board: FakeBoard, socket: Path
) -> None:
    """Signed moments are told by the clock floor, as the board judges them."""
    board.state["now"] = 100.0
    board.state["update"] |= {
        "clock_floor_lag_s": NOW - 7600.0,
        "metadata_expires": {"timestamp": NOW - 14_700},
        "last_look": 40.0,
        "next_look": 220.0,
    }
    board.updates["reports"] = [
        report(8, "committed") | {"ended_at": 70.0},
        report(7, "failed", 7) | {"ended_at": NOW - 11_100},
        report(6, "failed", 6) | {"ended_at": NOW},
    ]
    shown = run("--socket", socket).stdout
    for line in (
        "looks        last success 1 min ago, next in 2 min",
        "metadata     issued 0 s ago",
        "             timestamp EXPIRED 2 h ago (2026-11-18 07:01 UTC)",
        "certificate  expires in 60 d 2 h (2027-01-17 11:06 UTC)",
        "30 s ago                door      kws 8  committed  -",
        "1 h ago                 door      kws 7  failed     -",
        "2 h 5 min in the future  door      kws 6  failed     -",
    ):
        assert " ".join(line.split()) in " ".join(shown.split())


def test_a_floor_that_nobody_signed_is_not_called_signed(
    board: FakeBoard, socket: Path
) -> None:
    """A new board knows the day of its release, and has seen no metadata."""
    board.state["update"] |= {"metadata_expires": {}, "metadata_issued": 0.0}
    shown = run("--socket", socket).stdout
    assert (
        "clock        fine: not before the earliest that it can be (2026-11-18" in shown
    )


def test_json_is_all_the_board_says(board: FakeBoard, socket: Path) -> None:
    """One object with both answers, keys included that are not known here."""
    board.state["from_the_future"] = {"a": 1}
    shown = json.loads(run("--socket", socket, "--json").stdout)
    assert shown == {"state": board.state, "updates": board.updates}


def test_a_board_that_takes_no_orders_has_a_status(
    board: FakeBoard, socket: Path
) -> None:
    """Without a root there are no updates to list, and that is no error."""
    for _ in range(2):
        answer = problem(404, "request", "this board takes no orders")
        board.told.setdefault(("GET", "/v1/updates"), []).append(answer)
    assert run("--socket", socket).exit_code == 0
    assert json.loads(run("--socket", socket, "--json").stdout)["updates"] is None


def test_an_older_board_is_understood(board: FakeBoard, socket: Path) -> None:
    """Keys that are not there, or null, stand for nothing known."""
    board.state = {
        "version": "0.2.0",
        "ready": True,
        "update": {"phase": "IDLE", "decisions": None, "last_look": None},
        "pipelines": {"door": running(7)},
    }
    lines = run("--socket", socket).stdout.splitlines()
    assert lines[0] == "tinyward 0.2.0 - ready"
    assert lines[3].rstrip() == "door      ready  kws 7  -"


def test_a_bare_reason_is_told_with_its_meaning(board: FakeBoard, socket: Path) -> None:
    """Nobody learns anything from ``no_model [no_model]``."""
    none = {"active": None, "ready": False, "reason": "no_model"}
    board.state["pipelines"]["door"] |= none
    board.state["update"]["decisions"] = []
    shown = " ".join(run("--socket", socket).stdout.split())
    assert "No verified model is committed for this pipeline yet. [no_model]" in shown
    assert "no_model [" not in shown


def test_words_of_a_board_cannot_drive_the_terminal(
    board: FakeBoard, socket: Path
) -> None:
    """Control characters from elsewhere are shown as question marks."""
    evil = "\x1b]0;owned\x07\x1b[2J\u009b31m\u202e"
    board.state |= {"version": evil, "board": evil, "engines": {evil: evil}}
    board.state["pipelines"] = {evil: running(7, model=evil)}
    board.decide(decision("door", "waits", reason=evil, detail=evil))
    board.state["update"]["trouble"] = {"reason": evil, "message": evil}
    board.updates["reports"] = [report(1, evil) | {"detail": evil, "pipeline": evil}]
    result = run("--socket", socket)
    bad = [c for c in result.stdout if not c.isprintable() and c != "\n"]
    assert (result.exit_code, bad) == (0, [])


NO_DAEMON = """\
error: no daemon listens on {socket} [unreachable]
to do: Start it (`tinyward run`, `systemctl start tinyward`), or name its settings \
with --config.
"""


@pytest.mark.parametrize("there", [True, False], ids=["a dead socket", "no socket"])
def test_a_daemon_that_is_not_running(tmp_path: Path, *, there: bool) -> None:
    """The error names the socket and says what to do; exit code 1."""
    path = tmp_path / "control.sock"
    if there:
        import socket

        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    result = run("--socket", path)
    expected = (1, "", NO_DAEMON.format(socket=path))
    assert (result.exit_code, result.stdout, result.stderr) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to every socket")
def test_somebody_elses_socket_as_a_user(socket: Path) -> None:
    """Without permission the reason says so."""
    socket.chmod(0)
    result = run("--socket", socket)
    assert (result.exit_code, "[permission]" in result.stderr) == (1, True)


def test_an_answer_that_is_none_of_ours(board: FakeBoard, socket: Path) -> None:
    """JSON of something else is an error with a reason, not a trace."""
    board.told["GET", "/v1/state"] = [Told(200, {"update": "fine"})]
    result = run("--socket", socket)
    assert (result.exit_code, "[request]" in result.stderr) == (1, True)


def test_a_daemon_that_is_older_than_the_interface(
    board: FakeBoard, socket: Path
) -> None:
    """A path it does not know is told with the path, and what to look at."""
    board.told["GET", "/v1/state"] = [Told(404, {"error": "not found"})]
    result = run("--socket", socket)
    said = f"error: {socket}: GET /v1/state: not found (404) [request]"
    assert result.stderr.splitlines()[0] == said


def test_a_board_asks_for_patience_and_gets_it(board: FakeBoard, socket: Path) -> None:
    """429 with Retry-After is waited for, and then the answer comes."""
    busy = problem(429, "rate_limited", "ask again in 1 s")
    busy.headers["Retry-After"] = "1"
    board.told["GET", "/v1/state"] = [busy]
    assert run("--socket", socket).exit_code == 0
    assert board.asked.count("GET /v1/state") == 2


def test_patience_has_an_end(board: FakeBoard, socket: Path) -> None:
    """A board that asks for an hour is left, with its own reason."""
    busy = problem(429, "rate_limited", "ask again in 3600 s")
    busy.headers["Retry-After"] = "3600"
    board.told["GET", "/v1/state"] = [busy]
    result = run("--socket", socket)
    assert (result.exit_code, "[rate_limited]" in result.stderr) == (1, True)


def test_the_socket_is_that_of_the_settings(board: FakeBoard, tmp_path: Path) -> None:
    """``--config`` finds the daemon as ``run`` finds its place."""
    config = tmp_path / "agent.toml"
    config.write_text(f"state_dir = {json.dumps(str(tmp_path))}\n")
    assert find_socket(config) == tmp_path / "control.sock"
    with on_socket(board, tmp_path / "control.sock"):
        assert run("--config", config).exit_code == 0


def test_wrong_settings_are_a_usage_error(tmp_path: Path) -> None:
    """Exit code 2, as for all commands that read them."""
    config = tmp_path / "agent.toml"
    config.write_text("pipelin = 3\n")
    assert run("--config", config).exit_code == 2
    assert run("--config", tmp_path / "none.toml").exit_code == 2


def test_pipelines_are_completed_from_the_settings(tmp_path: Path) -> None:
    """TAB knows the pipelines of the settings, and keeps quiet about wrong ones."""
    import click

    from agent.cli.update import rollback

    config = tmp_path / "agent.toml"
    source = '{ kind = "board" }'
    config.write_text(
        "".join(
            f'[[pipeline]]\nname = "{name}"\nmodel = "kws"\nsource = {source}\n'
            for name in ("door", "gate")
        )
    )
    param = rollback.params[0]
    ctx = click.Context(rollback)
    ctx.params = {"config": config}
    assert [item.value for item in complete_pipelines(ctx, param, "")] == [
        "door",
        "gate",
    ]
    assert [item.value for item in complete_pipelines(ctx, param, "g")] == ["gate"]
    ctx.params = {"config": tmp_path / "none.toml"}
    assert complete_pipelines(ctx, param, "") == []


def test_watching_needs_a_terminal(socket: Path) -> None:
    """In a pipe there is nothing to redraw: a usage error says so."""
    result = run("--socket", socket, "--watch")
    assert (result.exit_code, "--watch needs a terminal" in result.stderr) == (2, True)


def test_watching_on_a_terminal_redraws_until_ctrl_c(
    board: FakeBoard, socket: Path
) -> None:
    """What changes is seen, and Ctrl-C ends it in order."""
    master, slave = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "agent",
        "status",
        "--watch",
        "--socket",
        str(socket),
    ]
    env = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, env=env
    ) as ran:
        os.close(slave)
        read_until(master, b"kws 7")
        with board.lock:
            board.state["pipelines"]["door"] = running(8)
        read_until(master, b"kws 8")
        ran.send_signal(signal.SIGINT)
        assert ran.wait(20) == 0
    os.close(master)


def fitted(board: FakeBoard, height: int) -> list[str]:
    """Return the lines that a terminal of some height is shown."""
    console = Console(width=80, height=height, force_terminal=True, no_color=True)
    state = msgspec.convert(board.state, State)
    updates = msgspec.convert(board.updates, Updates)
    shown = fit_status(console, state, updates, NOW)
    return ["".join(s.text for s in line) for line in console.render_lines(shown)]


def test_a_terminal_of_24_lines_sees_every_pipeline(board: FakeBoard) -> None:
    """What matters least is left out, and said to be; the end is not just cut off."""
    make_busy(board)
    lines = fitted(board, 24)
    shown = "\n".join(lines)
    assert len(lines) < 24
    assert all(f"\n{name}  " in shown for name in ("door", "gate", "hall"))
    assert "trouble" in shown
    assert "UPDATE " not in shown
    assert lines[-1].startswith("... more: `tinyward status`")


@given(st.integers(16, 60))
def test_law_a_taller_terminal_shows_no_less(height: int) -> None:
    """Everything fits that is shown, and more room never hides anything."""
    board = FakeBoard()
    make_busy(board)
    lines, taller = fitted(board, height), fitted(board, height + 1)
    assert len(lines) < height
    # Words, for columns are as wide as what stands in them.
    kept = [line.split() for line in lines if not line.startswith("... more")]
    assert set(chain(*kept)) <= set(" ".join(taller).split())


def read_until(master: int, wanted: bytes) -> bytes:
    """Read a terminal until some words came."""
    seen = b""
    while wanted not in seen:
        ready, _, _ = select.select([master], [], [], 20)
        assert ready, seen
        seen += os.read(master, 4096)
    return seen


@given(st.text())
def test_law_plain_text_is_printable_and_one_line(text: str) -> None:
    """Whatever comes, a terminal only prints it."""
    shown = plain(text)
    assert shown.isprintable()
    assert len(shown) <= len(text)


@given(st.text(min_size=1), st.integers(1, 20))
def test_law_plain_text_keeps_its_limit(text: str, limit: int) -> None:
    """Long words are cut with an ellipsis."""
    assert len(plain(text, limit)) <= limit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (8.4, "8 s"), (200, "3 min 20 s"), (-90, "-1 min 30 s")),
        *((3600, "1 h"), (7260, "2 h 1 min"), (200_000, "2 d 7 h")),
        (86_400 * 400, "400 d"),
    ],
)
def test_spans_are_told_in_two_units(seconds: float, text: str) -> None:
    """Nobody wants the seconds of a year."""
    assert span_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB")),
        (5e12, "5000.0 GB"),
    ],
)
def test_bytes_are_told_in_thousands(count: float, text: str) -> None:
    """As disks and networks are sold."""
    assert bytes_text(count) == text


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = sorted(
    {*State.__struct_fields__, *FakeBoard().state["update"], *running(7)["active"]}
)


@given(st.sampled_from(KEYS), json_values)
def test_law_any_state_is_shown_or_refused(key: str, value: object) -> None:
    """A board that says nonsense under a key gets no trace out of us."""
    state = FakeBoard().state
    for place in (state, state["update"], state["pipelines"]["door"]["active"]):
        if key in place:
            place[key] = value
    try:
        known = msgspec.json.decode(msgspec.json.encode(state), type=State)
    except msgspec.MsgspecError:
        return
    console = Console(width=80, force_terminal=False)
    with console.capture():
        show_lines(console, render_status(known, Updates(), NOW))


def test_a_refusal_of_the_past_is_in_the_table_only(
    board: FakeBoard, socket: Path
) -> None:
    """Its order was taken back: nobody has to act on it any more."""
    make_busy(board)
    told = {"reason": "version_floor", "message": FLOOR}
    board.state["update"]["last_refusal"] = told
    board.decide(decision("door", "refused", 3, reason="version_floor", detail=FLOOR))
    assert "last refusal" in run("--socket", socket).stdout
    board.decide(decision("door", "runs", 7))
    assert "last refusal" not in run("--socket", socket).stdout


def test_a_board_that_nobody_named_is_known_by_its_host(board: FakeBoard) -> None:
    """On itself alone; a chosen id says enough."""
    board.state["board"] = "a6fab23dca9919104090f94fca9394a9"

    def headline(host: str) -> str:
        shown = render_status(
            msgspec.convert(board.state, State), Updates(), NOW, host=host
        )
        console = Console(width=80)
        with console.capture() as captured:
            show_lines(console, shown)
        return captured.get().splitlines()[0].partition(":")[0]

    assert headline("kitchen") == "kitchen (a6fab23d...)"
    assert headline("") == "a6fab23dca9919104090f94fca9394a9"
    board.state["board"] = "board-7"
    assert headline("kitchen") == "board-7"


def test_a_board_without_a_repository_does_not_seem_to_fail(
    board: FakeBoard, socket: Path
) -> None:
    """It says how models come; one whose looks fail says that."""
    board.state["update"] |= {
        "last_look": 0.0,
        "next_look": NOW + 60,
        "metadata_expires": {},
        "trouble": None,
    }
    shown = " ".join(run("--socket", socket).stdout.split())
    assert "looks nothing so far, next in 1 min; where no repository is set" in shown
    board.state["update"]["trouble"] = {"reason": "unreachable", "message": "gone"}
    assert "no success yet, next in 1 min\n" in run("--socket", socket).stdout


def test_a_broken_file_does_not_hide_the_daemon_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs on with the old settings: the service's socket, with a note."""
    broken, socket = tmp_path / "agent.toml", tmp_path / "control.sock"
    broken.write_text("colour = 1\n")
    with pytest.raises(SettingsError, match="colour"):
        find_socket(None, default=broken, service=socket)
    socket.touch()
    assert find_socket(None, default=broken, service=socket) == socket
    assert "colour" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="colour"):
        find_socket(broken, service=socket)
