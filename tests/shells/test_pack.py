"""Packing: what is computed, what is refused, and the same bytes every time."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.contract import Contract
from agent.core.degradation import DegradeSteps, Measure, SafeOutput
from agent.core.manifest import Manifest, StateLink, TensorSpec
from agent.core.reasons import Reason
from agent.core.steps import Scale
from agent.errors import AgentError, SettingsError, TrialFailedError
from agent.publish.description import (
    MAX_DESCRIPTION_BYTES,
    PackDescription,
    parse_description,
    parse_labels,
)
from agent.publish.pack import load_description, pack
from agent.trust.bundle import Bundle, open_bundle
from tests.fakes.bundles import MAX_BYTES, SPEC_IN, SPEC_OUT, VARIANTS, ScriptedExaminer

GOOD = """
model = "kws"
version = 7
task = "classification"
labels = ["yes", "no", "noise"]
samples = "samples.npz"
golden_samples = 4
array = "images"

[[preprocess]]
step = "scale"
factor = 0.5

[[variant]]
name = "int8"
file = "int8.tflite"
tolerance = 0.25
runtimes = ["litert"]
delegates = ["edgetpu"]

[[variant]]
name = "float"
file = "deep/float.tflite"
tolerance = 0.001

[budgets]
p95_ms = 20
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a directory with a description and everything it names."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "pack.toml").write_text(GOOD)
    (tmp_path / "int8.tflite").write_bytes(VARIANTS["int8"])
    (tmp_path / "deep" / "float.tflite").write_bytes(VARIANTS["float"])
    (tmp_path / "samples.npz").write_bytes(b"samples")
    return tmp_path


def packed(project: Path, text: str = GOOD) -> Manifest:
    """Return the manifest of what a description packs to."""
    return opened(project, text).manifest


def opened(project: Path, text: str = GOOD) -> Bundle:
    """Return what a description packs to, opened as a board would."""
    content = pack(parse_description(text.encode()), project, ScriptedExaminer())
    return open_bundle(content, max_bytes=MAX_BYTES)


def wrong(text: str) -> SettingsError:
    """Return the error for a description."""
    with pytest.raises(SettingsError) as caught:
        parse_description(text.encode())
    assert caught.value.reason == Reason.SETTINGS
    return caught.value


def test_everything_that_can_be_computed_is_computed(project: Path) -> None:
    """Contracts, digests, sizes and RAM come from the files, the rest from its keys."""
    manifest = packed(project)
    int8 = manifest.variant("int8")
    assert (manifest.schema, manifest.model, manifest.version) == (1, "kws", 7)
    assert manifest.preprocess == (Scale(factor=0.5),)
    assert manifest.budgets.p95_ms == 20
    assert int8.file == "variants/int8.tflite"
    assert hashlib.sha256(VARIANTS["int8"]).hexdigest() == int8.sha256
    assert len(VARIANTS["int8"]) == int8.size
    assert (int8.inputs, int8.outputs) == ((SPEC_IN,), (SPEC_OUT,))
    assert (int8.ram_bytes, int8.tolerance) == (4096, 0.25)
    assert (int8.runtimes, int8.delegates) == (("litert",), ("edgetpu",))


def test_variants_keep_the_authors_order(project: Path) -> None:
    """The first variant is the most wanted one, whatever its name."""
    assert [v.name for v in packed(project).variants] == ["int8", "float"]


def test_the_examiner_is_asked_for_the_golden_samples(project: Path) -> None:
    """It gets the manifest, the variants, the samples' path, array and count."""
    bundle = opened(project)
    expected = b"kws int8 float samples.npz images 4"
    assert expected == bytes(bundle.golden)
    assert hashlib.sha256(expected).hexdigest() == bundle.manifest.golden.sha256
    assert (4, len(expected)) == (
        bundle.manifest.golden.samples,
        bundle.manifest.golden.size,
    )


def test_packing_twice_gives_the_same_bytes(project: Path) -> None:
    """Neither time, nor order of keys, nor comments change a byte."""
    lines = GOOD.strip().splitlines()
    scalars = lines.index("")
    shuffled = "\n".join([*reversed(lines[:scalars]), *lines[scalars:], "# later"])
    first, second = (
        pack(parse_description(text.encode()), project, ScriptedExaminer())
        for text in (GOOD, shuffled)
    )
    assert first == second


def test_labels_may_be_in_a_file(project: Path) -> None:
    """One label a line; white space around and blank lines at the end do not count."""
    (project / "labels.txt").write_text("yes\r\n no \nnoise\n\n")
    text = GOOD.replace('["yes", "no", "noise"]', '"labels.txt"')
    assert packed(project, text).labels == ("yes", "no", "noise")


