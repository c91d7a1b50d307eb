"""What a DDI server is asked, and its honest answers: hawkBit's paths and statuses."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

from tests.fakes.ddi_access import Access
from tests.fakes.ddi_actions import (
    BAD_REQUEST,
    NOT_FOUND,
    OK,
    Actions,
    Chunk,
    Json,
    RefusedFeedbackError,
)
from tests.fakes.ddi_pages import (
    artifacts_page,
    confirmation_page,
    deployment_page,
    poll_page,
    send_artifact,
    send_md5,
)

MAX_ATTRIBUTE = 128  # characters of an attribute's name, and of its value
Page = Callable[["Ask"], web.Response]


@dataclass(frozen=True)
class Ask:
    """A request.

    Attributes:
        headers: As they came; reading is blind to case.
        origin: Scheme, host and port as the client called them.
        client: Name and issuer of a client certificate that was verified.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    origin: str
    client: tuple[str, str] = ("", "")

    @property
    def json(self) -> Json:
        """Return the body.

        Raises:
            RefusedFeedbackError: It is no object.
        """
        try:
            found = json.loads(self.body)
        except ValueError:
            raise RefusedFeedbackError(BAD_REQUEST) from None
        if not isinstance(found, dict):
            raise RefusedFeedbackError(BAD_REQUEST)
        return found


@dataclass
class Resources:
    """What one board is shown.

    Attributes:
        access: Who is let in.
        sleep: What is said about polling.
        actions: What was ordered.
        attributes: What the board told of itself.
        curious: Whether it is asked for that.
    """

    access: Access = field(default_factory=Access)
    sleep: str = "00:05:00"
    actions: Actions = field(default_factory=Actions)
    attributes: dict[str, str] = field(default_factory=dict)
    curious: bool = True

    @property
    def root(self) -> str:
        """Return the controller's path."""
        return f"/{self.access.tenant}/controller/v1/{self.access.controller}"

    def answer(self, ask: Ask) -> web.Response:
        """Answer: 401 to strangers, 304 to whoever knows it already."""
        if not self.access.lets_in(ask.headers, ask.client):
            return web.Response(status=401)
        try:
            response = self.find(ask)[1](ask)
        except RefusedFeedbackError as err:
            return web.Response(status=err.status)
        if ask.method == "GET" and response.status == OK:
            raw = response.body if isinstance(response.body, bytes) else b""
            # As Spring's ShallowEtagHeaderFilter makes them.
            shallow = f'"0{hashlib.md5(raw).hexdigest()}"'  # noqa: S324 - the format
            tag = response.headers.setdefault("ETag", shallow)
            if ask.headers.get("If-None-Match") == tag:
                return web.Response(status=304, headers={"ETag": tag})
        return response

    def find(self, ask: Ask) -> tuple[str, Page]:
        """Return the kind of a resource, and who answers for it."""
        if ask.path != self.root and not ask.path.startswith(self.root + "/"):
            return "other", _nothing
        place = f"{ask.method} {ask.path.removeprefix(self.root)}".rstrip("/")
        for pattern, kind, answer in _ROUTES:
            found = re.fullmatch(pattern, place)
            if found:
                words = found.groups()
                return kind, partial(_call, answer, self, words)
        return "other", _nothing

    def _base(self, ask: Ask) -> str:
        """Return the controller's URL, as the client called this host."""
        return ask.origin + self.root

    def _poll(self, ask: Ask) -> web.Response:
        """Answer a poll."""
        page = poll_page(self._base(ask), self.actions, self.sleep, self.curious)
        return web.json_response(page)

    def _configure(self, ask: Ask) -> web.Response:
        """Take the board's attributes."""
        data, mode = ask.json.get("data"), ask.json.get("mode", "merge")
        if not isinstance(data, dict) or not all(
            isinstance(value, str) and max(len(key), len(value)) <= MAX_ATTRIBUTE
            for key, value in data.items()
        ):
            return web.Response(status=BAD_REQUEST)
        kept = {} if mode == "replace" else self.attributes
        if mode == "remove":
            self.attributes = {k: v for k, v in kept.items() if k not in data}
        else:
            self.attributes = {**kept, **data}
        self.curious = False
        return web.Response()

    def _deployment(self, ask: Ask, kind: str, number: str) -> web.Response:
        """Show an order, or what was installed by one."""
        action = self.actions.get(number)
        hidden = action.is_cancelled or action.waits
        if hidden or (kind == "installedBase" and action.active):
            return web.Response(status=NOT_FOUND)
        history = int(ask.query.get("actionHistory", "0"))
        page = deployment_page(self._base(ask), action, history, "deployment")
        return web.json_response(page)

    def _cancel(self, ask: Ask, number: str) -> web.Response:
        """Show which action has to stop."""
        del ask
        action = self.actions.get(number)
        if not action.is_cancelled:
            return web.Response(status=NOT_FOUND)
        page = {"id": action.id, "cancelAction": {"stopId": action.id}}
        return web.json_response(page)

    def _confirmation(self, ask: Ask) -> web.Response:
        """Show whether anything has to be confirmed."""
        return web.json_response(confirmation_page(self._base(ask), self.actions))

    def _confirm(self, ask: Ask, number: str) -> web.Response:
        """Show what has to be confirmed."""
        action = self.actions.get(number)
        if not action.waits:
            return web.Response(status=NOT_FOUND)
        page = deployment_page(self._base(ask), action, 0, "confirmation")
        return web.json_response(page)

    def _files(self, ask: Ask, module: str) -> web.Response:
        """Show the files of a software module."""
        page = artifacts_page(self._base(ask), self._chunk(module), module)
        return web.json_response(page)

    def _file(self, ask: Ask, module: str, name: str) -> web.Response:
        """Send a file, or its MD5."""
        for artifact in self._chunk(module).artifacts:
            if artifact.filename == name:
                return send_artifact(artifact, ask.headers)
            if f"{artifact.filename}.MD5SUM" == name:
                return send_md5(artifact)
        return web.Response(status=NOT_FOUND)

    def _chunk(self, module: str) -> Chunk:
        """Return a software module: its id is its action's, and its place there."""
        return self.actions.get(module[:-1]).chunks[int(module[-1])]

    def _take(self, ask: Ask, number: str) -> web.Response:
        """Take feedback; a success makes the server curious again."""
        before = self.actions.installed()
        self.actions.get(number).take(ask.json)
        self.curious |= self.actions.installed() is not before
        return web.Response()

    def _take_cancel(self, ask: Ask, number: str) -> web.Response:
        """Take what a cancel came to."""
        self.actions.get(number).take_cancel(ask.json)
        return web.Response()

    def _take_confirmation(self, ask: Ask, number: str) -> web.Response:
        """Take an answer to a question."""
        self.actions.get(number).confirm(ask.json)
        return web.Response()


