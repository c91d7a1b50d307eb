"""Signed values: parsed strictly, whoever signed them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.manifest import MAX_VERSION
from agent.core.reasons import Reason
from agent.core.targets import (
    MAX_GROUP_BYTES,
    MAX_REVOKED_BYTES,
    BundleFields,
    GroupFile,
    Revocations,
    SignedTarget,
    Wanted,
    bundle_path,
    device_path,
    group_path,
    parse_group,
    parse_revocations,
    parse_target,
    render_group,
    render_revocations,
)
from agent.errors import BundleRefusedError

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
VERSIONS = st.integers(1, MAX_VERSION)
GROUPS = st.builds(
    GroupFile,
    generation=VERSIONS,
    pipelines=st.dictionaries(NAMES, st.builds(Wanted, NAMES, VERSIONS), max_size=8),
    paused=st.booleans(),
    percent=st.floats(0, 100),
    salt=st.text(max_size=64),
    not_before=st.text(max_size=32),
    window=st.text(max_size=32),
)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
SERIALS = st.from_regex(r"[0-9a-f]{1,40}", fullmatch=True)
REVOCATIONS = st.builds(
    Revocations,
    bundles=st.lists(DIGESTS, max_size=5).map(tuple),
    operators=st.lists(SERIALS, max_size=5).map(tuple),
)
PATH = bundle_path("kws", 3)
FIELDS = BundleFields("kws", 3, "a" * 64, 10, ("rpi4",), "1.2.3")


def tree(**changes: object) -> dict[str, object]:
    """Return valid fields with changes; None removes one."""
    changed = msgspec.to_builtins(FIELDS) | changes
    return {key: value for key, value in changed.items() if value is not None}


def reason_of_group(raw: bytes) -> str:
    """Return why a group file is refused, or an empty string."""
    try:
        parse_group(raw, "fleet/groups/all")
    except BundleRefusedError as err:
        return err.reason
    return ""


@given(GROUPS)
def test_a_rendered_group_parses_to_itself(group: GroupFile) -> None:
    """Law: ``parse_group(render_group(g)) == g``, and rendering is stable."""
    raw = render_group(group)
    assert group == parse_group(raw, "fleet/groups/all")
    assert raw == render_group(parse_group(raw, "fleet/groups/all"))


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    """Only ``BundleRefusedError`` leaves ``parse_group``."""
    assert reason_of_group(raw) in {"", "metadata"}


@given(GROUPS, st.data())
def test_mutated_groups_parse_or_are_refused(
    group: GroupFile, data: st.DataObject
) -> None:
    """Nearly right bytes are refused for the same two reasons."""
    raw = bytearray(render_group(group))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place : place + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    assert reason_of_group(bytes(raw)) in {"", "metadata", "too_large"}


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 0},
        {"generation": True},
        {"generation": 2**31},
        {"generation": "1"},
        {"pipelines": {"a/b": {"model": "kws", "version": 1}}},
        {"pipelines": {"a": {"model": "../kws", "version": 1}}},
        {"pipelines": {"a": {"model": "kws", "version": 0}}},
        {"pipelines": {"a": {"model": "kws"}}},
        {"pipelines": {str(n): {"model": "kws", "version": 1} for n in range(65)}},
        {"percent": -1},
        {"percent": 100.5},
        {"salt": "x" * 65},
        {"paused": 1},
        {"unknown": 1},
    ],
)
def test_impossible_groups_are_refused(changes: dict[str, object]) -> None:
    """Types, ranges and unknown keys are judged although a signature covers them."""
    valid = {"generation": 1, "pipelines": {}}
    raw = json.dumps(valid | changes).encode()
    assert reason_of_group(raw) == Reason.METADATA
    assert reason_of_group(json.dumps(valid).encode()) == ""


def test_a_long_group_is_not_parsed() -> None:
    """The size limit comes before the parser."""
    assert reason_of_group(b"[" * (MAX_GROUP_BYTES + 1)) == Reason.TOO_LARGE
    assert reason_of_group(b"[" * MAX_GROUP_BYTES) == Reason.METADATA


def test_signed_fields_become_a_target() -> None:
    """Complete fields that agree with their path are returned as they were signed."""
    expected = SignedTarget(PATH, 10, "b" * 64, FIELDS)
    assert expected == parse_target(PATH, 10, {"sha256": "b" * 64}, tree())


@pytest.mark.parametrize(
    "custom",
    [
        None,
        [],
        tree(model=None),
        tree(model="other"),
        tree(version=4),
        tree(version=0),
        tree(version=2**63),
        tree(version=3.0),
        tree(plain_sha256="A" * 64),
        tree(plain_sha256="a" * 64 + "\n"),
        tree(plain_bytes=0),
        tree(hardware=["x"] * 33),
        tree(hardware="rpi4"),
        tree(min_agent="1.2.3.4"),
        tree(min_agent="1.2\n"),
        tree(extra=1),
    ],
)
def test_fields_that_contradict_are_refused(custom: object) -> None:
    """Missing, unknown, impossible and contradicting fields are ``metadata``."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_target(PATH, 10, {"sha256": "b" * 64}, custom)
    assert caught.value.reason == Reason.METADATA


