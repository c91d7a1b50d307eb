"""The demo: what it prints is what scripts rely on, and what it leaves behind."""

import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.core.flow import FileSink
from agent.core.reasons import Reason
from agent.demo.board import DemoBoard, Predictions, lines_mb
from agent.demo.story import Summary, accuracy, holes
from agent.demo.view import ConsoleView
from agent.errors import DeviceError
from agent.settings import parse_settings
from tests.shells.test_locks import is_gone

DEMO = (sys.executable, "-m", "agent", "demo", "--seconds", "1", "--json")
# The demo with its signals as a shell gives them, however the tests were started.
FRESH = """
import signal
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from agent.__main__ import main
main()
"""
KEYS = {
    "samples": {"in", "ok", "failed", "dropped", "lost"},
    "latency_ms": {"p50", "p95", "p99"},
    "swap": {"from", "to", "gap_ms", "result"},
    "accuracy": {"1", "2"},
    "rss_mb": {"daemon", "worker"},
    "claims": {
        *("lost_none", "swapped", "v2_better"),
        *("flipped_refused", "stranger_refused"),
    },
}


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with its temporary files in ``folder``."""
    return subprocess.run(
        [*DEMO, *options],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def wait_until_gone(pid: int) -> bool:
    """Whether a process ends within a generous while."""
    deadline = time.monotonic() + 30
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_gone(pid)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what one run printed, and what it left in its temporary directory."""
    folder = tmp_path_factory.mktemp("demo")
    done = demo(folder)
    left = [entry.name for entry in folder.iterdir()]
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr} | {
        "left": left
    }


def test_only_the_summary_is_printed(told: dict[str, Any]) -> None:
    """One JSON object on standard output, exit code 0, nothing left behind."""
    assert told["code"] == 0, told["err"]
    assert told["out"].count("\n") == 1
    assert json.loads(told["out"]).keys() == {*KEYS, "refused"}
    assert told["left"] == []


def test_the_keys_are_those_that_scripts_rely_on(told: dict[str, Any]) -> None:
    """No key more, none less."""
    summary = json.loads(told["out"])
    assert {key: set(summary[key]) for key in KEYS} == KEYS
    assert [set(row) for row in summary["refused"]] == [{"what", "reason"}] * 2


def test_the_numbers_agree(told: dict[str, Any]) -> None:
    """In = ok + failed + dropped, lost is 0, and every claim held."""
    summary = json.loads(told["out"])
    samples = summary["samples"]
    ended = samples["ok"] + samples["failed"] + samples["dropped"]
    assert (samples["in"], samples["lost"]) == (ended, 0)
    assert samples["in"] > 0
    assert (summary["swap"]["from"], summary["swap"]["to"]) == (1, 2)
    assert summary["refused"] == [
        {"what": "flipped", "reason": "digest"},
        {"what": "stranger", "reason": "signature"},
    ]
    assert all(value is True for value in summary["claims"].values())
    assert summary["accuracy"]["2"] > summary["accuracy"]["1"] > 0.5