def test_a_classifier_without_labels_is_packed(project: Path) -> None:
    """Labels are optional: classes are then numbers."""
    text = GOOD.replace('labels = ["yes", "no", "noise"]', "")
    assert packed(project, text).labels == ()


KEYS = {
    "not TOML": ("[[[", "not TOML"),
    "not text": ("\udcff", "not TOML"),
    "digits": ("a = " + "1" * 5000, "not TOML"),
    "nested": ("a = " + "[" * 50_000, "not TOML"),
    "too large": ("#" * (MAX_DESCRIPTION_BYTES + 1), "at most"),
    "empty": ("", "the key `model` is missing"),
    "unknown key": (GOOD.replace("[budgets]", "[colour]"), "`colour`"),
    "computed key": (GOOD.replace("tolerance = 0.25", "sha256 = 'a'"), "variant[0]"),
    "unknown key deep inside": (GOOD.replace("p95_ms", "p95"), "budgets"),
    "no tolerance": (GOOD.replace("tolerance = 0.25", ""), "`tolerance`"),
    "no variants": (GOOD.partition("[[variant]]")[0], "`variant`"),
    "no samples": (GOOD.replace('samples = "samples.npz"', ""), "`samples`"),
    "version 0": (GOOD.replace("version = 7", "version = 0"), "version: "),
    "version as text": (GOOD.replace("version = 7", 'version = "7"'), "version: "),
    "bad name": (GOOD.replace('"kws"', '"KWS"'), "model: "),
    "unknown task": (GOOD.replace("classification", "magic"), "task: "),
    "unknown step": (GOOD.replace('"scale"', '"exec"'), "preprocess[0]"),
    "unknown runtime": (GOOD.replace('"litert"', '"torch"'), "variant[0].runtimes"),
    "negative tolerance": (GOOD.replace("0.001", "-1"), "variant[1].tolerance"),
    "no golden samples": (GOOD.replace("= 4", "= 0"), "golden_samples: "),
    "label as number": (GOOD.replace('"noise"', "3"), "labels"),
    "two of a name": (GOOD.replace('"float"', '"int8"'), "variant[1].name: "),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_wrong_key_is_named(case: str) -> None:
    """Every error of a description says which key it is about."""
    text, expected = KEYS[case]
    with pytest.raises(SettingsError) as caught:
        parse_description(text.encode(errors="surrogateescape"))
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, len(GOOD)), st.integers(0, 60))
def test_any_bytes_are_a_description_or_wrong(put: bytes, at: int, cut: int) -> None:
    """Arbitrary bytes, alone or inside a good file, raise nothing but SettingsError."""
    good = GOOD.encode()
    for raw in (put, good[:at] + put + good[at + cut :]):
        try:
            assert isinstance(parse_description(raw), PackDescription)
        except SettingsError:
            continue


words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9)


@given(st.lists(words))
def test_labels_survive_their_file(labels: list[str]) -> None:
    """What is written one a line is read one a line."""
    assert tuple(labels) == parse_labels("\n".join(labels).encode())


@pytest.mark.parametrize("raw", [b"\xff", b"a" * 201, b"a\n" * 5_001])
def test_wrong_labels_are_named(raw: bytes) -> None:
    """Labels that are no text, too long or too many are errors of that key."""
    with pytest.raises(SettingsError, match="labels: "):
        parse_labels(raw)


