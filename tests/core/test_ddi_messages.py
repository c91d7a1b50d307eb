"""What DDI servers answer: read strictly where it matters, and never an accident."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.ddi import Feedback
from agent.core.ddi_messages import (
    DEFAULT_SLEEP_S,
    MAX_DEPLOYMENT_BYTES,
    MAX_SLEEP_S,
    MIN_SLEEP_S,
    Cancel,
    parse_cancel,
    parse_deployment,
    parse_poll,
    parse_sleep,
)
from agent.core.ddi_words import (
    feedback_path,
    identity_digest,
    render_config,
    render_feedback,
)
from agent.errors import BundleRefusedError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def deployment(**changes: Any) -> bytes:  # noqa: ANN401 - fields of what it makes
    """Return a deployment as hawkBit sends it, with changes of its body."""
    body = {
        "download": "forced",
        "update": "attempt",
        "chunks": [
            {
                "part": "bApp",
                "version": "7",
                "name": "kws",
                "metadata": [{"key": "tuf.target", "value": "models/kws/7.bundle"}],
                "artifacts": [],
            }
        ],
        **changes,
    }
    return json.dumps({"id": "5", "deployment": body, "later": [1]}).encode()


def refused(raw: bytes) -> str:
    """Return why a deployment is refused, with its reason."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_deployment(raw, "deploymentBase")
    return f"{caught.value.reason}: {caught.value}"


@pytest.mark.parametrize(
    ("said", "sleep_s"),
    [
        ("00:05:00", 300.0),
        ("00:00:10", MIN_SLEEP_S),
        ("23:59:59", 86_399.0),
        ("24:00:01", MAX_SLEEP_S),
        ("9999:00:00", MAX_SLEEP_S),
        ("99:99:99", DEFAULT_SLEEP_S),
        ("-1:00:00", DEFAULT_SLEEP_S),
        ("00:05", DEFAULT_SLEEP_S),
        ("\u0660\u0660:\u0660\u0665:\u0660\u0660", DEFAULT_SLEEP_S),
        ("", DEFAULT_SLEEP_S),
        (None, DEFAULT_SLEEP_S),
        (600, DEFAULT_SLEEP_S),
    ],
)
def test_sleep(said: object, sleep_s: float) -> None:
    """Sleep is held within half a minute and a day; nonsense is five minutes."""
    assert parse_sleep(said) == sleep_s
    raw = json.dumps({"config": {"polling": {"sleep": said}}}).encode()
    assert parse_poll(raw).sleep_s == sleep_s


@given(said=JSON)
def test_no_sleep_stops_a_board(said: object) -> None:
    """Whatever stands where the sleep should be, there is a pause within limits."""
    for config in (said, {"polling": said}, {"polling": {"sleep": said}}):
        raw = json.dumps({"config": config}).encode()
        try:
            sleep_s = parse_poll(raw).sleep_s
        except BundleRefusedError:  # NaN and lone surrogates are no JSON
            sleep_s = DEFAULT_SLEEP_S
        assert MIN_SLEEP_S <= sleep_s <= MAX_SLEEP_S


