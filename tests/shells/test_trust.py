"""Refreshing a repository: each attack has its reason and leaves the board unharmed."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient import Updater

from agent.core.reasons import Reason
from agent.core.targets import GroupFile, SignedTarget, Wanted
from agent.errors import BundleRefusedError, DeviceError, SettingsError
from agent.publish.repository import KeyPlan
from agent.trust.client import TrustedRepository
from agent.trust.transport import Address, parse_address
from agent.trust.updater import DurableUpdater
from tests.fakes.board import Board
from tests.fakes.bundle_factory import DAY_S, NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle
from tests.fakes.memory_notes import MemoryNotes
from tests.fakes.spoils import (
    expect_refusal,
    publish_two,
    rotate_expired,
    set_issued,
    set_version,
)

TWO_OF_THREE = KeyPlan(targets_keys=3, targets_threshold=2)


@pytest.fixture
def repository(tmp_path: Path) -> SpoiledRepository:
    return make_repository(
        tmp_path / "repo",
        {("kws", 1): good_bundle(1)},
        {"all": {"door": ("kws", 1)}},
        plan=TWO_OF_THREE,
    )


@pytest.fixture
def board(tmp_path: Path, repository: SpoiledRepository) -> Board:
    return Board(tmp_path / "board", repository)


def test_what_was_signed_is_what_is_returned(
    board: Board, repository: SpoiledRepository
) -> None:
    """A refresh yields group files in the order asked for, bundles and their bytes."""
    repository.repository.assign("lab", {"door": ("kws", 1)}, percent=10, salt="s")
    repository.repository.publish(NOW)
    trusted = board.refresh()
    door = {"door": Wanted("kws", 1)}
    expected = [
        ("fleet/groups/lab", GroupFile(1, door, percent=10.0, salt="s")),
        ("fleet/groups/all", GroupFile(1, door)),
    ]
    assert expected == trusted.desired(["lab", "nobody", "all"])
    assert good_bundle(1) == board.fetch(trusted.find("kws", 1))


def test_an_unchanged_repository_saves_nothing_twice(board: Board) -> None:
    """A poll that finds nothing new writes neither notes nor cache: flash wears out."""
    board.refresh()
    saves = board.notes.saves
    before = {path: path.stat().st_mtime_ns for path in board.cache.rglob("*")}
    board.refresh()
    after = {path: path.stat().st_mtime_ns for path in board.cache.rglob("*")}
    assert (saves, before) == (board.notes.saves, after)


def test_11_12_13_14_an_older_publication_is_replayed(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A valid but older publication is refused, whatever the board still has of it."""
    old = repository.copy(tmp_path / "old")
    publish_two(repository)
    board.refresh()
    new = repository.copy(tmp_path / "new")
    repository.restore(old)
    assert board.refusal() == Reason.REPLAYED
    board.lose_cache()
    assert board.refusal() == Reason.REPLAYED
    repository.restore(new)
    board.refresh()
    board.notes.saved.clear()
    repository.restore(old)
    assert board.refusal() == Reason.REPLAYED


