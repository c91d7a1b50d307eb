"""What is published besides bundles and groups: devices, revocations, removals."""

import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Revocations, Wanted, device_path, parse_group
from agent.errors import AgentError, BundleRefusedError, SettingsError
from agent.publish.planned import MAX_DEVICES
from agent.publish.repository import Repository
from agent.publish.revoking import MAX_REVOKED, next_revocations
from agent.publish.staging import Assignment, Staged
from tests.fakes.board import Board
from tests.fakes.bundle_factory import DAY_S, NOW, SpoiledRepository, make_repository
from tests.fakes.bundles import good_bundle

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SERIALS = st.text(string.digits, min_size=1, max_size=40)


@pytest.fixture
def made(tmp_path: Path) -> SpoiledRepository:
    return make_repository(
        tmp_path / "repo",
        {("kws", 1): good_bundle(1), ("kws", 2): good_bundle(2)},
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


def stored(made: SpoiledRepository, path: str) -> GroupFile:
    """Return a published desired state as boards get it."""
    return parse_group(made.target_file(path).read_bytes(), path)


def test_a_device_has_a_desired_state_of_its_own(made: SpoiledRepository) -> None:
    """It is signed by fleet alone, below fleet/devices, and counts its generations."""
    first = made.repository.assign_device("Pi-7.b", {"door": ("kws", 2)})
    made.repository.publish(NOW)
    path = device_path("Pi-7.b")
    assert first == stored(made, path)
    assert first.pipelines == {"door": Wanted("kws", 2)}
    second = made.repository.assign_device("Pi-7.b", {}, Assignment(paused=True))
    assert second.generation == first.generation + 1
    made.repository.publish(NOW)
    assert stored(made, path).paused
    status = made.repository.status()
    assert (list(status.devices), list(status.groups)) == (["Pi-7.b"], ["all"])


def test_a_board_can_look_up_its_device_file(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """The delegation covers the path, so the client finds it."""
    made.repository.assign_device("pi-7", {"door": ("kws", 2)})
    made.repository.publish(NOW)
    trusted = Board(tmp_path / "board", made).refresh()
    assert trusted._lookup(device_path("pi-7")) is not None
    assert trusted._lookup(device_path("pi-8")) is None


@pytest.mark.parametrize("board", ["", "a/b", "..", "a b", ".a", "a" * 65, "a\n", "é"])
def test_impossible_device_ids_are_refused(made: SpoiledRepository, board: str) -> None:
    """An id that no path or certificate can have stages nothing."""
    error = expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.assign_device(board, {"door": ("kws", 1)}),
    )
    assert "1 to 64 of" in str(error)
    assert made.repository.status().staged == Staged()


def test_the_501st_device_is_refused(made: SpoiledRepository) -> None:
    """Every board downloads the list: at most 500 exceptions, counted as staged."""
    first = made.repository.assign_device("pi-0", {"door": ("kws", 1)})
    many = {f"pi-{number}": first for number in range(MAX_DEVICES)}
    from agent.publish.staging import save_staged

    save_staged(made.path, Staged(devices={**many}))
    error = expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.assign_device("pi-500", {"door": ("kws", 1)}),
    )
    assert ("500" in str(error), "device:ID" in error.todo) == (True, True)
    made.repository.assign_device("pi-499", {"door": ("kws", 2)})
    made.repository.publish(NOW)
    assert len(made.repository.status().devices) == MAX_DEVICES
    made.repository.release_device("pi-3")
    made.repository.assign_device("pi-500", {"door": ("kws", 1)})
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.assign_device("pi-3", {"door": ("kws", 1)}),
    )


def test_an_exception_that_begins_again_is_no_replay(made: SpoiledRepository) -> None:
    """Generations of a device rise across its end, also after a rotation."""
    seen = [0]
    for _ in range(3):
        made.repository.assign_device("pi-7", {"door": ("kws", 1)})
        made.repository.publish(NOW)
        made.repository.assign_device("pi-7", {"door": ("kws", 2)})
        made.repository.publish(NOW)
        seen.append(stored(made, device_path("pi-7")).generation)
        made.repository.release_device("pi-7")
        made.repository.publish(NOW)
        assert made.repository.status().devices == {}
        made.repository.rotate("fleet", NOW)
    assert seen == sorted(set(seen))


