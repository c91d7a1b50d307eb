"""A real gooseBit: its own venv, folder, database and port, for one test session.

The rules this module keeps:
 * It listens on loopback only: uvicorn is started by us, since the package's own
   ``__main__`` binds all addresses.
 * The database is made by the migrations that the package brings.
"""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.fakes.daemon_process import wait_until
from tests.foreign.calls import Answer, Caller, free_port, listens

# With those that it was recorded with: they word its answers and make its database.
REQUIREMENTS = (
    *("goosebit==0.2.12", "fastapi==0.165.0", "starlette==1.10.0", "pydantic==2.14.3"),
    *("uvicorn==0.54.0", "tortoise-orm==0.25.4", "aerich==0.10.1"),
)
TENANT = "default"
POLL = "00:00:30"  # the shortest that boards obey; tests ask them to look at once
_USER, _PASSWORD = "owner@example.org", "only on loopback"
_MIGRATE = """
import asyncio
from pathlib import Path
import goosebit
from aerich import Command
from goosebit.db.config import TORTOISE_CONF

async def main():
    place = Path(goosebit.__file__).parent / "db" / "migrations"
    async with Command(tortoise_config=TORTOISE_CONF, location=str(place)) as command:
        await command.upgrade(run_in_transaction=True)

asyncio.run(main())
"""


class GooseBit:
    """A server, started and ended as often as one likes; its database stays.

    Attributes:
        port: On loopback; the same in every life.
        log: What it says.
    """

    def __init__(self, home: Path, python: Path) -> None:
        self._home, self._python = home, python
        self.port = free_port()
        self.log = home / "goosebit.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = Caller(self.port)
        settings = {
            "tenant": TENANT,
            "poll_time": POLL,
            "db_uri": f"sqlite://{home / 'goosebit.sqlite3'}",
            "artifacts_dir": str(home / "artifacts"),
            "device_auth": {"enable": True, "mode": "strict"},
            # Else each life makes its own, and what the last one signed is void.
            "secret_key": "a test's key, which signs sessions on loopback",
        }
        (home / "goosebit.yaml").write_text(json.dumps(settings))  # YAML holds JSON

    def __enter__(self) -> Self:
        self._python_says("-c", _MIGRATE).wait()
        self.start()
        sent = f"username={_USER}&password={_PASSWORD}".encode()
        form = "application/x-www-form-urlencoded"
        answer = Caller(self.port).send("POST", "/setup", sent, form)
        token = answer.json()["access_token"]
        self._owner = Caller(self.port, {"Authorization": f"Bearer {token}"})
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when it listens."""
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        process = self._python_says("-m", "uvicorn", "goosebit:app", *where)
        self._process = process

        def up() -> bool:
            assert process.poll() is None, self.words()
            return listens(self.port)

        wait_until(up, "gooseBit listens")

    def stop(self) -> None:
        """End it, and return when it has ended."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def words(self) -> str:
        """Return all that it has said."""
        return self.log.read_text(errors="replace")

    def _python_says(self, *words: str) -> subprocess.Popen[bytes]:
        """Start its Python with its settings, in its folder."""
        settings = str(self._home / "goosebit.yaml")
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(self._python), *words],
                cwd=self._home,
                env={**os.environ, "GOOSEBIT_SETTINGS": settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    # --- the owner's side

    def enlist(self, board: str, token: str) -> None:
        """Let a board in; it is in a feed of its own, which nothing is rolled out to.

        Args:
            board: Name of its controller.
            token: At most 32 characters, gooseBit keeps no more.
        """
        told = {"devices": [board], "auth_token": token, "feed": board}
        self._owner.want("PUT", "/api/v1/devices", told)

    def change_token(self, board: str, token: str) -> None:
        """Take a board's token away, and want another one."""
        told = {"devices": [board], "auth_token": token}
        self._owner.want("PATCH", "/api/v1/devices", told)

    def upload(self, image: bytes, name: str) -> int:
        """Add an image; return its id."""
        edge = b"edge-of-a-part"
        head = (
            b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" % (edge, name.encode())
        )
        body = head + image + b"\r\n--%b--\r\n" % edge
        kind = f"multipart/form-data; boundary={edge.decode()}"
        answer = self._owner.send("PUT", "/api/v1/software", body, kind)
        assert answer.status == 200, answer
        return int(answer.json()["id"])

    def roll_out(self, software: int, feed: str) -> int:
        """Roll an image out to a feed; return the rollout's id."""
        told = {"name": f"{software}", "feed": feed, "software_id": software}
        return int(self._owner.want("PUT", "/api/v1/rollouts", told)["id"])

    def assign(self, software: int, board: str) -> None:
        """Assign an image to one board, whatever state gooseBit believes it in."""
        told = {"devices": [board], "software": str(software), "force_update": True}
        self._owner.want("PATCH", "/api/v1/devices", told)

    def device(self, board: str) -> dict[str, Any]:
        """Return what gooseBit knows of a board; see its ``DeviceSchema``.

        Looked up among all: asked for one that has an image assigned, 0.2.12 answers
        500.
        """
        rows = self._owner.want("GET", "/api/v1/devices")["devices"]
        found: list[dict[str, Any]] = [row for row in rows if row["id"] == board]
        return found[0]

    def device_log(self, board: str) -> str:
        """Return the details that a board has told of its last action."""
        told = self._owner.want("GET", f"/api/v1/devices/{board}/log")
        return str(told["log"])

    def rollout(self, number: int) -> dict[str, Any]:
        """Return a rollout."""
        rows = self._owner.want("GET", "/api/v1/rollouts")["rollouts"]
        found: list[dict[str, Any]] = [row for row in rows if row["id"] == number]
        return found[0]

    # --- a board's side, for what boards do not do of themselves

    def as_board(
        self, method: str, path: str, token: str, sent: object = None
    ) -> Answer:
        """Ask as a board would."""
        headers = {"Authorization": f"TargetToken {token}"}
        return Caller(self.port, headers).ask(method, path, sent)


def path_of(board: str, rest: str = "") -> str:
    """Return where a board's resources are."""
    return f"/{TENANT}/controller/v1/{board}{rest}"
