"""Events in journald's native protocol, read by a socket that stands in for its own."""

import io
import logging
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.journal import JournalOutput, field_name, render_entry
from agent.telemetry.logs import EventFormatter

# What systemd.journal-fields(7) allows of names that clients send.
ALLOWED = re.compile(r"[A-Z0-9][A-Z0-9_]{0,63}")


def record(event: str, **fields: object) -> logging.LogRecord:
    """Return an event as the logger makes it."""
    made = logging.LogRecord("agent", logging.WARNING, "", 0, event, (), None)
    made.__dict__.update(fields)
    return made


def parse(raw: bytes) -> dict[str, str]:
    """Read a datagram as journald does: by lines, or by the length ahead."""
    stream, found = io.BytesIO(raw), {}
    while line := stream.readline():
        name, equals, value = line.rstrip(b"\n").partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", stream.read(8))
            value = stream.read(length)
            assert stream.read(1) == b"\n"
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """Give a socket that journald would read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "socket"))
        reader.settimeout(10)
        yield reader


@pytest.fixture
def output(tmp_path: Path) -> Iterator[tuple[JournalOutput, io.StringIO]]:
    """Give an output to the socket of this test, and the stream behind it."""
    stream = io.StringIO()
    otherwise = logging.StreamHandler(stream)
    otherwise.setFormatter(EventFormatter(journal=True))
    made = JournalOutput(otherwise, tmp_path / "socket")
    yield made, stream
    made.close()


def test_each_field_is_one_of_the_journals(
    journal: socket.socket, output: tuple[JournalOutput, io.StringIO]
) -> None:
    """What ``journalctl -o json`` shows, and what it can be asked for."""
    output[0].handle(record("update.refused", pipeline="kws", reason="expired"))
    assert parse(journal.recv(4096)) == {
        "MESSAGE": "update.refused pipeline=kws reason=expired",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "tinyward",
        "TINYWARD_EVENT": "update.refused",
        "TINYWARD_PIPELINE": "kws",
        "TINYWARD_REASON": "expired",
    }
    assert output[1].getvalue() == ""


def test_a_journal_that_is_gone_loses_nothing(
    output: tuple[JournalOutput, io.StringIO],
) -> None:
    """The line goes where it went before there was a protocol."""
    output[0].handle(record("worker.died", reason="crash"))
    assert output[1].getvalue() == "<4>worker.died reason=crash\n"


def test_a_journal_that_is_full_is_not_waited_for(
    journal: socket.socket, output: tuple[JournalOutput, io.StringIO]
) -> None:
    """The daemon's loop goes on; what finds no room is on the stream."""
    for number in range(10_000):
        output[0].handle(record("again", number=number))
        if output[1].getvalue():
            break
    assert output[1].getvalue() == f"<4>again number={number}\n"
    assert parse(journal.recv(4096))["TINYWARD_NUMBER"] == "0"


@given(
    st.text(min_size=1),
    st.dictionaries(st.text(min_size=1, max_size=80), st.text(max_size=3000)),
)
def test_law_no_field_passes_for_another(event: str, fields: dict[str, str]) -> None:
    """Whatever an event holds, names are ours and values end where they end."""
    ours = {f"x_{name}": value for name, value in fields.items()}
    read = parse(render_entry(record(event, **ours), "line"))
    fixed = ("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER")
    assert [read.pop(name) for name in fixed] == ["line", "4", "tinyward"]
    assert all(name.startswith("TINYWARD_") for name in read)
    assert all(ALLOWED.fullmatch(name) for name in read)
    assert read.keys() == {field_name(name) for name in ("event", *ours)}
