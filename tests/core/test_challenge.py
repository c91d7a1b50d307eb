"""Challenges: a container that says what is asked, and answers that say of what."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.challenge import (
    INPUTS_ENTRY,
    ORDER_ENTRY,
    Challenge,
    ChallengeAnswers,
    ChallengeOrder,
    name_inputs,
    parse_answers,
    parse_challenge,
    render_challenge,
)
from agent.core.container import parse_container, render_container
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.refusals import outcome

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
nonces = st.from_regex(r"[0-9a-f]{32,128}", fullmatch=True)
orders = st.builds(
    ChallengeOrder,
    board=names,
    pipeline=names,
    model=names,
    version=st.integers(1, 2**31 - 1),
    variant=names,
    nonce=nonces,
    session=st.just("") | names,
)
ORDER = ChallengeOrder("pi-7", "door", "kws", 8, "int8", "0" * 32, "1" * 32)
CONTAINER = {"", Reason.MALFORMED, Reason.TRUNCATED, Reason.TOO_LARGE, Reason.REQUEST}


@given(orders, st.binary(max_size=200))
def test_round_trip(order: ChallengeOrder, inputs: bytes) -> None:
    """``parse_challenge(render_challenge(c)) == c``."""
    challenge = Challenge(order, inputs)
    assert parse_challenge(render_challenge(challenge)) == challenge


@given(st.binary(max_size=300))
def test_any_bytes_are_a_challenge_or_refused(raw: bytes) -> None:
    """There is one kind of error, whatever comes; of answers likewise."""
    for parse in (parse_challenge, parse_answers):
        assert outcome(parse, raw) in CONTAINER


@given(st.data())
def test_a_damaged_challenge_is_refused_or_read(data: st.DataObject) -> None:
    """A byte changed anywhere costs one error at most."""
    raw = bytearray(render_challenge(Challenge(ORDER, b"inputs")))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(parse_challenge, bytes(raw)) in CONTAINER


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "0" * 31},
        {"nonce": "x" * 32},
        {"version": 0},
        {"pipeline": "../x"},
        {"board": "x" * 129},
        {"extra": 1},
    ],
)
def test_orders_are_strict(changes: dict[str, object]) -> None:
    """Short nonces, impossible names and unknown keys are refused."""
    order = json.dumps({**msgspec.to_builtins(ORDER), **changes}).encode()
    raw = render_container({ORDER_ENTRY: order, INPUTS_ENTRY: b"x"})
    with pytest.raises(BundleRefusedError) as caught:
        parse_challenge(raw)
    assert caught.value.reason == Reason.REQUEST


def test_a_challenge_holds_two_entries_of_some_size() -> None:
    """One more, one less, or an order of megabytes is none."""
    order = msgspec.json.encode(ORDER)
    for entries in (
        {ORDER_ENTRY: order},
        {ORDER_ENTRY: order, INPUTS_ENTRY: b"x", "more": b""},
        {ORDER_ENTRY: order + b" " * 5000, INPUTS_ENTRY: b"x"},
    ):
        with pytest.raises(BundleRefusedError) as caught:
            parse_challenge(render_container(dict(entries)))
        assert caught.value.reason == Reason.REQUEST


def test_inputs_are_given_the_name_of_the_variant() -> None:
    """That is how an asked child, and a bundle, have them."""
    found = parse_container(memoryview(name_inputs("int8", b"array")))
    assert {name: bytes(it) for name, it in found.items()} == {"int8.npy": b"array"}


@given(
    st.builds(
        ChallengeAnswers,
        **dict.fromkeys(("board", "pipeline", "model", "variant", "executor"), names),
        nonce=nonces,
        version=st.integers(1, 2**31 - 1),
        sha256=st.just("1" * 64),
        inputs_sha256=st.just("2" * 64),
        classes=st.lists(st.integers(0, 999), max_size=256).map(tuple),
    )
)
def test_answers_round_trip(answers: ChallengeAnswers) -> None:
    """``parse_answers(msgspec.json.encode(a)) == a``."""
    assert parse_answers(msgspec.json.encode(answers)) == answers
