"""Deltas on the owner's side: made, weighed, listed, carried, and gone in time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli import cli
from agent.cli.slice_choice import Needs, choose_files
from agent.cli.slice_files import open_slice
from agent.cli.verify import verify
from agent.cli.verify_report import Report
from agent.core.deltas import SignedDelta, delta_path, ends_of
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget
from agent.errors import AgentError, BundleRefusedError, SettingsError
from agent.publish.deltas import Weighed, compressed_bytes, stage_delta
from agent.publish.repository import Repository
from agent.publish.slices import Choice, export_slice
from agent.publish.staging import load_staged
from agent.trust.client import TrustedRepository
from tests.fakes.board import Board
from tests.fakes.bundle_factory import NOW, Signed, SpoiledRepository, make_repository
from tests.fakes.bundles import GOLDEN, VARIANTS, good_bundle, manifest
from tests.fakes.memory_notes import MemoryNotes
from tests.fakes.patches import sha256

ONE, TWO, THREE = (good_bundle(version) for version in (1, 2, 3))
# Nothing in common but the manifest: as a model that was trained from scratch.
STRANGER = {name: bytes(reversed(content)) for name, content in VARIANTS.items()}


@pytest.fixture
def made(tmp_path: Path) -> SpoiledRepository:
    bundles = {("kws", version): good_bundle(version) for version in (1, 2, 3)}
    wanted = {"all": {"door": ("kws", 2)}}
    return make_repository(tmp_path / "repo", bundles, wanted)


def listed(made: SpoiledRepository, version: int) -> SignedTarget:
    """Return a bundle as it is listed."""
    bundles = made.repository.status().bundles
    return next(it for it in bundles if it.fields.version == version)


def stage(made: SpoiledRepository, before: int, after: int) -> Weighed:
    """Stage a delta between two listed versions."""
    return stage_delta(made.path, listed(made, after), before)


def publish(
    made: SpoiledRepository, *pairs: tuple[int, int]
) -> tuple[SignedDelta, ...]:
    """Publish deltas; return all that are listed then."""
    for before, after in pairs:
        stage(made, before, after)
    made.repository.publish(NOW)
    return made.repository.status().deltas


def refusal(kind: type[AgentError], call: Callable[[], object]) -> str:
    """Return why a call is refused."""
    with pytest.raises(kind) as caught:
        call()
    return caught.value.reason


def pairs_of(deltas: tuple[SignedDelta, ...]) -> list[tuple[int, int]]:
    """Return (from, to) of deltas."""
    return sorted((it.fields.from_version, it.fields.version) for it in deltas)


def test_a_delta_is_found_by_a_board(made: SpoiledRepository, tmp_path: Path) -> None:
    """Signed by targets; boards get it, whole, by asking what leads to a bundle."""
    (delta,) = publish(made, (1, 2))
    assert delta.path == delta_path(sha256(ONE), sha256(TWO))
    assert delta.fields.bytes == len(TWO)
    trusted = Board(tmp_path / "board", made).refresh()
    assert trusted.deltas(trusted.find("kws", 2)) == [delta]
    assert trusted.deltas(trusted.find("kws", 3)) == []
    content = bytearray()
    trusted.fetch(delta, content.extend, delta.length)
    assert content == made.target_file(delta.path).read_bytes()


def test_an_entry_that_makes_no_sense_is_no_delta(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Signed by targets, too: the bundle is found and fetched without it."""
    (delta,) = publish(made, (1, 2))

    def spoil(signed: Signed) -> None:
        signed.targets[delta.path].unrecognized_fields["custom"]["bytes"] = "many"

    made.resign("targets", spoil)
    trusted = Board(tmp_path / "board", made).refresh()
    assert trusted.deltas(trusted.find("kws", 2)) == []


