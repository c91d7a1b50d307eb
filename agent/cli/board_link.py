"""A typed client for a board's HTTP interface, over whichever connection it is given.

The rules this module keeps:
 * Every error is ours: what the board refused comes with its own reason and advice,
   what went wrong on the way says where.
 * A connection that went stale between two requests is opened once more; a board that
   asks for patience (429, 503) gets it, up to ``PATIENCE_S`` in all.
 * Who breaks off has the last word: nothing is opened or sent after that.
 * An answer may have ``MAX_ANSWER_BYTES`` and take ``WHOLE_ANSWER_S``: boards are
   trusted to be slow, not to be endless.
"""

import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from ssl import SSLEOFError
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from agent.cli.board_answers import (
    Events,
    Problem,
    Receipt,
    State,
    Taken,
    Updates,
)
from agent.cli.connections import (
    BoardConnection,
    SilentlyClosedError,
    explain_failure,
)
from agent.cli.plain_text import plain
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, render_group
from agent.errors import AgentError, DeviceError, RequestRefusedError

MAX_ANSWER_BYTES = 8_000_000  # /v1/state of 64 pipelines with all labels takes 1 MB
WHOLE_ANSWER_S = 60.0
PATIENCE_S = 60.0
FIRST_PAUSE_S = 1.0
# More is not sent twice blindly: who uploads asks first how much arrived.
AGAIN_BYTES = 16 * 1024
BUSY_STATUSES = (429, 503)
READ_BYTES = 64 * 1024

Answer = TypeVar("Answer")