def test_keep_leaves_it_running_and_says_where(short_path: Path) -> None:
    """The address works, the process is the daemon, and the advice ends it."""
    done = demo(short_path, "--keep")
    told = done.stderr.splitlines()
    running = next((r for r in told if r.startswith("still running")), "")
    assert running, done.stdout + done.stderr
    address, _, rest = running.removeprefix("still running: ").partition(" ")
    pid = int(rest.removeprefix("(process ").removesuffix(")"))
    try:
        where = urlsplit(address)
        connection = http.client.HTTPConnection(where.netloc, timeout=30)
        connection.request("GET", where.path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
    finally:
        os.kill(pid, signal.SIGTERM)
    assert (done.returncode, answer.status) == (0, 200)
    assert "<title>Tinyward" in body
    assert json.loads(done.stdout)["claims"]["lost_none"]
    assert f"stop it: kill {pid} && rm -r {short_path}" in done.stderr
    (folder,) = short_path.iterdir()
    assert [path.name for path in folder.iterdir() if "stranger" in path.name] == []
    settings = parse_settings((folder / "agent.toml").read_bytes())
    (sink,) = settings.pipeline[0].sinks
    assert isinstance(sink, FileSink)
    assert (sink.keep, sink.max_mb < 100) == (0, True)  # for as long as it runs
    assert wait_until_gone(pid)
    shutil.rmtree(next(short_path.iterdir()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(
    short_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, a kill or a closed terminal ends the daemon, too, and tidies up."""
    process = subprocess.Popen(
        [sys.executable, "-c", FRESH, *DEMO[3:], "--seconds", "600"],
        env={**os.environ, "TMPDIR": str(short_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(short_path.glob("*/predictions.jsonl")):
        assert time.monotonic() < deadline, "the daemon never answered"
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) != 0
    assert list(short_path.iterdir()) == []


@given(st.sets(st.integers(1, 60), min_size=1))
def test_holes_are_the_numbers_that_are_missing(numbers: set[int]) -> None:
    """Between the first and the last."""
    ordered = sorted(numbers)
    between = set(range(ordered[0], ordered[-1] + 1))
    assert holes(ordered) == len(between - numbers)


def test_no_rows_have_no_holes() -> None:
    """Nothing is missing from nothing."""
    assert (holes([]), accuracy([], [1])) == (0, {})


def test_accuracy_is_by_version_and_wraps_around() -> None:
    """The stream is looped: sample n shows digit (n - 1) modulo their number."""
    rows = [
        {"seq": 1, "version": 1, "label": "7"},
        {"seq": 2, "version": 1, "label": "7"},
        {"seq": 4, "version": 2, "label": "3"},
    ]
    assert accuracy(rows, [7, 3]) == {"1": 0.5, "2": 1.0}


def test_a_summary_without_claims_does_not_hold() -> None:
    """A story that broke off proves nothing."""
    assert not Summary().held
    assert Summary(claims={"lost_none": True}).held
    assert not Summary(claims={"lost_none": True, "swapped": False}).held


def test_predictions_are_read_once_and_whole(tmp_path: Path) -> None:
    """A line that is still being written waits for its end."""
    path = tmp_path / "lines"
    predictions = Predictions(path)
    assert predictions.read() == []
    with path.open("ab", buffering=0) as file:
        file.write(b'{"seq": 1}\n{"se')
        first = list(predictions.read())
        file.write(b'q": 2}\n')
        second = list(predictions.read())
    assert (first, second) == ([{"seq": 1}], [{"seq": 1}, {"seq": 2}])


@given(st.floats(1, 5000), st.floats(1, 3600))
def test_the_lines_of_a_story_fit_a_file_that_is_never_rotated(
    rate: float, seconds: float
) -> None:
    """Every prediction of a story is read, however long and fast it is told."""
    assert 0 < lines_mb(rate, seconds) <= 10_000
    assert lines_mb(rate, seconds) * 1e6 >= rate * seconds * 300


def test_the_first_frames_have_no_model_yet() -> None:
    """A board before its first model says so instead of showing dashes."""
    screen = io.StringIO()
    console = Console(width=80, force_terminal=True, file=screen)
    latency = {"p50": None, "p95": None, "p99": None}
    pipeline = {"active": None, "latency_ms": latency, "worker": {"rss_bytes": 0}}
    state = {
        "pipelines": {"digits": pipeline},
        "update": {"phase": "IDLE"},
        "daemon_rss_bytes": 0,
    }
    with ConsoleView(console) as view:
        view.live(state, [])
    assert "none yet" in screen.getvalue()


def test_a_daemon_that_ends_at_once_is_an_error(tmp_path: Path) -> None:
    """The error has its last words; nothing is left running."""
    board = DemoBoard(tmp_path, tmp_path / "repository", b"no root", 10.0)
    board.settings.write_text("unknown = 1\n", encoding="utf-8")
    with pytest.raises(DeviceError, match="the daemon ended") as err:
        board.start()
    assert err.value.reason == Reason.INTERNAL
    assert "unknown" in str(err.value)
    assert board.stop() == 2
