"""``tinyward profile``: real models and data become a profile, or an error says why."""

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from agent.core.profile import MAX_PROFILE_BYTES, find_reference, parse_profile
from agent.trust.bundle import open_bundle
from tests.fakes.bundles import MAX_BYTES
from tests.fakes.profiled import STREAM, stream, tiny_bundle, tinyward

DATA = ("--data", STREAM, "--array", "images")
GROUPS = ("--groups", "writers")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Give the demo's first model, packed once."""
    path = tmp_path_factory.mktemp("model") / "digits.bundle"
    described = repository / "agent" / "demo" / "assets" / "digits-1" / "pack.toml"
    assert tinyward("pack", described, "-o", path).exit_code == 0
    return path


def test_the_command_makes_a_profile_and_all_that_goes_with_it(
    model: Path, tmp_path: Path
) -> None:
    """Profile, report, bundle and words: of one run, whole, and of one model."""
    output, report, into = (
        tmp_path / name for name in ("p.json", "r.html", "n.bundle")
    )
    result = tinyward(
        *("profile", model, *DATA, *GROUPS, "--labels", "labels", "--kind", "image"),
        *("--variant", "int8", "-o", output, "--report", report, "--into", into),
    )
    assert (result.exit_code, sorted(tmp_path.iterdir())) == (
        0,
        sorted([output, report, into]),
    )
    bundle = open_bundle(into.read_bytes(), max_bytes=MAX_BYTES)
    raw = output.read_bytes()
    assert bundle.profile == raw
    assert len(raw) <= MAX_PROFILE_BYTES
    manifest = bundle.manifest
    reference = find_reference(
        parse_profile(raw), manifest, manifest.variants[0].sha256
    )
    assert (reference.count, reference.groups) == (600, 14)
    assert (reference.calibration, reference.kind) == ("grouped", "image")
    assert 0.8 < reference.accuracy < 0.95
    assert sum(reference.classes) == 600
    assert "int8         600 samples, 14 groups" in result.stdout
    assert f"tinyward repo add REPO {into}" in result.stdout
    assert "warning: no ordered recording" in result.stderr
    assert any(note.startswith("no ordered recording") for note in reference.notes)
    assert "<!doctype html>" in report.read_text()


def test_the_same_data_and_seed_give_the_same_bytes(
    model: Path, tmp_path: Path
) -> None:
    """Only data and seed are in a profile."""
    raws = []
    for number in range(2):
        path = tmp_path / f"{number}.json"
        result = tinyward(
            *("profile", model, *DATA, *GROUPS, "--variant", "int8", "--seed", "7"),
            *("-o", path, "--json"),
        )
        assert result.exit_code == 0
        raws.append(path.read_bytes())
    assert raws[0] == raws[1]


def test_json_says_what_was_made(model: Path, tmp_path: Path) -> None:
    """One object on standard output; warnings stay on standard error."""
    result = tinyward(
        *("profile", model, *DATA, "--variant", "float", "--json"),
        *("-o", tmp_path / "p.json"),
    )
    tree = json.loads(result.stdout)
    (variant,) = tree["variants"]
    assert (tree["model"], variant["variant"]) == ("digits", "float")
    assert variant["samples"] == {"read": 600, "failed": 0, "invalid": 0, "used": 600}
    assert variant["calibration"] == "iid"
    assert (variant["accuracy"], variant["autocorrelation"]) == (None, None)
    assert "no groups found, 8 needed" in result.stderr
    assert set(variant["thresholds"]) >= {"input", "output", "all"}
    assert any(said.startswith("iid-calibrated") for said in variant["warnings"])
    assert "warning: iid-calibrated" in result.stderr


