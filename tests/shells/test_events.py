"""Events: the ring that keeps them, the API and the command that show them."""

import asyncio
import json
import logging
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.board_answers import EventAnswer, Events
from agent.cli.board_link import BoardLink
from agent.cli.events import Tail, command
from agent.core.events import KEPT, Event
from agent.core.reasons import Reason
from agent.endpoint.local import LocalEndpoint
from agent.endpoint.services import Services
from agent.errors import DeviceError, RequestRefusedError
from agent.telemetry.event_ring import (
    MAX_EVENT_CHARS,
    MAX_FIELD_CHARS,
    MAX_FIELDS,
    EventRing,
)
from tests.fakes.control_bench import bench, listening
from tests.fakes.shown import events_of, shown_facts

log = logging.getLogger("agent.tests.events")
WORST_BYTES = 3_500_000  # of a full ring
INT_ERROR = "invalid literal for int() with base 10: 'of a kind'"


@pytest.fixture
def ring() -> Iterator[EventRing]:
    """Give a ring that listens to the agent's loggers, and ends with the test."""
    made = EventRing(capacity=5)
    level = logging.getLogger("agent").level
    logging.getLogger("agent").setLevel(logging.INFO)
    made.install()
    yield made
    made.remove()
    logging.getLogger("agent").setLevel(level)


def test_what_is_logged_is_kept_with_its_fields(ring: EventRing) -> None:
    """Name, level and fields are those of the log line."""
    log.warning("update.refused", extra={"reason": Reason.EXPIRED, "version": 9})
    (event,) = ring.events()
    assert (event.id, event.level, event.name) == (1, "warning", "update.refused")
    assert event.fields == {"reason": "expired", "version": "9"}


def test_what_cannot_be_spelled_is_no_callers_trouble(
    ring: EventRing, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said on stderr, as logging does; the ring and the agent go on."""
    record = logging.LogRecord(
        log.name, logging.INFO, __file__, 1, "%d models", ("many",), None
    )
    ring.handle(record)
    log.info("next")
    assert [(it.id, it.name) for it in ring.events()] == [(1, "next")]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_levels_are_the_logs(ring: EventRing) -> None:
    """What the log leaves out is not kept; a critical event is an error."""
    log.debug("never.seen")
    log.critical("worst")
    assert [(it.level, it.name) for it in ring.events()] == [("error", "worst")]


def test_a_trace_is_kept_as_its_error(ring: EventRing) -> None:
    """The page needs the end of a trace; the journal has all of it."""
    try:
        int("of a kind")
    except ValueError:
        log.exception("control.bug")
    assert ring.events()[0].fields == {"error": "ValueError: " + INT_ERROR}


def test_libraries_are_not_heard(ring: EventRing) -> None:
    """Only the agent's own loggers are events."""
    logging.getLogger("urllib3").error("noise")
    assert list(ring.events()) == []


def test_long_fields_and_many_fields_are_cut(ring: EventRing) -> None:
    """A refusal that quotes a page keeps its beginning."""
    log.error("long", extra={"detail": "x" * 100_000})
    log.error("many", extra={f"f{i}": i for i in range(100)})
    long, many = ring.events()
    assert len(long.fields["detail"]) == MAX_FIELD_CHARS
    assert len(many.fields) == MAX_FIELDS


@given(
    name=st.text(max_size=400),
    fields=st.dictionaries(
        st.integers(0, 30), st.integers(0, 400) | st.text(), max_size=20
    ),
    fails=st.booleans(),
)
def test_an_event_is_bounded_as_a_whole(
    *, name: str, fields: dict[int, int | str], fails: bool
) -> None:
    """Law: so many characters in all; an error keeps its place, short fields theirs."""
    error = (ValueError, ValueError("e" * 400), None) if fails else None
    made = EventRing()
    record = logging.LogRecord("agent", logging.INFO, "", 0, "%s", (name,), error)
    values = {
        f"f{i}": "x" * it if isinstance(it, int) else it for i, it in fields.items()
    }
    record.__dict__.update(values)
    made.emit(record)
    (event,) = made.events()
    texts = [event.name, *event.fields.values()]
    assert sum(map(len, texts)) <= MAX_EVENT_CHARS
    assert max(map(len, texts)) <= MAX_FIELD_CHARS
    assert (len(event.fields.get("error", "")) == MAX_FIELD_CHARS) is fails
    if sum(map(len, values.values())) <= MAX_FIELD_CHARS and len(values) <= MAX_FIELDS:
        assert {key: event.fields[key] for key in values} == values


def test_a_full_ring_of_long_events_takes_what_its_comment_says() -> None:
    """3.1 MB where every character takes four bytes."""
    made = EventRing()
    long = dict.fromkeys((f"f{i}" for i in range(MAX_FIELDS)), "\U0001f6aa" * 1000)
    tracemalloc.start()
    for _ in range(KEPT):
        record = logging.LogRecord("agent", logging.INFO, "", 0, "x", (), None)
        record.__dict__.update(long)
        made.emit(record)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made.events()) == KEPT
    assert taken < WORST_BYTES


def test_a_full_ring_forgets_the_oldest(ring: EventRing) -> None:
    """Numbers go on, so that a hole shows; ``after`` finds what is kept."""
    for number in range(12):
        log.info("event.%s", number)
    assert [it.id for it in ring.events()] == [8, 9, 10, 11, 12]
    assert [it.id for it in ring.events(10)] == [11, 12]
    assert list(ring.events(12)) == []
    assert ring.last() == 12