_R = Resources
_ROUTES: tuple[tuple[str, str, Callable[..., web.Response]], ...] = (
    (r"GET ?", "poll", _R._poll),
    (r"PUT /configData", "configData", _R._configure),
    (r"GET /(deploymentBase)/(\w+)", "deploymentBase", _R._deployment),
    (r"POST /deploymentBase/(\w+)/feedback", "feedback", _R._take),
    (r"GET /cancelAction/(\w+)", "cancelAction", _R._cancel),
    (r"POST /cancelAction/(\w+)/feedback", "cancelFeedback", _R._take_cancel),
    (r"GET /confirmationBase", "confirmationBase", _R._confirmation),
    (r"GET /confirmationBase/(\w+)", "confirmationBase", _R._confirm),
    (
        r"POST /confirmationBase/(\w+)/feedback",
        "confirmationFeedback",
        _R._take_confirmation,
    ),
    (r"GET /(installedBase)/(\w+)", "installedBase", _R._deployment),
    (r"GET /softwaremodules/(\d{2,})/artifacts", "artifact", _R._files),
    (r"GET /softwaremodules/(\d{2,})/artifacts/([^/]+)", "artifact", _R._file),
)


def _call(
    answer: Callable[..., web.Response],
    shown: Resources,
    words: Sequence[str],
    ask: Ask,
) -> web.Response:
    """Let a resource answer, with the words of its path."""
    return answer(shown, ask, *words)


def _nothing(ask: Ask) -> web.Response:
    """There is nothing of that name."""
    del ask
    return web.Response(status=NOT_FOUND)
