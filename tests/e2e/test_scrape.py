"""Real scrapers: promtool's opinion, and a Prometheus that stores what it found."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from agent.telemetry.text import CONTENT_TYPES
from tests.conftest import find_tool
from tests.e2e.conftest import BRISK, MakeBoard, Table
from tests.fakes.daemon_process import DaemonProcess, wait_until
from tests.fakes.fleet import Fleet, bundle

HOSTILE = [
    "application/openmetrics-text;version=x.y",
    "text/plain;version=one;escaping=<script>",
    f"application/openmetrics-text;version={'9' * 5000}",
    "," * 7000,
]
SCRAPE = """\
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: tinyward
    static_configs: [{{targets: ["{target}"]}}]
"""


def checked(promtool: Path, board: DaemonProcess) -> str:
    """Scrape once and let promtool judge the text; return it."""
    status, body = board.get("/metrics")
    assert status == 200
    judged = subprocess.run(
        [promtool, "check", "metrics"],
        input=body.encode(),
        capture_output=True,
        check=False,
    )
    said = (judged.stdout + judged.stderr).decode()
    assert (judged.returncode, said) == (0, "")
    return body


def test_promtool_has_nothing_to_say_whatever_happens(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Before the first model, under load, over deaths, swaps and refusals."""
    promtool = find_tool("promtool")
    sleep: Table = {"kind": "command", "command": ["sleep", "600"]}
    board = make_board(sinks=[sleep], tables={"supervise": {**BRISK, "crash_limit": 9}})
    with board:
        checked(promtool, board)
        for version in (1, 2):
            fleet.publish(version)
            board.wait_version(version)
            checked(promtool, board)
            pid = board.worker_pid()
            os.kill(pid, signal.SIGKILL)
            checked(promtool, board)
            board.wait_for(board.version, "another worker")
        fleet.publish_spoiled(3, bundle(4))
        refused = 'tinyward_updates_total{reason="length",result="refused"}'
        board.wait_for(lambda: refused in board.metrics(), "a refusal")
        body = checked(promtool, board)
    assert "tinyward_sink_dropped_total" in body
    assert 'tinyward_updates_total{reason="",result="committed"} 2' in body
    assert "tinyward_verify_failures_total" in body


def free_port() -> int:
    """Return a port that was free a moment ago: Prometheus does not say what it got."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def prometheus(program: Path, folder: Path, config: str) -> Iterator[int]:
    """Run a server with a configuration; give its port."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    flags = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=log,
        )
        try:
            yield port
        finally:
            server.kill()
            server.wait()


def stored(port: int, query: str) -> list[float]:
    """Return the values that a query finds, none while the server starts."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/api/v1/query?query={query}")
        answer = connection.getresponse()
        if answer.status != 200:
            return []
        found = json.loads(answer.read())["data"]["result"]
        return [float(row["value"][1]) for row in found]
    except OSError:
        return []
    finally:
        connection.close()


def test_a_real_prometheus_stores_our_samples(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Its own API returns counters that rise, and it calls the target up."""
    program = find_tool("prometheus")
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
        host, port = board.address
        config = SCRAPE.format(target=f"{host}:{port}")
        with prometheus(program, tmp_path / "p", config) as server:
            wait_until(partial(stored, server, "tinyward_samples_total>0"), "samples")
            (first,) = stored(server, "max(tinyward_samples_total)")
            wait_until(
                lambda: max(stored(server, "tinyward_samples_total")) > first, "more"
            )
            assert stored(server, "up") == [1.0]
            buckets = "tinyward_inference_duration_seconds_bucket"
            assert len(stored(server, buckets)) > 10
            assert stored(server, "tinyward_pipeline_ready") == [1.0]


def asked_with(board: DaemonProcess, accept: str) -> tuple[int, str, bytes]:
    """Scrape with an ``Accept`` header; return status, content type and body."""
    connection = http.client.HTTPConnection(*board.address, timeout=30)
    try:
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def test_hostile_scrapers_harm_nobody(make_board: MakeBoard, fleet: Fleet) -> None:
    """Odd headers, fifty at once, and some that never read: the others are served."""
    fleet.publish(1)
    board = make_board()
    with board, contextlib.ExitStack() as slow:
        board.wait_version(1)
        for accept in HOSTILE:
            status, content_type, body = asked_with(board, accept)
            assert (status, content_type) == (200, CONTENT_TYPES["text"])
            assert b"tinyward_samples_total" in body
        for _ in range(5):  # they ask, and read nothing
            stream = slow.enter_context(socket.create_connection(board.address))
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: board\r\n\r\n")
        with ThreadPoolExecutor(50) as crowd:
            answers = list(crowd.map(partial(asked_with, board), [""] * 50))
        # 55 at once: the listener's own limit is 64.
        assert {status for status, _, _ in answers} == {200}
        before = board.samples()["ok"]
        board.wait_for(lambda: board.samples()["ok"] > before, "more answers")