class BoardLink:
    """One board, as its operator sees it.

    Args:
        where: How messages call the board.
        connect: Makes a connection that is not open yet.
        pause: Waits some seconds; raises to break off.
        find_fault: Says what is wrong with our own certificate; asked only where a
            board hangs up on it.
    """

    def __init__(
        self,
        where: str,
        connect: Callable[[], BoardConnection],
        pause: Callable[[float], None] = time.sleep,
        find_fault: Callable[[], str] = str,
    ) -> None:
        self.where = where
        self._connect = connect
        self._pause = pause
        self._find_fault = find_fault
        self._open: BoardConnection | None = None
        self._left = False
        self._answered = False  # ever: it takes our certificate

    def state(self) -> State:
        """Return what should run, what does, and why not."""
        return self._read("/v1/state", State)

    def updates(self) -> Updates:
        """Return the update under way, those that ended, and the quarantine."""
        return self._read("/v1/updates", Updates)

    def read_all(self, path: str) -> object:
        """Return an answer as it is, with keys that are not known here."""
        return self._read(path, object)

    def post(self, path: str, body: bytes) -> object:
        """Send JSON and return the answer as it is, with keys that are not known here.

        On a connection of its own: what is answered once only is not sent twice.
        """
        self.close()
        return self._send("POST", path, object, body)

    def read_text(self, path: str) -> str:
        """Return an answer that is a text: a checkpoint, a proof."""
        return self._ask("GET", path)[1].decode("utf-8", "replace")

    def read_as(self, path: str, kind: type[Answer]) -> Answer:
        """Return an answer as what its reader expects."""
        return self._read(path, kind)

    def read_raw(self, path: str) -> bytes | None:
        """Return an answer's bytes; None where the board has no such thing."""
        status, body = self._ask("GET", path, accept=(200, 404))
        return body if status == 200 else None

    def events(self, after: int) -> Events:
        """Return what was logged after an event's number."""
        return self._read(f"/v1/events?after={after}", Events)

    def desired(self) -> GroupFile | None:
        """Return the desired state that was pushed last."""
        status, body = self._ask("GET", "/v1/desired", accept=(200, 204, 404))
        if status != 200 or body.strip() in {b"", b"null", b"{}"}:
            return None
        return self._parse(body, GroupFile)

    def set_desired(self, desired: GroupFile) -> int:
        """Give the board a desired state; return its generation."""
        body = render_group(desired)
        return self._send("PUT", "/v1/desired", Taken, body).generation

    def look(self) -> str:
        """Ring the doorbell; return the phase the board is in."""
        return self._send("POST", "/v1/updates", Taken).phase

    def roll_back(self, pipeline: str) -> str:
        """Ask for the previous model; return the pipeline's name.

        On a connection of its own: asked twice, it would go back twice.
        """
        self.close()
        body = msgspec.json.encode({"pipeline": pipeline})
        return self._send("POST", "/v1/rollback", Taken, body).pipeline

    def commission(self, pipeline: str) -> str:
        """Have a pipeline's baseline collected anew; return the pipeline's name."""
        body = msgspec.json.encode({"pipeline": pipeline})
        return self._send("POST", "/v1/commission", Taken, body).pipeline

    def forgive(self, sha256: str) -> None:
        """Let a bundle that was set aside be tried again."""
        self._ask("DELETE", f"/v1/quarantine/{sha256}", accept=(200, 202, 204))

    def offset(self, sha256: str) -> int:
        """Return how much of an upload is there."""
        return self._read(f"/v1/uploads/{sha256}", Receipt).offset

    def upload(
        self, sha256: str, path: str, part: bytes, first: int, total: int
    ) -> Receipt:
        """Send bytes ``first...`` of a file that has ``total``."""
        where = f"/v1/uploads/{sha256}?{urlencode({'path': path})}"
        span = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{total}"}
        content = {"Content-Type": "application/octet-stream"}
        return self._send("PUT", where, Receipt, part, content | (span if part else {}))

    def close(self) -> None:
        """Close the connection; the next request opens one again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def break_off(self) -> None:
        """End what is being waited for, and all that follows until ``go_on``.

        Another thread may call this.
        """
        # Marked first: who connects meanwhile looks at this before it waits.
        self._left = True
        connection = self._open
        if connection is not None:
            connection.leave()

    def go_on(self) -> None:
        """Allow for requests again after ``break_off``."""
        if self._left:
            self.close()
            self._left = False

    def _read(self, path: str, kind: type[Answer]) -> Answer:
        """Return a parsed answer."""
        return self._parse(self._ask("GET", path)[1], kind)

    def _send(
        self,
        method: str,
        path: str,
        kind: type[Answer],
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send something, JSON by default, and return the parsed answer."""
        headers = headers or ({"Content-Type": "application/json"} if body else {})
        sent = self._ask(method, path, body, headers, (200, 201, 202))
        return self._parse(sent[1], kind)

    def _parse(self, body: bytes, kind: type[Answer]) -> Answer:
        """Parse an answer.

        Raises:
            DeviceError: ``request``: it is none of this interface's.
        """
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            raise DeviceError(
                f"{self.where}: an answer that is not understood: {plain(err)}",
                reason=Reason.REQUEST,
                todo="Use the tinyward of the board's own version.",
            ) from err

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (200,),
    ) -> tuple[int, bytes]:
        """Ask until the board has time; return status and body.

        Raises:
            AgentError: It could not be asked, or it refused.
        """
        waited_s, pause_s = 0.0, FIRST_PAUSE_S
        while True:
            try:
                response, answer = self._exchange(method, path, body, headers or {})
            except (OSError, HTTPException) as err:
                self.close()
                self._check_left()
                raise self._broken(err) from err
            if response.status in accept:
                return response.status, answer
            asked_s = _seconds(response.getheader("Retry-After", "")) or pause_s
            if response.status not in BUSY_STATUSES or waited_s + asked_s > PATIENCE_S:
                raise self._refusal(f"{method} {path}", response.status, answer)
            self._pause(asked_s)
            waited_s, pause_s = waited_s + asked_s, pause_s * 2

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[HTTPResponse, bytes]:
        """Send one request and read its answer."""
        reused = self._open is not None and self._open.sock is not None
        connection = self._open = self._open or self._connect()
        try:
            self._check_left()
            if connection.sock is None:
                connection.connect()
            _write(connection, method, path, body, headers)
            response = connection.getresponse()
        except (ConnectionError, HTTPException):
            self.close()
            # An order that was cut on purpose is not given again behind one's back.
            self._check_left()
            if not reused or len(body) > AGAIN_BYTES:
                raise
            # The board closes idle connections; nothing of this request was heard.
            return self._exchange(method, path, body, headers)
        self._answered = True
        return response, _read_all(response)

    def _check_left(self) -> None:
        """Check that nobody broke this off.

        Raises:
            DeviceError: ``stopping``: somebody did.
        """
        if self._left:
            raise DeviceError(f"{self.where}: broken off", reason=Reason.STOPPING)

    def _broken(self, error: OSError | HTTPException) -> AgentError:
        """Return the error for an exchange that did not come to its end."""
        # A board that answered before is one that restarts, and is waited for.
        if isinstance(error, SilentlyClosedError) and not self._answered:
            return self._not_taken()
        if isinstance(error, OSError):
            return explain_failure(self.where, error)
        return DeviceError(
            f"{self.where}: no answer in HTTP: {plain(repr(error), 120)}",
            reason=Reason.UNREACHABLE,
            todo="Check that the address is that of [control] listen.",
        )

    def _not_taken(self) -> AgentError:
        """Return the error for a board that hung up once it saw our certificate."""
        fault = self._find_fault()
        what = "the board accepted no request with this certificate"
        return DeviceError(
            f"{self.where}: {what}{': ' if fault else ''}{fault}",
            reason=Reason.CERTIFICATE,
            todo="Issue another with `tinyward ca issue`."
            if fault
            else "Check --cert: revoked, or of another CA than the board's "
            "[control] client_ca? Then see the board's log.",
        )

    def _refusal(self, asked: str, status: int, body: bytes) -> AgentError:
        """Return what the board said, in its own words where it has any."""
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            problem = Problem()
        what = problem.detail or problem.error or problem.title or f"status {status}"
        if problem.reason:
            return RequestRefusedError(
                f"{self.where}: {plain(what)}",
                reason=plain(problem.reason, 64),
                todo=plain(problem.todo),
            )
        return RequestRefusedError(
            f"{self.where}: {asked.partition('?')[0]}: {plain(what)} ({status})",
            reason=Reason.REQUEST,
            todo="This board's daemon may be older: see `tinyward --version` there.",
        )


def _write(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
) -> None:
    """Send a request; a board that answers before all was sent is listened to."""
    length = {"Content-Length": str(len(body))} if method != "GET" else {}
    try:
        connection.request(method, path, body or None, {**length, **headers})
    except (BrokenPipeError, ConnectionResetError, SSLEOFError):
        # It may have said why; if it has not, reading fails the same way.
        return


def _read_all(response: HTTPResponse) -> bytes:
    """Read an answer's body within its limits.

    Raises:
        TimeoutError: It took too long.
        HTTPException: It is too large, or was cut off.
    """
    end = time.monotonic() + WHOLE_ANSWER_S
    parts: list[bytes] = []
    count = 0
    while part := response.read1(READ_BYTES):
        count += len(part)
        parts.append(part)
        if count > MAX_ANSWER_BYTES:
            raise HTTPException(f"more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > end:
            raise TimeoutError
    if response.length:
        raise IncompleteRead(b"", response.length)
    response.close()
    return b"".join(parts)


def _seconds(text: str) -> float:
    """Return Retry-After in seconds; 0 for none, or a date."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