def test_a_target_needs_a_sha256() -> None:
    """Another digest alone is not enough to name a stored object."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_target(PATH, 10, {"sha512": "b" * 128}, tree())
    assert caught.value.reason == Reason.METADATA


@given(NAMES, VERSIONS)
def test_paths_name_one_thing_each(name: str, version: int) -> None:
    """Paths of bundles and groups have no more parts than their pattern."""
    assert ["models", name, f"{version}.bundle"] == bundle_path(name, version).split(
        "/"
    )
    assert ["fleet", "groups", name] == group_path(name).split("/")


def reason_of_revocations(raw: bytes) -> str:
    """Return why revocations are refused, or an empty string."""
    try:
        parse_revocations(raw)
    except BundleRefusedError as err:
        return err.reason
    return ""


@given(REVOCATIONS)
def test_rendered_revocations_parse_to_themselves(revoked: Revocations) -> None:
    """Law: ``parse_revocations(render_revocations(r)) == r``, and it is stable."""
    raw = render_revocations(revoked)
    assert revoked == parse_revocations(raw)
    assert raw == render_revocations(parse_revocations(raw))


def test_full_lists_of_revocations_fit() -> None:
    """As many as may be listed are never too large to be read."""
    full = Revocations(("f" * 64,) * 4096, ("f" * 40,) * 4096)
    assert full == parse_revocations(render_revocations(full))
    more = Revocations(("f" * 64,) * 4097)
    assert reason_of_revocations(render_revocations(more)) == Reason.METADATA


@given(REVOCATIONS, st.data())
def test_mutated_revocations_parse_or_are_refused(
    revoked: Revocations, data: st.DataObject
) -> None:
    """Only ``BundleRefusedError`` leaves ``parse_revocations``."""
    raw = bytearray(render_revocations(revoked))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place : place + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    assert reason_of_revocations(bytes(raw)) in {"", "metadata"}


@pytest.mark.parametrize(
    "changes",
    [
        {"bundles": ["A" * 64]},
        {"bundles": ["a" * 63]},
        {"bundles": "a"},
        {"operators": ["0A"]},
        {"operators": [""]},
        {"operators": ["a" * 41]},
        {"operators": [7]},
        {"boards": []},
    ],
)
def test_impossible_revocations_are_refused(changes: dict[str, object]) -> None:
    """A digest or a serial in another spelling would silently revoke nothing."""
    assert reason_of_revocations(json.dumps(changes).encode()) == Reason.METADATA
    assert reason_of_revocations(b"{}") == ""


def test_long_revocations_are_not_parsed() -> None:
    """The size limit comes before the parser."""
    assert reason_of_revocations(b"[" * (MAX_REVOKED_BYTES + 1)) == Reason.TOO_LARGE
    assert reason_of_revocations(b"[" * MAX_REVOKED_BYTES) == Reason.METADATA


def test_devices_and_groups_have_folders_of_their_own() -> None:
    """A board and a group of the same name are two files."""
    assert device_path("a") == "fleet/devices/a"
    assert group_path("a") == "fleet/groups/a"
