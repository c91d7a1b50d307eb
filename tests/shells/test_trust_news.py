"""What a board asks of a verified repository: news, desired states, revocations."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    TargetFile,
    Targets,
)

from agent.core.reasons import Reason
from agent.core.targets import (
    REVOKED_PATH,
    GroupFile,
    Revocations,
    Wanted,
    device_path,
    render_group,
    render_revocations,
)
from agent.errors import BundleRefusedError, DeviceError
from agent.publish.roles import utc
from agent.trust.client import TrustedRepository
from agent.trust.revoked import load_revoked
from tests.fakes.board import Board
from tests.fakes.bundle_factory import DAY_S, NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle

BAD = Revocations(bundles=("ab" * 32,), operators=("7f",))


@pytest.fixture
def repository(tmp_path: Path) -> SpoiledRepository:
    """Give a published repository."""
    return make_repository(
        tmp_path / "repo",
        {("kws", 1): good_bundle(1)},
        {"all": {"door": ("kws", 1)}},
    )


@pytest.fixture
def board(tmp_path: Path, repository: SpoiledRepository) -> Board:
    """Give a board that follows it."""
    return Board(tmp_path / "board", repository)


def list_file(
    repository: SpoiledRepository, role: str, path: str, content: bytes | None
) -> None:
    """Let a role sign a file, or take it back, and publish that."""

    def change(signed: Targets) -> None:
        if content is None:
            del signed.targets[path]
        else:
            signed.targets[path] = TargetFile.from_data(path, content, ["sha256"])
        signed.version += 1

    repository.resign(role, change)
    repository.resign("timestamp", lambda t: setattr(t, "version", t.version + 1))
    repository.resign("snapshot", lambda s: setattr(s, "version", s.version + 1))
    if content is not None:
        folder, _, name = path.rpartition("/")
        sha256 = hashlib.sha256(content).hexdigest()
        place = repository.path / "targets" / folder / f"{sha256}.{name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def reason(repository: TrustedRepository, now: float) -> str:
    """Return why a refresh is refused."""
    with pytest.raises(BundleRefusedError) as caught:
        repository.refresh(now)
    return caught.value.reason


def test_a_refresh_says_whether_anything_changed(
    board: Board, repository: SpoiledRepository
) -> None:
    """The first is news, then only what was published, and one look each day."""
    trusted = board.boot()
    assert trusted.refresh(NOW) is True
    assert trusted.refresh(NOW + 10) is False
    repository.repository.rotate("timestamp", NOW)
    assert trusted.refresh(NOW + 20) is True
    assert trusted.refresh(NOW + DAY_S) is False
    assert trusted.refresh(NOW + DAY_S + 20) is True


def test_what_was_refused_is_refused_again(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A spoiled publication never becomes "unchanged"; the good one is, afterwards."""
    trusted = board.boot()
    trusted.refresh(NOW)
    good = repository.copy(tmp_path / "good")
    repository.sign_by_stranger("timestamp")
    assert [reason(trusted, NOW + n) for n in range(3)] == [Reason.SIGNATURE] * 3
    repository.restore(good)
    assert trusted.refresh(NOW + 4) is False


def test_19_an_unchanged_repository_expires(board: Board) -> None:
    """Nothing new, day after day, is a freeze as soon as anything is past its date."""
    trusted = board.boot()
    trusted.refresh(NOW)
    ends = min(trusted.expiries().values())
    trusted.refresh(ends - 10)
    assert trusted.refresh(ends - 5) is False
    assert reason(trusted, ends + 1) == Reason.EXPIRED


def test_what_is_in_use_tells_its_dates(board: Board) -> None:
    """Each role's expiry and the issue time, as metrics and alarms need them."""
    trusted = board.boot()
    assert (trusted.expiries(), trusted.issued, trusted.retry_after) == ({}, 0.0, 0.0)
    trusted.refresh(NOW)
    assert set(trusted.expiries()) == {
        *("root", "timestamp", "snapshot", "targets", "fleet")
    }
    assert all(ends > NOW for ends in trusted.expiries().values())
    assert trusted.issued == NOW


def test_a_boards_own_file_comes_first(
    board: Board, repository: SpoiledRepository
) -> None:
    """An exception for one board is asked for before its groups."""
    own = GroupFile(3, {"door": Wanted("kws", 1)}, paused=True)
    list_file(repository, "fleet", device_path("b-7"), render_group(own))
    trusted = board.refresh()
    assert trusted.desired(["all"], "b-7")[0] == ("fleet/devices/b-7", own)
    assert [path for path, _ in trusted.desired(["all"], "b-8")] == ["fleet/groups/all"]


