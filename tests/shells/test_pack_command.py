"""``tinyward pack``: real models, real children, files written whole or not at all."""

import contextlib
import json
import shutil
import tomllib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.core.provenance import parse_statement
from agent.publish.origin import OriginTable
from agent.trust.bundle import open_bundle
from tests.fakes.bundles import MAX_BYTES


def tinyward(*arguments: str | Path) -> Result:
    """Run the command line in this process; models run in children all the same."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def last_word(result: Result) -> str:
    """Return the last word of the line that begins with ``error:``."""
    lines = [li for li in result.stderr.splitlines() if li.startswith("error: ")]
    return lines[-1].split()[-1] if lines else result.stderr


@pytest.fixture
def digits(repository: Path) -> Path:
    """Give the description of the demo's first model."""
    return repository / "agent" / "demo" / "assets" / "digits-1" / "pack.toml"


def test_the_command_packs_the_same_bytes_every_time(
    digits: Path, tmp_path: Path
) -> None:
    """Real models, packed twice by the real runtime, give one and the same file."""
    paths = [tmp_path / "one.bundle", tmp_path / "two.bundle"]
    results = [tinyward("pack", digits, "-o", path) for path in paths]
    assert [result.exit_code for result in results] == [0, 0]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    bundle = open_bundle(first, max_bytes=MAX_BYTES)
    assert bundle.sha256 in results[0].stdout
    assert f"tinyward repo add REPO {paths[0]}" in results[0].stdout
    assert (bundle.manifest.model, bundle.manifest.golden.samples) == ("digits", 32)
    assert [s.shape for s in bundle.manifest.variants[0].inputs] == [(1, 8, 8, 1)]
    assert sorted(paths) == sorted(tmp_path.iterdir())


def test_the_help_shows_forms_of_provenance_that_are_taken() -> None:
    """Nothing else says how the table and the statement are spelt."""
    shown = tinyward("pack", "--help").stdout
    filled = shown.replace('"40 or 64 hex digits"', f'"{"0" * 40}"')
    filled = filled.replace('"sha256": "..."', f'"sha256": "{"0" * 64}"')
    filled = filled.replace('"commit": "..."', f'"commit": "{"0" * 40}"')
    table, rest = filled.partition("[provenance]")[2].split("\n\n", 1)
    tree = tomllib.loads(f"[provenance]{table}")["provenance"]
    assert msgspec.convert(tree, OriginTable).approver.name == "Ada"
    statement = rest.partition("variants:\n")[2].split("\n\n", 1)[0]
    assert parse_statement(statement.encode()).predicate.code.commit == "0" * 40


def test_the_command_names_its_output(digits: Path, tmp_path: Path) -> None:
    """Without ``-o`` the bundle is called MODEL-VERSION.bundle, here."""
    with contextlib.chdir(tmp_path):
        assert tinyward("pack", digits).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["digits-1.bundle"]


def test_the_command_replaces_a_bundle_whole(digits: Path, tmp_path: Path) -> None:
    """An older file of the name is replaced."""
    path = tmp_path / "digits.bundle"
    path.write_bytes(b"older" * 100_000)
    assert tinyward("pack", digits, "-o", path).exit_code == 0
    open_bundle(path.read_bytes(), max_bytes=MAX_BYTES)


def test_the_command_says_what_cannot_be_written(digits: Path, tmp_path: Path) -> None:
    """A folder that is not there, or is none, is a mistake in ``-o``."""
    (tmp_path / "file").write_text("")
    for place in ("no", "file"):
        result = tinyward("pack", digits, "-o", tmp_path / place / "digits.bundle")
        assert (result.exit_code, "[settings]" in result.stderr) == (2, True)
        assert f"{place}/digits.bundle" in result.stderr
        assert result.stderr.endswith("directory that exists: -o FILE.\n")


def test_a_file_that_is_no_model_is_named(project: Path) -> None:
    """The key, the file, and what belongs there."""
    (project / "int8.tflite").write_bytes(b"RIFF" + bytes(2000))
    result = tinyward("pack", project / "pack.toml", "-o", project / "x.bundle")
    where = f"error: variant[0].file: {project}/int8.tflite: "
    assert result.stderr.startswith(where)
    assert result.stderr.endswith(
        "to do: Name a .tflite file as its converter wrote it.\n"
    )


