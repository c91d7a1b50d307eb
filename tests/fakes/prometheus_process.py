"""Debian's own Prometheus as a process: started, asked, stopped, and started again.

The rules this module keeps:
 * It listens on loopback, at one port for all its lives; its data outlives it.
 * What is not answered (yet) is an empty answer: tests wait for what they expect.
"""

import http.client
import json
import socket
import subprocess
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.conftest import find_tool
from tests.fakes.daemon_process import wait_until

Json = dict[str, Any]


def free_port() -> int:
    """Return a port that was free a moment ago: Prometheus does not say what it got."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class PrometheusProcess:
    """A server, or with ``agent`` one that only scrapes and sends on.

    Args:
        folder: Where its data and log lie.
        config: What its configuration says; relative paths begin in ``folder``.
        flags: Further flags, ``--web.enable-remote-write-receiver``.
        agent: Run it in agent mode.
    """

    def __init__(
        self, folder: Path, config: str, *flags: str, agent: bool = False
    ) -> None:
        self._program = find_tool("prometheus")
        folder.mkdir(parents=True)
        self.folder = folder
        self.file = folder / "prometheus.yml"
        self.file.write_text(config)
        self.port = free_port()
        kind = "agent" if agent else "tsdb"
        self._command = [
            str(self._program),
            f"--config.file={self.file}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--storage.{kind}.path={folder / 'data'}",
            *(["--enable-feature=agent"] if agent else []),
            *flags,
        ]
        self._process: subprocess.Popen[bytes] | None = None

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

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._is_ready, f"{self.folder.name} is ready: see {log.name}")

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def metrics(self) -> dict[str, float]:
        """Return its own metrics: name with labels -> value."""
        _, body = self._get("/metrics")
        rows = [it for it in body.decode().splitlines() if it and it[0] != "#"]
        return {name: float(v) for name, _, v in (r.rpartition(" ") for r in rows)}

    def ask(self, path: str, **query: str) -> Any:  # noqa: ANN401 - whatever it answers
        """Return the data of an answer of its API, nothing where it has none.

        Raises:
            AssertionError: It does not understand the question.
        """
        status, body = self._get(f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        assert status != http.HTTPStatus.BAD_REQUEST, body
        return json.loads(body)["data"] if status == http.HTTPStatus.OK else {}

    def query(self, expression: str) -> list[Json]:
        """Return what an expression finds now: ``metric``, ``value`` or ``values``."""
        found: list[Json] = self.ask("query", query=expression).get("result", [])
        return found

    def values(self, expression: str) -> list[float]:
        """Return the values that an expression finds now."""
        return [float(row["value"][1]) for row in self.query(expression)]

    def targets(self) -> dict[str, Json]:
        """Return what it scrapes, by ``instance``."""
        active = self.ask("targets").get("activeTargets", [])
        return {target["labels"]["instance"]: target for target in active}

    def _is_ready(self) -> bool:
        """Tell whether it answers; it must not have ended."""
        assert self._process is not None
        said = (self.folder / "log").read_text()
        assert self._process.poll() is None, said[-2000:]
        return self._get("/-/ready")[0] == http.HTTPStatus.OK

    def _get(self, path: str) -> tuple[int, bytes]:
        """Return status and body; 0 and nothing while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()
