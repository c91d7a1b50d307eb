"""The DDI simulator itself, where no foreign client looks: hawkBit's rules, and doors.

What rauc-hawkbit can ask for is held against it in ``tests/foreign``.
"""

import time
from contextlib import closing
from pathlib import Path

import pytest

from agent.core.fleet_settings import DdiSettings
from agent.fleet_link import Papers as OwnPapers
from agent.update.ddi_wire import HttpWire
from tests.fakes.certificates import Authority
from tests.fakes.ddi_access import Access
from tests.fakes.ddi_actions import (
    MAX_ENTRIES,
    Action,
    Artifact,
    Json,
    RefusedFeedbackError,
)
from tests.fakes.ddi_bench import DdiBench
from tests.fakes.ddi_pages import send_artifact
from tests.fakes.ddi_server import DdiServer
from tests.fakes.papers import Papers
from tests.fakes.update_bench import BOARD

CONTENT = bytes(range(100))


def told(execution: str, finished: str = "none") -> Json:
    """Return a feedback."""
    return {"status": {"execution": execution, "result": {"finished": finished}}}


def status_of(action: Action, body: Json) -> int:
    """Return the status with which feedback is answered."""
    try:
        action.take(body)
    except RefusedFeedbackError as err:
        return err.status
    return 200


@pytest.mark.parametrize(
    ("body", "status", "active"),
    [
        (told("closed", "failure"), "ERROR", False),
        (told("closed", "success"), "FINISHED", False),
        (told("closed"), "FINISHED", False),
        (told("rejected"), "RUNNING", True),
        (told("canceled"), "RUNNING", True),
        (told("proceeding"), "RUNNING", True),
    ],
)
def test_what_feedback_comes_to(body: Json, status: str, active: bool) -> None:  # noqa: FBT001 - a table
    """``closed`` ends an action, as its result says; everything else is news."""
    action = Action("1", [])
    assert status_of(action, body) == 200
    assert (action.status, action.active) == (status, active)
    assert status_of(action, body) == (200 if active else 410)


@pytest.mark.parametrize(
    "body",
    [{}, told("done"), told("closed", "maybe"), {"status": {"execution": "closed"}}],
)
def test_what_is_no_feedback(body: Json) -> None:
    """400, as for any JSON that does not fit."""
    assert status_of(Action("1", []), body) == 400


def test_an_action_takes_a_thousand_entries_and_its_end() -> None:
    """hawkBit's quota is one of news: the end is taken all the same."""
    action = Action("1", [])
    for _ in range(MAX_ENTRIES):
        assert status_of(action, told("proceeding")) == 200
    assert status_of(action, told("proceeding")) == 403
    assert status_of(action, told("closed", "success")) == 200


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({}, 200, CONTENT),
        ({"Range": "bytes=90-"}, 206, CONTENT[90:]),
        ({"Range": "bytes=0-9"}, 206, CONTENT[:10]),
        ({"Range": "bytes=100-"}, 416, None),
        ({"Range": "bytes=5-", "If-Range": '"other"'}, 200, CONTENT),
        ({"If-Match": '"other"'}, 412, None),
    ],
)
def test_files_come_in_parts(
    headers: dict[str, str], status: int, body: bytes | None
) -> None:
    """RFC 7233, with strong tags."""
    response = send_artifact(Artifact("x", CONTENT), headers)
    assert (response.status, response.body) == (status, body)


@pytest.mark.parametrize(
    ("name", "reason"), [(BOARD.id, ""), ("board-2", "unauthorized")]
)
def test_42_a_certificate_is_all_there_is(
    tmp_path: Path, name: str, reason: str
) -> None:
    """Behind a proxy that checks them, no token; another board's is not let in."""
    papers = Papers(tmp_path, time.time())  # noqa: TID251 - TLS reads that clock
    own = papers.board(name)
    authority = Authority(tmp_path, "server")
    access = Access(controller=BOARD.id, token="", issuer="test CA")
    server = DdiServer(access, tls=authority.issue(), clients=str(papers.ca))
    with server:
        table = DdiSettings(
            url=server.url,
            ca=authority.file,
            certificate=str(own.certificate),
            key=str(own.key),
        )
        shown = OwnPapers(table, lambda: (0.0, 0.0))
        wire = HttpWire(server.url, shown.context, shown.credentials)
        with closing(DdiBench(server, wire)) as bench:
            bench.deploy(1)
            bench.rounds(3)
            trouble = bench.client.snapshot().trouble
            assert (trouble[0] if trouble else "") == reason
            assert bench.versions() == ((0, 0) if reason else (1, 0))
        assert all("Authorization" not in it.headers for it in server.asked)


def test_a_gateway_token_is_the_tenants(tmp_path: Path) -> None:
    """``GatewayToken``, read from a file at each request: a new one works at once."""
    token = tmp_path / "token"
    access = Access(controller=BOARD.id, token="", gateway="g" * 32)
    with DdiServer(access) as server:
        table = DdiSettings(url=server.url, token_file=str(token), gateway_token=True)
        shown = OwnPapers(table, lambda: (0.0, 0.0))
        wire = HttpWire(server.url, shown.context, shown.credentials)
        with closing(DdiBench(server, wire)) as bench:
            bench.deploy(1)
            for word, reason in (("x" * 32, "unauthorized"), ("g" * 32, "")):
                token.write_text(word, encoding="ascii")
                token.chmod(0o600)
                bench.rounds(3)
                trouble = bench.client.snapshot().trouble
                assert (trouble[0] if trouble else "") == reason
            assert bench.versions() == (1, 0)
