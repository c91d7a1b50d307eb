"""Messages: what one process renders is what the other one parses."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.degradation import SafeOutput
from agent.core.messages import (
    MAX_MESSAGE_BYTES,
    Activate,
    Answers,
    Ask,
    Configure,
    Discard,
    Examine,
    Examined,
    Examining,
    Finding,
    FromChild,
    Load,
    Loaded,
    Message,
    NewSource,
    Ready,
    Refused,
    Shadow,
    Shadowed,
    Shed,
    SourceState,
    Stop,
    Stopped,
    Swapped,
    Tap,
    Tapped,
    ToChild,
    Untap,
    parse_from_child,
    parse_to_child,
    render_message,
)
from agent.core.reasons import Reason
from agent.errors import DeviceError
from tests.core.strategies import executors, sinks, sources, texts, words

counts = st.integers(min_value=0, max_value=2**62 - 1)
pids = st.integers(min_value=0, max_value=2**22)
imports = st.integers(min_value=0, max_value=2**32)
sizes = st.integers(min_value=0, max_value=2**48)
finite = st.floats(allow_nan=False)
reasons = st.sampled_from(Reason)
tables = st.dictionaries(words, texts, max_size=4)
engines = st.dictionaries(st.sampled_from(["litert", "tflite"]), texts)
to_child = st.one_of(
    st.builds(
        Configure,
        pipeline=words,
        source=sources,
        sinks=st.lists(sinks, max_size=8).map(tuple),
        first_seq=counts,
    ),
    st.builds(
        Load,
        generation=counts,
        manifest=st.binary(max_size=500),
        variant=words,
        executor=executors,
        sha256=words,
    ),
    st.builds(Activate, generation=counts),
    st.builds(Discard, generation=counts),
    st.builds(Tap, generation=counts, every=counts),
    st.builds(Untap, generation=counts),
    st.builds(
        Shed,
        every=st.integers(1, 1000),
        answer=st.sampled_from(["model", "abstain", "safe_output"]),
        safe_output=st.builds(SafeOutput, label=texts, score=st.floats(-1e9, 1e9)),
    ),
    st.builds(NewSource),
    st.builds(Stop),
    st.builds(
        Examine,
        manifest=st.binary(max_size=500),
        plan=st.lists(st.tuples(words, executors), max_size=4).map(tuple),
        rounds=counts,
        deadline_s=finite,
        digests=st.dictionaries(words, words, max_size=2),
    ),
    st.builds(
        Ask,
        manifest=st.binary(max_size=500),
        variant=words,
        executor=executors,
        sha256=words,
        most=counts,
        deadline_s=finite,
    ),
    st.builds(
        Shadow,
        manifest=st.binary(max_size=500),
        variant=words,
        executor=executors,
        tolerance=finite,
        remembers=st.booleans(),
    ),
)
from_child = st.one_of(
    st.builds(Ready, pid=pids, locks=tables, data_bytes=imports, engines=engines),
    st.builds(Loaded, generation=counts, seconds=finite),
    st.builds(Swapped, generation=counts, first_seq=counts, gap_ns=counts),
    st.builds(Tapped, generation=counts),
    st.builds(Shadowed, compared=counts, agreed=counts, p95_ms=finite, detail=texts),
    st.builds(Refused, generation=counts, reason=reasons, detail=texts),
    st.builds(SourceState, reason=reasons, detail=texts, ended=st.booleans()),
    st.builds(Stopped, next_seq=counts),
    st.builds(Examining, index=counts, stage=texts),
    st.builds(Finding, index=counts, reason=reasons, ram_bytes=sizes, p50_ms=finite),
    st.builds(Examined),
    st.builds(
        Answers, classes=st.lists(st.integers(0, 65_535), max_size=1024).map(tuple)
    ),
)


def parse_or_crash(record: bytes) -> None:
    """Parse what a child sent; the one error there may be has the reason ``crash``."""
    reasons = {Reason.CRASH}
    try:
        parse_from_child(record)
    except DeviceError as err:
        reasons.add(Reason(err.reason))
    assert reasons == {Reason.CRASH}


@given(to_child)
def test_to_child_round_trip(message: ToChild) -> None:
    """``parse_to_child(render_message(m)) == m``."""
    assert parse_to_child(render_message(message)) == message


@given(from_child)
def test_from_child_round_trip(message: FromChild) -> None:
    """``parse_from_child(render_message(m)) == m``."""
    assert parse_from_child(render_message(message)) == message


@given(st.binary(max_size=200))
def test_any_record_of_a_child_parses_or_is_a_crash(record: bytes) -> None:
    """A child gone mad costs the daemon one error it expects, never another."""
    parse_or_crash(record)


@given(from_child, st.data())
def test_a_damaged_record_parses_or_is_a_crash(
    message: FromChild, data: st.DataObject
) -> None:
    """One changed byte gives another message or the one expected error."""
    record = bytearray(render_message(message))
    place = data.draw(st.integers(min_value=0, max_value=len(record) - 1))
    record[place] ^= data.draw(st.integers(min_value=1, max_value=255))
    parse_or_crash(bytes(record))


@pytest.mark.parametrize(
    "message",
    [
        Ready(1, {}, 2**64 - 1, {}),
        Ready(-1, {}, 0, {}),
        Ready(2**30, {}, 0, {}),
        Ready(1, {"layer": "x" * 1001}, 0, {}),
        Ready(1, {}, 0, {str(number): "" for number in range(65)}),
        Loaded(-1, 0.0),
        Swapped(1, 2**62, 0),
        Swapped(1, 1, 2**62),
        Refused(1, Reason.CRASH, "x" * 20_001),
        SourceState(Reason.INPUT, "x" * 20_001),
        Stopped(2**62),
        Examining(-1, "load"),
        Examining(0, "x" * 1001),
        Finding(0, ram_bytes=2**49),
        Finding(0, peak_bytes=-1),
    ],
)
def test_what_no_board_can_measure_is_no_message(message: FromChild) -> None:
    """Numbers that a system call would not take, and endless texts, are refused."""
    with pytest.raises(DeviceError, match="no message") as refused:
        parse_from_child(render_message(message))
    assert refused.value.reason == Reason.CRASH


@given(to_child)
def test_a_child_cannot_order(message: ToChild) -> None:
    """What the daemon says is none of what a child may say."""
    with pytest.raises(DeviceError, match="no message"):
        parse_from_child(render_message(message))


@given(from_child)
def test_a_child_obeys_orders_only(message: FromChild) -> None:
    """A child does not take another child's report for an order."""
    with pytest.raises(msgspec.ValidationError):
        parse_to_child(render_message(message))


def test_a_message_fits_one_record_or_is_refused() -> None:
    """A record above the socket's buffer would block for ever: it is never sent."""
    load = Load(1, b"x" * MAX_MESSAGE_BYTES, "int8", msgspec.UNSET)  # type: ignore[arg-type]  # size only
    with pytest.raises(DeviceError, match="does not fit") as caught:
        render_message(load)
    assert caught.value.reason == Reason.INTERNAL


def test_unknown_fields_are_refused() -> None:
    """A child of another version is found out, not guessed at."""
    record = msgspec.msgpack.encode({"type": "Stopped", "next_seq": 1, "more": 2})
    with pytest.raises(DeviceError, match="no message"):
        parse_from_child(record)


def test_every_message_goes_one_way() -> None:
    """Each message has a direction, and only one."""
    down, up = set(ToChild.__args__), set(FromChild.__args__)
    assert down & up == set()
    assert down | up == set(Message.__subclasses__())
