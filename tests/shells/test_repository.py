"""Keeping a repository: staged, signed, rotated, and whole after any crash."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tuf.api.metadata import Metadata, Root

from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted
from agent.errors import AgentError, BundleRefusedError, DeviceError, SettingsError
from agent.publish.files import write_durably
from agent.publish.keys import KeyRing
from agent.publish.repository import KeyPlan, Repository, init_repository
from agent.publish.roles import LIFETIMES_DAYS, ROLES
from agent.publish.staging import Assignment, Staged
from tests.fakes.board import Board
from tests.fakes.bundle_factory import DAY_S, NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def made(tmp_path: Path) -> SpoiledRepository:
    return make_repository(
        tmp_path / "repo",
        {("kws", 1): good_bundle(1)},
        {"all": {"door": ("kws", 1)}},
    )


def expect(
    kind: type[AgentError], reason: Reason, call: Callable[[], object]
) -> AgentError:
    """Expect one error with one reason."""
    with pytest.raises(kind) as caught:
        call()
    assert reason == caught.value.reason
    return caught.value


def versions(made: SpoiledRepository) -> dict[str, int]:
    """Return the version of every role."""
    return {role.role: role.version for role in made.repository.status().roles}


def test_a_new_repository_is_believed(tmp_path: Path) -> None:
    """What ``init_repository`` makes is complete, empty and trusted."""
    made = make_repository(tmp_path / "repo")
    board = Board(tmp_path / "board", made)
    assert board.refresh().desired(["all"]) == []
    assert dict.fromkeys(ROLES, 1) == versions(made)


def test_thresholds_are_those_asked_for(tmp_path: Path) -> None:
    """Root and targets get as many keys and signatures as the plan says."""
    plan = KeyPlan(root_keys=3, root_threshold=2, targets_keys=2, targets_threshold=2)
    made = make_repository(tmp_path / "repo", {("kws", 1): good_bundle(1)}, plan=plan)
    found = {role.role: role for role in made.repository.status().roles}
    assert (
        found["root"].threshold,
        found["root"].keys,
        len(made.load("root").signatures),
    ) == (2, 3, 3)
    assert (
        found["targets"].threshold,
        found["targets"].keys,
        len(made.load("targets").signatures),
    ) == (2, 2, 2)


@pytest.mark.parametrize(
    "plan",
    [KeyPlan(root_threshold=2), KeyPlan(targets_threshold=0), KeyPlan(targets_keys=0)],
)
def test_an_impossible_plan_leaves_nothing(tmp_path: Path, plan: KeyPlan) -> None:
    """A threshold that cannot be met is refused before any key is made."""
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: init_repository(tmp_path / "repo", now=NOW, plan=plan),
    )
    assert list(tmp_path.iterdir()) == []


def test_keys_and_repositories_are_never_overwritten(made: SpoiledRepository) -> None:
    """A second init is refused, also where only the keys are left."""
    expect(SettingsError, Reason.SETTINGS, lambda: init_repository(made.path, now=NOW))
    shutil.rmtree(made.path)
    expect(SettingsError, Reason.SETTINGS, lambda: init_repository(made.path, now=NOW))


def test_keys_are_encrypted_private_and_outside(tmp_path: Path) -> None:
    """Key files open with the stretched passphrase only, and belong to the owner."""
    repo, keys = tmp_path / "repo", tmp_path / "repo-keys"
    init_repository(repo, keys, PASSPHRASE, now=NOW)
    assert keys.stat().st_mode & 0o777 == 0o700
    pems = sorted(keys.glob("*.pem"))
    assert len(ROLES) == len(pems)
    for path in keys.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    for path in pems:
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        with pytest.raises(ValueError, match="password"):
            load_pem_private_key(path.read_bytes(), PASSPHRASE)
    published = b"".join(p.read_bytes() for p in repo.rglob("*") if p.is_file())
    assert b"PRIVATE" not in published


def test_the_documented_way_opens_a_key_without_tinyward(
    tmp_path: Path, require_tool: Callable[[str], Path]
) -> None:
    """The recipe in the module's docstring works with the openssl program."""
    import hashlib

    keys = tmp_path / "keys"
    init_repository(tmp_path / "repo", keys, PASSPHRASE, now=NOW)
    chosen = json.loads((keys / "tinyward.salt").read_bytes())
    stretched = hashlib.scrypt(
        PASSPHRASE,
        salt=bytes.fromhex(chosen["salt"]),
        n=chosen["n"],
        r=chosen["r"],
        p=chosen["p"],
        maxmem=2**27,
        dklen=32,
    ).hex()
    pem = next(keys.glob("root-*.pem"))
    command = [str(require_tool("openssl")), "pkey", "-in", str(pem), "-noout"]
    done = subprocess.run(
        [*command, "-text", "-passin", f"pass:{stretched}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ED25519" in done.stdout


def test_a_wrong_passphrase_signs_nothing(tmp_path: Path) -> None:
    """Without the right passphrase nothing is signed, rotated or half written."""
    repo, keys = tmp_path / "repo", tmp_path / "keys"
    init_repository(repo, keys, PASSPHRASE, now=NOW)
    before = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    known = sorted(keys.iterdir())
    for passphrase in (b"wrong", b""):
        opened = Repository.open(repo, keys, passphrase)
        expect(SettingsError, Reason.SETTINGS, lambda: opened.publish(NOW))  # noqa: B023 - called at once
        for role in ROLES:
            expect(SettingsError, Reason.SETTINGS, lambda: opened.rotate(role, NOW))  # noqa: B023 - called at once
    after = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    assert before == after
    assert known == sorted(keys.iterdir())
    Repository.open(repo, keys, PASSPHRASE).publish(NOW)


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda path: path.write_bytes(b"not a key"),
        lambda path: path.write_bytes(
            next(path.parent.glob("root-*.pem")).read_bytes()
        ),
    ],
)
def test_a_missing_or_damaged_key_is_named(
    made: SpoiledRepository, spoil: Callable[[Path], object]
) -> None:
    """A key that is absent, damaged or another one stops publishing with its name."""
    keys = made.path.with_name("repo-keys")
    spoil(next(keys.glob("timestamp-*.pem")))
    opened = Repository.open(made.path)
    error = expect(SettingsError, Reason.SETTINGS, lambda: opened.publish(NOW))
    assert "timestamp" in str(error)


