"""The task that follows a DDI server: polls it, takes its orders, tells it the ends.

The rules this module keeps:
 * One round: tell what waits, poll, follow the links, tell what came of it. What one
   link is wrong about stops no other link.
 * The pause is the server's, within limits, spread over the fleet by the board's name
   and by chance; who asks for papers is never hurried, who fails is asked less often.
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
from agent.core.ddi_outbox import answered, drop, is_wrong
from agent.core.fleet_settings import DdiSettings
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ddi_backoff import Backoff
from agent.update.ddi_book import Book
from agent.update.ddi_follow import Follower
from agent.update.ddi_links import Controller
from agent.update.ddi_needs import Errands, Kept, Wire
from agent.update.ddi_talk import Talk
from agent.update.endings import NETWORK
from agent.update.pace import MAX_ASKED_S, Pace

log = logging.getLogger(__name__)

EXPECTED = (BundleRefusedError, DeviceError)
LOOK_S = 1.0  # a look at the machine costs about 0.1 ms
FLOOD_GAP_S = 1.0  # between two rounds that were asked for
# A last word that is called wrong in so many rounds is not taken in the next, either.
# Where the server goes on offering its action, it is told once more all the same.
MAX_WRONG = 5
MAX_OLD = 4  # of these in one round: what is new does not wait for what is hopeless
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
        self._backoff = Backoff(draw)
        self._splay = 1 + SPLAY * (_share(name) - 0.5)
        self._stir = asyncio.Event()
        self._poked = False
        # Feedback that was not taken in this round: it is not tried twice in it.
        self._stuck: set[tuple[str, str]] = set()
        self._losses = 0
        self._wrong: dict[Feedback, int] = {}  # last words, and how often in rounds
        self._old = 0  # of them told in this round
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
        self._stuck, self._losses, self._old = set(), 0, 0
        self._talk.retry_after_s = 0.0
        self._refusal = None
        try:
            self._book.open()
            await self._book.let_go()
            await self._book.look()
            await self._tell()
            await self._follow()
            self._book.weigh()
            await self._book.look()
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
            if said in self._wrong:
                if self._old >= MAX_OLD:
                    self._stuck.add(about)  # what follows it does not overtake it
                    continue
                self._old += 1
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
        self._count_wrong(said, status)
        if said not in self._book.record.outbox:
            return None
        return self._talk.error(status, f"feedback on {said.action}")

    def _count_wrong(self, said: Feedback, status: int) -> None:
        """Let go of what a server calls wrong again and again.

        Raises:
            DeviceError: The store cannot be written.
        """
        waiting = self._book.record.outbox
        times = self._wrong.pop(said, 0) + 1
        # 403: the poll was answered, so it is about this (hawkBit: too many entries).
        if said not in waiting or not (is_wrong(status) or status == 403):
            return
        if times < MAX_WRONG:
            # What has left otherwise is not remembered.
            kept = {it: so_far for it, so_far in self._wrong.items() if it in waiting}
            self._wrong = kept | {said: times}
            return
        facts = {"action": said.action, "said": said.execution, "status": status}
        log.warning("ddi.dropped", extra=facts | {"reason": said.reason})
        self._book.keep(drop(self._book.record, said))

    def _pause(self, failed: AgentError | None) -> float:
        """Return the seconds to the next round."""
        asked_s = self._talk.retry_after_s
        if failed is None:
            self._backoff.reset(self._pace.poll_s)
            # A server that is there, and has us wait for a link, means that as well.
            return max(self._pace.after(failed=False), MIN_SLEEP_S, asked_s)
        pause_s = max(self._backoff.after(), min(asked_s, MAX_ASKED_S))
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
        self._talk.retry_after_s = 0.0  # what was asked for is in the pause
        while loop.time() < until and not self._poked:
            watched = self._book.is_watched()
            left_s = until - loop.time()
            if await self._is_stirred(min(left_s, LOOK_S) if watched else left_s):
                return
            if watched:
                await self._watch()
                until = max(until, loop.time() + self._be_quiet())

    def _be_quiet(self) -> float:
        """Return for how long the server wants to be left alone since just now."""
        asked_s, self._talk.retry_after_s = self._talk.retry_after_s, 0.0
        if asked_s > 0:
            self._losses = MAX_LOSSES  # no news either, until the next round
            self._next_poll = max(self._next_poll, self._clock() + asked_s)
        return asked_s

    async def _watch(self) -> None:
        """Look at the machine, and tell what is new."""
        try:
            await self._book.look()
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
