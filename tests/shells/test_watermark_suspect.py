"""Endpoints that are asked whose copy they serve, and mean harm."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.watermark_suspect import Answers, Endpoint, ask_url
from agent.core.reasons import Reason
from agent.errors import DeviceError

INPUTS = np.zeros((64, 4), np.float32)  # two requests
CLASSES = 10
Reply = Callable[[BaseHTTPRequestHandler, int, int], None]


@contextmanager
def served(reply: Reply) -> Iterator[str]:
    """Answer requests: the reply is told how many inputs came, in which request."""
    asked = 0

    class Suspect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal asked
            asked += 1
            body = self.rfile.read(int(self.headers["content-length"]))
            reply(self, len(json.loads(body)["inputs"]), asked)

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Suspect) as server:
        server.daemon_threads = True
        server.block_on_close = False  # some never end
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            serving.join()


def told(to: BaseHTTPRequestHandler, raw: bytes) -> None:
    """Answer with bytes; whoever asked may have had enough of them."""
    to.send_response(200)
    to.end_headers()
    try:
        to.wfile.write(raw)
    except OSError:
        return


def saying(*replies: Any) -> Reply:  # noqa: ANN401 - any JSON
    """Return what gives one JSON after the other."""
    return lambda to, _, number: told(to, json.dumps(replies[number - 1]).encode())


def ask(url: str, ask_s: float = 20.0) -> Answers:
    """Ask."""
    return ask_url(Endpoint(url, CLASSES, ask_s), INPUTS)


FLOOD = 2**26  # bytes; all of them would be a failure, not a full memory
SCORES = [[0.1] * CLASSES] * 32


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        (({"scores": SCORES}, {"classes": [1] * 32}), "at another"),
        (({"scores": SCORES}, {"classes": [1] * 64}), "64 answers to 32"),
        (({"scores": SCORES, "classes": [1] * 32},), "both"),
        (({},), "neither"),
        (({"scores": []},), "0 answers"),
        (({"scores": SCORES[1:]},), "31 answers"),
        (({"classes": [1] * 33},), "33 answers"),
        (({"scores": [*SCORES[1:], [0.5]]}, {"scores": SCORES}), "different numbers"),
        (({"scores": [[None] * 10] * 32},), "Expected `float`"),
        (({"classes": [0.5] * 32},), "Expected `int`"),
        (([],), "Expected `object`"),
    ],
)
def test_replies_of_another_kind_are_refused(
    replies: tuple[object, ...], said: str
) -> None:
    """Both kinds, neither, now one and then the other, too few, too many."""
    with served(saying(*replies)) as url, pytest.raises(DeviceError, match=said) as err:
        ask(url)
    assert err.value.reason == Reason.PROTOCOL


def test_small_and_large_scores_arrive_as_they_were_sent() -> None:
    """Not as zeros or infinities: their scale says nothing, what they are does."""
    sent = [[1e-300, 1e300] * 5] * 32
    with served(saying({"scores": sent}, {"scores": sent})) as url:
        scores = ask(url).scores
    assert scores is not None
    assert sent + sent == scores.tolist()


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nx: "]
)
def test_an_endpoint_that_drips_is_left_behind(begin: bytes) -> None:
    """A byte now and then, of a body or of a header, until nobody listens any more."""
    left = threading.Event()

    def drip(to: BaseHTTPRequestHandler, _count: int, _number: int) -> None:
        to.wfile.write(begin)
        for _ in range(500):  # it would end, but not in time
            if left.wait(0.02):
                return
            try:
                to.wfile.write(b" ")
            except OSError:
                return

    with served(drip) as url:
        try:
            with pytest.raises(DeviceError, match="one request") as err:
                ask(url, ask_s=0.3)
        finally:
            left.set()
    assert err.value.reason == Reason.TOO_SLOW


@pytest.mark.parametrize("unit", [b"[],", b" "])
def test_no_more_is_read_than_honest_answers_take(unit: bytes) -> None:
    """What would be gigabytes once parsed is cut off while it is some kilobytes."""
    written = 0

    def flood(to: BaseHTTPRequestHandler, _count: int, _number: int) -> None:
        nonlocal written
        told(to, b'{"scores":[')
        part = unit * 20_000
        try:
            while written < FLOOD:
                written += to.wfile.write(part)
        except OSError:
            return

    most = Endpoint("", CLASSES).max_bytes
    with served(flood) as url, pytest.raises(DeviceError, match="more than") as err:
        ask(url)
    assert err.value.reason == Reason.PROTOCOL
    assert most < 100_000
    assert written < FLOOD  # it was not heard to its end


def test_a_reply_that_is_packed_is_not_unpacked() -> None:
    """Nobody asked for it, and it could be of any size."""

    def packed(to: BaseHTTPRequestHandler, _count: int, _number: int) -> None:
        to.send_response(200)
        to.send_header("content-encoding", "gzip")
        to.end_headers()
        to.wfile.write(b"\x1f\x8b\x08\0")

    with served(packed) as url, pytest.raises(DeviceError) as err:
        ask(url)
    assert err.value.reason == Reason.PROTOCOL


def test_no_message_has_the_secrets_of_a_url() -> None:
    """Neither a password nor a query's key, which the book's note would keep."""
    with served(saying({})) as gone:
        pass
    url = gone.replace("//", "//me:hush@") + "v1?key=hush"
    with pytest.raises(DeviceError) as err:
        ask(url)
    assert err.value.reason == Reason.UNREACHABLE
    assert "hush" not in str(err.value)
    assert f"{gone}v1" == Endpoint(url, CLASSES).place


@given(
    raw=st.binary(max_size=60)
    | st.from_regex(r'\{"(scores|classes)":\[[\[\]0-9.,e-]*\]\}').map(str.encode)
)
@settings(max_examples=40, deadline=None)
def test_whatever_bytes_come_there_is_one_kind_of_error(raw: bytes) -> None:
    """Nothing but what says that the endpoint speaks another language."""
    always: Reply = lambda to, _, __: told(to, raw)  # noqa: E731 - one line says it
    with served(always) as url, pytest.raises(DeviceError) as err:
        ask(url)
    assert err.value.reason == Reason.PROTOCOL
