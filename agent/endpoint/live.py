"""``GET /v1/live``: the state once a second and events as they come, as a stream.

Server-sent events (WHATWG HTML, section 9.2): plain HTTP, one direction, and browsers
bring the client. A viewer gets the trends so far, the events that are kept, then
``state`` once a second, and at once when something was logged.

The rules this module keeps:
 * Nothing runs while nobody looks; what several viewers see is made once for them all.
 * Viewers are few. One that reads slowly gets fewer states, never a longer queue, and
   one that reads nothing for ``SLOW_S`` is cut.
 * A stream ends after ``LIFE_S`` and the page asks again: who may look is judged anew.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from aiohttp import web

from agent.core.events import Event
from agent.endpoint.bodies import parse_number
from agent.endpoint.event_words import describe_event
from agent.endpoint.live_state import Stories, describe_live, describe_points
from agent.endpoint.needs import Facts
from agent.endpoint.services import Services
from agent.errors import AgentError

PERIOD_S = 1.0  # what an eye follows; the numbers are averages over two seconds
LOOK_S = 0.25  # an event is on the page while its cause is still in mind
LIFE_S = 60.0  # after that a revoked certificate sees nothing any more
SLOW_S = 10.0
PLACES = 8  # a team that looks at one board; more would cost models their time
PER_PEER = 2  # of a certificate: the listener gives it four connections in all
STORIES_S = 30.0  # the disk is asked at once where an update ended
MAX_EVENTS = 200  # on a page that opens; the command line shows all that are kept
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would collect 4 kB before it passes any on
    "Server": "tinyward",
}
RETRY_AFTER_S = "10"


@dataclass
class Viewer:
    """One open page.

    Attributes:
        after: The newest event it has; ``since`` the time of its newest point.
        slow_s: How long it may read nothing.
        told_at: When it was sent a state last; ``read_at`` when it last kept up.
    """

    request: web.Request
    response: web.StreamResponse
    after: int
    since: int
    slow_s: float
    told_at: float = -PERIOD_S
    read_at: float = 0.0

    @property
    def transport(self) -> asyncio.Transport | None:
        """Return its connection; None once that is closed."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            return None
        return transport

    async def send(self, name: str, body: bytes) -> None:
        """Send one event of the stream.

        Raises:
            TimeoutError: It reads too slowly.
            ConnectionError: It has gone.
        """
        async with asyncio.timeout(self.slow_s):
            await self.response.write(
                b"event: %b\ndata: %b\n\n" % (name.encode(), body)
            )


class Live:
    """Tells viewers what happens.

    Args:
        facts: What is shown.
        services: What is known of updates that ended.
        life_s: How long a stream lasts, and ``slow_s`` one that nobody reads.
        places: How many there may be at once.
    """

    def __init__(
        self,
        facts: Facts,
        services: Services,
        *,
        life_s: float = LIFE_S,
        slow_s: float = SLOW_S,
        places: int = PLACES,
    ) -> None:
        self.life_s = life_s
        self.slow_s = slow_s
        self._facts = facts
        self._services = services
        self._places = places
        self._viewers: list[bytes] = []
        self._state = b""
        self._state_at = -PERIOD_S
        self._stories = Stories()
        self._stories_at = -STORIES_S
        self._stories_of: object = None
        self._ended = False

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._viewers)

    async def end(self, app: web.Application) -> None:
        """Let all streams end: the agent stops."""
        del app
        self._ended = True

    async def answer(
        self, request: web.Request, key: bytes = b""
    ) -> web.StreamResponse:
        """Stream to one viewer until it leaves, or its time is up.

        Args:
            request: Its query says what the page has: ``after`` an event's number,
                ``since`` the time of its last point.
            key: Tells certificates apart; empty where there is none.

        Raises:
            RequestRefusedError: ``request``: the query makes no sense.
        """
        if self.viewers >= self._places or (
            key and self._viewers.count(key) >= PER_PEER
        ):
            return web.Response(status=503, headers={"Retry-After": RETRY_AFTER_S})
        after, since = parse_number(request, "after"), parse_number(request, "since")
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()
        with self._place(key):
            await response.prepare(request)
            if request.method != "HEAD":
                viewer = Viewer(request, response, after, since, self.slow_s)
                await self._follow(viewer)
        return response

    @contextmanager
    def _place(self, key: bytes) -> Iterator[None]:
        """Take a place, and give it back."""
        self._viewers.append(key)
        try:
            yield
        finally:
            self._viewers.remove(key)

    async def _follow(self, viewer: Viewer) -> None:
        """Tell one viewer everything, as it comes."""
        loop = asyncio.get_running_loop()
        viewer.read_at = loop.time()
        ends = viewer.read_at + self.life_s
        try:
            await self._begin(viewer)
            while not self._ended and viewer.transport and loop.time() < ends:
                await self._tell(viewer, loop.time())
                await asyncio.sleep(LOOK_S)
        except ConnectionError:
            return
        except TimeoutError:
            if viewer.transport is not None:
                viewer.transport.abort()

    async def _begin(self, viewer: Viewer) -> None:
        """Send what happened before the page was opened, a pipeline at a time."""
        kept = self._facts.events(0)
        if kept and kept[-1].id < viewer.after:
            viewer.after = 0  # the agent began anew, and counts from one again
        for name, points in self._facts.trends().items():
            newer = [point for point in points if point.at > viewer.since]
            row = {"pipeline": name, "points": describe_points(newer)}
            await viewer.send("trend", msgspec.json.encode(row))

    async def _tell(self, viewer: Viewer, now: float) -> None:
        """Send a viewer what is new, unless it is still busy with what was.

        Raises:
            TimeoutError: It has read nothing for too long.
        """
        transport = viewer.transport
        if transport is None or transport.get_write_buffer_size() > 0:
            if now - viewer.read_at > self.slow_s:
                raise TimeoutError
            return
        viewer.read_at = now
        events = self._new_events(viewer)
        if events or now - viewer.told_at >= PERIOD_S:
            viewer.told_at = now
            await viewer.send("state", self._current(now, fresh=bool(events)))
        if events:
            told = [describe_event(event) for event in events]
            await viewer.send("events", msgspec.json.encode(told))

    def _new_events(self, viewer: Viewer) -> list[Event]:
        """Return the events a viewer has not seen."""
        events = list(self._facts.events(viewer.after))[-MAX_EVENTS:]
        if events:
            viewer.after = events[-1].id
        return events

    def _current(self, now: float, *, fresh: bool) -> bytes:
        """Return the state, made once for all who look at about the same time."""
        if now - self._state_at >= (LOOK_S / 2 if fresh else PERIOD_S - LOOK_S):
            agent = self._facts.snapshot()
            update = agent.update
            ended = sum(update.results.values())
            self._remember(now, (update.phase, ended, update.set_aside))
            shown = describe_live(
                agent,
                self._facts.readings(),
                self._facts.trends(),
                self._stories,
            )
            self._state, self._state_at = msgspec.json.encode(shown), now
        return self._state

    def _remember(self, now: float, stage: object) -> None:
        """Read how updates ended from the disk, if that may have changed."""
        operations = self._services.operations
        if operations is None or (
            stage == self._stories_of and now - self._stories_at < STORIES_S
        ):
            return
        self._stories_of, self._stories_at = stage, now
        try:
            self._stories = Stories(operations.reports(), operations.quarantine())
        except AgentError:  # a disk that fails is in the events already
            self._stories = Stories()
