"""What gooseBit answers, word for word: the facts that our DDI client relies on.

The recorded answers lie in ``tests/data/ddi/goosebit.json``, for tests of parsers that
run where no gooseBit is. ``TINYWARD_RECORD=1`` writes them anew.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.foreign.goosebit import GooseBit, path_of
from tests.foreign.swu import make_swu

RECORDED = REPOSITORY / "tests/data/ddi/goosebit.json"
BOARD = "board-7"
TOKEN = "abcdefghijklmnopqrstuvwxyz012345"  # noqa: S105 - of a board that is none
FACES = "models/digits/2.bundle"
STATES = ("scheduled", "download", "downloaded", "proceeding", "resumed", "rejected")
AT_MS = 1_627_997_501_890


class Record:
    """Asks as a board would, and writes down what comes.

    Attributes:
        exchanges: Rows of ``goosebit.json``.
    """

    def __init__(self, server: GooseBit) -> None:
        self._server = server
        self.exchanges: list[dict[str, Any]] = []

    def ask(
        self, what: str, method: str, rest: str = "", sent: object = None, **more: str
    ) -> None:
        """Ask for a resource of the board."""
        path = path_of(BOARD, rest)
        answer = self._server.as_board(method, path, more.get("token", TOKEN), sent)
        text = answer.body.decode().replace(f":{self._server.port}", ":60053")
        row: dict[str, Any] = {"what": what, "method": method, "path": path}
        row |= {} if sent is None else {"sent": sent}
        row |= {"status": answer.status, "type": answer.headers["content-type"]}
        self.exchanges.append({**row, "body": json.loads(text)})

    def tell(self, what: str, rest: str, status: object, **more: object) -> None:
        """Post feedback."""
        sent = {**more, "status": status}
        self.ask(what, "POST", f"/deploymentBase/{rest}/feedback", sent)


@pytest.fixture
def goosebit(tmp_path: Path, goosebit_python: Path) -> Iterator[GooseBit]:
    """Give a gooseBit that counts from one."""
    with GooseBit(tmp_path, goosebit_python) as server:
        yield server


def test_the_recorded_answers_are_those_of_a_real_server(goosebit: GooseBit) -> None:
    """Register, be offered, report each state, end, and what is told to be wrong."""
    record = Record(goosebit)
    record.ask("strict, and the board unknown", "GET")
    goosebit.enlist(BOARD, TOKEN)
    record.ask("another token", "GET", token="x" * 32)
    record.ask("not registered yet", "GET")
    registered = {"mode": "merge", "data": {"hw_revision": "default"}}
    record.ask("register", "PUT", "/configData", registered)
    software = goosebit.upload(make_swu("2.0.0", target=FACES), "digits-2.swu")
    goosebit.roll_out(software, feed=BOARD)
    record.ask("offered by a rollout", "GET")
    record.ask("the action", "GET", f"/deploymentBase/{software}")
    history = f"/deploymentBase/{software}?actionHistory=-1"
    record.ask("its history is asked for", "GET", history)
    for rest in (f"/cancelAction/{software}", f"/installedBase/{software}"):
        record.ask("no such resource", "GET", rest)
    record.ask("no such resource", "GET", "/confirmationBase")
    _feedback(record, str(software))
    record.ask("nothing new", "GET")
    record.ask("an action that is over", "GET", f"/deploymentBase/{software}")
    record.ask("registered again, without sw_version", "PUT", "/configData", registered)
    record.ask("the same action is offered again", "GET")
    rows = record.exchanges
    written = {"server": "gooseBit 0.2.12", "recorded_by": _here(), "exchanges": rows}
    if os.environ.get("TINYWARD_RECORD") == "1":
        RECORDED.write_text(json.dumps(written, indent=1) + "\n")
    assert json.loads(RECORDED.read_text()) == written


def _feedback(record: Record, action: str) -> None:
    """Post what a board may say, and what it must not."""
    none = {"finished": "none"}
    for state in STATES:
        status = {"execution": state, "result": none, "code": 0, "details": [state]}
        record.tell("feedback", action, status, timestamp=AT_MS)
    half = {"finished": "none", "progress": {"cnt": 1}}
    told = {"execution": "download", "result": half}
    record.tell("progress without its end", action, told)
    told = {"execution": "download", "result": none}
    record.tell("a time that is a number", action, told, time=5)
    record.tell("no result", action, {"execution": "download"})
    told = {"execution": "resumed", "result": none}
    record.tell("of an action that never was", "77", told)
    told = {"execution": "closed", "result": {"finished": "success"}}
    record.tell("finished", action, told)
    record.tell("finished, said twice", action, told)


def _here() -> str:
    """Return this file's place in the repository."""
    return str(Path(__file__).resolve().relative_to(REPOSITORY))
