"""A fleet seen from afar: discovered by a real Prometheus, drawn, and told at a glance.

Two real daemons, one scraped over plain HTTP, one at its control listener with a
scraper's certificate, and a third board that is not there. All configuration is what
``tinyward`` prints and exports.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import POLL_S, Table, watched_daemon
from tests.e2e.test_control_listener import BOARD, Office
from tests.fakes.daemon_process import DaemonProcess, wait_until
from tests.fakes.fleet import Fleet, bundle, packed
from tests.fakes.prometheus_process import PrometheusProcess, free_port
from tests.fakes.watched_board import tinyward
from tests.shells.test_dashboards import FLEET, questions

VARIABLES = {"$job": "tinyward", "$model": ".*", "$__rate_interval": "1m"}
CONTROL = re.compile(r"listening on https://127\.0\.0\.1:(\d+)")
SERVERS = "result:tinyward_ddi"  # no server orders about these boards
SPOILED = 3  # a version whose bytes are not what was signed


@dataclass
class Observed:
    """A fleet and what looks at it."""

    home: Path
    office: Office
    plain: DaemonProcess
    controlled: DaemonProcess

    @property
    def inventory(self) -> Path:
        """The file that names the boards."""
        return self.home / "fleet.toml"

    def write_inventory(self, site: str) -> None:
        """Write the boards with a label."""
        observer, ca = self.office.papers["observer"], self.office.ca / "ca.crt"
        host, port = self.plain.address
        found = CONTROL.search(self.controlled.words())
        assert found is not None
        self.inventory.write_text(f"""
