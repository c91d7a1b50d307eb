"""Our DDI simulator, driven by rauc-hawkbit: so that it is not our own opinion.

rauc-hawkbit is a client of hawkBit by other authors. What it reads, posts and fetches
here is what it reads, posts and fetches there.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ddi_access import TOKEN
from tests.fakes.ddi_actions import Artifact
from tests.fakes.ddi_server import TARGET_KEY, DdiServer
from tests.foreign.conftest import ForeignVenv

# Its ``ddi`` package needs aiohttp; its D-Bus half, which we leave out, needs gbulb and
# a compiler. Hence no dependencies but these, which are aiohttp's.
REQUIREMENTS = (
    *("rauc-hawkbit==0.2.0", "aiohttp==3.14.5", "aiohappyeyeballs==2.7.1"),
    *("aiosignal==1.4.0", "attrs==26.1.0", "frozenlist==1.8.0", "idna==3.20"),
    *("multidict==7.2.1", "propcache==0.5.4", "yarl==1.25.1"),
    "typing_extensions==4.16.0",
)
DRIVER = Path(__file__).with_name("rauc_hawkbit_driver.py")
TARGET = "models/kws/7.bundle"
CONTENT = bytes(range(256)) * 300


class Foreigner:
    """rauc-hawkbit's client in its own process."""

    def __init__(
        self, python: Path, server: DdiServer, folder: Path, token: str = TOKEN
    ) -> None:
        access = server.shown.access
        host = server.url.removeprefix("http://")
        words = [host, token, access.tenant, access.controller]
        self._process = subprocess.Popen(
            [str(python), str(DRIVER), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def say(self, *words: object) -> dict[str, Any]:
        """Let it do something; return what came of it."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    def got(self, *words: object) -> Any:  # noqa: ANN401 - JSON
        """Let it do something that works; return what it got."""
        answer = self.say(*words)
        assert "error" not in answer, answer
        return answer["got"]

    def close(self) -> None:
        """End it."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


@pytest.fixture(scope="module")
def python(foreign_venv: ForeignVenv) -> Path:
    """Give the Python that has rauc-hawkbit."""
    return foreign_venv("rauc-hawkbit", REQUIREMENTS, no_deps=True)


@pytest.fixture
def server() -> Iterator[DdiServer]:
    """Give a server."""
    with DdiServer() as server:
        yield server


@pytest.fixture
def foreigner(python: Path, server: DdiServer, tmp_path: Path) -> Iterator[Foreigner]:
    """Give a foreign client of the server."""
    client = Foreigner(python, server, tmp_path)
    yield client
    client.close()


def linked(page: dict[str, Any], name: str) -> tuple[str, str]:
    """Return number and stamp of a link, read as rauc-hawkbit reads it."""
    place, _, stamp = page["_links"][name]["href"].partition("?c=")
    return place.rpartition("/")[2], stamp


def test_it_registers_and_is_asked_no_more(
    server: DdiServer, foreigner: Foreigner
) -> None:
    """Poll, configData, poll: the attributes are there, the question is gone."""
    before = foreigner.got("poll")
    assert before["config"]["polling"]["sleep"] == "00:05:00"
    assert set(before["_links"]) == {"configData"}
    foreigner.got("configure", {"HwRevision": "1.2.3"})
    assert server.shown.attributes == {"HwRevision": "1.2.3"}
    assert "_links" not in foreigner.got("poll")


def test_it_takes_an_order_to_its_end(
    server: DdiServer, foreigner: Foreigner, tmp_path: Path
) -> None:
    """Poll, deploymentBase, the file, feedback to the end: finished, and 410 after."""
    artifact = Artifact("model.bundle", CONTENT)
    action = server.deploy(TARGET, artifacts=[artifact])
    number, stamp = linked(foreigner.got("poll"), "deploymentBase")
    page = foreigner.got("deployment", number, stamp)
    assert (page["id"], page["deployment"]["update"]) == (action.id, "forced")
    (chunk,) = page["deployment"]["chunks"]
    assert chunk["metadata"] == [{"key": TARGET_KEY, "value": TARGET}]
    (file,) = chunk["artifacts"]
    url = file["_links"]["download-http"]["href"]
    *_, module, _, name = url.split("/")
    assert foreigner.got("artifacts", module) == chunk["artifacts"]
    assert foreigner.got("download", module, name) == file["hashes"]["md5"]
    assert (tmp_path / name).read_bytes() == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest() == file["hashes"]["sha256"]
    foreigner.got("feedback", number, "proceeding", "none")
    foreigner.got("feedback", number, "closed", "success")
    assert action.said == ["proceeding", "closed/success"]
    assert (action.status, action.active) == ("FINISHED", False)
    late = foreigner.say("feedback", number, "closed", "success")
    assert late["error"].startswith("410")
    assert linked(foreigner.got("poll"), "installedBase")[0] == number


def test_it_accepts_a_cancel_and_refuses_another(
    server: DdiServer, foreigner: Foreigner
) -> None:
    """``closed`` ends it; after ``rejected`` the order is shown again."""
    first = server.deploy(TARGET)
    server.cancel(first)
    number, _ = linked(foreigner.got("poll"), "cancelAction")
    assert foreigner.got("cancel", number)["cancelAction"] == {"stopId": first.id}
    foreigner.got("cancelled", number, "closed", "success")
    assert (first.status, first.active) == ("CANCELED", False)
    second = server.deploy(TARGET)
    server.cancel(second)
    number, _ = linked(foreigner.got("poll"), "cancelAction")
    foreigner.got("cancelled", number, "rejected", "none")
    assert linked(foreigner.got("poll"), "deploymentBase")[0] == second.id


def test_a_stranger_is_not_let_in(
    python: Path, server: DdiServer, tmp_path: Path
) -> None:
    """Another token: 401, as hawkBit says it."""
    stranger = Foreigner(python, server, tmp_path, token="e" * 32)
    assert stranger.say("poll")["error"].startswith("401")
    stranger.close()
