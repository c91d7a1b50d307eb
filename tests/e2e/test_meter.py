"""A real daemon that is paid: it stops, owes or does less, and goes on when paid."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import STEADY, MakeBoard, Table
from tests.fakes.daemon_process import NAME, DaemonProcess, Json
from tests.fakes.fleet import Fleet

LEASE = 200
LINES = "out.jsonl"
WORDS = "five random words here\n"


def tinyward(*words: object, code: int = 0) -> str:
    """Run a command of ``tinyward meter``; return what it said."""
    command = [sys.executable, "-m", "agent", "meter", *map(str, words)]
    told = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == code, told.stderr
    return told.stdout + told.stderr


class Vendor:
    """Who sells vouchers, with the command line alone."""

    def __init__(self, home: Path) -> None:
        self.key, self._secret = home / "vendor.key", home / "passphrase"
        self._secret.write_text(WORDS, encoding="utf-8")
        tinyward("key", self.key, "--passphrase-file", self._secret)

    def sell(self, key: str, *goods: object) -> str:
        """Return vouchers for the board, as text."""
        named = ("--board", f"{NAME}={key}", "--key", self.key)
        return tinyward("vouchers", *named, *goods, "--passphrase-file", self._secret)


class PaidBoard:
    """A board that answers 500 samples a second into a file, as far as it is paid."""

    def __init__(self, board: DaemonProcess, vendor: Vendor) -> None:
        self.board = board
        self.vendor = vendor

    @property
    def status(self) -> Json:
        """What the meter says now."""
        found: Json = self.board.ask("/v1/meter")
        return found

    @property
    def lines(self) -> int:
        """Answers that anybody heard."""
        path = self.board.directory / LINES
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def ask(self, *words: object) -> str:
        """Ask the board by a command of ``tinyward meter``."""
        return tinyward(*words, "--socket", self.board.socket)

    def pay(self, *goods: object) -> str:
        """Buy, and type what was bought."""
        text = self.vendor.sell(self.status["board"], *goods)
        typed = [line for line in text.splitlines() if not line.startswith("#")]
        return self.ask("redeem", " ".join(typed).lower())

    def wait_opened(self) -> None:
        """Wait until the meter is open: it is opened beside the log."""
        self.board.wait_for(lambda: "left" in self.status, "an open meter")

    def wait_unpaid(self) -> None:
        """Wait until nothing may be answered."""
        unpaid = (503, "unpaid")
        self.board.wait_for(lambda: self.board.readiness() == unpaid, "unpaid")

    def wait_lines(self, count: int) -> None:
        """Wait for so many answers."""
        self.board.wait_for(lambda: self.lines >= count, f"{count} answers")


@pytest.fixture
def paid(make_board: MakeBoard, fleet: Fleet, tmp_path: Path) -> PaidBoard:
    """Give a board that nobody has paid for yet."""
    fleet.publish(1)
    vendor = Vendor(tmp_path)
    tables: dict[str, Table] = {
        "audit": {"mode": "count"},
        "meter": {"vendor_key": f"{vendor.key}.pub", "lease": LEASE},
    }
    sinks = [{"kind": "file", "path": str(tmp_path / "board" / LINES)}]
    board = make_board(source=STEADY, sinks=sinks, tables=tables)
    return PaidBoard(board, vendor)


def test_a_board_stops_when_nothing_is_left_and_goes_on_when_paid(
    paid: PaidBoard,
) -> None:
    """To the unit, and without a restart; a voucher counts once."""
    board = paid.board
    with board:
        paid.wait_opened()
        paid.wait_unpaid()
        assert paid.lines == 0
        assert "voucher 1: 300 units" in paid.pay("--units", 300)
        worker = board.worker_pid()
        paid.wait_lines(300)
        paid.wait_unpaid()
        paper = board.directory / "paper.txt"
        text = paid.vendor.sell(paid.status["board"], "--units", 100, "--count", 2)
        paper.write_text(text, encoding="utf-8")
        paid.ask("redeem", paper)
        paid.wait_lines(500)
        paid.wait_unpaid()
        assert (board.worker_pid(), paid.lines) == (worker, 500)
        said = tinyward("redeem", paper, "--socket", board.socket, code=1)
        assert "[replayed]" in said
        metrics = board.metrics()
        assert metrics["tinyward_meter_used_units_total"] == 500.0
        assert metrics['tinyward_meter_unpaid{pipeline="digits"}'] == 1.0


def test_a_killed_board_was_paid_for_all_it_answered(paid: PaidBoard) -> None:
    """After `kill -9` what was answered is charged; vouchers stay redeemed."""
    board = paid.board
    with board:
        paid.wait_opened()
        paid.pay("--units", 100_000)
        paid.wait_lines(200)
        board.kill()
        answered = paid.lines
        board.start()
        paid.wait_opened()
        found = paid.status
        assert found["used"] >= answered
        assert (found["voucher"], found["bought"]) == (1, 100_000)
        assert sum(_counts(paid.ask("report"))) >= answered


def test_a_board_owes_or_does_less_as_its_settings_say(paid: PaidBoard) -> None:
    """The policy is read anew: 50 more are owed, then one sample in ten is answered."""
    board = paid.board
    with board:
        paid.wait_opened()
        paid.wait_unpaid()
        settings = board.settings.read_text(encoding="utf-8")
        _reload(board, settings, 'unpaid = {policy = "grace", grace = 50}')
        paid.wait_lines(50)
        paid.wait_unpaid()
        found = paid.status
        assert (paid.lines, found["owed"], found["used"]) == (50, 50, 50)
        _reload(board, settings, 'unpaid = {policy = "degrade", every = 10}')
        board.wait_for(lambda: paid.status["free"] >= 20, "answers for nothing")
        assert paid.status["used"] == 50
        sums = board.samples()
        assert sums["reasons"].get("shed", 0) > 5 * (sums["ok"] - 50)
        paid.pay("--unlimited-until", "2999-01-01")
        seen = paid.lines
        paid.wait_lines(seen + 200)
        found = paid.status
        assert (found["unlimited"], found["used"]) == (True, 50)
        assert "unlimited until 2999-01-01" in paid.ask("status")
        board.signal(signal.SIGTERM)
        assert board.wait() == 0


def _reload(board: DaemonProcess, settings: str, line: str) -> None:
    """Let the daemon follow another line of its pipeline's table."""
    before = board.words().count("settings.applied")
    changed = settings.replace("[[pipeline]]", f"[[pipeline]]\n{line}")
    board.settings.write_text(changed, encoding="utf-8")
    board.signal(signal.SIGHUP)
    board.wait_for(
        lambda: board.words().count("settings.applied") > before, "other settings"
    )


def _counts(report: str) -> list[int]:
    """Return the counts of a report's rows."""
    rows = report.rpartition("\n\n")[2].splitlines()
    return [int(row.rpartition(" ")[2]) for row in rows]
