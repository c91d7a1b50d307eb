"""Statements of origin: in-toto's form, strict, and about these very bytes."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.dsse import Envelope, Signature, render_envelope
from agent.core.provenance import (
    MAX_PROVENANCE_BYTES,
    ORIGIN,
    PAYLOAD_TYPE,
    RUNNING,
    STATEMENT,
    Approver,
    Code,
    DigestSet,
    Material,
    Origin,
    OriginStatement,
    Running,
    Score,
    Subject,
    check_provenance,
    open_statement,
    parse_running,
    parse_statement,
    read_origin,
    render_statement,
    state_origin,
    state_running,
    subjects_of,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.bundles import manifest
from tests.fakes.refusals import outcome

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
named = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
sets = st.builds(DigestSet, sha256=digests)
origins = st.builds(
    Origin,
    training_data=st.lists(
        st.builds(Material, name=named, digest=sets, uri=texts), min_size=1, max_size=3
    ).map(tuple),
    code=st.builds(
        Code, commit=st.from_regex(r"[0-9a-f]{40}", fullmatch=True), repository=texts
    ),
    evaluation=st.lists(
        st.builds(Score, metric=named, value=numbers, on=texts), min_size=1, max_size=3
    ).map(tuple),
    approver=st.builds(Approver, name=named, at=texts),
)
subjects = st.lists(st.builds(Subject, name=named, digest=sets), min_size=1, max_size=3)
runnings = st.builds(
    Running,
    **dict.fromkeys(("board", "pipeline", "model", "variant", "executor"), named),
    version=st.integers(1, 2**31 - 1),
    packed=digests,
    bundle=digests,
    copy=st.sampled_from(["", "marked", "own"]),
    verified_at=numbers,
    said_at=numbers,
    nonce=texts,
    origin=st.none() | st.dictionaries(texts, texts | st.integers(-9, 9), max_size=3),
    **dict.fromkeys(("origin_trouble", "session"), texts),
)

SAID = Origin(
    (Material("recordings.tar", DigestSet("1" * 64)),),
    Code("a" * 40, "https://git.example/kws"),
    (Score("accuracy", 0.93, "held-out recordings"),),
    Approver("A. Person", "2026-11-02"),
)


def good() -> OriginStatement:
    """Return a statement about the variants of ``manifest()``."""
    return state_origin(subjects_of(manifest()), SAID)


def refusal(raw: bytes) -> BundleRefusedError:
    """Return the error that refuses a provenance.json."""
    with pytest.raises(BundleRefusedError) as caught:
        check_provenance(raw, manifest())
    return caught.value


@given(subjects, origins)
def test_origin_round_trip(about: list[Subject], origin: Origin) -> None:
    """``parse_statement(render_statement(s)) == s``."""
    statement = state_origin(about, origin)
    assert parse_statement(render_statement(statement)) == statement


@given(digests, runnings)
def test_running_round_trip(sha256: str, running: Running) -> None:
    """``parse_running(render_statement(s)) == s``."""
    statement = state_running(sha256, running)
    assert parse_running(render_statement(statement)) == statement


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda it: it.encode()))
def test_any_bytes_are_a_statement_or_refused(raw: bytes) -> None:
    """There is one kind of error, whatever comes."""
    for parse in (parse_statement, parse_running, read_origin, open_statement):
        assert outcome(parse, raw) in {"", Reason.PROVENANCE, Reason.TOO_LARGE}


@given(st.data())
def test_damaged_statements_are_refused_or_read(data: st.DataObject) -> None:
    """A byte changed anywhere costs one error at most."""
    raw = bytearray(render_statement(good()))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    check = partial(check_provenance, manifest=manifest())
    assert outcome(check, bytes(raw)) in {"", Reason.PROVENANCE}


def test_it_is_what_in_toto_says_a_statement_is() -> None:
    """The keys of spec/v1/statement.md, and nothing beside them."""
    tree = json.loads(render_statement(good()))
    assert tree.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert (tree["_type"], tree["predicateType"]) == (STATEMENT, ORIGIN)
    assert tree["subject"][0].keys() == {"name", "digest"}
    assert tree["predicate"].keys() == {
        *("trainingData", "code", "evaluation", "approver"),
    }
    running = Running(
        *("b", "p", "m", 1, "int8", "2" * 64, "litert", "3" * 64, "own", 1.0, 2.0)
    )
    said = json.loads(render_statement(state_running("4" * 64, running)))
    assert said["predicateType"] == RUNNING
    assert said["subject"] == [{"name": "m/int8", "digest": {"sha256": "4" * 64}}]


def test_a_statement_may_come_in_an_envelope() -> None:
    """It is opened, its type is compared, and who signed is kept for who asks."""
    raw = render_statement(good())
    signed = Envelope(raw, PAYLOAD_TYPE, (Signature(b"s", "k"),))
    assert check_provenance(render_envelope(signed), manifest()) == good()
    assert open_statement(render_envelope(signed)) == (raw, signed)
    other = Envelope(raw, "text/plain", signed.signatures)
    assert refusal(render_envelope(other)).reason == Reason.PROVENANCE


def about(*digests_: str) -> bytes:
    """Return a statement about some digests."""
    found = [Subject("x", DigestSet(it)) for it in digests_]
    return render_statement(state_origin(found, SAID))


def test_it_is_about_every_variant_and_nothing_else() -> None:
    """Other bytes, a variant left out, and one named twice: ``provenance``."""
    first, second = (it.sha256 for it in manifest().variants)
    assert check_provenance(about(second, first), manifest()).predicate == SAID
    assert "none of the variants" in str(refusal(about(first, second, "5" * 64)))
    assert "0 times" in str(refusal(about(first)))
    assert "2 times" in str(refusal(about(first, second, second)))


def change(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Return what sets a key of a statement."""
    return lambda tree: tree.__setitem__(key, value)