def test_online_keys_are_enough_to_renew(made: SpoiledRepository) -> None:
    """With nothing staged, publishing needs none of the offline keys."""
    keys = made.path.with_name("repo-keys")
    for pattern in ("root-*.pem", "targets-*.pem"):
        next(keys.glob(pattern)).unlink()
    before = versions(made)
    Repository.open(made.path).publish(NOW + DAY_S)
    after = versions(made)
    renewed = {"fleet", "snapshot", "timestamp"}
    assert {
        role: version + (role in renewed) for role, version in before.items()
    } == after


def test_publishing_again_keeps_boards_updating(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """A repository that is published every week is never expired."""
    board = Board(tmp_path / "board", made)
    now = NOW
    for _ in range(28):
        now += 6.9 * DAY_S
        made.repository.publish(now)
        board.refresh(now)
    assert now > NOW + LIFETIMES_DAYS["targets"] * DAY_S
    assert board.trusted.find("kws", 1).fields.version == 1


def test_publishing_renews_root_in_time(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Boards follow for years; a due root waits for its keys, loudly, while it can."""
    board = Board(tmp_path / "board", made)
    for now in (NOW + 300 * DAY_S, NOW + 600 * DAY_S, NOW + 1200 * DAY_S):
        made.repository.publish(now)
        board.refresh(now)
    assert versions(made)["root"] == 4
    key = next(made.path.with_name("repo-keys").glob("root-*.pem"))
    key.rename(tmp_path / "safe.pem")
    told: list[str] = []
    Repository.open(made.path).publish(NOW + 1500 * DAY_S, told.append)
    assert [line for line in told if "publish with its keys" in line]
    assert versions(made)["root"] == 4
    opened, before = Repository.open(made.path), versions(made)
    error = expect(
        SettingsError, Reason.SETTINGS, lambda: opened.publish(NOW + 1600 * DAY_S)
    )
    assert ("root" in str(error), "--keys" in error.todo) == (True, True)
    assert versions(made) == before


def test_nothing_is_signed_before_publish(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """What was added and assigned is staged until it is published, in any process."""
    board = Board(tmp_path / "board", made)
    staging = Repository.open(made.path)
    staging.add(good_bundle(2), model="kws", version=2)
    staging.assign("all", {"door": ("kws", 2)})
    assert Wanted("kws", 1) == board.refresh().desired(["all"])[0][1].pipelines["door"]
    assert list(staging.status().staged.bundles) == ["models/kws/2.bundle"]
    Repository.open(made.path).publish(NOW)
    assert Wanted("kws", 2) == board.refresh().desired(["all"])[0][1].pipelines["door"]
    assert Staged() == staging.status().staged


def test_fields_are_signed_as_given(made: SpoiledRepository, tmp_path: Path) -> None:
    """Hardware and minimum agent reach the board as signed fields."""
    path = tmp_path / "new.bundle"
    path.write_bytes(good_bundle(2))
    made.repository.add(
        path, model="kws", version=2, hardware=["rpi4", "rpi5"], min_agent="0.2"
    )
    made.repository.publish(NOW)
    fields = Board(tmp_path / "board", made).refresh().find("kws", 2).fields
    assert (fields.hardware, fields.min_agent) == (("rpi4", "rpi5"), "0.2")


def test_published_bytes_are_for_ever(made: SpoiledRepository) -> None:
    """Other bytes under a published version are refused; the same ones are fine."""
    made.repository.add(good_bundle(1), model="kws", version=1)
    expect(
        BundleRefusedError,
        Reason.MISMATCH,
        lambda: made.repository.add(b"other", model="kws", version=1),
    )


@pytest.mark.parametrize(
    ("model", "version", "min_agent"),
    [("Kws", 2, ""), ("../kws", 2, ""), ("kws", 0, ""), ("kws", 2, "new")],
)
def test_impossible_fields_are_not_staged(
    made: SpoiledRepository, model: str, version: int, min_agent: str
) -> None:
    """What a board would refuse is refused when it is added, and stores nothing."""
    before = sorted(made.path.rglob("*"))
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.add(
            b"x", model=model, version=version, min_agent=min_agent
        ),
    )
    assert before == sorted(made.path.rglob("*"))


def test_assignments_add_up(made: SpoiledRepository) -> None:
    """A group keeps what an assignment does not mention; one generation per release."""
    assign = made.repository.assign
    assign("all", {"gate": ("kws", 1)}, percent=10)
    drawn = made.repository.status().staged.groups["all"]
    wanted = Wanted("kws", 1)
    assert {"door": wanted, "gate": wanted} == drawn.pipelines
    assert (drawn.generation, drawn.percent, len(drawn.salt)) == (2, 10.0, 16)
    made.repository.publish(NOW)
    wider = assign("all", {}, percent=50)
    assert (3, 50.0, drawn.salt) == (wider.generation, wider.percent, wider.salt)
    less = assign("all", {}, assignment=Assignment(paused=True, removed=("door",)))
    assert GroupFile(3, {"gate": wanted}, True, 50.0, drawn.salt) == less


def test_only_known_versions_can_be_assigned(made: SpoiledRepository) -> None:
    """A version that was never added is a missing target, before any board sees it."""
    expect(
        BundleRefusedError,
        Reason.MISSING_TARGET,
        lambda: made.repository.assign("all", {"door": ("kws", 2)}),
    )
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.assign("all", {"../door": ("kws", 1)}),
    )
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.assign("all", {}, percent=101),
    )


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (Assignment(not_before="yesterday"), "'yesterday'"),
        (Assignment(window="25:00-26:00"), "'25:00-26:00'"),
    ],
)
def test_dates_that_no_board_can_read_are_not_staged(
    made: SpoiledRepository, asked: Assignment, named: str
) -> None:
    """What boards would refuse is named before anybody signs it."""
    error = expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.assign("all", {}, assignment=asked),
    )
    assert (named in str(error), "--help" in error.todo) == (True, True)
    assert made.repository.status().staged == Staged()


@pytest.mark.parametrize("role", ROLES)
def test_a_rotated_role_has_new_keys_and_boards_follow(
    made: SpoiledRepository, tmp_path: Path, role: str
) -> None:
    """Every role can be rotated, twice, under a board that follows or slept."""
    awake, slept = Board(tmp_path / "awake", made), Board(tmp_path / "slept", made)
    awake.refresh()
    slept.refresh()
    keys = {signer.public_key.keyid for signer in made.signers(role)}
    for _ in range(2):
        made.repository.rotate(role, NOW)
        awake.refresh()
    assert keys.isdisjoint(signer.public_key.keyid for signer in made.signers(role))
    assert slept.refresh().find("kws", 1).fields.version == 1
    Repository.open(made.path).publish(NOW)
    awake.refresh()


def test_a_rotated_root_is_signed_by_old_and_new_keys(tmp_path: Path) -> None:
    """The next root meets both thresholds, and its keys never signed the last."""
    plan = KeyPlan(root_keys=3, root_threshold=2)
    made = make_repository(tmp_path / "repo", plan=plan)
    old = made.load("root").signed
    made.repository.rotate("root", NOW)
    metadata = Metadata[Root].from_bytes(made.file("root").read_bytes())
    result = metadata.signed.get_root_verification_result(
        old, metadata.signed_bytes, metadata.signatures
    )
    assert (len(result.first.signed), len(result.second.signed)) == (3, 3)


def test_rotation_does_not_publish_what_is_staged(made: SpoiledRepository) -> None:
    """An emergency rotation releases nothing that happens to be staged."""
    made.repository.add(good_bundle(2), model="kws", version=2)
    made.repository.rotate("fleet", NOW)
    status = made.repository.status()
    assert [target.path for target in status.bundles] == ["models/kws/1.bundle"]
    assert list(status.staged.bundles) == ["models/kws/2.bundle"]


def test_fleet_is_rotated_without_the_keys_of_root(made: SpoiledRepository) -> None:
    """Targets delegates to fleet, so its keys are enough; root's stay in the safe."""
    keys = made.path.with_name("repo-keys")
    next(keys.glob("root-*.pem")).unlink()
    Repository.open(made.path).rotate("fleet", NOW)
    assert versions(made)["targets"] == 3
    assert versions(made)["root"] == 1
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: Repository.open(made.path).rotate("timestamp", NOW),
    )
    assert len(list(keys.glob("timestamp-*.pem"))) == 1


def test_an_unknown_role_is_named(made: SpoiledRepository) -> None:
    """Rotating what does not exist says what exists."""
    error = expect(
        SettingsError, Reason.SETTINGS, lambda: made.repository.rotate("bins", NOW)
    )
    assert "timestamp" in error.todo


class PowerCut(BaseException):
    """Nothing catches this: the process is gone."""


def cut_after(changes: int) -> Callable[[str, tuple[object, ...]], None]:
    """Return an audit hook's body that cuts the power after so many changes."""
    left = [changes]

    def hook(event: str, _: tuple[object, ...]) -> None:
        if event in {"os.rename", "os.remove"}:
            if left[0] == 0:
                raise PowerCut
            left[0] -= 1

    return hook


CURRENT: list[Callable[[str, tuple[object, ...]], None]] = []


def audit(event: str, arguments: tuple[object, ...]) -> None:
    """Forward to the hook of the running test; audit hooks cannot be removed."""
    for hook in CURRENT:
        hook(event, arguments)


@pytest.fixture(scope="module")
def audited() -> None:
    """Install the hook once: a second one would count every rename twice."""
    sys.addaudithook(audit)


def everything_staged(home: Path) -> SpoiledRepository:
    """Return a repository in which one of each kind of change waits."""
    bundles = {("kws", version): good_bundle(version) for version in (1, 3)}
    made = make_repository(home / "repo", bundles)
    made.repository.add(good_bundle(2), model="kws", version=2)
    made.repository.assign("all", {"door": ("kws", 2)})
    made.repository.assign_device("pi-7", {"door": ("kws", 2)})
    made.repository.revoke([made.repository.digest("kws", 1)], ["abc"])
    made.repository.remove("kws", 3)
    return made


def is_published(made: SpoiledRepository) -> set[bool]:
    """Return whether each staged change is out: one answer, or they were torn."""
    status = made.repository.status()
    return {
        status.staged == Staged(),
        status.revoked.operators == ("abc",),
        "pi-7" in status.devices,
        "all" in status.groups,
        [b.path for b in status.bundles][-1] == "models/kws/2.bundle",
    }


@pytest.mark.usefixtures("audited")
@pytest.mark.parametrize(
    ("command", "renames"),
    # A publication writes three small targets and four roles, and forgets staged.json.
    [("publish", 8), ("renew", 3), ("targets", 6), ("timestamp", 5)],
)
def test_a_crash_leaves_a_publication_that_boards_believe(
    tmp_path: Path, command: str, renames: int
) -> None:
    """After a crash before any change, running the command again completes it.

    Until timestamp.json is replaced, boards believe the old publication; a new root
    is the one exception, for the moment between its rename and timestamp's.
    """
    origin = everything_staged(tmp_path / "origin")
    for changes in range(renames + 1):
        home = tmp_path / str(changes)
        shutil.copytree(origin.path.parent, home)
        made = SpoiledRepository(home / "repo", Repository.open(home / "repo"))
        board = Board(home / "board", made)
        board.refresh()
        assert (changes < renames) is crashes(made, command, changes)
        roots = len(list((made.path / "metadata").glob("*.root.json")))
        if roots == 1:
            board.refresh(NOW + DAY_S)
        run(SpoiledRepository(made.path, Repository.open(made.path)), command)
        board.refresh(NOW + DAY_S)
        assert is_published(made) == {command == "publish"}


def crashes(made: SpoiledRepository, command: str, changes: int) -> bool:
    """Run a command with the power cut after so many renames; tell whether it was."""
    CURRENT.append(cut_after(changes))
    try:
        run(made, command)
    except PowerCut:
        return True
    finally:
        CURRENT.clear()
    return False


def run(made: SpoiledRepository, command: str) -> None:
    """Publish, renew, or rotate a role."""
    if command == "publish":
        made.repository.publish(NOW)
    elif command == "renew":
        made.repository.renew_online(NOW + 5 * DAY_S)
    else:
        made.repository.rotate(command, NOW)


def test_two_commands_do_not_mix(made: SpoiledRepository) -> None:
    """While one command changes a repository, another is told so."""
    descriptor = os.open(made.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        expect(DeviceError, Reason.LOCKED, lambda: made.repository.publish(NOW))
    finally:
        os.close(descriptor)
    made.repository.publish(NOW)


@pytest.mark.parametrize("name", ["absent", "repo/targets"])
def test_other_directories_are_not_repositories(
    made: SpoiledRepository, name: str
) -> None:
    """Opening something else says how to make a repository."""
    path = made.path.parent / name
    error = expect(SettingsError, Reason.SETTINGS, lambda: Repository.open(path))
    assert "repo init" in error.todo


def test_damaged_staging_is_named(made: SpoiledRepository) -> None:
    """A staged.json that cannot be read stops everything that would use it."""
    (made.path / "staged.json").write_bytes(b"{")
    error = expect(SettingsError, Reason.SETTINGS, made.repository.status)
    assert "staged.json" in str(error)


def test_a_repository_that_cannot_be_written_is_the_operators(tmp_path: Path) -> None:
    """Trouble with the disk is a DeviceError that names the file."""
    (tmp_path / "file").write_bytes(b"")
    expect(DeviceError, Reason.STATE, lambda: write_durably(tmp_path / "file/x", b""))


def test_the_key_ring_counts_what_is_here(tmp_path: Path) -> None:
    """Status can say how many keys are here without a passphrase."""
    ring = KeyRing.create(tmp_path / "keys", PASSPHRASE)
    keyid = ring.make("targets").keyid
    closed = KeyRing(tmp_path / "keys", b"")
    assert (
        closed.count("targets", [keyid, "0" * 64]),
        closed.count("root", [keyid]),
    ) == (1, 0)