def test_a_ring_that_was_removed_hears_nothing(ring: EventRing) -> None:
    """What it kept stays."""
    log.info("one")
    ring.remove()
    log.info("two")
    assert [it.name for it in ring.events()] == ["one"]


@given(st.integers(1, 20), st.integers(0, 60), st.integers(-5, 70))
def test_events_after_a_number_are_the_newest_ones(
    capacity: int, count: int, after: int
) -> None:
    """Law: rising by one, above ``after``, never more than are kept."""
    kept = EventRing(capacity)
    for _ in range(count):
        kept.emit(logging.LogRecord("agent", logging.INFO, "", 0, "x", (), None))
    found = [event.id for event in kept.events(after)]
    first = max(after, count - capacity, 0) + 1
    assert found == list(range(first, count + 1))


def test_five_hundred_are_kept() -> None:
    """As the settings' page promises."""
    kept = EventRing()
    for _ in range(KEPT + 1):
        kept.emit(logging.LogRecord("agent", logging.INFO, "", 0, "x", (), None))
    assert len(kept.events()) == KEPT


# --- the API


def test_the_api_shows_what_came_after_a_number(tmp_path: Path) -> None:
    """Observers may read; the newest number is told although nothing is new."""

    async def story() -> None:
        async with listening(bench(tmp_path, facts=shown_facts())) as made:
            all_of_them = await made.ask(made.observer, "GET /v1/events")
            some = await made.ask(made.observer, "GET /v1/events?after=5")
            none = await made.ask(made.observer, "GET /v1/events?after=7")
            assert [row["id"] for row in all_of_them.json["events"]] == list(
                range(1, 8)
            )
            assert [row["id"] for row in some.json["events"]] == [6, 7]
            assert none.json == {"events": [], "last": 7}
            for wrong in ("-1", "x", "9" * 40, "%C2%B2"):
                reply = await made.ask(made.observer, f"GET /v1/events?after={wrong}")
                assert (reply.status, reply.json["reason"]) == (400, "request")
            scraper = await made.ask(made.scraper, "GET /v1/events")
            assert scraper.status == 403

    asyncio.run(story())


# --- the command


class Scripted(BoardLink):
    """A link whose board says one thing after the other."""

    def __init__(self, *answers: Events | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    def events(self, after: int) -> Events:
        """Say the next thing."""
        self.asked.append(after)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(*numbers: int, last: int | None = None) -> Events:
    """Return an answer with events of these numbers."""
    events = tuple(EventAnswer(id=number, name=f"e{number}") for number in numbers)
    return Events(events, numbers[-1] if last is None else last)


def follow(link: Scripted, rounds: int, after: int) -> list[int]:
    """Follow for some rounds; return the numbers that were shown."""
    shown: list[int] = []

    def show(events: Sequence[EventAnswer]) -> None:
        shown.extend(event.id for event in events)

    def pause(_: float) -> None:
        nonlocal rounds
        rounds -= 1
        if rounds < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Tail(link, show, pause).run(after)
    return shown


def test_following_asks_for_what_is_new_only() -> None:
    """Nothing is shown twice, nothing is left out."""
    link = Scripted(answer(8, 9), answer(last=9), answer(10))
    assert follow(link, 3, 7) == [8, 9, 10]
    assert link.asked == [7, 9, 9]


def test_an_agent_that_began_anew_is_followed_from_its_first_event() -> None:
    """It counts from one again; what it logged until we asked is shown."""
    link = Scripted(answer(last=2), answer(1, 2), answer(3))
    assert follow(link, 2, 40) == [1, 2, 3]
    assert link.asked == [40, 0, 2]


def test_a_board_that_restarts_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is said once, and the events go on where they stopped."""
    gone = DeviceError("no way", reason=Reason.UNREACHABLE)
    link = Scripted(gone, gone, answer(8))
    assert follow(link, 3, 7) == [8]
    assert capsys.readouterr().err.count("lost the board") == 1


def test_a_board_that_refuses_ends_it() -> None:
    """A certificate that was revoked will not come back."""
    refused = RequestRefusedError("no", reason=Reason.CERTIFICATE)
    with pytest.raises(RequestRefusedError):
        follow(Scripted(refused), 3, 7)


def test_the_command_prints_lines_and_json(tmp_path: Path) -> None:
    """By level, oldest first, one event a line whatever its fields hold."""
    facts = shown_facts()
    evil = {"detail": "two\nlines \x1b[2J"}
    facts.logged = [*events_of(), Event(8, 5.0, "error", "odd", evil)]

    async def story() -> None:
        path = tmp_path / "s"
        endpoint = LocalEndpoint(facts, "", path, services=Services())
        await endpoint.open()
        try:

            async def run(*options: str) -> list[str]:
                arguments = ["--socket", str(path), *options]
                done = await asyncio.to_thread(
                    CliRunner().invoke, command, arguments, catch_exceptions=False
                )
                assert done.exit_code == 0
                return done.output.splitlines()

            lines = await run()
            assert len(lines) == 7  # all but the debug one
            assert "agent.started version=0.1.0 pipelines=1" in lines[0]
            assert "\x1b[2J" not in lines[-1]
            rows = [
                json.loads(line) for line in await run("--json", "--level", "error")
            ]
            assert [row["name"] for row in rows] == ["worker.died", "odd"]
            assert rows[-1]["fields"] == evil
        finally:
            await endpoint.close()

    asyncio.run(story())
