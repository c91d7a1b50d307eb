"""What a manifest declares of its watermark, and which agents may read it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.manifest import (
    Manifest,
    StateLink,
    TensorSpec,
    TrialRules,
    needed_schema,
    parse_manifest,
    render_manifest,
)
from agent.core.marking import MAX_HEAD_BYTES, HeadPlace, Marking, marking_mistake
from agent.core.reasons import Reason
from agent.core.watermark import threshold
from agent.errors import BundleRefusedError
from tests.fakes.bundles import manifest

MARK = Marking(128, "010", 28, sha256="0" * 64, size=9)
groups = st.text("01", min_size=3, max_size=40)


def marked(mark: Marking = MARK, **changes: object) -> Manifest:
    """Return a manifest with a watermark."""
    return replace(manifest(), schema=4, watermark=mark, **changes)


def refusal(stated: Manifest) -> str:
    """Return what is said of a manifest that is refused."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_manifest(render_manifest(stated))
    assert caught.value.reason == Reason.MANIFEST
    return str(caught.value)


@given(
    groups.filter(lambda it: len(set(it)) == 2),
    st.integers(3, 32).map(lambda it: 8 * it),
    st.data(),
)
def test_what_is_declared_is_read(
    of_classes: str, bits: int, data: st.DataObject
) -> None:
    """Law: ``parse_manifest(render_manifest(m)) == m``, with any watermark."""
    errors = data.draw(st.integers(0, min(256, threshold(bits))))
    mark = Marking(bits, of_classes, errors, sha256="a" * 64, size=bits)
    said = marked(mark, labels=())
    assert marking_mistake(mark) == ""
    assert parse_manifest(render_manifest(said)) == said


@given(groups, st.integers(1, 32).map(lambda it: 8 * it), st.integers(0, 256))
def test_chance_is_never_a_threshold(of_classes: str, bits: int, errors: int) -> None:
    """What a stranger's copy reaches too often, or one meaning, tells nobody."""
    mark = replace(MARK, bits=bits, groups=of_classes, threshold=errors)
    tells = errors <= threshold(bits) and len(set(of_classes)) == 2
    assert (marking_mistake(mark) == "") == tells


@pytest.mark.parametrize(
    ("bits", "errors", "allowed"),
    [
        *((128, 36, True), (128, 37, False), (128, 63, False)),
        *((24, 0, True), (24, 1, False), (16, 0, False)),
    ],
)
def test_a_threshold_is_bound_to_a_false_match(
    bits: int, errors: int, *, allowed: bool
) -> None:
    """Less often than once in a million a stranger's copy counts as the board's."""
    mark = replace(MARK, bits=bits, threshold=errors)
    assert (marking_mistake(mark) == "") == allowed
    assert ("chance" not in marking_mistake(mark)) == allowed


def test_only_a_watermark_needs_the_newest_schema() -> None:
    """Older agents go on to read everything else, and refuse what they cannot check."""
    assert needed_schema(TrialRules(), watermark=MARK) == 4
    assert needed_schema(TrialRules()) == 1
    for older in (1, 2, 3):
        said = refusal(replace(marked(), schema=older))
        assert f"watermark needs schema 4: agents of schema {older} refuse it" in said


def test_what_cannot_be_marked_is_refused() -> None:
    """Other tasks, states, more inputs, and groups for another number of classes."""
    spec = TensorSpec(name="memory", shape=(1, 4), dtype="float32")
    two = tuple(
        replace(it, inputs=(*it.inputs, spec), outputs=(*it.outputs, spec))
        for it in manifest().variants
    )
    assert "only classifiers" in refusal(marked(task="regression"))
    assert "only models of one input" in refusal(marked(variants=two))
    link = (StateLink(output="memory", input="memory"),)
    assert "without state" in refusal(marked(variants=two, state=link))
    assert "4 groups for 3 labels" in refusal(marked(replace(MARK, groups="0101")))
    assert "same bit" in refusal(marked(replace(MARK, groups="000")))
    assert "chance" in refusal(marked(replace(MARK, threshold=37)))


@pytest.mark.parametrize(
    ("said", "heads"),
    [
        ("outside of variant 'int8'", [HeadPlace("int8", 4_990, 11)]),
        ("outside of variant 'tiny'", [HeadPlace("tiny", 0, 1)]),
        ("overlap", [HeadPlace("int8", 9, 2), HeadPlace("int8", 0, 10)]),
        ("fit no envelope", [HeadPlace("int8", 0, MAX_HEAD_BYTES)] * 2),
    ],
)
def test_heads_are_parts_of_variants(said: str, heads: list[HeadPlace]) -> None:
    """Inside of one that is declared, no byte twice, no more than an envelope holds."""
    assert said in refusal(marked(replace(MARK, heads=tuple(heads))))


def test_heads_that_touch_are_two() -> None:
    """Up to the last byte of a variant, and in any order."""
    heads = (HeadPlace("int8", 4_990, 10), HeadPlace("int8", 4_980, 10))
    stated = marked(replace(MARK, heads=(*heads, HeadPlace("float", 4_985, 10))))
    assert parse_manifest(render_manifest(stated)) == stated


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scheme", "another"),
        ("bits", 7),
        ("groups", "012"),
        ("threshold", -1),
        ("sha256", "0" * 63),
        ("size", 2**40),
        ("extra", 1),
        ("heads", [{"variant": "int8", "offset": -1, "length": 1}]),
        ("heads", [{"variant": "int8", "offset": 0, "length": 0}]),
    ],
)
def test_strict(key: str, value: object) -> None:
    """Another scheme, impossible numbers and unknown keys are refused."""
    tree = json.loads(render_manifest(marked()))
    tree["watermark"][key] = value
    with pytest.raises(BundleRefusedError):
        parse_manifest(json.dumps(tree).encode())
