"""The agent on a container, as its operator and its scraper see it.

The rules this module keeps:
 * What is asked over the unix socket is asked from outside, through the container's
   root: looking costs the board no process.
 * Waiting means looking until a generous deadline; what ends it tells the journal.
"""

import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.service.container import PATIENCE_S, Container, wait_until

Json = dict[str, Any]
SERVICE = "tinyward.service"
FALLBACK = "tinyward-fallback.service"
SETTINGS = "/etc/tinyward/agent.toml"
STATE = "/var/lib/tinyward"
PROGRAM = "/usr/local/bin/tinyward"
SLOT = "/opt/tinyward/a"
# A drop-in in /run is gone after a boot, like the tests that need it.
DROP_IN = f"/run/systemd/system/{SERVICE}.d/test.conf"
SOCKETS = (f"{STATE}/control.sock", "/run/tinyward/control.sock")


class ServiceBoard:
    """The installed service on a machine.

    Args:
        machine: Where it is installed, or is going to be.

    Attributes:
        settings: The settings that every test starts with.
    """

    def __init__(self, machine: Container) -> None:
        self.machine = machine
        self.settings = ""

    # --- the operator's hands

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run systemctl and return what it said."""
        done = self.machine.run("systemctl", "--no-pager", *words, check=check)
        return (done.stdout + done.stderr).strip()

    def shows(self, name: str, unit: str = SERVICE) -> str:
        """Return one property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit)

    @property
    def daemon_pid(self) -> int:
        """The daemon's process id inside, 0 while there is none."""
        return int(self.shows("MainPID"))

    def tinyward(self, *words: object, check: bool = True) -> str:
        """Run the installed command as root and return both its streams."""
        done = self.machine.run(PROGRAM, *words, check=check)
        return done.stdout + done.stderr

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process inside, from outside: nothing comes between."""
        os.kill(self.machine.host_pid(pid), number)

    def write_settings(self, text: str) -> None:
        """Replace what the settings say; owner and mode stay."""
        (self.machine.root / SETTINGS.lstrip("/")).write_text(text, encoding="utf-8")

    def read_settings(self) -> str:
        """Return what the settings say."""
        path = self.machine.root / SETTINGS.lstrip("/")
        return path.read_text(encoding="utf-8")

    def drop_in(self, *lines: str) -> None:
        """Change keys of the unit's [Service] until the next boot or ``restore``."""
        path = self.machine.path(DROP_IN)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(("[Service]", *lines, "")), encoding="ascii")
        self.systemctl("daemon-reload")

    def start_anew(self) -> None:
        """Restart the service, whatever state and start limit it is in."""
        self.systemctl("reset-failed", check=False)
        self.systemctl("restart", SERVICE)

    def restore(self) -> None:
        """Bring the board to where every test begins: booted, shipped, answering."""
        if not self.machine.runs:
            self.machine.boot()
        if self.machine.path(DROP_IN).exists():
            self.machine.path(DROP_IN).unlink()
            self.systemctl("daemon-reload")
            self.start_anew()
        if self.read_settings() != self.settings:
            self.write_settings(self.settings)
            self.start_anew()
        if self.systemctl("is-active", SERVICE, check=False) != "active":
            self.systemctl("stop", FALLBACK)
            self.start_anew()
        self.wait_answers()

    # --- what it says

    def get(self, page: str) -> tuple[int, bytes]:
        """Ask the unix socket; status 0 while nobody listens."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            try:
                stream.connect(str(self._socket()))
                connection.sock = stream
                connection.request("GET", page)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                return 0, b""

    def _socket(self) -> Path:
        """Return where the socket is, as this machine sees it."""
        there = [self.machine.path(path) for path in SOCKETS]
        return next((path for path in there if path.exists()), there[0])

    def state(self) -> Json:
        """Return ``/v1/state``; empty while nobody listens."""
        status, body = self.get("/v1/state")
        found: Json = json.loads(body) if status == 200 else {}
        return found

    def pipeline(self) -> Json:
        """Return the only pipeline's part of the state; empty while there is none."""
        pipelines: Mapping[str, Json] = self.state().get("pipelines", {})
        return next(iter(pipelines.values()), {})

    def worker_pid(self) -> int:
        """Return the worker's process id inside, 0 while there is none."""
        return int(self.pipeline().get("worker", {}).get("pid") or 0)

    def samples(self) -> dict[str, int]:
        """Return the samples of all versions by outcome; ``in`` is what came."""
        rows = [model["samples"] for model in self.pipeline().get("models", [])]
        keys = ("in", "ok", "failed", "dropped")
        return {key: sum(row[key] for row in rows) for key in keys}

    def version(self) -> int:
        """Return the version that answers, 0 while none does."""
        pipeline = self.pipeline()
        if not pipeline.get("ready") or not pipeline.get("active"):
            return 0
        return int(pipeline["active"]["version"])

    def journal(self, *words: str, unit: str = SERVICE) -> list[Json]:
        """Return the journal's entries of the unit, in this boot."""
        command = ["journalctl", "-b", "-u", unit, "-o", "json", "--no-pager", *words]
        lines = self.machine.run(*command).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def said(self, unit: str = SERVICE) -> str:
        """Return all messages of the unit in this boot, its own and systemd's."""
        return "\n".join(str(row.get("MESSAGE")) for row in self.journal(unit=unit))

    def process(self, pid: int) -> Mapping[str, str]:
        """Return the fields of a process's status (proc_pid_status(5))."""
        text = self.machine.path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        rows = (line.partition(":") for line in text.splitlines())
        return {name: value.strip() for name, _, value in rows}

    # --- waiting

    def wait_for(
        self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S
    ) -> None:
        """Look until something holds.

        Raises:
            AssertionError: It did not; with the last words of the service.
        """
        try:
            wait_until(condition, what, timeout_s)
        except AssertionError as err:
            last = self.systemctl("status", "-n", "40", SERVICE, FALLBACK, check=False)
            raise AssertionError(f"{err}\n{last}") from err

    def wait_answers(self) -> None:
        """Wait until every pipeline is ready and one more sample is answered."""
        self.wait_for(lambda: self.get("/readyz")[0] == 200, "/readyz 200")
        before = self.samples()["ok"]
        self.wait_for(lambda: self.samples()["ok"] > before, "one more answer")

    def wait_new_daemon(self, old_pid: int) -> None:
        """Wait until another daemon answers."""
        self.wait_for(lambda: self.daemon_pid not in (0, old_pid), "a new daemon")
        self.wait_answers()

    def wait_new_worker(self, old_pid: int) -> None:
        """Wait until another worker answers."""
        self.wait_for(lambda: self.worker_pid() not in (0, old_pid), "a new worker")
        self.wait_answers()

    def spoken_in_status(self) -> str:
        """Return the STATUS line that the daemon gave systemd."""
        return self.shows("StatusText")


