"""The real daemon as a process: started, asked, waited for, killed, like on a board.

The rules this module keeps:
 * Everything lies in one directory; ports are free ones; nothing is left running.
 * Waiting means looking until a deadline. A deadline is generous, because no test may
   depend on speed, and ends with the daemon's last words.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

Json = dict[str, Any]
LOOK_S = 0.02
PATIENCE_S = 60.0  # two shared cores with others on them
NAME = "digits"


def toml(value: object) -> str:
    """Spell a value as TOML: JSON, but for tables."""
    if isinstance(value, Mapping):
        rows = [f"{key} = {toml(entry)}" for key, entry in value.items()]
        return "{" + ", ".join(rows) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(entry) for entry in value) + "]"
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


class DaemonProcess:
    """A board with one pipeline called ``digits``.

    Args:
        directory: Where settings, state and logs lie.
        source: The pipeline's source table.
        sinks: Its sink tables.
        tables: Further tables of agent.toml, e.g. ``{"update": {...}}``.
        pipeline: Further keys of the pipeline's table.
        state_dir: Its state directory; ``directory/state`` unless told otherwise.

    Attributes:
        directory: See above; ``state_dir`` and ``settings`` lie in it.
        log: Standard error of all lives; ``out`` is standard output.
        wrapper: A command line in front of the daemon's, e.g. ``("faketime", ...)``;
            may be changed between two lives.
    """

    def __init__(
        self,
        directory: Path,
        source: Mapping[str, object],
        *,
        sinks: Sequence[Mapping[str, object]] = ({"kind": "count"},),
        tables: Mapping[str, Mapping[str, object]] | None = None,
        pipeline: Mapping[str, object] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.state_dir = state_dir or directory / "state"
        self.socket = directory / "s"
        self.settings = directory / "agent.toml"
        self.log = directory / "daemon.log"
        self.out = directory / "daemon.out"
        self.wrapper: tuple[str, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None
        self._spoken = 0
        self._tables: dict[str, Mapping[str, object]] = {
            "local": {"listen": "127.0.0.1:0", "socket": self.socket},
            **(tables or {}),
        }
        self._pipeline = {
            "name": NAME,
            "model": NAME,
            "source": source,
            "sinks": list(sinks),
            **(pipeline or {}),
        }
        self.write_settings()

    def write_settings(self, **tables: Mapping[str, object]) -> None:
        """Write agent.toml, with tables that replace or add to those so far."""
        self._tables |= tables
        rows = [f"{key} = {toml(value)}" for key, value in self._pipeline.items()]
        lines = [f"state_dir = {toml(self.state_dir)}", "[[pipeline]]", *rows]
        for name, table in self._tables.items():
            lines += [f"[{name}]", *(f"{key} = {toml(v)}" for key, v in table.items())]
        self.settings.write_text("\n".join(lines) + "\n", encoding="utf-8")

    # --- life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id of the life that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start the daemon and return at once."""
        assert not self.runs
        self._spoken = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-m", "agent", "run", "--config", str(self.settings)]
        with self.log.open("ab") as log, self.out.open("ab") as out:
            self._process = subprocess.Popen(
                [*self.wrapper, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        self.spawn()
        self.wait_for(lambda: "listening on" in self.words(), "listening")

    def run_out(self) -> int:
        """Start a daemon that ends by itself; return its exit code."""
        self.spawn()
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def signal(self, number: int) -> None:
        """Send a signal to the daemon."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return the exit code (-N: signal N)."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End it as power loss would; a worker that outlives it fails the test."""
        if self._process is None:
            return
        children = child_pids(self.pid) if self.runs else []
        self._process.kill()
        self._process.wait(PATIENCE_S)
        wait_until(lambda: not any(map(alive, children)), f"{children} end")

    # --- looking

    def words(self) -> str:
        """Return what this life has said so far."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._spoken)
            return log.read().decode("utf-8", "replace")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        _, _, rest = self.words().partition("listening on http://")
        host, _, port = rest.split()[0].rpartition(":")
        return host, int(port)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page, over TCP as a scraper asks."""
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        return _ask(connection, path)

    def state(self) -> Json:
        """Return ``/v1/state``, over the unix socket."""
        return self.ask("/v1/state")

    def ask(self, path: str) -> Json:
        """Return any JSON that is told over the unix socket."""
        _, body = _ask(_UnixConnection(self.socket), path)
        answer: Json = json.loads(body)
        return answer

    def pipeline(self) -> Json:
        """Return the pipeline's part of the state."""
        found: Json = self.state()["pipelines"][NAME]
        return found

    def readiness(self) -> tuple[int, str]:
        """Return the status of ``/readyz`` and the pipeline's reason."""
        status, body = self.get("/readyz")
        return status, json.loads(body)["pipelines"][NAME]["reason"]

    def metrics(self) -> dict[str, float]:
        """Return all samples of ``/metrics``: name with labels -> value."""
        _, body = self.get("/metrics")
        rows = [line for line in body.splitlines() if line and line[0] != "#"]
        return {name: float(v) for name, _, v in (r.rpartition(" ") for r in rows)}

    def version(self) -> int:
        """Return the version that is committed and answers, 0 if none does."""
        pipeline = self.pipeline()
        if pipeline["state"] != "active" or not pipeline["ready"]:
            return 0
        return int(pipeline["active"]["version"])

    def worker_pid(self) -> int:
        """Return the worker's process id, 0 while there is none."""
        return int(self.pipeline()["worker"]["pid"])

    def samples(self) -> Json:
        """Return the sums over all versions, with ``reasons`` merged."""
        sums: Json = {"in": 0, "ok": 0, "failed": 0, "dropped": 0, "reasons": {}}
        for model in self.pipeline()["models"]:
            for key, value in model["samples"].items():
                if key == "reasons":
                    for reason, count in value.items():
                        kept = sums["reasons"]
                        kept[reason] = kept.get(reason, 0) + count
                else:
                    sums[key] += value
        return sums

    # --- waiting

    def wait_for(
        self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S
    ) -> None:
        """Look until something holds; the daemon must not end meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            why = "" if self.runs else f"the daemon ended: {self._process}"
            if time.monotonic() > deadline:
                why = f"not within {timeout_s:.0f} s"
            if why:
                pytest_fail(f"{what}: {why}\n{self.words()[-4000:]}")
            time.sleep(LOOK_S)

    def wait_version(self, version: int) -> None:
        """Wait until a version is committed, answers, and is ready."""
        self.wait_for(lambda: self.version() == version, f"version {version}")

    def wait_said(self, text: str) -> None:
        """Wait for a word in the log of this life."""
        self.wait_for(lambda: text in self.words(), repr(text))


def wait_until(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = PATIENCE_S,
    process: "subprocess.Popen[str] | None" = None,
) -> None:
    """Look until something holds; else say how a process ended that was to do it."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            ended = "" if process is None else _end_of(process)
            pytest_fail(f"{what}: not within {timeout_s:.0f} s{ended}")
        time.sleep(LOOK_S)


def _end_of(process: "subprocess.Popen[str]") -> str:
    """Return how a process ended, and what it said; one that goes on is killed."""
    code = process.poll()
    process.kill()
    out, _ = process.communicate()
    return f"; the process: {'ran still' if code is None else code}; it said:\n{out}"


def pytest_fail(why: str) -> None:
    """Fail the test."""
    raise AssertionError(why)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def child_pids(pid: int) -> list[int]:
    """Return all descendants of a process, as they are now."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            named = [int(word) for word in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in named:
            found += [child, *child_pids(child)]
    return found


def kill_worker(daemon: DaemonProcess, number: int = signal.SIGKILL) -> int:
    """Send a signal to the worker and return its process id."""
    daemon.wait_for(daemon.worker_pid, "a worker")
    pid = daemon.worker_pid()
    os.kill(pid, number)
    return pid


def read_lines(path: Path) -> list[Json]:
    """Return the whole JSON lines of a file."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    decoder = msgspec.json.Decoder(Json)
    return [decoder.decode(line) for line in whole.splitlines()]


def _ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    """Ask for a page and close the connection."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
