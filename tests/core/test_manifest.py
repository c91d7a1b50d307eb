"""The manifest: strict, one canonical spelling, and only refusals for bad bytes."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.degradation import DegradeSteps, Measure, SafeOutput
from agent.core.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_VERSION,
    SCHEMA,
    Budgets,
    Golden,
    Manifest,
    Postprocess,
    StateLink,
    TensorSpec,
    TrialRules,
    Variant,
    needed_schema,
    parse_manifest,
    render_manifest,
)
from agent.core.reasons import Reason
from agent.core.steps import Cast, LogMel, Mfcc, Normalise, Resize, Scale, Step, Window
from agent.errors import BundleRefusedError
from tests.fakes.bundles import manifest

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,12}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
digests = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
factors = st.floats(-1e9, 1e9, allow_nan=False)
positives = st.floats(0, 1e9, exclude_min=True)
specs = st.builds(
    TensorSpec,
    name=texts,
    shape=st.lists(st.integers(1, 2**24), max_size=8).map(tuple),
    dtype=st.sampled_from(["float32", "int8", "uint8", "int64", "bool"]),
    scale=st.floats(0, 1e9),
    zero_point=st.integers(-(2**15), 2**15),
)
tensors = st.lists(specs, min_size=1, max_size=3, unique_by=lambda spec: spec.name)
variants = st.builds(
    Variant,
    name=names,
    file=names.map("variants/{}.tflite".format),
    sha256=digests,
    size=st.integers(1, 2**40),
    inputs=tensors.map(tuple),
    outputs=tensors.map(tuple),
    tolerance=st.floats(0, 1e9),
    runtimes=st.sampled_from([(), ("litert",), ("litert", "tflite")]),
    delegates=st.lists(names, max_size=2).map(tuple),
    ram_bytes=st.integers(0, 2**40),
    accuracy=st.none() | st.floats(0, 1),
)
measures = st.lists(st.sampled_from(list(Measure)), max_size=5).map(tuple)
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(Resize, width=st.integers(1, 16_384), height=st.integers(1, 16_384)),
    st.builds(Normalise, mean=st.tuples(factors), std=st.tuples(factors)),
    st.builds(Scale, factor=factors, offset=factors),
    st.builds(Cast, dtype=st.sampled_from(["float32", "int8"])),
    st.builds(Window, length=st.integers(1, 10), hop=st.integers(1, 10)),
    st.builds(LogMel, mels=st.integers(1, 512)),
    st.builds(Mfcc, count=st.integers(1, 512)),
)
manifests = st.builds(
    Manifest,
    schema=st.just(SCHEMA),
    model=names,
    version=st.integers(1, MAX_VERSION),
    task=st.sampled_from(["classification", "regression", "anomaly", "raw"]),
    variants=st.lists(
        variants, min_size=1, max_size=3, unique_by=(lambda v: v.name, lambda v: v.file)
    ).map(tuple),
    golden=st.builds(
        Golden,
        sha256=digests,
        size=st.integers(1, 2**40),
        samples=st.integers(1, 10_000),
    ),
    version_name=texts,
    io=st.sampled_from(["raw", "float"]),
    labels=st.lists(texts, max_size=5).map(tuple),
    preprocess=st.lists(steps, max_size=4).map(tuple),
    postprocess=st.builds(Postprocess, top_k=st.integers(1, 100), output=texts),
    budgets=st.builds(Budgets, p95_ms=positives, ram_mb=positives),
    trial=st.builds(
        TrialRules,
        preflight_s=positives,
        shadow_every=st.integers(1, 100),
        wait_s=st.floats(1e-3, 1e6),
        max_failed=st.floats(0, 1),
    ),
    degrade=st.builds(
        DegradeSteps,
        suspect=measures,
        degraded=measures,
        safe=measures,
        safe_output=st.builds(SafeOutput, label=texts, score=st.floats(-1e9, 1e9)),
    ),
)


def tree() -> dict[str, Any]:
    """Return a good manifest as JSON values, to be spoiled."""
    parsed: dict[str, Any] = json.loads(render_manifest(manifest()))
    return parsed


def refusal(raw: bytes) -> BundleRefusedError:
    """Return the error that refuses these bytes."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_manifest(raw)
    return caught.value