@pytest.mark.parametrize(
    "spoil",
    [
        change("_type", "https://in-toto.io/Statement/v0.1"),
        change("predicateType", "https://slsa.dev/provenance/v1"),
        change("extra", 1),
        change("subject", []),
        lambda tree: tree["subject"][0]["digest"].update(sha512="0" * 128),
        lambda tree: tree["subject"][0]["digest"].update(sha256="0" * 63),
        lambda tree: tree["predicate"].update(extra=1),
        lambda tree: tree["predicate"].pop("trainingData"),
        lambda tree: tree["predicate"]["code"].update(commit="main"),
        lambda tree: tree["predicate"]["evaluation"][0].update(value="good"),
        lambda tree: tree["predicate"]["approver"].update(name=""),
    ],
)
def test_strict(spoil: Callable[[dict[str, Any]], None]) -> None:
    """Other types, unknown keys, missing and impossible values are refused."""
    tree = json.loads(render_statement(good()))
    spoil(tree)
    assert refusal(json.dumps(tree).encode()).reason == Reason.PROVENANCE


def test_numbers_that_are_none_and_keys_that_stand_twice() -> None:
    """Two readers would believe two different things."""
    raw = render_statement(good())
    for spoilt in (
        raw.replace(b"0.93", b"NaN"),
        raw.replace(b"0.93", b"1e999"),
        raw.replace(b'"_type":', b'"_type": 1, "_type":'),
        raw.replace(b"A. Person", b"\\ud800"),
        b"[" * 100_000,
    ):
        assert refusal(spoilt).reason == Reason.PROVENANCE


def test_too_large() -> None:
    """What exceeds the limit is not parsed."""
    raw = render_statement(good())
    padded = raw + b" " * (MAX_PROVENANCE_BYTES - len(raw))
    assert check_provenance(padded, manifest()) == good()
    assert refusal(padded + b" ").reason == Reason.TOO_LARGE


def test_what_a_bundle_says_goes_out_as_it_is() -> None:
    """Nothing where it says nothing; of an envelope, what DSSE knows."""
    raw = render_statement(good())
    assert read_origin(b"") is None
    assert read_origin(raw) == json.loads(raw)
    signed = render_envelope(Envelope(raw, PAYLOAD_TYPE, (Signature(b"s", "k"),)))
    assert read_origin(signed) == json.loads(signed)
    assert read_origin(signed[:-1] + b',"more":1}') == json.loads(signed)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"[]", b"1", b"{", b'{"a": 1}', b'{"a": 1, "a": 2}'),
        *(b'{"x": 1e999}', b'{"x": "\\ud800"}'),
        render_statement(good()).replace(b"0.93", b"1e999"),
        render_statement(good()).replace(b"A. Person", b"\\ud800"),
        render_statement(good()).replace(b"0.93", b"1" + b"0" * 400),
    ],
)
def test_a_board_passes_on_only_what_can_be_read_again(raw: bytes) -> None:
    """It would sign what nobody can parse: infinity, half a character, anything."""
    for each in (raw, render_envelope(Envelope(raw, PAYLOAD_TYPE, (Signature(b"s"),)))):
        with pytest.raises(BundleRefusedError) as caught:
            read_origin(each)
        assert caught.value.reason == Reason.PROVENANCE


@given(origins)
def test_what_is_passed_on_is_read_again(origin: Origin) -> None:
    """A board's statement with any origin in it is one."""
    raw = render_statement(state_origin(subjects_of(manifest()), origin))
    running = Running(
        *("b", "p", "m", 1, "int8", "2" * 64, "litert", "3" * 64, "", 1.0, 2.0, ""),
        read_origin(raw),
    )
    statement = state_running("4" * 64, running)
    assert parse_running(render_statement(statement)) == statement


def test_other_versions_of_the_manifest_do_not_matter() -> None:
    """A statement is about bytes: names and versions may change around them."""
    renamed = replace(manifest(version=9), version_name="other")
    assert check_provenance(render_statement(good()), renamed) == good()


@pytest.mark.parametrize("kind", ["https://slsa.dev/provenance/v1", "\x1b[2J" * 99, ""])
def test_a_foreign_predicate_is_told_what_is_taken(kind: str) -> None:
    """Whoever brings SLSA's learns which type is ours, and where its form stands."""
    subject = [{"name": "a", "digest": {"sha256": "0" * 64}}]
    tree = {"_type": STATEMENT, "subject": subject, "predicateType": kind}
    raw = json.dumps(tree | {"predicate": {"buildDefinition": {}}}).encode()
    with pytest.raises(BundleRefusedError, match="pack --help") as refused:
        parse_statement(raw)
    assert refused.value.reason == Reason.PROVENANCE
    assert ORIGIN in str(refused.value)
    assert kind[:20].encode("unicode_escape").decode() in str(refused.value)
    assert len(str(refused.value)) < 1000
    assert "\x1b" not in str(refused.value)
