"""Logs: one event is one line that people and journald can read."""

import io
import json
import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.logs import (
    MAX_VALUE_CHARS,
    EventFormatter,
    change_level,
    is_journal,
    render_value,
    start_logging,
)


def line_of(event: str, *, journal: bool = False, **fields: object) -> str:
    """Format one event."""
    record = logging.LogRecord("agent.x", logging.WARNING, "", 0, event, (), None)
    record.__dict__.update(fields)
    return EventFormatter(journal=journal).format(record)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Give the root logger and put it back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("agent").setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)


def test_an_event_has_time_level_name_and_fields() -> None:
    """The fields keep their order; plain values stand bare."""
    line = line_of("update.refused", reason="expired", pipeline="kws", count=3)
    time, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == "warning update.refused reason=expired pipeline=kws count=3"


def test_journald_gets_a_priority_and_keeps_the_time() -> None:
    """A warning is priority 4 of syslog."""
    assert line_of("worker.died", journal=True, pid=7) == "<4>worker.died pid=7"


@given(st.text())
def test_an_event_is_one_line(text: str) -> None:
    """Whatever a field holds, no second line can be forged."""
    line = line_of("x", what=text)
    assert len(line.splitlines()) == 1
    assert line.split("what=", 1)[1] == render_value(text)


@given(st.text(max_size=MAX_VALUE_CHARS))
def test_values_can_be_read_back(text: str) -> None:
    """A value is itself, or a JSON string of itself."""
    written = render_value(text)
    assert text == (json.loads(written) if written.startswith('"') else written)


def test_long_values_are_cut() -> None:
    """A value that fills the disk is none of ours."""
    assert len(render_value("x" * 100_000)) == MAX_VALUE_CHARS


def test_an_exception_is_a_field() -> None:
    """A trace stays with its event, on the same line."""
    record = logging.LogRecord("agent.x", logging.ERROR, "", 0, "bug", (), None)
    try:
        int("two\nlines")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = EventFormatter(journal=True).format(record)
    trace = json.loads(line.partition("trace=")[2])
    assert line.startswith("<3>bug trace=")
    assert trace.splitlines()[-1].startswith("ValueError: invalid literal")


def test_levels_are_ours_and_libraries_are_quiet(root_logger: logging.Logger) -> None:
    """The setting moves our own events; libraries are heard from warning on."""
    stream = io.StringIO()
    start_logging("debug", stream)
    logging.getLogger("agent.update").debug("ours")
    logging.getLogger("asyncio").info("not ours")
    root_logger.warning("loud")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == [
        "ours",
        "loud",
    ]


@pytest.mark.usefixtures("root_logger")
def test_who_listens_hears_what_is_not_written() -> None:
    """A terse journal is no reason for a log of receipts to hold less."""
    stream, heard = io.StringIO(), logging.StreamHandler(io.StringIO())
    start_logging("info", stream)
    agent = logging.getLogger("agent")
    agent.addHandler(heard)
    for level in ("error", "debug"):
        change_level(level)
        logging.getLogger("agent.update").info("update.committed")
        logging.getLogger("agent.update").debug("details")
    agent.removeHandler(heard)
    assert [it.split()[-1] for it in stream.getvalue().splitlines()] == [
        "update.committed",
        "details",
    ]
    assert heard.stream.getvalue().split() == ["update.committed"] * 2 + ["details"]


def test_starting_again_replaces_the_stream(root_logger: logging.Logger) -> None:
    """No event is written twice."""
    first, second = io.StringIO(), io.StringIO()
    start_logging("info", first)
    start_logging("info", second)
    logging.getLogger("agent").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert len(root_logger.handlers) == 1


def test_warnings_become_events(root_logger: logging.Logger) -> None:
    """A deprecation somewhere below is a line with a level, not raw text."""
    stream = io.StringIO()
    start_logging("info", stream, journal=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert root_logger.handlers
    assert stream.getvalue().startswith("<4>")


def test_the_journal_is_known_by_its_socket() -> None:
    """Only a stream that is the socket which systemd names goes to the journal."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("w") as stream:
        status = os.fstat(ours.fileno())
        named = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, named)
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not is_journal(stream, {})
        assert not is_journal(io.StringIO(), named)
