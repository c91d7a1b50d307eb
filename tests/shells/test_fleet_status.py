"""``tinyward fleet status``: all boards at a glance, trouble first, none holding up."""

import json
import os
import pty
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agent.cli import cli
from agent.cli.board_answers import State
from agent.cli.fleet_rows import (
    HEALTHS,
    BoardRow,
    Finding,
    Health,
    Running,
    count_healths,
    count_versions,
    describe_row,
    sort_rows,
)
from agent.cli.fleet_status import AT_ONCE
from agent.cli.fleet_table import bar, is_well, render_fleet
from agent.cli.status_view import show_lines
from agent.core.inventory import BoardTable
from tests.fakes.board_server import (
    NOW,
    FakeBoard,
    Json,
    Told,
    blank_state,
    decision,
    over_tls,
    progress,
    running,
)
from tests.fakes.certificates import Authority, Pair
from tests.shells.test_status import read_until

DAY_S = 86_400.0
MIXED = """\
BOARD  HEALTH       PHASE     RUNS        DRIFT  METADATA  WHY
pi-5   unreachable  -         -           -      -         connection refused
                                                           [unreachable]
pi-4   failing      -         door kws 7  -      2 h       door: 3 is below 7
                                                           [version_floor]
pi-3   warned       -         door kws 7  -      2 h       no route
                                                           [unreachable]
pi-2   updating     fetching  door kws 7  -      2 h       door to kws 8
pi-1   well         -         door kws 8  -      2 h       -

5 boards: 1 unreachable, 1 failing, 1 warned, 1 updating, 1 well
kws 7  ██████████████░░░░░░░░░░  3 of 5
kws 8  █████░░░░░░░░░░░░░░░░░░░  1 of 5
"""


