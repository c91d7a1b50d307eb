"""JSON over HTTP with a foreign server on loopback, from outside, as its operator."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANSWER_S = 60.0  # a JVM on a machine with others on it


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        headers: Names in lower case.
        body: As sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Return the body's value, None where there is none."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks one server, a connection for each request.

    Attributes:
        headers: Sent with every request.
    """

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(
        self, method: str, path: str, body: bytes | None = None, type_: str = ""
    ) -> Answer:
        """Send a request and return its answer, whatever its status."""
        headers = {**self.headers, **({"Content-Type": type_} if type_ else {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, ANSWER_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read())
        finally:
            connection.close()

    def ask(self, method: str, path: str, sent: object = None) -> Answer:
        """Send a value as JSON, if there is one."""
        if sent is None:
            return self.send(method, path)
        return self.send(method, path, json.dumps(sent).encode(), "application/json")

    def want(self, method: str, path: str, sent: object = None) -> Any:  # noqa: ANN401
        """Return the value that a server answers with, which must agree."""
        answer = self.ask(method, path, sent)
        assert 200 <= answer.status < 300, (method, path, answer)
        return answer.json()


def listens(port: int) -> bool:
    """Whether somebody takes connections on loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