@pytest.mark.parametrize(
    "device",
    ["", ".", "..", "../groups/all", "a/b", "a b", "a%2fb", "\0", "ä", "x" * 129],
)
def test_25_an_id_that_is_no_file_name_has_no_file(board: Board, device: str) -> None:
    """Nothing is looked for under a name that could lead somewhere else."""
    found = board.refresh().desired(["all"], device)
    assert [path for path, _ in found] == ["fleet/groups/all"]


def test_24_a_role_cannot_choose_where_it_is_kept(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A delegated role called ../../x is fetched and kept under a quoted name."""
    name = "../../escaped"

    def delegate(signed: Targets) -> None:
        assert signed.delegations is not None
        assert signed.delegations.roles is not None
        role = signed.delegations.roles.pop("fleet")
        role.name = name
        signed.delegations.roles[name] = role
        signed.version += 1

    repository.resign("targets", delegate)
    repository.resign("timestamp", lambda t: setattr(t, "version", t.version + 1))
    repository.resign("snapshot", lambda s: setattr(s, "version", s.version + 1))
    with pytest.raises(BundleRefusedError) as caught:
        board.refresh()
    assert caught.value.reason == Reason.METADATA
    assert list(tmp_path.glob("**/escaped*")) == []


class NestedRoles:
    """Roles that delegate every path to other roles, all with one key."""

    def __init__(self, edges: list[tuple[str, str]], *, terminating: bool) -> None:
        self._signer = CryptoSigner.generate_ed25519()
        self._terminating = terminating
        self._edges = edges
        ends = utc(NOW + DAY_S)
        self._made = {child: Metadata(Targets(expires=ends)) for _, child in edges}
        for parent, metadata in self._made.items():
            self._add_children(parent, metadata.signed)

    def _add_children(self, parent: str, signed: Targets) -> None:
        """Let a role delegate to those that the edges name."""
        for child in (child for owner, child in self._edges if owner == parent):
            patterns = ["*", "*/*", "*/*/*"]
            role = DelegatedRole(child, [], 1, self._terminating, patterns)
            signed.delegations = signed.delegations or Delegations({}, {})
            assert signed.delegations.roles is not None
            signed.delegations.roles[child] = role
            signed.add_key(self._signer.public_key, child)

    def publish(self, repository: SpoiledRepository) -> None:
        """Publish them all."""
        metas = {}
        for name, metadata in self._made.items():
            metadata.sign(self._signer)
            raw = metadata.to_bytes()
            (repository.path / f"metadata/1.{name}.json").write_bytes(raw)
            metas[f"{name}.json"] = MetaFile.from_data(1, raw, ["sha256"])

        def change(signed: Targets) -> None:
            self._add_children("targets", signed)
            signed.version += 1

        repository.resign("snapshot", lambda s: s.meta.update(metas))
        repository.resign("targets", change)
        repository.resign("timestamp", lambda t: setattr(t, "version", t.version + 1))
        repository.resign("snapshot", lambda s: setattr(s, "version", s.version + 1))


CHAIN = [("targets", "r0"), *((f"r{n}", f"r{n + 1}") for n in range(40))]
CYCLE = [("targets", "a"), ("a", "b"), ("b", "c"), ("c", "a")]


@pytest.mark.parametrize("edges", [CHAIN, CYCLE], ids=["40-roles", "cycle"])
@pytest.mark.parametrize("terminating", [False, True])
def test_24_delegations_of_delegations_end(
    board: Board,
    repository: SpoiledRepository,
    edges: list[tuple[str, str]],
    *,
    terminating: bool,
) -> None:
    """However roles refer to each other, a search visits few, and finds what is there.

    Their keys are looked up at whoever delegated, not at ``targets``.
    """
    NestedRoles(edges, terminating=terminating).publish(repository)
    trusted = board.refresh()
    assert trusted.find("kws", 1).fields.version == 1
    with pytest.raises(BundleRefusedError) as caught:
        trusted.find("kws", 9)
    assert caught.value.reason == Reason.MISSING_TARGET
    assert len(list(board.cache.glob("*.json"))) < 40


def test_34_a_revocation_is_signed_by_targets_and_remembered(
    board: Board, repository: SpoiledRepository
) -> None:
    """It counts from then on, also at a boot that cannot reach anything."""
    trusted = board.refresh()
    assert trusted.revoked() == Revocations()
    list_file(repository, "targets", REVOKED_PATH, render_revocations(BAD))
    trusted.refresh(NOW + 1)
    assert trusted.revoked() == BAD
    assert load_revoked(board.notes, repository.root) == BAD
    saves = board.notes.saves
    assert trusted.revoked() == BAD
    assert board.notes.saves == saves
    list_file(repository, "targets", REVOKED_PATH, None)
    trusted.refresh(NOW + 2)
    assert trusted.revoked() == Revocations()
    assert load_revoked(board.notes, repository.root) == Revocations()


def test_34_the_fleet_key_revokes_nothing(
    board: Board, repository: SpoiledRepository
) -> None:
    """Whoever stole the online key cannot switch a fleet off."""
    list_file(repository, "fleet", REVOKED_PATH, render_revocations(BAD))
    assert board.refresh().revoked() == Revocations()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, Reason.MISSING_TARGET),
        (b"{}", Reason.LENGTH),
        (b"flip", Reason.DIGEST),
    ],
)
def test_34_a_mirror_cannot_hide_what_is_revoked(
    board: Board, repository: SpoiledRepository, content: bytes | None, expected: Reason
) -> None:
    """A list that does not arrive is an error; what was known before still counts."""
    list_file(repository, "targets", REVOKED_PATH, render_revocations(BAD))
    board.refresh().revoked()
    more = Revocations(bundles=(*BAD.bundles, "cd" * 32))
    list_file(repository, "targets", REVOKED_PATH, render_revocations(more))
    file = repository.target_file(REVOKED_PATH)
    if content is None:
        file.unlink()
    else:
        flipped = file.read_bytes().replace(b"cd", b"dc")
        file.write_bytes(flipped if content == b"flip" else content)
    with pytest.raises(BundleRefusedError) as caught:
        board.refresh().revoked()
    assert expected == caught.value.reason
    assert load_revoked(board.notes, repository.root) == BAD


def test_a_signed_list_that_makes_no_sense_is_metadata(
    board: Board, repository: SpoiledRepository
) -> None:
    """A typing error of the owner does not take effect by halves."""
    list_file(repository, "targets", REVOKED_PATH, b'{"bundles": ["x"]}')
    with pytest.raises(BundleRefusedError) as caught:
        board.refresh().revoked()
    assert caught.value.reason == Reason.METADATA


def test_a_damaged_note_is_not_taken_for_nothing(
    board: Board, repository: SpoiledRepository
) -> None:
    """What is revoked is unknown then, and that is said."""
    board.refresh().revoked()
    key = next(key for key in board.notes.saved if key.startswith("trust.revoked."))
    board.notes.saved[key] = b"{"
    with pytest.raises(DeviceError) as caught:
        load_revoked(board.notes, repository.root)
    assert caught.value.reason == Reason.STATE


def test_a_factory_slice_remembers_no_revocation(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """An old slice must not overwrite what the fleet said since."""
    list_file(repository, "targets", REVOKED_PATH, render_revocations(BAD))
    board = Board(tmp_path / "f", repository, factory=True)
    assert board.refresh().revoked() == BAD
    assert board.notes.saved == {}


def test_two_repositories_share_what_they_have_learned(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A slice that was pushed raises the floors of the fleet's repository, and the
    older of the two neither lowers them nor brings old revocations back.
    """
    mirror = Board(tmp_path / "unused", repository)
    mirror.cache, mirror.notes = board.cache, board.notes
    mirror.address = str(repository.copy(tmp_path / "mirror"))
    fleet, inbox = board.boot(), mirror.boot()
    inbox.refresh(NOW)
    list_file(repository, "targets", REVOKED_PATH, render_revocations(BAD))
    repository.repository.assign("all", {"door": ("kws", 1)}, percent=50)
    repository.repository.publish(NOW + 5)
    fleet.refresh(NOW + 5)
    assert fleet.revoked() == inbox.revoked() == BAD
    assert fleet.desired(["all"])[0][1].generation == 2
    floors = {k: v for k, v in board.notes.saved.items() if "floors" in k}
    with pytest.raises(BundleRefusedError) as caught:
        inbox.desired(["all"])
    assert caught.value.reason == Reason.REPLAYED
    assert reason(inbox, NOW + 6) == Reason.REPLAYED
    assert inbox.clock_floor == fleet.clock_floor == NOW + 5
    assert floors == {k: v for k, v in board.notes.saved.items() if "floors" in k}
    assert json.loads(next(iter(floors.values())))["generations"] != {}


def test_another_ones_news_are_looked_at(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """Floors that somebody else moved make a look at an unchanged repository full."""
    fleet = board.boot()
    fleet.refresh(NOW)
    other = Board(tmp_path / "unused", repository)
    other.cache, other.notes = board.cache, board.notes
    frozen = repository.copy(tmp_path / "frozen")
    repository.repository.rotate("timestamp", NOW)
    other.refresh()
    board.repository.restore(frozen)
    assert reason(fleet, NOW + 1) in {Reason.REPLAYED, Reason.SIGNATURE}


def test_neither_tuf_nor_a_network_is_imported_before_it_is_needed() -> None:
    """A board that boots its committed model does not pay for them."""
    code = (
        "import sys, agent.trust.client, agent.trust.revoked;"
        "print([m for m in ('tuf', 'urllib3', 'cryptography', 'ssl', 'http.client')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