@dataclass
class FleetOf:
    """Boards that answer over TLS, and an inventory with them."""

    home: Path
    running: ExitStack
    rows: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the fleet's CA and an observer."""
        self.ca = Authority(self.home, "fleet")
        self.me = self.ca.issue("me", "me.example")
        self.inventory = self.home / "fleet.toml"

    def add(self, board: FakeBoard | None, name: str, *, groups: str = "") -> FakeBoard:
        """Serve a board under its name, nothing at all for None."""
        where = "127.0.0.1:1"
        if board is not None:
            context = self._context(self.ca.issue(name, name))
            where = self.running.enter_context(over_tls(board, context))
        self.enter(name, where, groups)
        return board or FakeBoard()

    def enter(self, name: str, where: str, groups: str = "") -> None:
        """Enter a board in the inventory."""
        own = f'groups = ["{groups}"]\n' if groups else ""
        self.rows.append(f'[[board]]\nid = "{name}"\naddress = "{where}"\n{own}')
        # Papers by names: they lie beside the inventory.
        pair, ca = Path(self.me.certificate), Path(self.ca.file)
        papers = {"cert": pair, "key": Path(self.me.key), "ca": ca}
        lines = [f'{key} = "fleet/{path.name}"' for key, path in papers.items()]
        self.inventory.write_text("\n".join(["[papers]", *lines, *self.rows]))

    def words(self, *more: str) -> list[str]:
        """Return the command line."""
        return ["fleet", "status", "--inventory", str(self.inventory), *more]

    def status(self, *more: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(cli, self.words(*more), env={"COLUMNS": "80"})

    def _context(self, pair: Pair) -> ssl.SSLContext:
        """Return the TLS side of a board."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(self.ca.file)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOf]:
    """Give a fleet without boards."""
    with ExitStack() as stack:
        yield FleetOf(tmp_path, stack)


def at_version(version: int) -> FakeBoard:
    """Return a board that runs a version as wanted."""
    board = FakeBoard()
    board.state["pipelines"]["door"] = running(version)
    board.decide(decision("door", "runs", version))
    return board


def mixed(fleet: FleetOf) -> None:
    """Add a board of each health."""
    fleet.add(at_version(8), "pi-1", groups="hall")
    busy = fleet.add(at_version(7), "pi-2", groups="hall")
    busy.decide(decision("door", "ordered", 8))
    busy.state["update"] |= {"phase": "FETCHING", "progress": progress("FETCHING")}
    lost = fleet.add(at_version(7), "pi-3")
    trouble = {"reason": "unreachable", "message": "no route"}
    lost.state["update"]["trouble"] = trouble
    bad = fleet.add(at_version(7), "pi-4")
    why = {"reason": "version_floor", "detail": "3 is below 7"}
    bad.decide(decision("door", "refused", 3, **why))
    fleet.add(None, "pi-5")


def test_trouble_stands_first(fleet: FleetOf) -> None:
    """In 80 columns and in a pipe: health, phase, version, age, why; then sums."""
    mixed(fleet)
    ran = fleet.status()
    assert ran.stdout == MIXED
    assert (ran.exit_code, ran.stderr) == (1, "")


def test_nothing_to_do_is_exit_code_0(fleet: FleetOf) -> None:
    """Boards that update are no trouble; a group without the others is asked alone."""
    mixed(fleet)
    ran = fleet.status("--group", "hall")
    assert ran.exit_code == 0, ran.output
    assert "2 boards: 1 updating, 1 well" in ran.stdout
    assert "pi-3" not in ran.stdout


def test_json_says_the_same_and_more(fleet: FleetOf) -> None:
    """Every finding, of every board, with the address; sums for scripts."""
    mixed(fleet)
    ran = fleet.status("--json")
    told = json.loads(ran.stdout)
    assert (ran.exit_code, told["well"]) == (1, False)
    assert told["healths"] == dict.fromkeys(HEALTHS, 1)
    assert told["versions"] == {"kws 7": 3, "kws 8": 1}
    shown = {board["id"]: board for board in told["boards"]}
    assert list(shown) == ["pi-5", "pi-4", "pi-3", "pi-2", "pi-1"]
    assert shown["pi-5"]["reason"] == "unreachable"
    assert shown["pi-4"]["findings"] == [
        {
            "health": "failing",
            "reason": "version_floor",
            "what": "door: 3 is below 7",
        }
    ]
    assert shown["pi-2"]["pipelines"] == [
        {"pipeline": "door", "runs": "kws 7", "wants": "kws 8", "waits": ""}
    ]
    assert shown["pi-1"]["metadata_age_s"] == 7500.0


def test_another_board_behind_the_address_is_not_believed(fleet: FleetOf) -> None:
    """Addresses wander; its certificate says that it is another."""
    with over_tls(
        at_version(8), fleet._context(fleet.ca.issue("other", "pi-8"))
    ) as where:
        fleet.enter("pi-7", where)
        told = json.loads(fleet.status("--json").stdout)
    (board,) = told["boards"]
    assert (board["health"], board["reason"]) == ("unreachable", "certificate")
    assert "it is for pi-8, not for 'pi-7'" in board["findings"][0]["what"]


def test_boards_are_asked_at_the_same_time(fleet: FleetOf) -> None:
    """None answers before all have been asked: one after another would never end."""
    together = threading.Barrier(AT_ONCE)

    class Patient(FakeBoard):
        def answer(self, method: str, target: str, body: bytes, span: str) -> Told:
            together.wait(60)
            return super().answer(method, target, body, span)

    for number in range(AT_ONCE):
        fleet.add(Patient(), f"pi-{number}")
    assert f"{AT_ONCE} boards: {AT_ONCE} well" in fleet.status().stdout


def test_what_boards_say_cannot_move_the_cursor(fleet: FleetOf) -> None:
    """A board may be anybody's; what it says is shown, and nothing else happens."""
    evil = fleet.add(at_version(7), "pi-1")
    evil.state["update"]["trouble"] = {"reason": "\x1b[2J", "message": "\x1b]0;x\x07"}
    evil.state["update"]["phase"] = "\x1b[1A"
    ran = fleet.status()
    assert "\x1b" not in ran.output
    assert "?]0;x?" in ran.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--watch"], "--watch needs a terminal"),
        (["--group", "yard"], "no board belongs to the group 'yard' (groups: none)"),
        (["--ca", "none.pem"], "No such file"),
    ],
)
def test_what_cannot_be_done_is_usage(
    fleet: FleetOf, words: list[str], said: str
) -> None:
    """Exit code 2, before any board is asked."""
    fleet.add(None, "pi-1")
    ran = fleet.status(*words)
    assert (ran.exit_code, said in ran.stderr) == (2, True)


def test_an_inventory_without_papers_needs_them_as_options(fleet: FleetOf) -> None:
    """And takes them: a certificate of the command line comes with its own key."""
    fleet.add(at_version(8), "pi-1")
    _, _, boards = fleet.inventory.read_text().partition("[[board]]")
    fleet.inventory.write_text(f"[[board]]{boards}")
    assert "name --cert, or [papers] cert" in fleet.status().stderr
    ca = ["--ca", fleet.ca.file]
    assert "name --cert" in fleet.status(*ca).stderr
    mine = ["--cert", fleet.me.certificate, "--key", fleet.me.key]
    assert fleet.status(*mine, *ca).exit_code == 0