@given(manifests)
def test_parse_undoes_render(described: Manifest) -> None:
    """``parse_manifest(render_manifest(m)) == m``."""
    assert described == parse_manifest(render_manifest(described))


@given(manifests)
def test_render_is_canonical(described: Manifest) -> None:
    """What was parsed renders to the bytes it was parsed from, keys sorted."""
    raw = render_manifest(described)
    assert raw == render_manifest(parse_manifest(raw))
    assert sorted(json.loads(raw)) == list(json.loads(raw))


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Arbitrary bytes raise nothing but a refusal."""
    assert refusal(raw).reason in {Reason.MANIFEST, Reason.SCHEMA}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=500)
@given(st.sampled_from(sorted(tree())), values)
def test_any_value_in_any_place_is_parsed_or_refused(key: str, value: object) -> None:
    """A manifest with one value replaced by any JSON is parsed or refused."""
    raw = json.dumps({**tree(), key: value}).encode()
    try:
        parsed = parse_manifest(raw)
    except BundleRefusedError:
        return
    assert parsed == parse_manifest(render_manifest(parsed))


@settings(max_examples=300)
@given(st.integers(0, 400), st.integers(0, 20), st.binary(max_size=20))
def test_mutations_are_parsed_or_refused(place: int, cut: int, put: bytes) -> None:
    """A manifest with some bytes replaced raises nothing but a refusal."""
    raw = render_manifest(manifest())
    with contextlib.suppress(BundleRefusedError):
        parse_manifest(raw[:place] + put + raw[place + cut :])


def spoil(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """Return what sets one value deep inside."""

    def change(spoiled: dict[str, Any]) -> None:
        node: Any = spoiled
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value

    return change


FIRST = ("variants", 0)
LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown key": (spoil("colour", value="red"), "colour"),
    "unknown key deep inside": (spoil(*FIRST, "inputs", 0, "x", value=1), "inputs"),
    "version 0": (spoil("version", value=0), "version"),
    "negative version": (spoil("version", value=-1), "version"),
    "huge version": (spoil("version", value=MAX_VERSION + 1), "version"),
    "astronomical version": (spoil("version", value=10**400), "version|range|number"),
    "version as text": (spoil("version", value="7"), "version"),
    "version as fraction": (spoil("version", value=7.5), "version"),
    "version as truth": (spoil("version", value=True), "version"),
    "schema 0": (spoil("schema", value=0), "schema"),
    "model as path": (spoil("model", value="../kws"), "model"),
    "model with a line feed": (spoil("model", value="kws\n"), "model"),
    "upper-case model": (spoil("model", value="KWS"), "model"),
    "unknown task": (spoil("task", value="magic"), "task"),
    "no variants": (spoil("variants", value=[]), "variants"),
    "17 variants": (spoil("variants", value=tree()["variants"] * 9), "variants"),
    "file elsewhere": (spoil(*FIRST, "file", value="../../etc/passwd"), "file"),
    "file with a line feed": (spoil(*FIRST, "file", value="variants/a\n"), "file"),
    "digest too short": (spoil(*FIRST, "sha256", value="0" * 63), "sha256"),
    "digest upper-case": (spoil(*FIRST, "sha256", value="A" * 64), "sha256"),
    "size 0": (spoil(*FIRST, "size", value=0), "size"),
    "huge size": (spoil(*FIRST, "size", value=2**41), "size"),
    "no inputs": (spoil(*FIRST, "inputs", value=[]), "inputs"),
    "dimension 0": (spoil(*FIRST, "inputs", 0, "shape", value=[1, 0]), "shape"),
    "dimension -1": (spoil(*FIRST, "inputs", 0, "shape", value=[-1, 8]), "shape"),
    "huge dimension": (spoil(*FIRST, "inputs", 0, "shape", value=[2**25]), "shape"),
    "nine dimensions": (spoil(*FIRST, "inputs", 0, "shape", value=[1] * 9), "shape"),
    "unknown dtype": (spoil(*FIRST, "inputs", 0, "dtype", value="object"), "dtype"),
    "negative scale": (spoil(*FIRST, "inputs", 0, "scale", value=-1), "scale"),
    "huge scale": (spoil(*FIRST, "inputs", 0, "scale", value=1e300), "scale"),
    "negative tolerance": (spoil(*FIRST, "tolerance", value=-0.1), "tolerance"),
    "unknown runtime": (spoil(*FIRST, "runtimes", value=["torch"]), "runtimes"),
    "huge RAM": (spoil(*FIRST, "ram_bytes", value=2**63), "ram_bytes"),
    "variants share a name": (spoil("variants", 1, "name", value="float"), "share"),
    "variants share a file": (
        spoil("variants", 1, "file", value="variants/float.tflite"),
        "share",
    ),
    "inputs share a name": (
        spoil(*FIRST, "inputs", value=tree()["variants"][0]["inputs"] * 2),
        "share",
    ),
    "no golden samples": (spoil("golden", "samples", value=0), "samples"),
    "golden missing": (spoil("golden", value=None), "golden"),
    "5,001 labels": (spoil("labels", value=["a"] * 5_001), "labels"),
    "label as number": (spoil("labels", value=[1]), "labels"),
    "long label": (spoil("labels", value=["a" * 201]), "labels"),
    "unknown step": (spoil("preprocess", value=[{"step": "exec"}]), "preprocess"),
    "step without a name": (spoil("preprocess", value=[{"width": 1}]), "preprocess"),
    "17 steps": (spoil("preprocess", value=[{"step": "cast"}] * 17), "preprocess"),
    "huge picture": (
        spoil("preprocess", value=[{"step": "resize", "width": 10**6}]),
        "preprocess",
    ),
    "no time": (spoil("budgets", value={"p95_ms": 0}), "budgets"),
    "endless time": (spoil("budgets", value={"p95_ms": 1e10}), "budgets"),
    "agreement above 1": (spoil("trial", value={"min_agreement": 1.1}), "trial"),
    "state to nowhere": (
        spoil("state", value=[{"output": "scores", "input": "nowhere"}]),
        "state",
    ),
    "state of another shape": (
        spoil("state", value=[{"output": "scores", "input": "image"}]),
        "state",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_by_name(lie: str) -> None:
    """Each impossible value is refused with a message that names its key."""
    change, meaning = LIES[lie]
    spoiled = tree()
    change(spoiled)
    error = refusal(json.dumps(spoiled).encode())
    assert error.reason == Reason.MANIFEST
    with pytest.raises(BundleRefusedError, match=meaning):
        raise error


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"schema": ' + b"9" * 5_000 + b"}",
        b'"\\ud800"',
    ],
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    """Text that is no JSON object of a manifest is refused, however deep or long."""
    assert refusal(raw).reason in {Reason.MANIFEST, Reason.SCHEMA}


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none_are_refused(word: str) -> None:
    """NaN and infinities, spelled as words or as overflow, are refused."""
    good = b'"tolerance": 0.25'
    raw = render_manifest(manifest()).replace(good, f'"tolerance": {word}'.encode())
    assert refusal(raw).reason == Reason.MANIFEST


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_json_lacks_are_named(word: str) -> None:
    """Python would read them; the standard does not have them."""
    raw = render_manifest(manifest()).replace(b"0.25", word.encode(), 1)
    assert str(refusal(raw)) == f"manifest.json: {word} is not JSON"


def test_duplicate_keys_are_refused() -> None:
    """A key that stands twice in one object is refused, at any depth."""
    raw = render_manifest(manifest())
    for key in (b'"version": 7', b'"tolerance": 0.25'):
        error = refusal(raw.replace(key, key + b", " + key, 1))
        assert str(error) == "manifest.json: a key stands twice in one object"


def test_a_newer_schema_asks_for_a_newer_agent() -> None:
    """A newer schema is told apart from an unknown key, whatever keys it adds."""
    raw = json.dumps({**tree(), "schema": SCHEMA + 1, "new": 1}).encode()
    assert refusal(raw).reason == Reason.SCHEMA


def test_a_large_manifest_is_refused_before_it_is_parsed() -> None:
    """Above the limit even a good manifest is refused."""
    raw = render_manifest(manifest())
    padded = raw + b" " * (MAX_MANIFEST_BYTES - len(raw))
    assert parse_manifest(padded) == parse_manifest(raw)
    assert refusal(padded + b" ").reason == Reason.TOO_LARGE


def test_state_links_that_fit_are_read() -> None:
    """An output may feed an input of its own shape and type, but only one."""
    described = manifest()
    spec = TensorSpec(name="memory", shape=(1, 4), dtype="float32")
    streaming = tuple(
        replace(
            variant,
            inputs=(*variant.inputs, spec),
            outputs=(*variant.outputs, replace(spec, name="memory_out")),
        )
        for variant in described.variants
    )
    link = StateLink(output="memory_out", input="memory")
    linked = replace(described, variants=streaming, state=(link,))
    assert linked == parse_manifest(render_manifest(linked))
    twice = replace(linked, state=(link, link))
    assert "two state links" in str(refusal(render_manifest(twice)))


def test_a_variant_is_found_by_its_name() -> None:
    """``variant`` returns the named one and refuses any other name."""
    described = manifest()
    assert described.variants[1] == described.variant("int8")
    with pytest.raises(BundleRefusedError, match="'small'"):
        described.variant("small")


@pytest.mark.parametrize(
    ("rules", "schema"),
    [
        (TrialRules(), 1),
        (TrialRules(1.0, 2, 3.0, 0.5), 1),
        (TrialRules(shadow_every=2), 2),
        (TrialRules(tolerance=0.1), 2),
        (TrialRules(probation_samples=1), 2),
        (TrialRules(wait_s=1.0), 2),
        (TrialRules(max_failed=0.0), 2),
        (TrialRules(max_slowdown=1.5), 2),
    ],
)
def test_schema_rises_with_new_keys_only(rules: TrialRules, schema: int) -> None:
    """What an older agent can read, it shall read."""
    assert needed_schema(rules) == schema
    described = replace(manifest(), trial=rules, schema=schema)
    assert described == parse_manifest(render_manifest(described))


def test_schema_1_has_no_new_keys() -> None:
    """A new key under the old schema is refused here as it is by older agents."""
    spoilt = replace(manifest(), trial=TrialRules(max_slowdown=2.0), schema=1)
    err = refusal(render_manifest(spoilt))
    assert err.reason == Reason.MANIFEST
    assert "trial.max_slowdown needs schema 2" in str(err)


STEPS = DegradeSteps(degraded=(Measure.HALF_RATE,))


@pytest.mark.parametrize(
    ("accuracy", "steps", "schema"),
    [
        (None, DegradeSteps(), 1),
        (0.0, DegradeSteps(), 3),
        (None, STEPS, 3),
        (0.9, STEPS, 3),
        (None, DegradeSteps(safe_output=SafeOutput("stop")), 3),
    ],
)
def test_schema_3_has_accuracy_and_degradation(
    accuracy: float | None, steps: DegradeSteps, schema: int
) -> None:
    """It is needed for these alone; under an older one they are refused."""
    described = manifest()
    first, *others = described.variants
    variants = (replace(first, accuracy=accuracy), *others)
    assert needed_schema(described.trial, variants, steps) == schema
    said = replace(described, variants=variants, degrade=steps, schema=schema)
    assert said == parse_manifest(render_manifest(said))
    for older in range(1, schema):
        err = refusal(render_manifest(replace(said, schema=older)))
        assert err.reason == Reason.MANIFEST
        key = "degrade" if steps != DegradeSteps() else "variants[0].accuracy"
        assert f"{key} needs schema 3: agents of schema {older} refuse it" in str(err)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"degrade": {"suspect": ["sleep"]}},
        {"degrade": {"normal": []}},
        {"degrade": {"safe_output": {"label": 3}}},
        {"degrade": {"suspect": ["half_rate"] * 6}},
    ],
)
def test_steps_that_do_not_exist_are_refused(spoilt: dict[str, object]) -> None:
    """A measure nobody knows would be one that nobody takes."""
    raw = json.dumps({**tree(), "schema": SCHEMA, **spoilt}).encode()
    assert refusal(raw).reason == Reason.MANIFEST


def test_models_that_remember() -> None:
    """A window or a state makes answers depend on earlier samples."""
    plain = manifest()
    window = replace(plain, preprocess=(Scale(), Window(length=4)))
    assert [plain.remembers, window.remembers] == [False, True]
