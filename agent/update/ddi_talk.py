"""The requests of DDI, one method each: what is asked, and what an answer means.

The rules this module keeps:
 * 401 and 403 are ``unauthorized`` whatever they answer; 429 and 503 say when to come
   again; a redirect is an error; 404 and 410 mean that there is nothing (any more).
 * What is a matter of time (408, 425), or of a proxy on the way (407, 421), is no word
   about what was asked for.
 * A poll that changed nothing costs a 304.

Source: hawkBit, DdiRootControllerRestApi.
"""

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from agent.core.ddi import Feedback
from agent.core.ddi_messages import CONFIG, MAX_POLL_BYTES, Poll, parse_poll
from agent.core.ddi_outbox import PASSING_STATUSES
from agent.core.ddi_words import feedback_path, render_config, render_feedback
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ddi_links import Controller
from agent.update.ddi_needs import Answer, Wire

ACCEPT = {"Accept": "application/hal+json, application/json"}
FILE = {"Accept": "*/*"}
JSON = {"Content-Type": "application/json", **ACCEPT}
MAX_RETRY_AFTER_S = 86_400.0  # a day: no server silences a board for longer
# An hour of hawkBit's usual pace: what one wrong answer hid, behind a right ETag, is
# seen again then; it costs 300 bytes.
MAX_UNCHANGED = 12
MAX_ANSWER_BYTES = 16_384  # of a feedback: a few words, or an error's
NOTHING = frozenset({404, 410})
BUSY = frozenset({408, 425, 429, 503})  # they may say when to come again
_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,256}"', re.ASCII)


class Talk:
    """Asks the server.

    Attributes:
        controller: This board's place on it.
        retry_after_s: So long it asked to be left alone in the last answer that did.
    """

    def __init__(
        self, wire: Wire, controller: Controller, clock: Callable[[], float]
    ) -> None:
        self.controller = controller
        self.retry_after_s = 0.0
        self._wire = wire
        self._clock = clock
        self._tag = ""
        self._last: Poll | None = None
        self._unchanged = 0  # answers in a row

    async def poll(self) -> tuple[Poll, bool]:
        """Return what the server says, and whether it is news.

        Raises:
            BundleRefusedError: It cannot be asked, or makes no sense.
            DeviceError: ``unauthorized``, or our own papers.
        """
        conditional = self._tag and self._last and self._unchanged < MAX_UNCHANGED
        known = {"If-None-Match": self._tag} if conditional else {}
        url = self.controller.url
        answer = await self._wire.ask(
            "GET", url, headers=ACCEPT | known, max_bytes=MAX_POLL_BYTES
        )
        if answer.status == 304 and self._last is not None:
            self._unchanged += 1
            return self._last, False
        self._tag, self._unchanged = "", 0
        self.check(answer, "the poll", NOTHING)
        if answer.status in NOTHING:
            raise _unknown(answer.status)
        self._last = parse_poll(answer.body)
        tag = answer.headers.get("etag", "")
        self._tag = tag if _TAG.fullmatch(tag) else ""
        return self._last, True

    def forget(self) -> None:
        """Ask the next poll for everything: what it said was not carried out."""
        self._tag = ""

    async def read(
        self, url: str, what: str, max_bytes: int, accept: Mapping[str, str] = ACCEPT
    ) -> bytes | None:
        """Return the bytes at an address, None where there are none.

        Raises:
            BundleRefusedError: As for ``poll``.
            DeviceError: Likewise.
        """
        answer = await self._wire.ask("GET", url, headers=accept, max_bytes=max_bytes)
        self.check(answer, what, NOTHING)
        return None if answer.status in NOTHING else answer.body

    async def configure(self, url: str, identity: Mapping[str, str]) -> None:
        """Tell what this board is.

        Raises:
            BundleRefusedError: As for ``poll``.
            DeviceError: Likewise.
        """
        answer = await self._wire.ask(
            "PUT",
            url or self.controller.resource(CONFIG),
            headers=JSON,
            body=render_config(identity),
            max_bytes=MAX_ANSWER_BYTES,
        )
        # The poll was answered: 403 is about these attributes, not about the token.
        self.check(answer, "the attributes", frozenset({403}))
        if answer.status == 403:
            what = "the fleet's server does not take this board's attributes: 403"
            raise BundleRefusedError(what, reason=Reason.PROTOCOL)

    async def tell(self, said: Feedback) -> int:
        """Tell what happened, and return the answer's status, whatever it is.

        Raises:
            BundleRefusedError: It cannot be told.
            DeviceError: ``unauthorized`` (401), or our own papers.
        """
        answer = await self._wire.ask(
            "POST",
            self.controller.resource(*feedback_path(said)),
            headers=JSON,
            body=render_feedback(said),
            max_bytes=MAX_ANSWER_BYTES,
        )
        if answer.status == 401:
            raise self.error(answer.status, f"feedback on {said.action}")
        self._take_retry_after(answer)
        return answer.status

    def check(self, answer: Answer, what: str, fine: frozenset[int]) -> None:
        """Refuse an answer that is neither 2xx nor one of these.

        Raises:
            BundleRefusedError: ``rate_limited``, ``unreachable`` (5xx), ``redirect``,
                ``protocol``.
            DeviceError: ``unauthorized``.
        """
        status = answer.status
        if 200 <= status < 300 or status in fine:
            return
        self._take_retry_after(answer)
        raise self.error(status, what)

    def error(self, status: int, what: str) -> AgentError:
        """Return what a status means, arranged by who has to act."""
        if status in {401, 403}:
            return DeviceError(
                f"{what}: the fleet's server answered {status}",
                reason=Reason.UNAUTHORIZED,
                todo="Give the board a token that is valid: [fleet.ddi].",
            )
        reason = Reason.PROTOCOL
        if status in BUSY:
            reason = Reason.RATE_LIMITED
        elif status in PASSING_STATUSES or status >= 500:
            reason = Reason.UNREACHABLE
        elif 300 <= status < 400:
            reason = Reason.REDIRECT
        text = f"{what}: the fleet's server answered {status}"
        return BundleRefusedError(text, reason=reason)

    def _take_retry_after(self, answer: Answer) -> None:
        """Remember for how long a server asks to be left alone."""
        if answer.status in BUSY:
            asked = answer.headers.get("retry-after", "")
            self.retry_after_s = _seconds(asked, self._clock())


def _unknown(status: int) -> BundleRefusedError:
    """Return the error for a server that does not know this board."""
    return BundleRefusedError(
        f"the poll: the fleet's server answered {status}: it knows no such board",
        reason=Reason.PROTOCOL,
        todo="Check `fleet.ddi.url`, `tenant` and `controller`.",
    )


def _seconds(text: str, now_s: float) -> float:
    """Return for how long a server asks to be left alone (RFC 9110, 10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:18])
    else:
        try:
            wait_s = parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, TypeError, OverflowError, IndexError):
            return 0.0
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)