def test_ending_an_exception_that_was_never_published_forgets_it(
    made: SpoiledRepository,
) -> None:
    """Nothing is left to sign; a second end is refused."""
    made.repository.assign_device("pi-7", {"door": ("kws", 1)})
    made.repository.release_device("pi-7")
    assert made.repository.status().staged == Staged()
    expect(
        SettingsError, Reason.SETTINGS, lambda: made.repository.release_device("pi-7")
    )


def test_a_removed_bundle_is_listed_no_longer(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """Boards find it no more; its version never gets other bytes; it may return."""
    digest = made.repository.digest("kws", 2)
    made.repository.remove("kws", 2)
    expect(
        BundleRefusedError,
        Reason.MISSING_TARGET,
        lambda: made.repository.assign("all", {"door": ("kws", 2)}),
    )
    made.repository.publish(NOW)
    trusted = Board(tmp_path / "board", made).refresh()
    expect(BundleRefusedError, Reason.MISSING_TARGET, lambda: trusted.find("kws", 2))
    assert trusted.find("kws", 1).fields.version == 1
    expect(
        BundleRefusedError,
        Reason.MISMATCH,
        lambda: made.repository.add(good_bundle(3), model="kws", version=2),
    )
    assert digest == made.repository.digest("kws", 2)
    made.repository.add(good_bundle(2), model="kws", version=2)
    made.repository.publish(NOW)
    assert made.load("targets").signed.unrecognized_fields == {}
    trusted = Board(tmp_path / "other", made).refresh()
    assert digest == trusted.find("kws", 2).sha256


def test_a_staged_bundle_is_removed_without_a_trace(made: SpoiledRepository) -> None:
    """What was never published is only taken off the list of what waits."""
    made.repository.add(good_bundle(3), model="kws", version=3)
    made.repository.remove("kws", 3)
    assert made.repository.status().staged == Staged()
    expect(
        BundleRefusedError,
        Reason.MISSING_TARGET,
        lambda: made.repository.remove("kws", 3),
    )


def test_adding_again_takes_a_removal_back(made: SpoiledRepository) -> None:
    """Removed and added before anybody signed: nothing changes for boards."""
    made.repository.remove("kws", 2)
    made.repository.add(good_bundle(2), model="kws", version=2)
    assert made.repository.status().staged.unlisted == ()
    made.repository.publish(NOW)
    assert len(made.repository.status().bundles) == 2


@pytest.mark.parametrize("published", [True, False])
def test_what_is_wanted_is_not_removed(
    made: SpoiledRepository,
    published: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A group or a device that names a bundle keeps it listed, staged or published."""
    made.repository.assign_device("pi-7", {"door": ("kws", 2)})
    if published:
        made.repository.publish(NOW)
    for version, user in ((1, "group all"), (2, "device pi-7")):
        error = expect(
            SettingsError,
            Reason.SETTINGS,
            lambda: made.repository.remove("kws", version),  # noqa: B023 - called at once
        )
        assert user in str(error)
    made.repository.assign("all", {"door": ("kws", 2)})
    made.repository.remove("kws", 1)


def test_31_stolen_online_keys_revoke_nothing(made: SpoiledRepository) -> None:
    """Whoever has the fleet's online keys alone can revoke nothing."""
    digest = made.repository.digest("kws", 2)
    made.repository.revoke([digest], ["abc"])
    key = next(made.path.with_name("repo-keys").glob("targets-*.pem"))
    key.rename(key.with_suffix(".safe"))
    opened = Repository.open(made.path)
    error = expect(SettingsError, Reason.SETTINGS, lambda: opened.publish(NOW))
    assert "targets" in str(error)
    key.with_suffix(".safe").rename(key)
    made.repository.publish(NOW)
    assert Revocations((digest,), ("abc",)) == made.repository.status().revoked
    assert "revoked.json" in made.load("targets").signed.targets
    assert [b.path for b in made.repository.status().bundles] == [
        "models/kws/1.bundle",
        "models/kws/2.bundle",
    ]


def test_what_is_revoked_is_neither_added_nor_assigned(
    made: SpoiledRepository,
) -> None:
    """What boards would refuse is refused here, from the staging of it on."""
    digest = made.repository.digest("kws", 2)
    made.repository.revoke([digest])
    for _ in range(2):
        expect(
            BundleRefusedError,
            Reason.REVOKED,
            lambda: made.repository.assign("all", {"door": ("kws", 2)}),
        )
        expect(
            BundleRefusedError,
            Reason.REVOKED,
            lambda: made.repository.add(good_bundle(2), model="kws", version=2),
        )
        made.repository.publish(NOW)
    made.repository.revoke([digest], undo=True)
    made.repository.assign("all", {"door": ("kws", 2)})


def test_an_unlisted_bundle_can_still_be_revoked_by_name(
    made: SpoiledRepository,
) -> None:
    """Boards may run it still, so its digest is not forgotten."""
    digest = made.repository.digest("kws", 2)
    made.repository.remove("kws", 2)
    made.repository.publish(NOW)
    after = made.repository.revoke([made.repository.digest("kws", 2)])
    assert after.bundles == (digest,)


def test_undoing_what_is_staged_leaves_nothing_to_sign(
    made: SpoiledRepository,
) -> None:
    """Revoked and taken back at once: the keys of targets stay in the safe."""
    made.repository.revoke(["a" * 64])
    made.repository.revoke(["a" * 64], undo=True)
    assert made.repository.status().staged == Staged()


@pytest.mark.parametrize(
    ("bundles", "operators"),
    [(["A" * 64], []), (["a" * 63], []), ([], ["0X1"]), ([], ["1" * 41])],
)
def test_what_boards_would_not_read_is_not_revoked(
    made: SpoiledRepository, bundles: list[str], operators: list[str]
) -> None:
    """A spelling that no board compares with is refused, instead of being ignored."""
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: made.repository.revoke(bundles, operators),
    )
    assert made.repository.status().staged == Staged()


@given(st.sets(DIGESTS, max_size=4), st.sets(DIGESTS, max_size=4), st.sets(SERIALS))
def test_revoking_obeys_its_laws(
    known: set[str], new: set[str], operators: set[str]
) -> None:
    """Twice is once; undoing what was new restores; each entry stands once, sorted."""
    before = next_revocations(Revocations(), known, operators)
    after = next_revocations(before, new)
    assert after == next_revocations(after, new)
    assert before == next_revocations(after, new - known, undo=True)
    assert after.bundles == tuple(sorted(known | new))
    assert after.operators == tuple(sorted(operators))


def test_too_many_and_unknown_revocations_are_refused() -> None:
    """More than boards read is refused; so is taking back what never was."""
    full = Revocations(tuple(f"{number:064x}" for number in range(MAX_REVOKED)))
    expect(SettingsError, Reason.SETTINGS, lambda: next_revocations(full, ["f" * 64]))
    expect(
        SettingsError,
        Reason.SETTINGS,
        lambda: next_revocations(Revocations(), ["f" * 64], undo=True),
    )
    assert full == next_revocations(full, [full.bundles[7]])


def test_online_keys_alone_keep_a_repository_fresh(
    made: SpoiledRepository, tmp_path: Path
) -> None:
    """A timer with three keys keeps boards updating until offline roles expire."""
    keys = made.path.with_name("repo-keys")
    for pattern in ("root-*.pem", "targets-*.pem"):
        next(keys.glob(pattern)).unlink()
    board, opened = Board(tmp_path / "board", made), Repository.open(made.path)
    now, signed = NOW, []
    for _ in range(60):
        now += DAY_S / 2
        found = opened.renew_online(now)
        assert now + 3 * DAY_S < found.online.timestamp()
        board.refresh(now)
        signed.append(made.load("snapshot").signed.version)
    versions = {role.role: role.version for role in opened.status().roles}
    assert versions["timestamp"] == 62
    # Snapshot and fleet are signed twice a week, not each time.
    assert 2 < signed[-1] <= 2 + 30 / 3.5


def test_a_renewal_publishes_nothing_that_is_staged(made: SpoiledRepository) -> None:
    """A timer never releases what a person has not signed off."""
    made.repository.assign("all", {"door": ("kws", 2)})
    for days in (1, 5, 9):
        made.repository.renew_online(NOW + days * DAY_S)
    status = made.repository.status()
    assert status.groups["all"].pipelines == {"door": Wanted("kws", 1)}
    assert list(status.staged.groups) == ["all"]


def test_a_renewal_says_which_offline_role_is_near_its_end(
    made: SpoiledRepository,
) -> None:
    """Days before, and after, the role and its date are told; not earlier."""
    from agent.publish.roles import utc

    far = made.repository.renew_online(NOW + 100 * DAY_S)
    assert far.near(utc(NOW + 100 * DAY_S), 30) == {}
    near = far.near(utc(NOW + 160 * DAY_S), 30)
    assert list(near) == ["targets"]
    assert list(far.near(utc(NOW + 400 * DAY_S), 0)) == ["root", "targets"]