def fill_slot(machine: Container, slot: str) -> None:
    """Make an environment and install the wheel into it."""
    machine.run("python3", "-m", "venv", slot)
    words = ("install", "-q", "--no-index", "--find-links", "/srv/wheels", "tinyward")
    machine.run(f"{slot}/bin/pip", *words)


def listing(root: Path) -> set[str]:
    """Return every path of a file system that lies on a disk.

    Left out is what any boot and any day of a machine changes: its logs, caches, what
    systemd keeps of times, and what Debian's daily timers write.
    """
    moving = {"proc", "sys", "dev", "run", "tmp"}  # mounts, while it runs
    changing = (
        *("/var/log/", "/var/cache/", "/var/lib/systemd/"),
        *("/var/backups/", "/var/lib/apt/"),
    )
    found: set[str] = set()
    for folder, folders, files in os.walk(root):
        inside = f"/{Path(folder).relative_to(root)}".replace("/.", "/")
        if inside == "/":
            folders[:] = [name for name in folders if name not in moving]
        found |= {f"{inside.rstrip('/')}/{name}" for name in (*folders, *files)}
    # Folders of PrivateTmp= outlive a power cut until tmpfiles.d(5) cleans up.
    return {
        path
        for path in found
        if not path.startswith(changing) and "/systemd-private-" not in path
    }
