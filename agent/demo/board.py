"""The board's side of the demo: the real daemon as a process, seen from outside.

The rules this module keeps:
 * It is started as anyone would start it, ``tinyward run --config agent.toml``, and
   asked over its unix socket; its predictions are read from the file its sink writes.
 * Whatever happens, no process is left behind unless ``keep`` was asked for.
"""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.reasons import Reason
from agent.demo.owner import ASSETS, GROUP, MODEL
from agent.errors import DeviceError

LOOK_S = 0.1
STOP_S = 5.0  # what the daemon promises
ANSWER_S = 5.0
STEPS_S = 300.0  # all steps of the story with all their deadlines, and a start
LINE_BYTES = 400  # a prediction has about 200
LARGEST_MB = 10_000.0  # what a sink's `max_mb` takes
SETTINGS = """\
state_dir = {state}
[[pipeline]]
name = "{model}"
model = "{model}"
source = {{kind = "files", path = {stream}, array = "images", rate = {rate}, \
loop = true, memory = true}}
sinks = [{{kind = "file", path = {predictions}, max_mb = {lines_mb}, \
keep = 0}}]
[update]
repository = {repository}
root = {root}
groups = ["{group}"]
poll_s = {poll_s}
[local]
listen = "127.0.0.1:0"
socket = {socket}
"""

Json = dict[str, Any]


class DemoBoard:
    """A board with one pipeline, in one directory.

    Attributes:
        address: Where its page and ``/metrics`` are, once started.
        log: Path of the daemon's log.
    """

    def __init__(
        self,
        directory: Path,
        repository: Path,
        root: bytes,
        rate: float,
        seconds: float = 0.0,
    ) -> None:
        self._directory = directory
        self._socket = directory / "control.sock"
        self._predictions = Predictions(directory / "predictions.jsonl")
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "daemon.log"
        self.address = ""
        (directory / "root.json").write_bytes(root)
        places = {
            "state": directory / "state",
            "stream": ASSETS / "digits-stream.npz",
            "predictions": directory / "predictions.jsonl",
            "repository": repository,
            "root": directory / "root.json",
            "socket": self._socket,
        }
        quoted = {key: json.dumps(str(path)) for key, path in places.items()}
        text = SETTINGS.format(
            **quoted,
            model=MODEL,
            group=GROUP,
            rate=rate,
            poll_s=0.5,
            lines_mb=lines_mb(rate, seconds),
        )
        self.settings = directory / "agent.toml"
        self.settings.write_text(text, encoding="utf-8")

    @property
    def pid(self) -> int:
        """Process id of the daemon, 0 before it was started."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the daemon and wait until its listener answers.

        Raises:
            DeviceError: It ended at once; the message has its last words.
        """
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", self.settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_for(lambda: "listening on" in self._words(), 30.0, "listening")
        _, _, rest = self._words().partition("listening on ")
        self.address = rest.split()[0]

    def wait_for(
        self, condition: Callable[[], bool], timeout_s: float, what: str
    ) -> None:
        """Look until something holds.

        Raises:
            DeviceError: It did not in time, or the daemon ended; with its last words.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = "the daemon ended" if ended else f"not within {timeout_s:.0f} s"
                last = "\n".join(self._words().splitlines()[-5:])
                raise DeviceError(f"{what}: {why}\n{last}", reason=Reason.INTERNAL)
            time.sleep(LOOK_S)

    def state(self) -> Json:
        """Return ``/v1/state``."""
        connection = _UnixConnection(self._socket)
        try:
            connection.request("GET", "/v1/state")
            answer: Json = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return answer

    def pipeline(self) -> Json:
        """Return the state of the demo's pipeline."""
        found: Json = self.state()["pipelines"][MODEL]
        return found

    def version(self) -> int:
        """Return the version that answers, 0 if none does."""
        pipeline = self.pipeline()
        active = pipeline["active"]
        return int(active["version"]) if active and pipeline["ready"] else 0

    def predictions(self) -> list[Json]:
        """Return all prediction lines so far, in order."""
        return self._predictions.read()

    def stop(self) -> int:
        """Stop the daemon as systemd would; return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _words(self) -> str:
        """Return what the daemon has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def lines_mb(rate: float, seconds: float) -> float:
    """Return how large the predictions may grow: all of a story, and then no more.

    The story has to find every line, so the file is rotated only after its end, which
    a daemon that is kept reaches.

    >>> lines_mb(rate=200.0, seconds=15.0)
    25.2
    """
    return round(min(rate * (seconds + STEPS_S) * LINE_BYTES / 1e6, LARGEST_MB), 1)


class Predictions:
    """Reads a growing file of JSON lines, each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rows: list[Json] = []

    def read(self) -> list[Json]:
        """Return all whole lines so far, parsed."""
        if not self._path.exists():
            return self._rows
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        if newline:
            self._offset += len(whole) + 1
            self._rows += [json.loads(line) for line in whole.splitlines()]
        return self._rows


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, which the standard library leaves to three lines."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._path))
