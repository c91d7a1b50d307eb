"""``tinyward inspect``: what it finds out, in the order in which a board refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.cli import cli
from agent.cli.bundle_view import render_size
from agent.cli.draft import DRAWN_SAMPLES, draft_manifest, draw, record_drawn
from agent.cli.examiner import ChildExaminer
from agent.cli.inspection import check_stated
from agent.core.container import parse_container, render_container
from agent.core.contract import Contract
from agent.core.manifest import (
    Manifest,
    TensorSpec,
    Variant,
    parse_manifest,
    render_manifest,
)
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.publish.pack import load_description, pack, render_bundle
from agent.trust.bundle import open_bundle
from agent.worker.golden import parse_golden
from tests.fakes.bundles import MAX_BYTES, SPEC_IN, SPEC_OUT, variant


def inspect(*arguments: str | Path) -> Result:
    """Run ``tinyward inspect`` in this process; models run in children all the same."""
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def facts(*arguments: str | Path) -> dict[str, Any]:
    """Return what ``--json`` prints, which is one object and nothing else."""
    result = inspect(*arguments, "--json")
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (1 if found["refused"] else 0)
    return found


@pytest.fixture(scope="session")
def digits(repository: Path) -> bytes:
    """Give the bundle of the demo's first model."""
    description = repository / "agent" / "demo" / "assets" / "digits-1" / "pack.toml"
    described = load_description(description)
    return pack(described, description.parent, ChildExaminer())


@pytest.fixture
def bundle(digits: bytes, tmp_path: Path) -> Path:
    """Give that bundle as a file."""
    path = tmp_path / "digits.bundle"
    path.write_bytes(digits)
    return path


@pytest.fixture
def crafted(repository: Path) -> Path:
    """Give the folder of models that were made to be difficult."""
    return repository / "tests" / "data"


def test_a_bundle_is_described(bundle: Path, digits: bytes) -> None:
    """Without ``--run``: manifest, contract, operators, sizes, what would be tried."""
    found = facts(bundle)
    opened = open_bundle(digits, max_bytes=MAX_BYTES)
    assert (found["kind"], found["ran"], found["refused"]) == ("bundle", False, None)
    assert (opened.sha256, opened.size) == (found["sha256"], found["size"])
    assert (found["bundle"]["model"], found["bundle"]["version"]) == ("digits", 1)
    assert [v["name"] for v in found["variants"]] == ["int8", "float"]
    first = found["variants"][0]
    assert first["inputs"][0]["shape"] == [1, 8, 8, 1]
    assert {"CONV_2D", "SOFTMAX"} <= set(first["operators"])
    tried = {(trial["variant"], trial["finding"]) for trial in found["trials"]}
    assert tried == {("int8", None), ("float", None)}


def test_a_bundle_is_tried(bundle: Path) -> None:
    """With ``--run`` every pair has a finding, and the one that passed is chosen."""
    found = facts(bundle, "--run", "--kernels", "plain")
    assert (found["ran"], found["refused"]) == (True, None)
    assert {trial["variant"] for trial in found["trials"]} == {"int8", "float"}
    assert {trial["finding"]["reason"] for trial in found["trials"]} == {""}
    assert sum(trial["chosen"] for trial in found["trials"]) == 1
    assert all(trial["finding"]["p95_ms"] > 0 for trial in found["trials"])


def test_people_read_80_columns(bundle: Path) -> None:
    """Tables neither exceed 80 columns nor break a number or an executor."""
    result = inspect(bundle, "--run")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for word in ("digits 1 (tiny)", "1 x 8 x 8 x 1", "(q + 128) * ", "/ plain / 1 "):
        assert word in result.stdout
    assert result.stdout.count("chosen") == 1


