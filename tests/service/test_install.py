"""The first minutes of a board: installed, started, ready, seen."""

import json

from tests.service.board import SERVICE, ServiceBoard
from tests.service.conftest import Installation

# Reads a page as a scraper on the board would.
FETCH = "import urllib.request as u; print(u.urlopen('{url}').read().decode())"


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    installation: Installation,
) -> None:
    """The plan names unit, settings and user, and no path comes or goes."""
    for word in ("/etc/systemd/system/tinyward.service", "/etc/tinyward/agent.toml"):
        assert word in installation.dry_run
    assert set() == installation.after_dry_run ^ installation.untouched


def test_installing_again_changes_nothing(board: ServiceBoard) -> None:
    """The second run says so and leaves the daemon running."""
    pid = board.daemon_pid
    before = board.shows("NRestarts")
    said = board.tinyward("install")
    assert pid == board.daemon_pid
    assert before == board.shows("NRestarts")
    assert "already" in said or "nothing" in said.lower()


def test_the_demo_model_answers_once_installed(board: ServiceBoard) -> None:
    """Without a word in the settings, systemd calls it active and it answers."""
    assert board.shows("ActiveState") == "active"
    assert board.shows("Type") == "notify"
    status, body = board.get("/readyz")
    assert (status, json.loads(body)["ready"]) == (200, True)


def test_it_starts_with_every_boot(board: ServiceBoard) -> None:
    """The unit is enabled."""
    assert board.systemctl("is-enabled", SERVICE) == "enabled"


def test_a_scraper_on_the_board_reads_its_metrics(board: ServiceBoard) -> None:
    """Loopback serves samples of the model and readings of the board."""
    script = FETCH.format(url="http://127.0.0.1:9797/metrics")
    page = board.machine.run("python3", "-c", script).stdout
    assert "tinyward_samples_total{" in page
    assert "tinyward_board_" in page


def test_the_status_line_tells_what_runs(board: ServiceBoard) -> None:
    """A person reads model and executor in ``systemctl status``."""
    (name,) = board.state()["pipelines"]
    board.wait_for(lambda: "litert" in board.spoken_in_status(), "a STATUS line")
    assert name in board.spoken_in_status()


def test_the_journal_has_our_events_with_priorities(board: ServiceBoard) -> None:
    """Each line is JSON for journalctl, under our identifier, as the service's user."""
    rows = board.journal()
    ours = [row for row in rows if row.get("SYSLOG_IDENTIFIER") == "tinyward"]
    assert ours
    assert {"6"} <= {row["PRIORITY"] for row in ours}
    assert all("_SYSTEMD_UNIT" in row for row in ours)
    assert not [row for row in ours if str(row["MESSAGE"]).startswith("<")]
    (name,) = board.state()["pipelines"]
    answers = board.journal("TINYWARD_EVENT=model.answers")
    assert {row["TINYWARD_PIPELINE"] for row in answers} == {name}


def test_the_doctor_finds_nothing_red(board: ServiceBoard) -> None:
    """As root on a fresh board every finding is green or yellow, also as JSON."""
    assert "[STOP]" not in board.tinyward("doctor")
    found = json.loads(board.machine.run("tinyward", "doctor", "--json").stdout)
    assert found["ok"] is True
