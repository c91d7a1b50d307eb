"""The fleet's server: one nginx process, TLS 1.3, a folder of files, and its log."""

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet_relay import number_of
from benchmarks.server import PATIENCE_S, until_open
from tests.fakes.certificates import Authority

# ssl_session_timeout: nginx's own 5 minutes are the polling period of a fleet, and half
# of the boards would come with a ticket that has just become invalid.
CONFIGURATION = """
daemon off; master_process off; worker_processes 1;
pid {here}/pid; error_log {here}/errors;
events {{ worker_connections 8192; }}
http {{
  log_format fleet '$proxy_protocol_addr $status $request_length $bytes_sent '
                   '$ssl_session_reused $uri';
  access_log {here}/log fleet;
  client_body_temp_path {here}/a; proxy_temp_path {here}/b;
  fastcgi_temp_path {here}/c; uwsgi_temp_path {here}/d; scgi_temp_path {here}/e;
  sendfile on; tcp_nopush on;
  ssl_certificate {certificate}; ssl_certificate_key {key};
  ssl_protocols TLSv1.3; ssl_session_timeout 1d;
  server {{ listen 127.0.0.1:{port} ssl proxy_protocol backlog=1024; root {folder}; }}
}}
"""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: of which connection, what for, and its bytes within TLS."""

    connection: int
    status: int
    http_bytes: int
    resumed: bool
    path: str


class FleetServer:
    """nginx, which may be ended and started again.

    Attributes:
        port: Where it listens.
        authority: The CA that boards trust.
    """

    def __init__(self, here: Path, folder: Path) -> None:
        """Write its files; nothing is started yet.

        Raises:
            FileNotFoundError: nginx is not installed.
        """
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if program is None:
            raise FileNotFoundError("this benchmark needs nginx")
        here.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.authority = Authority(here)
        pair = self.authority.issue("server")
        text = CONFIGURATION.format(
            here=here,
            port=self.port,
            folder=folder,
            certificate=pair.certificate,
            key=pair.key,
        )
        (here / "nginx.conf").write_text(text, encoding="utf-8")
        (here / "log").touch()
        for path in (here, here.parent):
            path.chmod(0o755)
        self._here, self._program = here, program
        self._process: subprocess.Popen[bytes] | None = None
        self._earlier_s = 0.0  # CPU seconds of processes that were ended
        self._read = 0
        self._asked: list[Asked] = []

    def start(self) -> None:
        """Start, and return when it listens."""
        here = self._here
        files = ["-c", here / "nginx.conf", "-p", here, "-e", here / "errors"]
        self._process = subprocess.Popen(
            [self._program, *map(str, files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is the benchmark's: it stops it
        )
        until_open(self.port)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._earlier_s = self.cpu_s()
            self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has used so far."""
        if self._process is None:
            return self._earlier_s
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        fields = stat.rpartition(")")[2].split()
        return self._earlier_s + (int(fields[11]) + int(fields[12])) / _TICK

    def asked(self) -> list[Asked]:
        """Return all requests so far, in their order."""
        with (self._here / "log").open(encoding="ascii") as log:
            log.seek(self._read)
            for line in log:
                if line.endswith("\n") and not line.startswith("-"):
                    self._asked.append(_parse(line))
                self._read += len(line)
        return self._asked


def _parse(line: str) -> Asked:
    """Read a line of the log."""
    where, status, up, down, reused, path = line.split(" ", 5)
    total = int(up) + int(down)
    return Asked(number_of(where), int(status), total, reused == "r", path.strip())