def test_what_spares_too_little_is_not_staged(made: SpoiledRepository) -> None:
    """Trained from scratch: said with both lengths, and no error."""
    from agent.publish.pack import render_bundle

    content = render_bundle(manifest(STRANGER, 4), STRANGER, GOLDEN[::-1])
    target = made.repository.add(content, model="kws", version=4)
    weighed = stage_delta(made.path, target, 1)
    assert weighed.staged is None
    assert weighed.bytes >= 0.6 * weighed.compressed_bytes
    assert weighed.compressed_bytes == compressed_bytes(content)
    assert load_staged(made.path).deltas == {}


def test_a_delta_needs_two_listed_bundles_that_may_run(
    made: SpoiledRepository,
) -> None:
    """Not to itself, from nothing, from what is revoked, or from damaged bytes."""
    assert refusal(SettingsError, lambda: stage(made, 2, 2)) == Reason.SETTINGS
    missing = refusal(BundleRefusedError, lambda: stage(made, 9, 2))
    assert missing == Reason.MISSING_TARGET
    made.flip_bit(made.bundle_file("kws", 3))
    damaged = refusal(BundleRefusedError, lambda: stage(made, 3, 2))
    assert damaged == Reason.DIGEST
    made.repository.revoke([sha256(ONE)])
    revoked = refusal(BundleRefusedError, lambda: stage(made, 1, 2))
    assert revoked == Reason.REVOKED


def test_a_removed_version_takes_its_deltas_along(made: SpoiledRepository) -> None:
    """Those from it and to it, published and staged; others stay."""
    assert len(publish(made, (1, 2), (3, 2), (1, 3))) == 3
    made.repository.remove("kws", 3)
    assert pairs_of(publish(made)) == [(1, 2)]
    made.repository.add(THREE, model="kws", version=3)
    stage_delta(made.path, load_staged(made.path).bundles["models/kws/3.bundle"], 1)
    made.repository.remove("kws", 3)
    assert load_staged(made.path).deltas == {}


