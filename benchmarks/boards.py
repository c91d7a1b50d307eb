"""A board to measure: pipelines without a daemon, and the real daemon as a process."""

import asyncio
import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.flow import CountSink, FilesSource
from agent.publish.repository import Repository, init_repository
from agent.settings import PipelineSettings, SuperviseSettings
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from benchmarks.subjects import Subject

PATIENCE_S = 60.0


@contextlib.asynccontextmanager
async def pipeline_on(subject: Subject) -> AsyncIterator[Pipeline]:
    """Run one pipeline on a subject's samples, as fast as possible, uncommitted."""
    source = FilesSource(path=str(subject.samples), loop=True, memory=True)
    settings = PipelineSettings(subject.name, subject.name, source, (CountSink(),))

    async def nothing(_name: str, _reason: str) -> Placed | None:
        return None

    pipeline = Pipeline(
        settings,
        SuperviseSettings(),
        delegates=(),
        read_board=lambda: [0.0] * 8,
        crash_loop=nothing,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pipeline.run())
        try:
            yield pipeline
        finally:
            await pipeline.stop()
            await task


async def until_ready(pipeline: Pipeline) -> None:
    """Wait until a pipeline answers."""
    async with asyncio.timeout(PATIENCE_S):
        while not pipeline.snapshot().ready:
            await asyncio.sleep(0.02)


SETTINGS = """
state_dir = "{here}/state"
log_level = "warning"
[[pipeline]]
name = "{name}"
model = "{name}"
source = {{kind = "files", path = "{samples}", loop = true, memory = true{rate}}}
sinks = [{sinks}]
[update]
repository = "{here}/repo"
root = "{here}/root.json"
poll_s = {poll_s}
[local]
listen = "127.0.0.1:0"
socket = "{here}/control.sock"
"""


@dataclass(slots=True)
class RealBoard:
    """A state directory, a repository, and the daemon on them."""

    here: Path
    subject: Subject
    repository: Repository
    process: subprocess.Popen[bytes] | None = None

    def configure(
        self, *, rate: float = 0.0, sinks: str = '{kind = "count"}', poll_s: float = 1.0
    ) -> None:
        """Write the settings file."""
        text = SETTINGS.format(
            here=self.here,
            name=self.subject.name,
            samples=self.subject.samples,
            sinks=sinks,
            poll_s=poll_s,
            rate=f", rate = {rate}" if rate else "",
        )
        (self.here / "agent.toml").write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start the daemon; does not wait."""
        with (self.here / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "-c", self.here / "agent.toml"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is the benchmark's: it stops it
            )

    def stop(self) -> None:
        """Stop the daemon as systemd would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask the unix socket; status 0 while nobody listens."""
        connection = http.client.HTTPConnection("localhost", timeout=5)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            try:
                stream.connect(str(self.here / "control.sock"))
            except OSError:
                return 0, b""
            connection.sock = stream
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def state(self) -> dict[str, Any]:
        """Return ``/v1/state``."""
        found: dict[str, Any] = json.loads(self.get("/v1/state")[1])
        return found

    def until_ready(self, look_s: float = 0.005) -> None:
        """Wait until ``/readyz`` says 200."""
        deadline = time.monotonic() + PATIENCE_S
        while self.get("/readyz")[0] != 200:
            if time.monotonic() > deadline:
                raise TimeoutError((self.here / "log").read_text(encoding="utf-8"))
            time.sleep(look_s)


@contextlib.contextmanager
def real_board(subject: Subject) -> Iterator[RealBoard]:
    """Make a repository with a subject's bundle, assigned to all boards."""
    here = Path(tempfile.mkdtemp(prefix="tinyward-bench-"))
    now = time.time()  # noqa: TID251 - a benchmark is its own composition root
    repository = init_repository(here / "repo", None, b"", now=now)
    manifest = subject.bundle.manifest
    content = subject.whole
    repository.add(content, model=manifest.model, version=manifest.version)
    repository.assign("all", {subject.name: (manifest.model, manifest.version)})
    repository.publish(now)
    (here / "root.json").write_bytes(repository.first_root())
    board = RealBoard(here, subject, repository)
    try:
        yield board
    finally:
        board.stop()
        shutil.rmtree(here, ignore_errors=True)
