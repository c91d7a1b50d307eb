"""From the camera to the alert: a drift is provoked, and Prometheus tells it.

The real daemon runs a signed bundle with its profile; Debian's own Prometheus scrapes
it with the rules that ``tinyward observe export`` writes.
"""

import http.client
import json
import sys
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from agent.cli import cli
from tests.conftest import find_tool
from tests.e2e.conftest import MakeBoard
from tests.e2e.test_scrape import checked, prometheus
from tests.fakes.daemon_process import DaemonProcess, wait_until
from tests.fakes.fleet import STREAM, Fleet, packed

Json = dict[str, Any]
SIDE = 8
BRIGHTEST = 16
# Digits as they were profiled, until somebody writes another word into a file: then
# each is shown as a negative, or the last one stays for ever.
CAMERA = f"""
import itertools, pathlib, sys, time
frames, word = pathlib.Path(sys.argv[1]).read_bytes(), pathlib.Path(sys.argv[2])
size = {SIDE * SIDE}
levels = bytes(range({BRIGHTEST + 1}))
negative = bytes.maketrans(levels, levels[::-1])
for start in itertools.cycle(range(0, len(frames), size)):
    shown = word.read_text()
    if shown != "stuck":
        frame = frames[start:start + size]
    sys.stdout.buffer.write(frame.translate(negative) if shown == "negative" else frame)
    sys.stdout.buffer.flush()
    time.sleep(0.002)
"""
CONFIG = """\
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
  evaluation_interval: 200ms
rule_files: ["{rules}/*.yml"]
scrape_configs:
  - job_name: tinyward
    static_configs: [{{targets: ["{target}"]}}]
"""
DRIFT = {
    *("TinywardDrift", "TinywardDriftCritical"),
    *("TinywardDriftConfirmed", "TinywardDriftConfirmedCritical"),
}
WATCH = DRIFT | {"TinywardInputStuck", "TinywardMonitorInvalid"}


@pytest.fixture
def word(tmp_path: Path) -> Path:
    """Give the file that says what the camera shows."""
    path = tmp_path / "word"
    path.write_text("")
    return path


@pytest.fixture
def board(make_board: MakeBoard, fleet: Fleet, word: Path) -> Iterator[DaemonProcess]:
    """Give a board that answers what the camera shows, with a model and its profile."""
    with np.load(STREAM, allow_pickle=False) as stream:
        frames = word.with_name("frames")
        frames.write_bytes(stream["images"].tobytes())
    command = [sys.executable, "-c", CAMERA, str(frames), str(word)]
    source = {"kind": "command", "command": command, "format": "gray8"}
    board = make_board(source={**source, "width": SIDE, "height": SIDE})
    fleet.publish(2, packed(2))
    with board:
        board.wait_version(2)
        yield board


def asked(port: int, path: str) -> Json:
    """Return what Prometheus answers, nothing while it starts."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/api/v1/{path}")
        answer = connection.getresponse()
        if answer.status != 200:
            return {}
        found: Json = json.loads(answer.read())["data"]
    except OSError:
        return {}
    else:
        return found
    finally:
        connection.close()


def firing(port: int) -> dict[str, Json]:
    """Return the alerts that fire, by name."""
    alerts = asked(port, "alerts").get("alerts", [])
    return {
        alert["labels"]["alertname"]: alert
        for alert in alerts
        if alert["state"] == "firing"
    }


def stored(port: int, query: str) -> list[float]:
    """Return the values that a query finds."""
    found = asked(port, f"query?query={urllib.parse.quote(query)}")
    return [float(row["value"][1]) for row in found.get("result", [])]


def fires(port: int, names: set[str]) -> bool:
    """Return whether one of some alerts fires."""
    return bool(firing(port).keys() & names)


def test_a_drift_is_seen_in_prometheus(
    board: DaemonProcess, word: Path, tmp_path: Path
) -> None:
    """Quiet while the input is as profiled; told when it changed, and when it stuck."""
    program = find_tool("prometheus")
    rules = tmp_path / "rules"
    assert CliRunner().invoke(cli, ["observe", "export", str(rules)]).exit_code == 0
    host, port = board.address
    config = CONFIG.format(rules=rules, target=f"{host}:{port}")
    with prometheus(program, tmp_path / "p", config) as server:
        watched = "tinyward_drift_samples_total > 300"
        wait_until(partial(stored, server, watched), "300 watched samples")
        valid = 'tinyward_drift_reference_valid{anchor="shipped"}'
        assert stored(server, valid) == [1.0]
        assert firing(server).keys() & WATCH == set()

        word.write_text("negative")
        wait_until(partial(fires, server, DRIFT), "an alert about drift")
        drift = next(alert for name, alert in firing(server).items() if name in DRIFT)
        assert drift["labels"]["pipeline"] == "digits"
        assert drift["labels"]["version"] == "2"
        assert drift["annotations"]["summary"].startswith("digits: ")
        assert max(stored(server, "tinyward_drift_score_ratio")) > 1
        assert "tinyward_drift_active{" in checked(find_tool("promtool"), board)
        assert max(stored(server, "tinyward_drift_alarms_total")) >= 1

        word.write_text("stuck")
        stuck = partial(fires, server, {"TinywardInputStuck"})
        wait_until(stuck, "an alert about input that stands still")
        assert max(stored(server, "tinyward_input_repeated_total")) > 0
        recorded = "pipeline_anchor_scope:tinyward_drift_score_ratio:max"
        assert len(stored(server, recorded)) > 0
