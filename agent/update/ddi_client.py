"""The task that follows a DDI server: polls it, takes its orders, tells it the ends.

The rules this module keeps:
 * One round: tell what waits, poll, follow the links, tell what came of it. What one
   link is wrong about stops no other link.
 * The pause is the server's, within limits, spread over the fleet by the board's name
   and by chance; what was never answered, or asks for papers, is never hurried.
 * The server chooses among signed bundles, and when. It is asked for nothing else, and
   nothing that it says ends this task.
 * While an action is open the machine is looked at once a second.

Source: hawkBit, "Direct Device Integration API" (release 1.1.0).
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from agent.core.ddi import Feedback
from agent.core.ddi_messages import DEFAULT_SLEEP_S, MIN_SLEEP_S
from agent.core.ddi_outbox import answered
from agent.core.fleet_settings import DdiSettings
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ddi_book import Book
from agent.update.ddi_follow import Follower
from agent.update.ddi_links import Controller
from agent.update.ddi_needs import Errands, Kept, Wire
from agent.update.ddi_talk import Talk
from agent.update.endings import NETWORK
from agent.update.pace import Pace

log = logging.getLogger(__name__)

EXPECTED = (BundleRefusedError, DeviceError)
LOOK_S = 1.0  # a look at the machine costs about 0.1 ms
FLOOD_GAP_S = 1.0  # between two rounds that were asked for
MAX_LOSSES = 2  # the answer to a cancellation may get through where news did not
SPLAY = 0.1  # by the board's name: boards that draw alike drift apart all the same


@dataclass(frozen=True, slots=True)
class DdiSnapshot:
    """The client as others see it.

    Attributes:
        last_poll: Unix seconds of the last poll that was answered, 0 before the first.
        next_poll: Unix seconds of the next one, 0 while one is under way.
        trouble: (reason, message) of what the last round stumbled over, or None.
        action: Id of the open action, or empty; ``said`` is what was said of it last.
        outbox: How much the server has not been told yet.
    """

    last_poll: float = 0.0
    next_poll: float = 0.0
    trouble: tuple[str, str] | None = None
    action: str = ""
    said: str = ""
    outbox: int = 0


class DdiClient:
    """Follows one server."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it touches, each exactly once
        self,
        settings: DdiSettings,
        board_id: str,
        wire: Wire,
        kept: Kept,
        errands: Errands,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """Take the settings, this board's name and all that it touches.

        Raises:
            SettingsError: ``fleet.ddi.url`` cannot be used.
        """
        name = settings.controller or board_id
        self._wire = wire
        self._clock = clock
        self._book = Book(settings, kept, errands, clock, draw)
        controller = Controller(settings.url, settings.tenant, name)
        self._talk = Talk(wire, controller, clock)
        self._follower = Follower(settings, self._talk, self._book, errands)
        self._pace = Pace(DEFAULT_SLEEP_S, draw)
        self._splay = 1 + SPLAY * (_share(name) - 0.5)
        self._stir = asyncio.Event()
        self._poked = False
        # Feedback that was not taken in this round: it is not tried twice in it.
        self._stuck: set[tuple[str, str]] = set()
        self._losses = 0
        self._last_poll = self._next_poll = 0.0
        self._refusal: AgentError | None = None  # of feedback, in this round
        self._trouble: tuple[str, str] | None = None
        self._told = ""  # the reason that was logged last

    async def run(self) -> NoReturn:
        """Poll, wait, poll again; ends by cancellation only."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                await self._rest(await self.poll())
                if self._poked:
                    await asyncio.sleep(began + FLOOD_GAP_S - loop.time())
                    self._poked = False
        finally:
            await self._wire.close()

    async def poll(self) -> float:
        """Do one round and return the seconds to the next one."""
        self._next_poll = 0.0
        self._stuck, self._losses = set(), 0
        self._talk.retry_after_s = 0.0
        self._refusal = None
        try:
            self._book.open()
            await self._book.let_go()
            self._book.look()
            await self._tell()
            await self._follow()
            self._book.weigh()
            self._book.look()
            await self._tell()
        except EXPECTED as err:
            self._losses = MAX_LOSSES
            self._note(err)
            return self._pause(err)
        self._note(self._stumbled)
        return self._pause(None)

    def poke(self) -> None:
        """Do a round now: somebody says that something changed."""
        self._poked = True
        self._next_poll = 0.0  # none is ahead but the one asked for
        self._stir.set()

    def snapshot(self) -> DdiSnapshot:
        """Return the state as it is now."""
        record = self._book.record
        return DdiSnapshot(
            last_poll=self._last_poll,
            next_poll=self._next_poll,
            trouble=self._trouble,
            action=record.open.id if record.open else "",
            said=record.open.said if record.open else "",
            outbox=len(record.outbox),
        )

    @property
    def _stumbled(self) -> AgentError | None:
        """What a round that came to its end stumbled over, if it did."""
        return self._refusal or self._follower.trouble

    async def _follow(self) -> None:
        """Poll, and follow the links.

        Raises:
            BundleRefusedError: The server cannot be asked.
            DeviceError: Our own papers, or the store.
        """
        self._follower.trouble = None
        poll, fresh = await self._talk.poll()
        self._last_poll = self._clock()
        self._pace.poll_s = poll.sleep_s * self._splay
        try:
            await self._follower.follow(poll.links, fresh=fresh)
        except EXPECTED:
            self._talk.forget()
            raise
        if self._stumbled is not None:
            # A link that was answered wrongly once must not hide behind a 304.
            self._talk.forget()

    async def _tell(self) -> None:
        """Tell the server what waits, in order.

        What it does not take of one action holds up no other; where feedback gets lost
        it is left alone until the next round, and polled all the same: it may have
        taken an order back.

        Raises:
            DeviceError: Our own papers, or the store.
        """
        for said in self._book.record.outbox:
            about = said.resource, said.action
            if about in self._stuck or self._losses >= MAX_LOSSES:
                continue
            error = await self._say(said)
            if error is not None:
                self._stuck.add(about)
                self._losses += error.reason in NETWORK
                self._refusal = error

    async def _say(self, said: Feedback) -> AgentError | None:
        """Tell one thing; return why it has to be told again, if it has.

        Raises:
            DeviceError: Our own papers, or the store.
        """
        try:
            status = await self._talk.tell(said)
        except BundleRefusedError as err:
            return err
        facts = {"action": said.action, "said": said.execution, "status": status}
        log.info("ddi.told", extra=facts | {"reason": said.reason})
        self._book.keep(answered(self._book.record, said, status))
        if said not in self._book.record.outbox:
            return None
        return self._talk.error(status, f"feedback on {said.action}")

    def _pause(self, failed: AgentError | None) -> float:
        """Return the seconds to the next round."""
        asked_s = self._talk.retry_after_s
        pause_s = self._pace.after(failed=failed is not None, asked_s=asked_s)
        if failed is None:
            # A server that is there, and has us wait for a link, means that as well.
            return max(pause_s, MIN_SLEEP_S, asked_s)
        # Who is not let in, or not understood, gains nothing by asking again soon.
        patient = {Reason.UNAUTHORIZED, Reason.PROTOCOL, Reason.REDIRECT}
        return max(pause_s, self._pace.poll_s) if failed.reason in patient else pause_s

    async def _rest(self, pause_s: float) -> None:
        """Wait for the next round; meanwhile tell what the machine does."""
        if self._poked:
            return
        loop = asyncio.get_running_loop()
        self._next_poll = self._clock() + pause_s
        until = loop.time() + pause_s
        while loop.time() < until:
            watched = self._book.is_watched()
            left_s = until - loop.time()
            if await self._is_stirred(min(left_s, LOOK_S) if watched else left_s):
                return
            if watched:
                await self._watch()

    async def _watch(self) -> None:
        """Look at the machine, and tell what is new."""
        try:
            self._book.look()
            await self._tell()
        except EXPECTED as err:
            self._losses, self._refusal = MAX_LOSSES, err
        if self._refusal is not None:
            self._note(self._refusal)

    async def _is_stirred(self, pause_s: float) -> bool:
        """Wait; return whether someone poked before the time was over."""
        self._stir.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stir.wait()
                return True
        return False

    def _note(self, error: AgentError | None) -> None:
        """Keep what is wrong, and log it once until something changes."""
        self._trouble = (str(error.reason), str(error)) if error else None
        reason = str(error.reason) if error else ""
        if reason != self._told:
            facts = {"reason": reason, "detail": str(error)} if error else {}
            log.log(
                logging.WARNING if error else logging.INFO,
                "ddi.trouble" if error else "ddi.recovered",
                extra=facts,
            )
        self._told = reason


def _share(name: str) -> float:
    """Return a number in [0, 1) that is always the same for a board."""
    digest = hashlib.sha256(b"ddi\0" + name.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
