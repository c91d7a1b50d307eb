"""A Debian that boots with the service on it, to measure: what ``service`` looks at."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.publish.repository import init_repository
from benchmarks.subjects import Subject, subject
from tests.service.board import PROGRAM, SERVICE, SLOT, STATE, ServiceBoard, fill_slot
from tests.service.container import Container
from tests.service.debian import workshop

HERE = "/srv/bench"
DEADLINE_MS = 500.0
SETTINGS = """
state_dir = "{state}"
[[pipeline]]
name = "{name}"
model = "{name}"
deadline_ms = {deadline_ms}
kernels = "xnnpack"
source = {{kind = "files", path = "{here}/samples.npz", loop = true, memory = true, \
rate = {rate}}}
sinks = [{sink}]
[update]
{repository}root = "{here}/root.json"
[local]
listen = "127.0.0.1:9797"
socket = "{socket}"
"""
COUNT = '{kind = "count"}'
LINES = f"{STATE}/lines"
WRITE = f'{{kind = "file", path = "{LINES}", max_mb = 100.0}}'


@dataclass(frozen=True, slots=True)
class Measured:
    """The board that is measured, and the model it runs.

    Attributes:
        board: Installed, booted; its settings are written by ``configure``.
        subject: The model and its samples.
    """

    board: ServiceBoard
    subject: Subject

    def settings(
        self,
        *,
        rate: float = 0.0,
        sink: str = COUNT,
        state: str = STATE,
        updates: bool = True,
    ) -> str:
        """Return settings with the subject's pipeline; rate 0 is full load."""
        repository = f'repository = "{HERE}/repository"\n' if updates else ""
        return SETTINGS.format(
            state=state,
            name=self.subject.name,
            deadline_ms=DEADLINE_MS,
            here=HERE,
            repository=repository,
            rate=rate,
            sink=sink,
            socket=f"{STATE}/control.sock",
        )

    def start(self, *, rate: float, sink: str = COUNT, updates: bool = True) -> None:
        """Start the service anew on other settings, and wait until it answers."""
        self.board.write_settings(self.settings(rate=rate, sink=sink, updates=updates))
        self.forget_lines()
        self.board.start_anew()
        self.board.wait_answers()

    @property
    def _lines(self) -> Path:
        """Where predictions are written, seen from outside, also while it is off."""
        return self.board.machine.root / LINES.lstrip("/")

    def forget_lines(self) -> None:
        """Begin the predictions' file anew; only while nobody writes it."""
        if self.board.machine.runs:
            self.board.systemctl("stop", SERVICE)
        self._lines.unlink(missing_ok=True)

    def first_answer_after(self, moment: float) -> float:
        """Wait for the first prediction after a moment; both are Unix seconds."""
        found: list[float] = []

        def answered() -> bool:
            if self._lines.exists():
                whole, _, _ = self._lines.read_bytes().rpartition(b"\n")
                times = (json.loads(line)["t"] for line in whole.splitlines())
                found.extend(t for t in times if t > moment)
            return bool(found)

        self.board.wait_for(answered, "an answer")
        return min(found)

    def pids(self) -> tuple[int, int]:
        """Return daemon and worker, as this machine numbers them."""
        inside = (self.board.daemon_pid, self.board.worker_pid())
        daemon, worker = map(self.board.machine.host_pid, inside)
        return daemon, worker

    def journald_pid(self) -> int:
        """Return journald, as this machine numbers it."""
        inside = self.board.shows("MainPID", "systemd-journald.service")
        return self.board.machine.host_pid(int(inside))


@contextlib.contextmanager
def measured_board(source_tree: Path) -> Iterator[Measured]:
    """Install the service on a new Debian with kws, or with the demo's model.

    ``TINYWARD_SERVICE_ROOT`` names a root that debootstrap made before.
    """
    made_before = os.environ.get("TINYWARD_SERVICE_ROOT")
    with workshop(source_tree, Path(made_before) if made_before else None) as made:
        machine = Container(made.root)
        try:
            machine.boot()
            fill_slot(machine, SLOT)
            machine.run(f"{SLOT}/bin/tinyward", "install")
            machine.run(PROGRAM, "check", "/etc/tinyward/agent.toml")
            machine.run("systemctl", "stop", SERVICE)
            machine.run("sh", "-c", f"rm -rf {STATE}/*")  # that of another model
            measured = Measured(ServiceBoard(machine), subject("kws"))
            _publish(machine.root / HERE.lstrip("/"), measured.subject)
            yield measured
        finally:
            machine.cut_power()


def _publish(here: Path, subject: Subject) -> None:
    """Lay the subject's repository and samples on the board."""
    here.mkdir(mode=0o755)
    (here / "samples.npz").write_bytes(subject.samples.read_bytes())
    now = time.time()  # noqa: TID251 - a benchmark is its own composition root
    repository = init_repository(here / "repository", None, b"", now=now)
    manifest = subject.bundle.manifest
    named = (manifest.model, manifest.version)
    repository.add(subject.whole, model=named[0], version=named[1])
    repository.assign("all", {subject.name: named})
    repository.publish(now)
    (here / "root.json").write_bytes(repository.first_root())