def test_links() -> None:
    """Links that mean something are taken, others are passed over."""
    links = {"deploymentBase": {"href": "/a"}, "curies": [1], "self": 3}
    assert parse_poll(json.dumps({"_links": links}).encode()).links == {
        "deploymentBase": "/a"
    }
    assert parse_poll(b"{}").links == {}
    assert parse_poll(b'{"_links": null}').links == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"_links": []}',
        b'{"_links": {"cancelAction": {}}}',
        b'{"_links": {"cancelAction": {"href": 7}}}',
        b"[" * 100_000,
        b'{"_links": {"cancelAction": {"href": "' + b"a" * 3000 + b'"}}}',
        b" " * 70_000,
    ],
)
def test_refused_polls(raw: bytes) -> None:
    """A poll that makes no sense is refused as what it is, not by accident."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_poll(raw)
    assert caught.value.reason in {"protocol", "too_large"}


def test_deployment() -> None:
    """What hawkBit sends is understood; what is new to us is passed over."""
    found = parse_deployment(deployment(), "deploymentBase")
    assert (found.id, found.download, found.update) == ("5", "forced", "attempt")
    assert found.window_open
    assert [it.target for it in found.chunks] == ["models/kws/7.bundle"]
    closed = deployment(maintenanceWindow="unavailable")
    assert not parse_deployment(closed, "deploymentBase").window_open
    assert parse_deployment(deployment(chunks=[]), "deploymentBase").chunks == ()


def test_confirmation() -> None:
    """A confirmation is a deployment under another name."""
    raw = deployment().replace(b'"deployment"', b'"confirmation"')
    assert parse_deployment(raw, "confirmationBase").id == "5"
    assert "says nothing of a deployment" in refused(raw)


def test_artifacts() -> None:
    """The first link that serves is taken, hashes as they are given."""
    artifact = {
        "filename": "kws-7.swu",
        "size": 1024,
        "hashes": {"sha1": "AB", "other": "x"},
        "_links": {
            "download-http": {"href": "/plain"},
            "download": {"href": "/tls"},
            "md5sum": {"href": "/sum"},
        },
    }
    raw = deployment(chunks=[{"name": "kws", "artifacts": [artifact]}])
    (chunk,) = parse_deployment(raw, "deploymentBase").chunks
    (found,) = chunk.artifacts
    assert (found.filename, found.size, found.href) == ("kws-7.swu", 1024, "/tls")
    assert found.hashes == {"sha1": "ab", "other": "x"}
    del artifact["_links"]
    raw = deployment(chunks=[{"name": "kws", "artifacts": [artifact]}])
    (chunk,) = parse_deployment(raw, "deploymentBase").chunks
    assert chunk.artifacts[0].href == ""


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (deployment(download="maybe"), "$.deployment.download"),
        (deployment(update=None), "$.deployment.update"),
        (deployment(maintenanceWindow="ajar"), "$.deployment.maintenanceWindow"),
        (deployment(chunks=[7]), "$.deployment.chunks[0]"),
        (deployment(chunks=[{}] * 65), "length <= 64"),
        (deployment().replace(b'"id": "5"', b'"id": "../5"'), "deploymentBase: id"),
        (deployment().replace(b'"id": "5"', b'"id": ".."'), "deploymentBase: id"),
        (deployment().replace(b'"id": "5"', b'"id": true'), "deploymentBase: id"),
        (b'{"id": "5"}', "says nothing of a deployment"),
        (b"{" * 50_000, "protocol: deploymentBase"),
        (b" " * (MAX_DEPLOYMENT_BYTES + 1), "too_large"),
    ],
)
def test_refused_deployments(raw: bytes, words: str) -> None:
    """A refusal names the place that is wrong."""
    assert words in refused(raw)


def test_two_targets_in_a_chunk() -> None:
    """A chunk that names two bundles names none."""
    pairs = [{"key": "tuf.target", "value": it} for it in ("models/a/1.bundle", "b")]
    raw = deployment(chunks=[{"name": "kws", "metadata": pairs}])
    assert "several targets" in refused(raw)


def test_cancel() -> None:
    """A cancellation and what it stops have ids of their own, written either way."""
    assert parse_cancel(b'{"id":11,"cancelAction":{"stopId":"7"}}') == Cancel("11", "7")
    with pytest.raises(BundleRefusedError, match="stopId"):
        parse_cancel(b'{"id":"11","cancelAction":{}}')


@given(raw=st.binary() | JSON.map(lambda it: json.dumps(it).encode()))
def test_parsers_refuse_and_nothing_else(raw: bytes) -> None:
    """Any bytes are parsed, or refused by this tree of errors."""
    for parse in (
        parse_poll,
        parse_cancel,
        lambda it: parse_deployment(it, "deploymentBase"),
        lambda it: parse_deployment(it, "confirmationBase"),
    ):
        reason = ""
        try:
            parse(raw)
        except BundleRefusedError as err:
            reason = err.reason
        assert reason in {"", "protocol", "too_large"}


def test_feedback() -> None:
    """Feedback has the shape that hawkBit's documentation gives."""
    said = Feedback(
        "deploymentBase", "5", "closed", "failure", "golden", ("a", "b"), at_ms=12
    )
    assert feedback_path(said) == ("deploymentBase", "5", "feedback")
    assert msgspec.json.decode(render_feedback(said)) == {
        "timestamp": 12,
        "status": {
            "execution": "closed",
            "result": {"finished": "failure"},
            "details": ["golden: a", "b"],
        },
    }
    denied = Feedback("confirmationBase", "5", "denied", reason="hardware")
    assert msgspec.json.decode(render_feedback(denied)) == {
        "confirmation": "denied",
        "details": ["hardware"],
    }


def test_long_feedback_is_cut() -> None:
    """A server that takes 50 messages of 512 characters gets no more."""
    said = Feedback("deploymentBase", "5", "closed", details=("x" * 9000,) * 99)
    details = msgspec.json.decode(render_feedback(said))["status"]["details"]
    assert (len(details), {len(it) for it in details}) == (16, {500})


def test_attributes() -> None:
    """What changes with each update is told, and is no news of its own."""
    before = {"hardware": "pi", "model.door": "kws 1", "empty": "", "a" * 200: "x"}
    assert msgspec.json.decode(render_config(before)) == {
        "mode": "merge",
        "data": {"hardware": "pi", "model.door": "kws 1"},
    }
    after = before | {"model.door": "kws 2"}
    assert identity_digest(after) == identity_digest(before)
    assert identity_digest(before | {"hardware": "jetson"}) != identity_digest(before)
