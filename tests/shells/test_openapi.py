"""The OpenAPI document: valid, equal to the routes, and kept by the real listener."""

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.specs.openapi.checks import positive_data_acceptance

from agent.core.targets import GroupFile, Wanted
from agent.core.updates import Decision, Progress, SetAside
from agent.endpoint.openapi import describe_api
from agent.endpoint.problems import PROBLEM_TYPE, STATUS
from agent.endpoint.rate import Rate
from agent.endpoint.routes import Api
from agent.endpoint.services import Services
from tests.fakes.control_bench import WAIT_S, Bench, bench, listening
from tests.fakes.snapshots import FixedFacts

DIGEST = "ab" * 32
# A stream has no end that a generated client would wait for: test_live.py follows it.
SCHEMA = schemathesis.openapi.from_dict(describe_api()).exclude(path="/v1/live")


class Board:
    """A control listener in a thread of its own, for clients that block."""

    def __init__(self, made: Bench) -> None:
        self.made = made
        self._opened = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def open(self) -> None:
        """Return once it listens."""
        self._thread.start()
        assert self._opened.wait(WAIT_S)
        self.url = f"https://127.0.0.1:{self.made.port}"

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    async def _serve(self) -> None:
        """Listen until it is enough."""
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        async with listening(self.made, wait_s=600.0):
            self._opened.set()
            await self._done.wait()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Give a board with something in every place, that answers as often as asked."""
    made = bench(tmp_path_factory.mktemp("board"), rate=Rate(1e6, 1e6))
    made.desk.pushed = GroupFile(3, {"door": Wanted("kws", 2)})
    made.desk.aside = [SetAside(DIGEST, "crash", 5.0)]
    decision = Decision("door", "waits", Wanted("kws", 3), "push", 3, "window")
    update = replace(
        made.facts.shown.update,
        decisions=(decision,),
        progress=Progress(8, "door", "kws", 3, DIGEST, "FETCHING", 10, 100),
    )
    made.facts.shown = replace(made.facts.shown, update=update)
    opened = Board(made)
    opened.open()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def operator(board: Board) -> Iterator[requests.Session]:
    """Give an operator's connections to the board."""
    leaf = board.made.operator
    with requests.Session() as session:
        session.cert = (str(leaf.certificate), str(leaf.key))
        session.verify = str(board.made.ca.certificate)
        session.trust_env = False
        yield session


@SCHEMA.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,  # the same cases each time: what is new is found by --full runs
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_documented(
    case: schemathesis.Case[Any], board: Board, operator: requests.Session
) -> None:
    """Whatever is asked: no 5xx, and only statuses, types and shapes that are named."""
    case.call_and_validate(
        base_url=board.url,
        session=operator,
        verify=operator.verify,
        cert=operator.cert,
        # No schema says that a body has to have the digest in its path, or that JSON's
        # 2.0 is no version: what fits the schema may be refused all the same.
        excluded_checks=[positive_data_acceptance],
    )


def test_the_document_is_valid() -> None:
    """It is OpenAPI 3.1, references and schemas included."""
    OpenAPIV31SpecValidator(describe_api()).validate()


def test_paths_are_the_routes() -> None:
    """Nothing is served that is not described, and nothing described is missing."""
    routes = Api(FixedFacts(), Services()).routes()
    served = {
        (r.method, re.sub(r":[^{}]*(\{[0-9,]+\})?\}", "}", r.path)) for r in routes
    }
    paths: dict[str, Any] = describe_api()["paths"]  # type: ignore[assignment]  # JSON
    described = {
        (verb.upper(), path) for path, verbs in paths.items() for verb in verbs
    }
    assert described == served


def test_every_error_is_a_problem_of_a_named_status() -> None:
    """Each status that a reason has stands at some path, as a problem."""
    paths: dict[str, Any] = describe_api()["paths"]  # type: ignore[assignment]  # JSON
    named = {
        int(code)
        for verbs in paths.values()
        for operation in verbs.values()
        for code, answer in operation["responses"].items()
        if PROBLEM_TYPE in answer.get("content", {})
    }
    assert {*STATUS.values(), 400, 404, 500} <= named


def test_the_board_shows_the_document(board: Board, operator: requests.Session) -> None:
    """It is what the tests read."""
    assert operator.get(f"{board.url}/v1/openapi.json").json() == describe_api()