def test_14_a_cache_from_a_backup_is_not_believed(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """An old cache beside an old repository does not get below the floors."""
    board.refresh()
    old, old_cache = repository.copy(tmp_path / "old"), tmp_path / "cache"
    shutil.copytree(board.cache, old_cache)
    publish_two(repository)
    board.refresh()
    repository.restore(old)
    shutil.rmtree(board.cache)
    shutil.copytree(old_cache, board.cache)
    assert board.refusal() == Reason.REPLAYED


def test_14_a_refused_publication_is_not_kept(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """What is below a floor never reaches the cache."""
    old = repository.copy(tmp_path / "old")
    publish_two(repository)
    board.refresh()
    board.lose_cache()
    repository.restore(old)
    assert board.refusal() == Reason.REPLAYED
    assert [path.name for path in board.cache.glob("*.json")] == []


def test_9_14_33_an_old_root_does_not_bring_revoked_keys_back(
    board: Board, repository: SpoiledRepository
) -> None:
    """With the cache lost, a mirror that hides the newest root is refused.

    The revoked key signs a high version over what is otherwise current: only the
    root's own version gives it away.
    """
    revoked = repository.signers("timestamp")
    repository.repository.rotate("timestamp", NOW)
    board.refresh()
    board.lose_cache()
    (repository.path / "metadata/2.root.json").unlink()
    repository.resign("timestamp", lambda t: setattr(t, "version", 99), revoked)
    assert board.refusal() == Reason.REPLAYED


@pytest.mark.parametrize(
    ("role", "rotated"),
    [
        ("timestamp", ["timestamp"]),
        ("snapshot", ["snapshot", "timestamp"]),
        # TUF's own recovery (5.3.11): who orders the targets is replaced.
        ("targets", ["snapshot", "timestamp"]),
        ("fleet", ["fleet", "snapshot", "timestamp"]),
    ],
)
def test_17_a_fast_forward_ends_with_the_stolen_keys(
    board: Board,
    repository: SpoiledRepository,
    tmp_path: Path,
    role: str,
    rotated: list[str],
) -> None:
    """Version 2^31 by a stolen key is believed until that key is replaced."""
    board.refresh()
    honest = repository.copy(tmp_path / "honest")
    for name in dict.fromkeys([role, *rotated]):
        set_version(name, 2**31)(repository)
    board.refresh()
    assert board.trusted.clock_floor == NOW
    repository.restore(honest)
    publish_two(repository)
    assert board.refusal() == Reason.REPLAYED
    for name in rotated:
        repository.repository.rotate(name, NOW)
    assert board.refresh().find("kws", 2).fields.version == 2


def test_23_an_issue_time_in_2099_ends_with_the_stolen_key(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A forged future expires everything until the key is replaced, and no longer."""
    honest = repository.copy(tmp_path / "honest")
    set_issued("2099-01-01T00:00:00Z")(repository)
    board.refresh()
    assert board.trusted.clock_floor > NOW + 100 * DAY_S
    repository.restore(honest)
    repository.repository.publish(NOW)
    assert board.refusal() == Reason.EXPIRED
    repository.repository.rotate("timestamp", NOW)
    assert board.refresh().clock_floor == NOW


def test_18_an_expired_root_is_named(
    board: Board, repository: SpoiledRepository
) -> None:
    """The message names the file that expired, not the one that was loaded after."""
    rotate_expired(repository)
    with pytest.raises(BundleRefusedError, match=r"^root\.json: it expired at 2026-"):
        board.refresh()
    repository.expire("timestamp")
    with pytest.raises(BundleRefusedError, match=r"^root\.json: "):
        board.refresh()


def test_18_19_an_unchanged_timestamp_expires_by_its_own_name(board: Board) -> None:
    """A frozen repository ends with its timestamp, although nothing new arrives."""
    board.refresh()
    with pytest.raises(BundleRefusedError, match=r"^timestamp\.json: it expired at"):
        board.refresh(NOW + 8 * DAY_S)


def test_23_an_edited_issue_time_is_unsigned(
    board: Board, repository: SpoiledRepository
) -> None:
    """Whoever edits x-issued breaks the signature that covers it."""
    repository.edit_unsigned(
        "timestamp", lambda signed: signed.update({"x-issued": "2030-01-01T00:00:00Z"})
    )
    assert board.refusal() == Reason.SIGNATURE


def test_20_a_clock_in_1970_does_not_revive_an_expired_repository(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """Time learned from signed metadata is kept, even where the cache is lost."""
    old = repository.copy(tmp_path / "old")
    repository.repository.publish(NOW + 30 * DAY_S)
    assert board.refresh(now=0.0).clock_floor == NOW + 30 * DAY_S
    board.lose_cache()
    repository.restore(old)
    assert board.refusal(now=0.0) == Reason.EXPIRED
    assert board.boot().clock_floor == NOW + 30 * DAY_S


def test_20_the_build_date_is_the_first_floor(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """A board without a past and without a clock knows when it was built."""
    board = Board(tmp_path / "new", repository, build_time=NOW + 8 * DAY_S)
    assert board.trusted.clock_floor == NOW + 8 * DAY_S
    assert board.refusal(now=0.0) == Reason.EXPIRED


@pytest.mark.parametrize("now", [0.0, -1.0, NOW, NOW - 400 * DAY_S])
def test_20_22_a_slow_clock_locks_nobody_out(board: Board, now: float) -> None:
    """A clock before the floor is replaced by the floor."""
    board.refresh()
    board.refresh(now)


@pytest.mark.parametrize("now", [NOW + 8 * DAY_S, 4.3e9, 1e300])
def test_21_a_fast_clock_stops_updates_only_while_it_is_fast(
    board: Board, now: float
) -> None:
    """A clock far ahead sees everything expired, and moves no floor."""
    board.refresh()
    assert board.refusal(now) == Reason.EXPIRED
    board.refresh()


def test_35_a_generation_does_not_go_back(
    board: Board, repository: SpoiledRepository
) -> None:
    """A group file with a lower generation is refused until the fleet key changes."""
    publish_two(repository)
    board.refresh().desired(["all"])
    repository.repository.assign("all", {"door": ("kws", 1)})
    repository.repository.publish(NOW)
    file = repository.target_file("fleet/groups/all")
    raw = file.read_bytes().replace(b'"generation": 3', b'"generation": 1')
    list_target(repository, "fleet", "fleet/groups/all", raw)
    expect_refusal(Reason.REPLAYED, board.refresh().desired, ["all"])
    repository.repository.rotate("fleet", NOW)
    assert board.refresh().desired(["all"])[0][1].generation == 1


def list_target(
    repository: SpoiledRepository,
    role: str,
    path: str,
    content: bytes,
    custom: object = None,
) -> None:
    """Let a role sign any content under any path."""
    entry = TargetFile.from_data(path, content, ["sha256"])
    if custom is not None:
        entry.unrecognized_fields["custom"] = custom

    def change(signed: Targets) -> None:
        signed.targets[path] = entry
        signed.version += 1

    repository.resign(role, change)
    repository.resign("timestamp", lambda t: setattr(t, "version", t.version + 1))
    repository.resign("snapshot", lambda s: setattr(s, "version", s.version + 1))
    folder, _, name = path.rpartition("/")
    place = repository.path / "targets" / folder / f"{entry.hashes['sha256']}.{name}"
    if place.resolve().is_relative_to(repository.path.resolve()):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def fields(model: str, version: int, content: bytes) -> dict[str, object]:
    """Return custom fields."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {
        "model": model,
        "version": version,
        "plain_sha256": sha256,
        "plain_bytes": len(content),
    }


def test_26_31_the_fleet_key_publishes_no_bundle(
    board: Board, repository: SpoiledRepository
) -> None:
    """What fleet signs outside of fleet/* does not exist."""
    content = good_bundle(9)
    path = "models/kws/9.bundle"
    list_target(repository, "fleet", path, content, fields("kws", 9, content))
    trusted = board.refresh()
    expect_refusal(Reason.MISSING_TARGET, trusted.find, "kws", 9)


@pytest.mark.parametrize(
    "custom",
    [
        None,
        {},
        {"model": "kws", "version": 0},
        fields("other", 9, b"x"),
        fields("kws", 8, b"x"),
        fields("kws", 9, b"x") | {"unknown": 1},
        fields("kws", 9, b"x") | {"version": 2**63},
    ],
)
def test_36_signed_fields_that_make_no_sense_are_refused(
    board: Board, repository: SpoiledRepository, custom: object
) -> None:
    """A signature does not make fields complete, known or true to their path."""
    list_target(repository, "targets", "models/kws/9.bundle", b"x", custom)
    expect_refusal(Reason.METADATA, board.refresh().find, "kws", 9)


def test_25_a_target_path_cannot_leave_the_repository(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """Neither listed nor asked for does a path lead out of the directory."""
    sha256 = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / f"{sha256}.secret").write_bytes(b"secret")
    path = "models/../../../secret/9.bundle"
    custom = fields("../../../secret", 9, b"secret")
    list_target(repository, "targets", path, b"secret", custom)
    trusted = board.refresh()
    expect_refusal(Reason.METADATA, trusted.find, "../../../secret", 9)
    assert trusted.desired(["../../../secret"]) == []
    known = trusted.find("kws", 1)
    for outside in ("../../secret", "a/../../../secret", "a\0b"):
        target = SignedTarget(outside, 6, sha256, known.fields)
        expect_refusal(Reason.UNREACHABLE, board.fetch, target)
    absolute = SignedTarget(f"{tmp_path}/secret", 6, sha256, known.fields)
    expect_refusal(Reason.MISSING_TARGET, board.fetch, absolute)


def test_an_unlisted_version_is_missing(board: Board) -> None:
    """What nobody signed is a missing target."""
    expect_refusal(Reason.MISSING_TARGET, board.refresh().find, "kws", 2)


def test_nothing_is_believed_before_a_refresh(board: Board) -> None:
    """A client that has not verified anything returns nothing."""
    expect_refusal(Reason.UNREACHABLE, board.trusted.find, "kws", 1)
    expect_refusal(Reason.UNREACHABLE, board.trusted.desired, ["all"])


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def shorter(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flipped(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def sparse(file: Path) -> None:
    os.truncate(file, 2**36)  # 64 GB that take no room, and minutes to read


def endless(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (longer, Reason.LENGTH),
        (shorter, Reason.LENGTH),
        (flipped, Reason.DIGEST),
        (Path.unlink, Reason.MISSING_TARGET),
        (sparse, Reason.LENGTH),
        (pipe, Reason.UNREACHABLE),
        (endless, Reason.UNREACHABLE),
    ],
)
def test_2_3_4_content_that_was_not_signed_is_refused(
    board: Board,
    repository: SpoiledRepository,
    spoil: Callable[[Path], object],
    reason: Reason,
) -> None:
    """Bundles and group files of another length or digest are refused while read."""
    trusted = board.refresh()
    target = trusted.find("kws", 1)
    files = [
        repository.bundle_file("kws", 1),
        repository.target_file("fleet/groups/all"),
    ]
    good = [file.read_bytes() for file in files]
    for file in files:
        spoil(file)
    expect_refusal(reason, board.fetch, target)
    expect_refusal(reason, trusted.desired, ["all"])
    for file, content in zip(files, good, strict=True):
        file.unlink(missing_ok=True)
        file.write_bytes(content)
    assert good[0] == board.fetch(target)
    assert len(trusted.desired(["all"])) == 1


def test_3_a_target_above_the_limit_is_not_read(board: Board) -> None:
    """The signed length is compared with the limit before anything is opened."""
    target = board.refresh().find("kws", 1)
    expect_refusal(Reason.TOO_LARGE, board.fetch, target, target.length - 1)


def test_what_the_writer_raises_passes_through(board: Board) -> None:
    """A full disk on the board is not the sender's fault."""
    target = board.refresh().find("kws", 1)

    def write(chunk: memoryview) -> None:
        raise DeviceError(f"{len(chunk)}", reason=Reason.DISK_FULL)

    with pytest.raises(DeviceError) as caught:
        board.trusted.fetch(target, write, 2**20)
    assert caught.value.reason == Reason.DISK_FULL


def test_1_a_factory_slice_may_be_old_but_not_forged(
    tmp_path: Path, repository: SpoiledRepository
) -> None:
    """A slice shipped with the system is not judged by its age, only by its keys."""
    board = Board(tmp_path / "factory", repository, factory=True)
    board.refresh(NOW + 1000 * DAY_S)
    assert board.trusted.desired(["all"])[0][1].generation == 1
    assert board.notes.saved == {}
    repository.sign_by_stranger("targets")
    board.lose_cache()
    assert board.refusal() == Reason.SIGNATURE


@pytest.mark.parametrize(
    ("root", "reason"),
    [(b"", Reason.METADATA), (b"{}", Reason.METADATA), (None, Reason.SIGNATURE)],
)
def test_a_provisioned_root_must_be_one(
    tmp_path: Path, repository: SpoiledRepository, root: bytes | None, reason: Reason
) -> None:
    """A root that is no root, or that its own keys did not sign, begins no trust."""
    if root is None:
        repository.edit_unsigned("root", lambda signed: signed.update({"version": 9}))
        root = repository.file("root").read_bytes()
    trusted = TrustedRepository(
        metadata_dir=tmp_path / "metadata",
        repository=str(repository.path),
        root=root,
        notes=MemoryNotes(),
        build_time=0.0,
    )
    expect_refusal(reason, trusted.refresh, NOW)


def test_1_a_strangers_repository_is_refused(
    board: Board, repository: SpoiledRepository, tmp_path: Path
) -> None:
    """A whole, well made repository of somebody else carries the wrong signatures."""
    stranger = make_repository(tmp_path / "stranger", {("kws", 1): good_bundle(1)})
    repository.restore(stranger.path)
    assert board.refusal() == Reason.SIGNATURE


def test_another_root_on_purpose_starts_afresh(
    board: Board, tmp_path: Path, repository: SpoiledRepository
) -> None:
    """An operator who provisions another repository is not locked out by floors."""
    publish_two(repository)
    board.refresh()
    board.repository = make_repository(
        tmp_path / "other", {("kws", 1): good_bundle(1)}, now=NOW - DAY_S
    )
    assert board.refresh().find("kws", 1).fields.version == 1


def test_a_cache_that_cannot_be_written_is_the_operators(
    board: Board, tmp_path: Path
) -> None:
    """Trouble with the board's own disk is a DeviceError."""
    (tmp_path / "board").write_bytes(b"in the way")
    with pytest.raises(DeviceError) as caught:
        board.refresh()
    assert caught.value.reason == Reason.STATE


def test_damaged_floors_are_not_taken_for_none(board: Board) -> None:
    """Floors that cannot be read stop updates instead of letting rollbacks in."""
    board.refresh()
    key = next(iter(board.notes.saved))
    board.notes.saved[key] = b"{"
    with pytest.raises(DeviceError) as caught:
        board.boot()
    assert caught.value.reason == Reason.STATE


@pytest.mark.parametrize(
    "name",
    [
        "",
        "file://host/x",
        "ftp://example.org/repo",
        "http://example.org/repo",
        "http://127.0.0.1.example.org/repo",
        "https://",
        "https://user:word@example.org/repo",
        "https://example.org/repo?key=1",
        "https://example.org/repo#x",
        "https://example.org:99999/repo",
        "https://example.org:0/repo",
        "https://[::1/repo",
    ],
)
def test_43_other_kinds_of_address_are_wrong_settings(name: str) -> None:
    """Neither unencrypted nor half an address: the daemon does not begin with it."""
    with pytest.raises(SettingsError):
        parse_address(name)


def test_a_password_in_an_address_is_not_repeated() -> None:
    """The message about an address with a password does not contain it."""
    with pytest.raises(SettingsError) as caught:
        parse_address("https://user:word@example.org/repo")
    assert "word@" not in str(caught.value)


def test_an_address_is_a_directory_or_a_server() -> None:
    """Paths and file URLs are the same to a board; plain http stays on the machine."""
    assert Address(directory=Path("/srv/a b")) == parse_address("file:///srv/a%20b")
    assert Address(directory=Path("/srv/a%20b")) == parse_address("/srv/a%20b")
    for url in ("https://a.example/r", "http://127.0.0.1:8/r", "http://[::1]:8/r"):
        assert Address(url=url) == parse_address(url + "/")


def test_the_cache_is_whole_files_without_links(board: Board) -> None:
    """The cache holds no link and no leftover, and belongs to its owner alone."""
    board.refresh()
    names = {str(path.relative_to(board.cache)) for path in board.cache.rglob("*")}
    expected = {
        "fleet.json",
        "root_history",
        "root_history/1.root.json",
        "snapshot.json",
        "targets.json",
        "timestamp.json",
    }
    assert expected == names
    assert board.cache.stat().st_mode & 0o777 == 0o700


def test_the_overridden_names_of_python_tuf_exist() -> None:
    """Every private name that is overridden is one python-tuf still has."""
    private = {
        name
        for name in vars(DurableUpdater)
        if name.startswith("_") and not name.startswith("__")
    } - {"_check_expiry", "_told_before"}
    expected = {
        "_download_metadata",
        "_load_root",
        "_load_targets",
        "_load_timestamp",
        "_persist_file",
        "_persist_metadata",
        "_update_root_symlink",
    }
    assert expected == private
    assert private <= set(vars(Updater))


def test_the_overridden_names_of_python_tuf_are_called(
    board: Board, repository: SpoiledRepository
) -> None:
    """A refresh runs through every override; python-tuf's own would bypass them."""
    from agent.trust.fetcher import DirectoryFetcher
    from agent.trust.gate import FactoryGate

    called: set[str] = set()
    board.cache.mkdir(parents=True)

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.endswith("trust/updater.py"):
            called.add(code.co_name)

    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        DurableUpdater(
            board.cache,
            DirectoryFetcher(repository.path),
            repository.root,
            FactoryGate(),
        ).refresh()
    finally:
        sys.setprofile(previous)
    overridden = {
        name
        for name in vars(DurableUpdater)
        if name.startswith("_") and not name.startswith("__")
    }
    assert overridden <= called


def test_tuf_is_not_imported_before_it_is_needed() -> None:
    """A board that boots its committed model does not pay for TUF."""
    code = (
        "import sys, agent.trust.client, agent.trust.bundle;"
        "print([m for m in ('tuf', 'cryptography', 'securesystemslib', 'numpy')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def refusal_of(board: Board) -> str:
    """Return the reason of a refusal, or an empty string; nothing else may leave."""
    try:
        board.refresh()
    except BundleRefusedError as err:
        return err.reason
    return ""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> SpoiledRepository:
    home = tmp_path_factory.mktemp("fuzz")
    return make_repository(home / "repo", {("kws", 1): good_bundle(1)})


@settings(max_examples=150)
@given(st.data())
def test_29_30_mutated_metadata_is_refused_or_means_the_same(
    published: SpoiledRepository, data: st.DataObject
) -> None:
    """Whatever bytes arrive, only BundleRefusedError leaves a refresh."""
    role = data.draw(st.sampled_from(["timestamp", "snapshot", "targets", "fleet"]))
    file = published.file(role)
    good = file.read_bytes()
    content = bytearray(good)
    place = data.draw(st.integers(0, len(content) - 1))
    width = data.draw(st.integers(0, 20))
    content[place : place + width] = data.draw(st.binary(max_size=20))
    with tempfile.TemporaryDirectory() as home:
        board = Board(Path(home), published)
        file.write_bytes(bytes(content))
        try:
            reason = refusal_of(board)
        finally:
            file.write_bytes(good)
        assert reason in {"", "metadata", "signature", "mixed", "digest", "length"}
        assert reason or board.trusted.find("kws", 1).fields.version == 1