Spoil = Callable[[Path], object]
FILES: dict[str, tuple[Spoil, str, type[AgentError], str]] = {
    "model missing": (
        lambda at: (at / "int8.tflite").unlink(),
        GOOD,
        SettingsError,
        "variant[0].file: ",
    ),
    "model empty": (
        lambda at: (at / "deep" / "float.tflite").write_bytes(b""),
        GOOD,
        SettingsError,
        "variant[1].file: ",
    ),
    "model is a directory": (
        lambda _: None,
        GOOD.replace("deep/float.tflite", "deep"),
        SettingsError,
        "variant[1].file: ",
    ),
    "model cannot be used": (
        lambda at: (at / "int8.tflite").write_bytes(b"bad"),
        GOOD,
        TrialFailedError,
        "no model",
    ),
    "samples missing": (
        lambda at: (at / "samples.npz").unlink(),
        GOOD,
        SettingsError,
        "samples: ",
    ),
    "labels missing": (
        lambda _: None,
        GOOD.replace('["yes", "no", "noise"]', '"labels.txt"'),
        SettingsError,
        "labels: ",
    ),
    "a label too few": (
        lambda _: None,
        GOOD.replace(', "noise"', ""),
        SettingsError,
        "labels: 2 names, but variant 'int8' tells 3 classes apart",
    ),
    "no such output": (
        lambda _: None,
        GOOD + '[postprocess]\noutput = "boxes"\n',
        SettingsError,
        "postprocess.output: variant 'int8'",
    ),
    "state to nowhere": (
        lambda _: None,
        GOOD + '[[state]]\noutput = "scores"\ninput = "memory"\n',
        AgentError,
        "'scores'",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_do_not_fit_are_refused(case: str, project: Path) -> None:
    """What a board would refuse is refused here, with the key that names it."""
    spoil, text, kind, expected = FILES[case]
    spoil(project)
    with pytest.raises(kind) as caught:
        packed(project, text)
    assert expected in str(caught.value)


class StreamingExaminer(ScriptedExaminer):
    """An Examiner of a model whose first output is its state."""

    SPEC = TensorSpec(name="memory", shape=(1, 5), dtype="float32")

    def contract(self, content: bytes) -> Contract:
        """Return the same contract, with state before the scores."""
        facts = super().contract(content)
        return Contract(
            (self.SPEC, *facts.inputs),
            (TensorSpec(name="next", shape=(1, 5), dtype="float32"), *facts.outputs),
            facts.operators,
            facts.ram_bytes,
        )


def test_labels_are_counted_on_the_output_that_is_no_state(project: Path) -> None:
    """An output that is fed back is not the prediction."""
    text = GOOD + '[[state]]\noutput = "next"\ninput = "memory"\n'
    content = pack(parse_description(text.encode()), project, StreamingExaminer())
    bundle = open_bundle(content, max_bytes=MAX_BYTES)
    assert bundle.manifest.state == (StateLink(output="next", input="memory"),)


def test_a_description_is_loaded(project: Path) -> None:
    """``load_description`` reads what ``parse_description`` parses."""
    loaded = load_description(project / "pack.toml")
    assert loaded == parse_description(GOOD.encode())
    with pytest.raises(SettingsError, match="No such file"):
        load_description(project / "nothing.toml")


@pytest.mark.parametrize(
    ("keys", "schema"),
    [
        ("", 1),
        ("shadow_samples = 100\nmin_agreement = 0.9\nprobation_s = 60", 1),
        ("shadow_samples = 100\nshadow_every = 10", 2),
        ("probation_samples = 50\nwait_s = 30", 2),
        ("max_failed = 0.0\nmax_slowdown = 1.5\ntolerance = 0.1", 2),
    ],
)
def test_the_schema_is_the_lowest_that_says_it(
    keys: str, schema: int, project: Path
) -> None:
    """Trial rules that are new ask for newer agents; without them, any will do."""
    manifest = packed(project, f"{GOOD}[trial]\n{keys}\n")
    assert manifest.schema == schema
    said = dict(line.split(" = ") for line in keys.splitlines())
    assert {key: float(value) for key, value in said.items()} == {
        key: getattr(manifest.trial, key) for key in said
    }


def test_degradation_and_accuracy_are_packed(project: Path) -> None:
    """They mean what they mean in the manifest, and ask for agents that read them."""
    text = GOOD.replace("tolerance = 0.25\n", "tolerance = 0.25\naccuracy = 0.97\n")
    table = '[degrade]\ndegraded = ["small_variant"]\nsafe = ["safe_output"]\n'
    output = '[degrade.safe_output]\nlabel = "stop"\nscore = 1\n'
    manifest = packed(project, f"{text}{table}{output}")
    assert (manifest.schema, manifest.variants[0].accuracy) == (3, 0.97)
    assert manifest.variants[1].accuracy is None
    assert manifest.degrade == DegradeSteps(
        degraded=(Measure.SMALL_VARIANT,),
        safe=(Measure.SAFE_OUTPUT,),
        safe_output=SafeOutput("stop", 1.0),
    )


def test_an_empty_degradation_asks_for_nothing(project: Path) -> None:
    """A table that says nothing keeps no older agent from reading the bundle."""
    assert packed(project, f"{GOOD}[degrade]\n").schema == 1


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ('[degrade]\nsuspect = ["sleep"]\n', "degrade.suspect"),
        ("[degrade]\nnormal = []\n", "degrade"),
        ('[degrade.safe_output]\nscore = "low"\n', "degrade.safe_output.score"),
    ],
)
def test_wrong_steps_are_named(table: str, named: str) -> None:
    """The message says which key it is."""
    with pytest.raises(SettingsError, match=named.replace(".", r"\.")):
        parse_description(f"{GOOD}{table}".encode())