def test_a_description_is_packed_first(repository: Path, tmp_path: Path) -> None:
    """A pack.toml is as good as a bundle, even before the profile it names exists."""
    folder = tmp_path / "digits-1"
    shutil.copytree(repository / "agent" / "demo" / "assets" / "digits-1", folder)
    shutil.copy(STREAM, tmp_path)
    (folder / "profile.json").unlink()
    described = folder / "pack.toml"
    named = tomllib.loads(described.read_text())["profile"]
    output = folder / named
    assert tinyward("pack", described, "-o", tmp_path / "x").exit_code == 2
    result = tinyward(
        "profile", described, *DATA, *GROUPS, "--variant", "int8", "-o", output
    )
    assert result.exit_code == 0
    assert tinyward("pack", described, "-o", tmp_path / "x").exit_code == 0
    packed = open_bundle((tmp_path / "x").read_bytes(), max_bytes=MAX_BYTES)
    assert packed.profile == output.read_bytes()


def test_data_that_are_not_there_are_no_source(model: Path, tmp_path: Path) -> None:
    """What to do is said of --data, not of a board's settings."""
    result = tinyward("profile", model, "--data", tmp_path / "gone.npy")
    assert result.exit_code == 1
    assert "gone.npy: no such file" in result.stderr
    assert "Name held-out samples with --data" in result.stderr
    assert "`source`" not in result.stderr