[papers]
cert = "{observer.certificate}"
key = "{observer.key}"
ca = "{ca}"
[[board]]
id = "pi-1"
address = "127.0.0.1:{free_port()}"
metrics = "{host}:{port}"
groups = ["hall"]
[[board]]
id = "{BOARD}"
address = "127.0.0.1:{found[1]}"
groups = ["hall", "yard"]
labels = {{site = "{site}"}}
[[board]]
id = "pi-9"
address = "127.0.0.1:{free_port()}"
""")

    def targets(self, *words: str) -> str:
        """Return what ``tinyward fleet targets`` prints."""
        said = tinyward("fleet", "targets", "--inventory", str(self.inventory), *words)
        assert said.exit_code == 0, said.output
        return said.stdout

    def config(self, *words: str) -> str:
        """Return a scrape_config with a scraper's papers, in more of a hurry."""
        scraper = self.office.papers["scraper"]
        ca = str(self.office.ca / "ca.crt")
        papers = ("--cert", scraper.certificate, "--key", scraper.key, "--ca", ca)
        text = self.targets("--config", *papers, *words)
        assert text.count("15s") == 1
        return text.replace("15s", "500ms\n    scrape_timeout: 500ms")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Give a fleet that runs version 2, with its monitor, and refused version 3."""
    home = tmp_path_factory.mktemp("observed")
    fleet, office = Fleet(home), Office(home)
    office.issue("scraper")
    update = fleet.update_table(POLL_S)
    tables: dict[str, Table] = {"control": office.control(), "board": {"id": BOARD}}
    plain = watched_daemon(home / "pi-1", update)
    controlled = watched_daemon(home / BOARD, update, tables)
    fleet.publish(2, packed(2))
    with plain, controlled:
        for board in (plain, controlled):
            board.wait_version(2)
        fleet.publish_spoiled(SPOILED, bundle(SPOILED + 1))
        for board in (plain, controlled):
            board.wait_for(partial(refused, board), "a refusal")
        observed = Observed(home, office, plain, controlled)
        observed.write_inventory("north")
        yield observed


def refused(board: DaemonProcess) -> bool:
    """Tell whether a board refused an update."""
    return any(
        name.startswith("tinyward_updates_total{") and "refused" in name
        for name in board.metrics()
    )


@pytest.fixture
def served(observed: Observed) -> Iterator[str]:
    """Give the URL at which the command serves targets."""
    words = ["--inventory", str(observed.inventory), "--serve", "127.0.0.1:0"]
    program = [sys.executable, "-m", "agent", "fleet", "targets", *words]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = server.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert found is not None, said
        yield found[0]
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def health(prometheus: PrometheusProcess) -> dict[tuple[str, str], str]:
    """Return (job, board) -> whether it was scraped with success."""
    active = prometheus.ask("targets").get("activeTargets", [])
    return {
        (target["labels"]["job"], target["labels"]["instance"]): target["health"]
        for target in active
    }


def test_prometheus_discovers_boards_by_file_and_by_http(
    observed: Observed, served: str, tmp_path: Path
) -> None:
    """All three by both; two answer, one over TLS; labels arrive, so do changes."""
    file = tmp_path / "targets" / "fleet.json"
    observed.targets("-o", str(file))
    by_file = observed.config("-o", str(file))
    by_http = observed.config("--serve", served.split("/")[2])
    _, _, second = by_http.partition("scrape_configs:\n")
    second = second.replace("job_name: tinyward", "job_name: tinyward-http")
    second = second.replace(f'"{served}"', f'"{served}"\n        refresh_interval: 1s')
    answers = {"pi-1": "up", BOARD: "up", "pi-9": "down"}
    wanted = {
        (job, board): how
        for job in ("tinyward", "tinyward-http")
        for board, how in answers.items()
    }
    with PrometheusProcess(tmp_path / "p", by_file + second) as prometheus:
        wait_until(lambda: health(prometheus) == wanted, f"{wanted}")
        groups = 'tinyward_build_info{groups=~".*,yard,.*",site="north"}'
        wait_until(lambda: len(prometheus.query(groups)) == 2, "labels of both jobs")
        found = {row["metric"]["instance"] for row in prometheus.query(groups)}
        assert found == {BOARD}
        observed.write_inventory("south")
        observed.targets("-o", str(file))
        moved = 'up{site="south"} == 1'
        wait_until(lambda: len(prometheus.query(moved)) == 2, "the change, by both")
        observed.write_inventory("north")


def test_every_question_of_the_dashboard_has_an_answer(
    observed: Observed, tmp_path: Path
) -> None:
    """With the rules that are shipped, about two daemons: no panel stays empty."""
    shipped = tmp_path / "shipped"
    assert tinyward("observe", "export", str(shipped)).exit_code == 0
    dashboard = json.loads((shipped / FLEET).read_text())
    file = tmp_path / "fleet.json"
    observed.targets("-o", str(file))
    head = f'global: {{evaluation_interval: 500ms}}\nrule_files: ["{shipped}/*.yml"]\n'
    config = head + observed.config("-o", str(file))
    annotations = {each["name"] for each in dashboard["annotations"]["list"]}
    with PrometheusProcess(tmp_path / "p", config) as prometheus:
        for title, expr, _ in questions(dashboard):
            if title in annotations or SERVERS in expr:
                continue
            for variable, word in VARIABLES.items():
                expr = expr.replace(variable, word)  # noqa: PLW2901 - one by one
            assert "$" not in expr
            wait_until(partial(prometheus.query, expr), f"{title}: {expr}")
        running = 'model_version:tinyward_boards_running:count{version="2"}'
        assert prometheus.values(running) == [2.0]
        failing = 'model_version:tinyward_boards_failing:ratio{version="3"}'
        assert prometheus.values(failing) == [1.0]


def test_the_fleet_at_a_glance(observed: Observed) -> None:
    """An observer sees what runs, what was refused, and which boards are not there."""
    words = ("fleet", "status", "--inventory", str(observed.inventory))
    said = tinyward(*words)
    assert said.exit_code == 1, said.output
    rows = {line.split()[0]: line for line in said.stdout.splitlines() if line}
    assert "unreachable" in rows["pi-1"]
    assert "connection refused [unreachable]" in rows["pi-9"]
    # The mirror may be mended, so it is tried again for a while, and then no more.
    health = rows[BOARD].split()[1]
    assert health in {"warned", "failing"}
    assert "digits 2" in rows[BOARD]
    assert f"3 boards: 2 unreachable, 1 {health}" in said.stdout
    told = json.loads(tinyward(*words, "--json", "--group", "yard").stdout)
    (board,) = told["boards"]
    (pipeline,) = board["pipelines"]
    assert "bytes there, other than" in pipeline.pop("waits")
    assert pipeline == {"pipeline": "digits", "runs": "digits 2", "wants": "digits 3"}
    assert (board["id"], board["phase"], board["drift"]) == (BOARD, "IDLE", [])
    assert board["metadata_age_s"] < 3600
    assert told["versions"] == {"digits 2": 1}
