"""nginx on loopback: the repository server that fleets really use."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.fakes.certificates import Pair

# A user's PATH need not have the folder where Debian keeps nginx.
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
START_S = 20.0

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {home}/nginx.pid;
error_log {home}/error.log info;
events {{ worker_connections 64; }}
http {{
  log_format test '$request_method $uri $status $body_bytes_sent "$http_range" '
                  '$ssl_protocol $ssl_session_reused $connection';
  access_log {home}/access.log test;
  types {{ application/json json; }} default_type application/octet-stream;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} {tls};
    root {root};
    {more}
  }}
}}
"""


def find_nginx() -> str | None:
    """Return the path of nginx, None where it is not installed."""
    return shutil.which("nginx", path=SEARCH)


class StaticServer:
    """One nginx process serving one directory, over TLS if it has a certificate.

    Attributes:
        url: Where the directory is.
        log: Lines of what was asked; see ``_CONFIGURATION``.
    """

    def __init__(
        self, home: Path, root: Path, tls: Pair | None = None, more: str = ""
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._home, self._root, self._more = home, root, more
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def log(self) -> list[str]:
        """Return one line for each request."""
        return (self._home / "access.log").read_text().splitlines()

    def __enter__(self) -> Self:
        """Start, and return when it listens."""
        more = self._more
        if self._tls:
            more += (
                f"ssl_certificate {self._tls.certificate};"
                f"ssl_certificate_key {self._tls.key};"
            )
            if "ssl_protocols" not in more:
                more += "ssl_protocols TLSv1.3;"
        configuration = self._home / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                home=self._home,
                root=self._root,
                port=self._port,
                tls="ssl" if self._tls else "",
                more=more,
            )
        )
        (self._home / "access.log").touch()
        program = find_nginx()
        if program is None:
            raise FileNotFoundError("nginx")
        files = ["-p", str(self._home), "-c", str(configuration)]
        files += ["-e", str(self._home / "error.log")]
        with (self._home / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                [program, *files], stdout=output, stderr=output
            )
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _wait(self) -> None:
        """Return when it takes connections."""
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, (
                    self._home / "output.log"
                ).read_text()
                time.sleep(0.02)
            else:
                return
        raise TimeoutError("nginx does not listen")


def _free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