WRONG = {
    "variant": (("--variant", "small"), 2, "settings", "no variant is called 'small'"),
    "tensor": (("--tensor", "inner"), 2, "settings", "no output 'inner'; it has"),
    "groups": (("--groups", "devices"), 2, "settings", "images, labels, writers"),
    "labels": (("--labels", "images"), 2, "settings", "one integer or word"),
    "folders": (("--groups", "folders"), 2, "settings", "is no folder"),
    "array": (("--array", "pictures"), 2, "settings", "no array 'pictures'; it holds"),
    "kind": (("--kind", "vector"), 1, "profile", "vector of 64 values"),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_that_do_not_fit_are_named(
    case: str, model: Path, tmp_path: Path
) -> None:
    """A wrong option is named, with what there is instead; nothing is written."""
    options, code, reason, said = WRONG[case]
    result = tinyward(
        *("profile", model, *DATA, "--variant", "int8", *options),
        *("-o", tmp_path / "p.json"),
    )
    if case == "variant":  # of two, the wrong one is named
        assert "int8, float" in result.stderr
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert f"[{reason}]" in result.stderr
    assert result.stderr.count(options[0]) <= 1  # no option's name twice
    assert list(tmp_path.iterdir()) == []


def spoiled(case: str, folder: Path) -> tuple[str | Path, ...]:
    """Write data with one thing wrong; return the options that name them."""
    images = stream()["images"]
    path = folder / "data.npy"
    if case == "few":
        images = images[:40]
    elif case == "alike":
        images = np.repeat(images[:1], 200, axis=0)
    elif case == "one class":
        labels = stream()["labels"]
        images = np.concatenate([images[labels == 0]] * 4)
    elif case == "shape":
        images = images[:, :4]
    elif case == "NaN storm":
        images = images.astype(np.float32)
        images[::3, 0, 0] = np.nan
    elif case == "groups":
        (folder / "groups.txt").write_text("one\ntwo\n")
    np.save(path, images)
    groups = ("--groups", folder / "groups.txt") if case == "groups" else ()
    return "--data", path, *groups


SPOILED = {
    "few": ("profile", "40 answered samples, 100 needed"),
    "alike": ("profile", "no feature ever moves"),
    "one class": ("profile", "were answered with class 0"),
    "shape": ("input", "600 of 600 samples do not become the model's input"),
    "NaN storm": ("input", "200 of 600 samples do not become"),
    "groups": ("settings", "--groups: 2 entries for 600 samples"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_data_that_say_nothing_are_refused(
    case: str, model: Path, tmp_path: Path
) -> None:
    """Data that cannot be a reference end with a reason and what to do about it."""
    reason, said = SPOILED[case]
    options = spoiled(case, tmp_path)
    result = tinyward(
        "profile", model, *options, "--variant", "int8", "-o", tmp_path / "p.json"
    )
    assert (said in result.stderr, f"[{reason}]" in result.stderr) == (True, True), (
        result.stderr
    )
    assert "to do: " in result.stderr
    assert not (tmp_path / "p.json").exists()


def test_a_few_bad_samples_are_left_out_and_told(model: Path, tmp_path: Path) -> None:
    """A sample with NaN in it is one bad sample, of the data as on a board."""
    images = stream()["images"].astype(np.float32)
    images[5, 0, 0] = np.nan
    np.save(tmp_path / "data.npy", images)
    result = tinyward(
        *("profile", model, "--data", tmp_path / "data.npy", "--variant", "int8"),
        *("-o", tmp_path / "p.json", "--json"),
    )
    (variant,) = json.loads(result.stdout)["variants"]
    assert variant["samples"] == {"read": 600, "failed": 1, "invalid": 0, "used": 599}
    assert "warning: 1 bad samples were left out" in result.stderr


def test_a_model_without_softmax_has_no_confidence_tier(tmp_path: Path) -> None:
    """Answers that are no probabilities leave that tier out, and say so."""
    random = np.random.default_rng(1)
    samples = random.integers(-60, 60, (400, 4), np.int8)
    np.save(tmp_path / "data.npy", samples)
    (tmp_path / "tiny.bundle").write_bytes(tiny_bundle("quantised", samples))
    result = tinyward(
        *("profile", tmp_path / "tiny.bundle", "--data", tmp_path / "data.npy"),
        *("-o", tmp_path / "p.json", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    assert "warning: no confidence tier" in result.stderr
    (variant,) = json.loads(result.stdout)["variants"]
    assert (variant["kind"], "output" in variant["thresholds"]) == ("vector", False)
    assert any("400 samples: below 500" in said for said in variant["warnings"])


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Neither rubbish nor a missing file is a bundle."""
    (tmp_path / "x.bundle").write_bytes(b"PK no bundle")
    for name, reason in (("x.bundle", "malformed"), ("y.bundle", "settings")):
        result = tinyward("profile", tmp_path / name, *DATA)
        assert (result.exit_code > 0, f"[{reason}]" in result.stderr) == (True, True)


def test_what_cannot_be_written_is_said(model: Path, tmp_path: Path) -> None:
    """A folder that is not there is a mistake in ``-o``, told in words."""
    result = tinyward(
        *("profile", model, *DATA, "--variant", "int8"),
        *("-o", tmp_path / "no" / "p.json"),
    )
    assert (result.exit_code, "[settings]" in result.stderr) == (2, True)


def test_recordings_in_folders_are_groups_in_order(tmp_path: Path) -> None:
    """Ordered recordings tell how alike neighbours are, and thin what is watched."""
    random = np.random.default_rng(5)
    places = [tmp_path / "data" / f"device-{device}" for device in range(8)]
    for place in places:
        place.mkdir(parents=True)
        level = np.zeros((150, 4))
        for at in range(1, len(level)):
            level[at] = 0.9 * level[at - 1] + random.normal(0, 12, 4)
        np.save(place / "session.npy", level.clip(-100, 100).astype(np.int8))
    bundle = tmp_path / "tiny.bundle"
    bundle.write_bytes(tiny_bundle("quantised", np.load(places[-1] / "session.npy")))
    result = tinyward(
        *("profile", bundle, "--data", tmp_path / "data", "--groups", "folders"),
        *("--ordered", "-o", tmp_path / "p.json", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    (variant,) = json.loads(result.stdout)["variants"]
    assert (variant["samples"]["read"], variant["groups"]) == (1200, 8)
    assert variant["calibration"] == "ordered"
    assert variant["autocorrelation"] > 0.7
    assert variant["interval"] > 1
    assert not any("no ordered" in said for said in variant["warnings"])