def test_a_model_is_described_and_tried(crafted: Path) -> None:
    """A .tflite alone is tried with drawn inputs, whatever its inputs are."""
    found = facts(crafted / "two_in_two_out.tflite", "--run")
    assert (found["kind"], found["bundle"]) == ("model", None)
    (model,) = found["variants"]
    assert [spec["name"] for spec in model["inputs"]] == ["left", "right"]
    assert (model["operators"], model["tolerance"]) == (["ADD", "SUB"], None)
    assert {trial["finding"]["reason"] for trial in found["trials"]} == {""}
    assert inspect(crafted / "quantised.tflite", "--run").exit_code == 0


MODELS = {
    "unknown_operator": Reason.UNSUPPORTED_OP,
    "dynamic_length": Reason.DYNAMIC_SHAPE,
    "dynamic_output": Reason.DYNAMIC_SHAPE,
    "huge": Reason.MEMORY,
    "text": Reason.CONTRACT,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_run_are_refused(name: str, crafted: Path) -> None:
    """Exit 1 with the reason, on stderr and in the report, without ``--run``."""
    path = crafted / f"{name}.tflite"
    assert facts(path)["refused"]["reason"] == MODELS[name]
    result = inspect(path)
    assert (result.exit_code, f"[{MODELS[name]}]" in result.stderr) == (1, True)


def test_a_model_that_answers_no_numbers_is_refused_when_run(crafted: Path) -> None:
    """The logarithm of zero is only found out by running it."""
    path = crafted / "logarithm.tflite"
    assert facts(path)["refused"] is None
    found = facts(path, "--run")
    assert found["refused"]["reason"] == Reason.NOT_FINITE
    assert found["variants"]


def respelled(digits: bytes, change: Callable[[Manifest], Manifest]) -> bytes:
    """Return the bundle with its manifest changed and everything else put right."""
    entries = parse_container(memoryview(digits))
    manifest = change(parse_manifest(bytes(entries["manifest.json"])))
    return render_container({**entries, "manifest.json": render_manifest(manifest)})


def with_variant(manifest: Manifest, **changes: object) -> Manifest:
    """Return a manifest whose first variant differs."""
    first, *others = manifest.variants
    return replace(manifest, variants=(replace(first, **changes), *others))


def first_input(manifest: Manifest, **changes: object) -> Manifest:
    """Return a manifest that lies about its first input."""
    (spec,) = manifest.variants[0].inputs
    return with_variant(manifest, inputs=(replace(spec, **changes),))


LIES: dict[str, tuple[Callable[[Manifest], Manifest], Reason]] = {
    "shape": (lambda m: first_input(m, shape=(1, 64)), Reason.CONTRACT),
    "dtype": (lambda m: first_input(m, dtype="uint8"), Reason.CONTRACT),
    "name": (lambda m: first_input(m, name="picture"), Reason.CONTRACT),
    "outputs": (
        lambda m: with_variant(m, outputs=(*m.variants[0].outputs, SPEC_OUT)),
        Reason.CONTRACT,
    ),
    "runtimes": (
        lambda m: replace(
            m, variants=tuple(replace(v, runtimes=("none",)) for v in m.variants)
        ),
        Reason.MANIFEST,
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_manifests_that_lie_are_refused(
    lie: str, digits: bytes, tmp_path: Path
) -> None:
    """A manifest that contradicts its model is refused without being run."""
    change, reason = LIES[lie]
    path = tmp_path / "lying.bundle"
    path.write_bytes(respelled(digits, change))
    assert facts(path)["refused"]["reason"] == reason


def test_what_was_found_before_a_refusal_is_shown(
    digits: bytes, tmp_path: Path
) -> None:
    """A variant that does not pass leaves its finding in the report of the others."""
    path = tmp_path / "disagreeing.bundle"
    strict = respelled(digits, lambda m: first_input(m, scale=0.5, zero_point=0))
    path.write_bytes(strict)
    found = facts(path, "--run", "--kernels", "plain")
    assert (found["bundle"]["model"], found["ran"]) == ("digits", True)
    verdicts = {t["variant"]: t["finding"]["reason"] for t in found["trials"]}
    assert verdicts == {"int8": Reason.CONTRACT, "float": ""}
    result = inspect(path, "--run", "--kernels", "plain")
    assert (result.exit_code, "int8 on litert" in result.stdout) == (0, True)


def test_golden_samples_that_disagree_are_refused(
    digits: bytes, tmp_path: Path
) -> None:
    """When nothing agrees, ``--run`` ends with exit 1 and the findings."""
    opened = open_bundle(digits, max_bytes=MAX_BYTES)
    models = {
        one.name: bytes(opened.variant_bytes(other.name))
        for one, other in zip(
            opened.manifest.variants, reversed(opened.manifest.variants), strict=True
        )
    }
    swapped = tuple(
        replace(other, name=one.name, file=one.file, tolerance=0.0)
        for one, other in zip(
            opened.manifest.variants, reversed(opened.manifest.variants), strict=True
        )
    )
    manifest = replace(opened.manifest, variants=swapped)
    path = tmp_path / "swapped.bundle"
    path.write_bytes(render_bundle(manifest, models, bytes(opened.golden)))
    found = facts(path, "--run", "--kernels", "plain")
    assert found["refused"]["reason"] == Reason.GOLDEN
    assert {t["finding"]["reason"] for t in found["trials"]} == {Reason.GOLDEN}


FILES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (
        lambda good: good[:200] + bytes([good[200] ^ 1]) + good[201:],
        "malformed",
    ),
    "cut": (lambda good: good[:4096], "truncated"),
    "appended": (lambda good: good + b"\n", "malformed"),
    "text": (lambda _: b"no bundle at all", "malformed"),
    "empty": (lambda _: b"", "malformed"),
    "half a model": (lambda _: b"\x1c\0\0\0TFL3" + b"\0" * 99, "contract"),
}


@pytest.mark.parametrize("case", FILES)
def test_damaged_files_are_refused(case: str, digits: bytes, tmp_path: Path) -> None:
    """Exit 1 with the reason, and a report that still says how long the file is."""
    damage, reason = FILES[case]
    content = damage(digits)
    path = tmp_path / "damaged"
    path.write_bytes(content)
    found = facts(path)
    assert (reason, len(content)) == (found["refused"]["reason"], found["size"])
    assert found["refused"]["todo"] != ""  # the same words as without --json


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    """Exit 2 and the path."""
    result = inspect(tmp_path / "nothing.bundle")
    assert (result.exit_code, "nothing.bundle: No such file" in result.stderr) == (
        2,
        True,
    )
    assert inspect(tmp_path).exit_code == 2


def test_names_of_strangers_reach_no_terminal(digits: bytes, tmp_path: Path) -> None:
    """Escapes and markup in a manifest are shown, not obeyed."""
    path = tmp_path / "rude.bundle"
    path.write_bytes(
        respelled(
            digits,
            lambda m: replace(
                m, version_name="\x1b[2J[red]\n", labels=("[bold]\x07", *m.labels[1:])
            ),
        )
    )
    result = inspect(path)
    assert result.exit_code == 0
    assert [c for c in result.stdout if not c.isprintable() and c != "\n"] == []
    assert "digits 1 (?[2J[red]?)" in result.stdout


def test_public_models_are_tried(models: Path) -> None:
    """The keyword model of MLPerf Tiny runs, and its facts are the published ones."""
    found = facts(models / "mlperf-tiny" / "kws_ref_model.tflite", "--run")
    (model,) = found["variants"]
    assert (model["inputs"][0]["shape"], model["outputs"][0]["shape"]) == (
        [1, 49, 10, 1],
        [1, 12],
    )
    assert [trial["chosen"] for trial in found["trials"]].count(True) == 1


# Facts


def contract(**changes: object) -> Contract:
    """Return a contract that fits ``variant()`` but for its first input."""
    return Contract((replace(SPEC_IN, **changes),), (SPEC_OUT,), (), 0)


@pytest.mark.parametrize("change", [{"name": "x"}, {"shape": (1,)}, {"dtype": "bool"}])
def test_a_contract_is_compared(change: dict[str, object]) -> None:
    """Names, shapes and types have to be those that the manifest states."""
    check_stated(variant(), contract())
    check_stated(variant(), contract(scale=0.1))  # preflight judges quantisation
    with pytest.raises(TrialFailedError, match="int8: inputs"):
        check_stated(variant(), contract(**change))


@given(st.integers(0, 10**13))
def test_sizes_are_short(count: int) -> None:
    """A size is a number below 1000 and a unit, for anything a bundle may hold."""
    number, unit = render_size(count).split()
    assert (float(number) < 1000 or unit == "GB", unit in ("B", "kB", "MB", "GB")) == (
        True,
        True,
    )


DTYPES = ["float32", "int8", "uint8", "int16", "int32", "int64", "bool", "float16"]


def test_a_draft_is_a_manifest(crafted: Path) -> None:
    """What stands in for a description passes a board's own parser."""
    content = (crafted / "quantised.tflite").read_bytes()
    drafted = draft_manifest(ChildExaminer().contract(content), content)
    assert drafted == parse_manifest(render_manifest(drafted))
    golden = parse_golden(memoryview(record_drawn(drafted, content)), drafted)
    assert [len(stack) for stack in golden.samples] == [DRAWN_SAMPLES]
    assert record_drawn(drafted, content) == record_drawn(drafted, content)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_are_drawn_for_every_type(dtype: str) -> None:
    """Drawn inputs have the tensor's shape and type, and the first is zero."""
    spec = TensorSpec(name="x", shape=(2, 3), dtype=dtype)  # type: ignore[arg-type] # a parametrised literal
    drawn = list(draw(spec))
    assert len(drawn) == DRAWN_SAMPLES
    assert {(array.shape, str(array.dtype)) for array in drawn} == {((2, 3), dtype)}
    assert not drawn[0].any()
    assert any(array.any() for array in drawn[1:])


def test_the_draft_is_about_its_own_bytes(crafted: Path) -> None:
    """Digest and size are the file's."""
    content = (crafted / "streaming.tflite").read_bytes()
    made: Variant = draft_manifest(ChildExaminer().contract(content), content).variants[
        0
    ]
    assert len(content) == made.size


def with_entry(digits: bytes, name: str, content: bytes) -> bytes:
    """Return the bundle with one entry replaced or added."""
    entries = dict(parse_container(memoryview(digits)))
    entries[name] = memoryview(content)
    return render_container(entries)


def test_it_shows_what_a_profile_says(bundle: Path) -> None:
    """Samples, groups, calibration and what it lacks, for each variant."""
    profile = facts(bundle)["profile"]
    first, second = profile["references"]
    assert (first["variant"], second["variant"]) == ("int8", "float")
    assert (first["samples"], first["groups"]) == (600, 14)
    assert (first["calibration"], first["unusable"]) == ("grouped", "")
    shown = inspect(bundle).stdout
    assert "Reference profile, " in shown
    assert "note: no ordered recording" in shown


def test_a_bad_profile_is_told_and_refuses_nothing(digits: bytes, bundle: Path) -> None:
    """A board would run the model without it, and so says why nothing watches."""
    entries = parse_container(memoryview(digits))
    other = bytes(entries["profile.json"]).replace(b'"digits"', b'"others"')
    for content, why in ((b"{}", "missing required"), (other, "of model 'others'")):
        bundle.write_bytes(with_entry(digits, "profile.json", content))
        found = facts(bundle)
        assert found["refused"] is None
        assert why in found["profile"]["references"][0]["unusable"]
        assert "unusable: " in inspect(bundle).stdout


def test_a_bundle_without_a_profile_says_nothing_of_it(
    digits: bytes, bundle: Path
) -> None:
    """There is nothing to show."""
    entries = dict(parse_container(memoryview(digits)))
    del entries["profile.json"]
    bundle.write_bytes(render_container(entries))
    assert facts(bundle)["profile"] is None
    assert "Reference profile" not in inspect(bundle).stdout