def test_the_command_names_a_wrong_key(digits: Path, tmp_path: Path) -> None:
    """A wrong description ends with exit code 2 and names file and key."""
    description = tmp_path / "pack.toml"
    description.write_text(digits.read_text().replace("version = 1", "version = 0"))
    result = tinyward("pack", description)
    assert result.exit_code == 2
    assert f"error: {description}: version: " in result.stderr
    assert "[settings]" in result.stderr
    assert tinyward("pack", tmp_path / "nothing.toml").exit_code == 2


@pytest.fixture
def project(digits: Path, tmp_path: Path) -> Path:
    """Give a copy of the description and all it names, to be spoiled."""
    folder = tmp_path / "digits-1"
    shutil.copytree(digits.parent, folder)
    assets = digits.parent.parent
    shutil.copy(assets / "digits-stream.npz", tmp_path)
    shutil.copy(assets / "digits-2" / "profile.json", tmp_path / "other.json")
    return folder


SPOILED = {
    "no model": ("int8.tflite", b"TFL3 and no more", "contract"),
    "half a model": ("float.tflite", b"", "contract"),
    "no samples": ("../digits-stream.npz", b"PK no", "input"),
    "too many wanted": ("pack.toml", b"golden_samples = 9999", "input"),
    "other preprocess": ("pack.toml", b'step = "mfcc"', "input"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_the_command_refuses_what_does_not_fit(case: str, project: Path) -> None:
    """Models and samples that do not fit end with a reason and write nothing."""
    name, content, reason = SPOILED[case]
    path = project / name
    if name == "pack.toml":
        key = content.partition(b" =")[0].decode()
        lines = path.read_text().splitlines()
        spoiled = [content.decode() if li.startswith(key) else li for li in lines]
        path.write_text("\n".join(li for li in spoiled if not li.startswith("factor")))
    else:
        path.write_bytes(content or path.read_bytes()[:1800])
    output = project / "digits.bundle"
    result = tinyward("pack", project / "pack.toml", "-o", output)
    assert (result.exit_code, f"[{reason}]") == (1, last_word(result))
    assert not output.exists()


def test_manifests_are_readable_by_people(digits: Path, tmp_path: Path) -> None:
    """The manifest inside is indented JSON that ends with a line feed."""
    path = tmp_path / "digits.bundle"
    assert tinyward("pack", digits, "-o", path).exit_code == 0
    raw = open_bundle(path.read_bytes(), max_bytes=MAX_BYTES).raw_manifest.decode()
    tree = json.loads(raw)
    assert raw == json.dumps(tree, indent=2, sort_keys=True) + "\n"


# What is replaced by what, and what is said of it.
PROFILES: dict[str, tuple[bytes, bytes, str]] = {
    "damaged": (b"{", b"[", "profile.json"),
    "another model": (b'"digits"', b'"others"', "it is of model 'others'"),
    "another file": (b"", b"", "which is none of the variants"),
    "other steps": (b"factor = 0.0625", b"factor = 0.125", "other preprocess steps"),
    "missing": (b"", b"", "No such file"),
}


@pytest.mark.parametrize("case", PROFILES)
def test_a_profile_of_something_else_is_not_packed(case: str, project: Path) -> None:
    """Nobody would notice on a board: the model runs, and is left unwatched."""
    before, after, said = PROFILES[case]
    path = project / "profile.json"
    if case == "missing":
        path.unlink()
    elif case == "another file":
        shutil.copy(project.parent / "other.json", path)
    else:
        spoiled = project / "pack.toml" if case == "other steps" else path
        spoiled.write_bytes(spoiled.read_bytes().replace(before, after))
    result = tinyward("pack", project / "pack.toml", "-o", project / "x.bundle")
    assert (result.exit_code, "[settings]" in result.stderr) == (2, True)
    assert "profile: " in result.stderr
    assert said in result.stderr
    assert not (project / "x.bundle").exists()


def test_a_profile_travels_as_it_is(project: Path) -> None:
    """The bytes that were named are the bytes that boards get."""
    assert tinyward("pack", project / "pack.toml", "-o", project / "x").exit_code == 0
    packed = open_bundle((project / "x").read_bytes(), max_bytes=MAX_BYTES)
    assert packed.profile == (project / "profile.json").read_bytes()