def test_a_revoked_version_takes_its_deltas_along(made: SpoiledRepository) -> None:
    """Also those that are staged; taking the revocation back lists none again."""
    publish(made, (1, 2), (1, 3))
    stage(made, 3, 2)
    made.repository.revoke([sha256(THREE)])
    assert load_staged(made.path).deltas == {}
    assert pairs_of(publish(made)) == [(1, 2)]
    made.repository.revoke([sha256(THREE)], undo=True)
    assert pairs_of(publish(made)) == [(1, 2)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("delta"), st.integers(1, 3), st.integers(1, 3)),
        st.tuples(st.just("add"), st.integers(1, 3), st.just(0)),
        st.tuples(st.sampled_from(["remove", "revoke"]), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("publish"), st.just(0), st.just(0)),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_what_is_listed_always_has_both_ends(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """Law: whatever is added, removed and revoked, each delta leads between bundles."""
    path = tmp_path_factory.mktemp("law") / "repo"
    bundles = {("kws", version): good_bundle(version) for version in (1, 2, 3)}
    made = make_repository(path, bundles)
    for step, first, second in (*steps, ("publish", 0, 0)):
        try:
            _take(made, step, first, second)
        except AgentError:
            continue  # what makes no sense is refused
    status = made.repository.status()
    sound = {it.sha256 for it in status.bundles} - set(status.revoked.bundles)
    for delta in status.deltas:
        assert set(ends_of(delta.path)) <= sound
        assert made.target_file(delta.path).stat().st_size == delta.length


def _take(made: SpoiledRepository, step: str, first: int, second: int) -> None:
    """Take one step of an owner."""
    repository = made.repository
    if step == "delta":
        for target in made.repository.status().bundles:
            if target.fields.version == second:
                stage_delta(made.path, target, first)
    elif step == "add":
        repository.add(good_bundle(first), model="kws", version=first)
    elif step == "remove":
        repository.remove("kws", first)
    elif step == "revoke":
        repository.revoke([sha256(good_bundle(first))])
    else:
        repository.publish(NOW)


def test_rotated_keys_sign_deltas_again(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """As everything that targets lists."""
    (delta,) = publish(made, (1, 2))
    made.repository.rotate("targets", NOW)
    trusted = Board(tmp_path / "board", made).refresh()
    assert trusted.deltas(trusted.find("kws", 2)) == [delta]


def test_a_repository_without_deltas_is_as_before(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Nobody has to publish any; staged files of older owners are read."""
    (made.path / "staged.json").write_text("{}")
    assert made.repository.status().deltas == ()
    trusted = Board(tmp_path / "board", made).refresh()
    assert trusted.deltas(trusted.find("kws", 2)) == []


# --- slices


def carried(made: SpoiledRepository, out: Path, choice: Choice) -> list[str]:
    """Return the content of a slice: bundles by name, deltas by theirs."""
    pieces = export_slice(made.path, out, choice)
    paths = [piece.signed.path for piece in pieces if piece.signed is not None]
    return [path for path in paths if not path.startswith("fleet/")]


def test_a_slice_may_carry_a_delta_instead(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """For boards that hold 1; everything carries both, and nothing else does."""
    (delta,) = publish(made, (1, 2))
    two = "models/kws/2.bundle"
    chosen = Choice(deltas_from=[("kws", 1)])
    assert carried(made, tmp_path / "a", chosen) == [delta.path]
    assert carried(made, tmp_path / "b", Choice()) == [two]
    everything = carried(made, tmp_path / "c", Choice(everything=True))
    assert {two, delta.path} < set(everything)
    stranger = Choice(deltas_from=[("kws", 3)])
    reason = refusal(
        BundleRefusedError, lambda: export_slice(made.path, tmp_path / "d", stranger)
    )
    assert reason == Reason.MISSING_TARGET


def test_a_board_follows_a_slice_with_a_delta(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """It verifies as any other, and the delta comes from there."""
    (delta,) = publish(made, (1, 2))
    export_slice(made.path, tmp_path / "slice", Choice(deltas_from=[("kws", 1)]))
    trusted = TrustedRepository(
        metadata_dir=tmp_path / "metadata",
        repository=str(tmp_path / "slice"),
        root=made.root,
        notes=MemoryNotes(),
        build_time=0.0,
    )
    trusted.refresh(NOW)
    assert trusted.deltas(trusted.find("kws", 2)) == [delta]
    content = bytearray()
    trusted.fetch(delta, content.extend, delta.length)
    assert len(content) == delta.length


@pytest.mark.parametrize(
    ("running", "sent", "absent"),
    [(ONE, True, ()), (THREE, False, ("models/kws/2.bundle",))],
    ids=["holds_it", "holds_another"],
)
def test_a_delta_is_sent_to_boards_that_hold_its_base(
    made: SpoiledRepository,
    tmp_path: Path,
    running: bytes,
    absent: tuple[str, ...],
    *,
    sent: bool,
) -> None:
    """The bundle is not in the slice: it is missed only where no delta helps."""
    (delta,) = publish(made, (1, 2))
    out = tmp_path / "slice"
    export_slice(made.path, out, Choice(deltas_from=[("kws", 1)]))
    needs = Needs({"door": "kws"}, {"door": sha256(running)})
    with open_slice(out) as files:
        choice = choose_files(
            files.sizes, lambda path: files.read(path, 0, files.sizes[path]), needs
        )
        assert any("deltas/" in path for path in files.sizes)
    assert any(delta.sha256 in path for path in choice.paths) == sent
    assert choice.absent == absent


def test_beside_its_bundle_a_delta_is_not_sent(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """The board would build from its own disk what was sent to it anyway."""
    publish(made, (1, 2))
    out = tmp_path / "slice"
    export_slice(made.path, out, Choice(everything=True))
    needs = Needs({"door": "kws"}, {"door": sha256(ONE)})
    with open_slice(out) as files:
        choice = choose_files(
            files.sizes, lambda path: files.read(path, 0, files.sizes[path]), needs
        )
    assert not any("deltas/" in path for path in choice.paths)
    assert any(path.endswith("2.bundle") for path in choice.paths)


# --- what is typed


class Shell:
    """A repository with one version, and a second one beside it."""

    def __init__(self, home: Path) -> None:
        self.repo, self.next = str(home / "repo"), str(home / "2.bundle")
        make_repository(home / "repo", {("kws", 1): ONE})
        Path(self.next).write_bytes(TWO)

    def run(self, *arguments: str) -> Result:
        """Run ``tinyward repo``."""
        return CliRunner().invoke(cli, ["repo", *arguments])


def test_add_says_what_a_delta_spares(tmp_path: Path) -> None:
    """And status says it after that, staged and published."""
    shell = Shell(tmp_path)
    added = shell.run("add", shell.repo, shell.next, "--delta-from", "1")
    assert (added.exit_code, added.stderr) == (0, "")
    assert "staged delta kws 1 to 2 (" in added.stdout
    assert "% of the bundle)" in added.stdout
    assert "delta kws 1 to 2" in shell.run("status", shell.repo).stdout
    Repository.open(Path(shell.repo)).publish(NOW)
    shown = shell.run("status", shell.repo)
    assert "of the bundle" in shown.stdout
    (delta,) = json.loads(shell.run("status", shell.repo, "--json").stdout)["deltas"]
    assert (delta["fields"]["from_version"], delta["fields"]["version"]) == (1, 2)


def test_add_says_that_a_delta_spares_too_little(tmp_path: Path) -> None:
    """That is no error: the bundle is staged."""
    from agent.publish.pack import render_bundle

    shell = Shell(tmp_path)
    content = render_bundle(manifest(STRANGER, 2), STRANGER, GOLDEN[::-1])
    Path(shell.next).write_bytes(content)
    added = shell.run("add", shell.repo, shell.next, "--delta-from", "1")
    assert (added.exit_code, added.stderr) == (0, "")
    assert "no delta kws 1 to 2: its" in added.stdout
    assert "of the compressed bundle" in added.stdout


@pytest.mark.parametrize(
    ("version", "code", "words"),
    [("7", 1, "kws 7 is not in this"), ("2", 2, "to itself"), ("0", 2, "range")],
)
def test_impossible_deltas_are_refused_in_words(
    tmp_path: Path, version: str, code: int, words: str
) -> None:
    """A version that is not there, the very same, none at all: nothing is staged."""
    shell = Shell(tmp_path)
    before = shell.run("status", shell.repo, "--json").stdout
    bases = ("--delta-from", "1", "--delta-from", version)
    added = shell.run("add", shell.repo, shell.next, *bases)
    assert added.exit_code == code
    assert words in added.stderr
    assert added.stdout == ""
    assert shell.run("status", shell.repo, "--json").stdout == before


def test_export_names_the_deltas(tmp_path: Path) -> None:
    """Instead of the bundles that stay behind."""
    shell = Shell(tmp_path)
    shell.run("add", shell.repo, shell.next, "--delta-from", "1")
    Repository.open(Path(shell.repo)).publish(NOW)
    out = str(tmp_path / "out")
    said = shell.run(
        *("export", shell.repo, out, "--model", "kws=2", "--delta-from", "kws=1")
    )
    assert said.exit_code == 0
    assert "0 bundles, 1 deltas" in said.stdout
    shutil.rmtree(out)


def test_verify_names_the_deltas_that_lead_to_a_bundle(
    made: SpoiledRepository,
) -> None:
    """By the versions that they lead from."""
    publish(made, (3, 2), (1, 2))
    report = Report()
    verify(TWO, str(made.path), made.root, NOW, report)
    said = dict(report.passed)["listed"]
    assert said.endswith(f"{sha256(TWO)}, a delta from 1, a delta from 3")