def test_the_table_follows_the_fleet_in_place(fleet: FleetOf) -> None:
    """On a terminal, until Ctrl-C, through a change of a board."""
    board = fleet.add(at_version(7), "pi-1")
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
    words = [sys.executable, "-m", "agent", *fleet.words("--watch")]
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


def test_json_lines_for_who_watches_by_program(fleet: FleetOf) -> None:
    """One line for each look, until Ctrl-C."""
    fleet.add(at_version(7), "pi-1")
    words = [sys.executable, "-m", "agent", *fleet.words("--watch", "--json")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        told = json.loads(ran.stdout.readline())
        ran.send_signal(signal.SIGINT)
        assert (ran.wait(20), told["healths"]) == (0, {"well": 1})


# --- what a board's answer means

BOARD = BoardTable("pi-1", "h")


def row_of(change: Callable[[Json], object]) -> BoardRow:
    """Return the row of a board whose state is changed from one that is well."""
    state = blank_state()
    change(state)
    return describe_row(BOARD, msgspec.convert(state, State), NOW)


def alarm(scope: str, severity: str) -> Callable[[Json], object]:
    """Return the change that raises an alarm, and one of a model long gone."""
    raised = {"anchor": "shipped", "scope": scope, "severity": severity, "active": True}
    calm = {**raised, "scope": "input", "active": False}

    def change(state: Json) -> None:
        state["pipelines"]["door"]["watch"] = [
            {"model": "kws", "version": 6, "alarms": [{**raised, "scope": "stuck"}]},
            {"model": "kws", "version": 7, "alarms": [raised, calm]},
        ]

    return change


def door(**more: object) -> Callable[[Json], object]:
    """Return a change of the pipeline."""
    return lambda state: state["pipelines"]["door"].update(more)


def update(**more: object) -> Callable[[Json], object]:
    """Return a change of the update machine."""
    return lambda state: state["update"].update(more)


def ladder(level: str) -> Callable[[Json], object]:
    """Return a change of how much the pipeline is held back."""
    return door(ladder={"level": level, "reasons": ["heat"], "detail": "91 C"})


CASES: list[tuple[Callable[[Json], object], Health, str, str]] = [
    (lambda _: None, "well", "", ""),
    (update(phase="SHADOWING"), "updating", "", ""),
    (update(decisions=[decision("door", "ordered")]), "updating", "", ""),
    (
        update(decisions=[decision("door", "waits", reason="window")]),
        "well",
        "",
        "",
    ),
    (
        update(decisions=[decision("door", "waits", reason="busy", detail="soon")]),
        "warned",
        "busy",
        "door: soon",
    ),
    (
        update(decisions=[decision("door", "refused", reason="golden", detail="no")]),
        "failing",
        "golden",
        "door: no",
    ),
    (door(ready=False, reason="crash"), "failing", "crash", "door: answers nothing"),
    (alarm("all", "warning"), "warned", "drift", "door: all drifts from shipped"),
    (alarm("output", "critical"), "failing", "drift", "door: output drifts"),
    (ladder("suspect"), "well", "", ""),
    (ladder("degraded"), "warned", "heat", "door: degraded: 91 C"),
    (ladder("safe"), "failing", "heat", "door: safe: 91 C"),
    (
        update(metadata_issued=NOW - 2 * DAY_S),
        "warned",
        "replayed",
        "no newer metadata for 2 d",
    ),
    (
        update(metadata_expires={"timestamp": NOW - 60}),
        "warned",
        "expired",
        "timestamp expired 1 min ago",
    ),
    (update(certificate_expires=NOW - 1), "warned", "certificate", "has ended"),
    (update(clock_floor_lag_s=9e6), "warned", "expired", "behind"),
    (
        update(trouble={"reason": "tls", "message": "no TLS"}),
        "warned",
        "tls",
        "no TLS",
    ),
    (
        update(
            ddi={"trouble": {"reason": "unauthorized", "message": "poll: answered 401"}}
        ),
        "warned",
        "unauthorized",
        "answered 401",
    ),
    (update(ddi={"url": "https://fleet.example"}), "well", "", ""),
]


@pytest.mark.parametrize(("change", "health", "reason", "what"), CASES)
def test_what_a_state_means(
    change: Callable[[Json], object], health: Health, reason: str, what: str
) -> None:
    """Who answers and waits on purpose is well; the rest has a reason."""
    row = row_of(change)
    found = row.findings[0].what if row.findings else ""
    assert (row.health, row.reason, what in found) == (health, reason, True)


def test_only_the_model_that_answers_drifts() -> None:
    """An alarm about a version that is gone never ends; nothing watched is not calm."""
    assert row_of(alarm("all", "warning")).drift == ("all",)
    assert row_of(lambda _: None).drift is None


def test_a_rollback_that_holds_is_said(fleet: FleetOf) -> None:
    """A board that is well does not look as if it were on its way to the next one."""
    board = fleet.add(at_version(7), "pi-1")
    detail = "an operator rolled back; ddi has to say something newer"
    board.decide(decision("door", "waits", 8, reason="held", detail=detail))
    ran = fleet.status()
    assert (ran.exit_code, "1 well" in ran.stdout) == (0, True)
    words = " ".join(ran.stdout.split())
    assert "door wants kws 8, held by an" in words
    assert "operator's rollback" in words


def test_a_pipeline_that_is_called_as_its_model_is_named_once(fleet: FleetOf) -> None:
    """``digits digits 7`` is one word too many."""
    board = fleet.add(FakeBoard(), "pi-1")
    board.state["pipelines"] = {"kws": running(7)}
    board.decide(decision("kws", "ordered", 8))
    shown = fleet.status().stdout
    assert "kws kws" not in shown
    assert "to kws 8" in shown


def test_the_worst_finding_counts() -> None:
    """Behind it the others are kept."""
    row = row_of(
        lambda state: (alarm("all", "warning")(state), ladder("safe")(state)),
    )
    assert [finding.health for finding in row.findings] == ["failing", "warned"]


HEALTH = st.sampled_from(HEALTHS)
ROWS = st.lists(
    st.builds(
        lambda name, health, version: BoardRow(
            BoardTable(name, "h"),
            () if health in {"updating", "well"} else (Finding(health, "r", "w"),),
            (Running("door", f"kws {version}"),),
            "IDLE" if health == "well" else "FETCHING",
        ),
        st.from_regex(r"[a-z]{1,3}", fullmatch=True),
        HEALTH,
        st.integers(0, 12),
    ),
    max_size=12,
)


@given(ROWS)
def test_sorting_loses_nobody_and_puts_trouble_first(rows: list[BoardRow]) -> None:
    """A permutation; healths never get worse on the way down."""
    done = sort_rows(rows)
    ranks = [HEALTHS.index(row.health) for row in done]
    assert ranks == sorted(ranks)
    assert sorted(map(id, done)) == sorted(map(id, rows))


@given(ROWS)
def test_counts_add_up(rows: list[BoardRow]) -> None:
    """Healths to the boards; versions, where each board runs one, in their order."""
    assert sum(count_healths(rows).values()) == len(rows)
    versions = count_versions(rows)
    assert sum(versions.values()) == len(rows)
    numbers = [int(version.removeprefix("kws ")) for version in versions]
    assert numbers == sorted(numbers)
    assert is_well(rows) == (set(count_healths(rows)) <= {"updating", "well"})


@given(st.floats(0, 1))
def test_a_bar_is_as_long_as_its_share(share: float) -> None:
    """Within half a cell; never empty for something."""
    shown = bar(share)
    full = shown.count("\u2588")
    assert len(shown) == len(bar(0))
    assert abs(full - share * len(shown)) <= 1
    assert (full > 0) == (share > 0)


@settings(max_examples=40)  # each lays out a table several times
@given(ROWS, st.integers(5, 30))
def test_what_fits_the_screen_is_shown_from_the_top(
    rows: list[BoardRow], height: int
) -> None:
    """With the whole summary; who is left out is counted, and no worse."""
    console = Console(width=80, height=height, no_color=True)
    with console.capture() as captured:
        show_lines(console, render_fleet(rows, console=console))
    lines = captured.get().splitlines()
    versions = len(count_versions(rows))
    assert len(lines) <= max(height, versions + 6)
    shown = [line.split()[1] for line in lines[1:] if line[:1].islower()]
    healths = [word for word in shown if word in HEALTHS]
    expected = [row.health for row in sort_rows(rows)]
    assert healths == expected[: len(healths)]
    left = len(rows) - len(healths)
    assert any(f"and {left} more" in line for line in lines) == (left > 0)
