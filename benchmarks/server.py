"""nginx on loopback, serving one directory: the repository server of benchmarks."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 10.0
CONFIGURATION = """
daemon off;
master_process off;
pid {here}/pid;
error_log {here}/errors;
events {{}}
http {{
  access_log off;
  client_body_temp_path {here}/a;
  proxy_temp_path {here}/b;
  fastcgi_temp_path {here}/c;
  uwsgi_temp_path {here}/d;
  scgi_temp_path {here}/e;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a directory and yield its address.

    Raises:
        FileNotFoundError: nginx is not installed.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise FileNotFoundError("this benchmark needs nginx")
    here = Path(tempfile.mkdtemp(prefix="tinyward-nginx-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    text = CONFIGURATION.format(here=here, port=port, folder=folder)
    (here / "nginx.conf").write_text(text, encoding="utf-8")
    here.chmod(0o755)
    server = subprocess.Popen(
        [program, "-c", here / "nginx.conf", "-p", here, "-e", here / "errors"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_open(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE_S)
        shutil.rmtree(here, ignore_errors=True)


def until_open(port: int) -> None:
    """Wait until the port answers.

    Raises:
        OSError: Nobody answers.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
