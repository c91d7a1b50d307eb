"""The poller against fakes: what a look asks for, does, counts, logs and remembers."""

import logging

import pytest
from msgspec.structs import replace

from agent.core.installed import Slots
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError, TrialFailedError
from agent.publish.pack import render_bundle
from agent.update.needs import Repository
from tests.fakes.bundles import GOLDEN, VARIANTS, good_bundle, manifest
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.scripted_trials import EXECUTOR, PASSED_OVER
from tests.fakes.update_bench import BOARD, BUNDLES, NOW, Bench


def golden() -> TrialFailedError:
    """Return what a model says that is wrong on this board."""
    return TrialFailedError("wrong answers", reason=Reason.GOLDEN)


class TestCommitted:
    """Updates that work."""

    def test_what_is_wanted_is_installed(self) -> None:
        """One look: fetched, verified, examined, swapped in, committed, adopted."""
        bench = Bench()
        bench.update(2)
        active = bench.store.slots("door").active
        assert active is not None
        assert (active.model, active.version, active.variant) == ("kws", 2, "float")
        assert (active.executor, active.verified_at) == (EXECUTOR, NOW)
        assert (active.why, active.passed_over) == ("it says so", PASSED_OVER)
        assert (active.p50_ms, active.ram_bytes) == (0.5, 9)
        assert bytes(bench.store.open_object(active.sha256)) == BUNDLES["kws", 2]
        assert bench.trials.calls == [
            ("examine", "door", 2),
            ("shadow", "door", 2),
            ("swap_in", "door", 2),
            ("watch", "door", 2),
            ("commit", "door", 2),
        ]
        assert bench.results() == {("committed", ""): 1}
        bytes_ = bench.poller.snapshot().bytes
        assert bytes_ == {"full": len(BUNDLES["kws", 2]), "delta": 0, "resumed": 0}
        assert bench.poller.snapshot().phase == "IDLE"

    def test_then_nothing_is_done(self) -> None:
        """What runs as wanted costs a refresh a look, and no fetch, trial or save."""
        bench = Bench()
        bench.update(2)
        calls, jobs = list(bench.trials.calls), list(bench.store.jobs)
        assert bench.look(5) == 100.0
        assert bench.repository.calls[-5:] == ["refresh"] * 5
        assert (bench.trials.calls, bench.store.jobs) == (calls, jobs)
        assert bench.fetches() == 1

    def test_one_after_the_other(self) -> None:
        """Two pipelines are updated in one look, in the order of the settings."""
        bench = Bench()
        bench.repository.assign(window=("kws", 3), door=("kws", 2))
        bench.look()
        assert [bench.versions("door"), bench.versions("window")] == [(2, 0), (3, 0)]
        assert [call[1] for call in bench.trials.calls] == ["door"] * 5 + ["window"] * 5

    def test_shared_bytes_are_fetched_once(self) -> None:
        """Two pipelines with one model share its object."""
        bench = Bench()
        bench.repository.assign(window=("kws", 2), door=("kws", 2))
        bench.look()
        assert [bench.versions("door"), bench.versions("window")] == [(2, 0), (2, 0)]
        assert bench.fetches() == 1

    def test_only_two_generations_stay_on_disk(self) -> None:
        """Active and previous are kept, what came before them is collected."""
        bench = Bench()
        for version in (1, 2, 3):
            bench.update(version)
        assert bench.versions() == (3, 2)
        assert len(bench.store.objects) == 2

    def test_the_way_back_needs_no_fetch(self) -> None:
        """A newer generation that names the previous version brings it back."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        bench.update(1)
        assert bench.versions() == (1, 2)
        assert bench.store.version_floor("kws") == 2
        assert bench.fetches() == 2

    def test_an_object_that_rotted_is_fetched_anew(self) -> None:
        """Damaged bytes in the store are replaced by good ones, not believed."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        previous = bench.store.slots("door").previous
        assert previous is not None
        bench.store.objects[previous.sha256] = b"rotten"
        bench.update(1)
        assert bench.versions() == (1, 2)
        assert bytes(bench.store.open_object(previous.sha256)) == BUNDLES["kws", 1]

    def test_another_orchestrator_is_left_alone(self) -> None:
        """Where push or DDI decides, the repository's groups do not."""
        for orchestrator in ("push", "ddi"):
            bench = Bench(orchestrator=orchestrator)
            bench.repository.assign(door=("kws", 2))
            bench.look()
            assert bench.versions() == (0, 0)
            assert bench.decision().state == "unassigned"
            # It still says what was revoked, and what its metadata are worth.
            assert bench.repository.calls == ["refresh"]


class TestRefused:
    """Updates that are not admitted."""

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"hardware": ("jetson",)}, Reason.HARDWARE),
            ({"min_agent": "9.0"}, Reason.MIN_AGENT),
            ({"plain_sha256": "0" * 64}, Reason.MISMATCH),
        ],
    )
    def test_admission_comes_before_the_first_byte(
        self, fields: dict[str, object], reason: Reason
    ) -> None:
        """What the signed fields rule out is never fetched, saved or tried."""
        bench = Bench()
        bench.repository.fields["kws", 2] = fields
        bench.update(2)
        assert bench.results() == {("refused", reason): 1}
        assert bench.poller.snapshot().verify_failures == {reason: 1}
        assert (bench.fetches(), bench.store.jobs, bench.trials.calls) == (
            0,
            [None],
            [],
        )

    def test_too_large(self) -> None:
        """A bundle beyond the settings' limit is refused before it is fetched."""
        bench = Bench(max_bundle_mb=0.001)
        bench.update(2)
        assert bench.results() == {("refused", Reason.TOO_LARGE): 1}
        assert bench.fetches() == 0

    def test_the_past_stays_the_past(self) -> None:
        """An old version is refused once, whatever asks for it, until that changes."""
        bench = Bench()
        for version in (1, 2, 3):
            bench.update(version)
        bench.update(1)
        bench.look(10)
        assert bench.versions() == (3, 2)
        assert bench.results()["refused", Reason.VERSION_FLOOR] == 1
        assert bench.fetches() == 3
        bench.update(1)
        assert bench.results()["refused", Reason.VERSION_FLOOR] == 2

    def test_a_model_the_settings_do_not_name(self) -> None:
        """A desired state cannot put another model on a pipeline."""
        bench = Bench()
        bench.repository.bundles["vww", 1] = good_bundle(1)
        bench.repository.assign(door=("vww", 1))
        bench.look()
        assert bench.results() == {("refused", Reason.MISMATCH): 1}

    def test_a_manifest_that_says_something_else(self) -> None:
        """Signed as version 9, but 3 in its manifest: refused after it was verified."""
        bench = Bench()
        bench.repository.bundles["kws", 9] = BUNDLES["kws", 3]
        bench.update(9)
        assert bench.results() == {("refused", Reason.MISMATCH): 1}
        assert bench.store.objects == {}
        assert bench.trials.calls == []

    def test_signed_rubbish(self) -> None:
        """Properly signed bytes that are no bundle are refused, and nothing stays."""
        bench = Bench()
        bench.repository.bundles["kws", 2] = b"PK\x03\x04 rubbish" * 500
        bench.update(2)
        ((result, _),) = bench.results()
        assert result == "refused"
        assert bench.store.objects == {}

    def test_flipped_bits_are_tried_again_but_rarely(self) -> None:
        """Changed on the way: 100 looks fetch it 6 times, and one repair heals it."""
        bench = Bench()
        bad = bytearray(BUNDLES["kws", 2])
        bad[5000] ^= 1
        bench.repository.spoiled["kws", 2] = bytes(bad)
        bench.repository.assign(door=("kws", 2))
        bench.look(100)
        assert bench.fetches() == 6
        assert bench.results() == {("refused", Reason.DIGEST): 1}
        assert bench.poller.snapshot().verify_failures == {Reason.DIGEST: 6}
        assert bench.poller.snapshot().last_refusal == (
            Reason.DIGEST,
            "another digest",
        )
        assert bench.store.objects == {}
        bench.repository.spoiled.clear()
        bench.look(100)
        assert bench.versions() == (2, 0)

    def test_a_missing_target(self) -> None:
        """A version that nobody published is refused once, and found when it comes."""
        bench = Bench()
        bench.repository.assign(door=("kws", 4))
        bench.look(10)
        assert bench.results() == {("refused", Reason.MISSING_TARGET): 1}
        bench.repository.bundles["kws", 4] = good_bundle(4)
        bench.look()
        assert bench.versions() == (4, 0)

    def test_other_bytes_are_another_chance(self) -> None:
        """What was final for one digest is asked anew for another."""
        bench = Bench()
        bench.trials.errors["examine"] = golden()
        bench.update(2)
        bench.look(5)
        assert bench.versions() == (0, 0)
        bench.repository.bundles["kws", 2] = other_bundle(2)
        bench.look()
        assert bench.versions() == (2, 0)

    def test_one_line_for_each_change(self, caplog: pytest.LogCaptureFixture) -> None:
        """A refusal that repeats itself is logged once, with its reason as a field."""
        bench = Bench()
        bench.repository.fields["kws", 2] = {"hardware": ("jetson",)}
        with caplog.at_level(logging.WARNING):
            bench.update(2)
            bench.look(5)
        (record,) = caplog.records
        facts = record.__dict__
        assert record.getMessage() == "update.refused"
        assert [facts[key] for key in ("pipeline", "version", "reason")] == [
            "door",
            2,
            Reason.HARDWARE,
        ]


def other_bundle(version: int) -> bytes:
    """Return a good bundle of other bytes than ``good_bundle``."""
    said = replace(manifest(version=version), version_name="repaired")
    return render_bundle(said, VARIANTS, GOLDEN)


class TestFailed:
    """Updates that were admitted and did not work."""

    def test_preflight_says_no(self) -> None:
        """A failed trial leaves the active model, no bytes, and is not repeated."""
        bench = Bench()
        bench.update(1)
        bench.trials.errors["examine"] = golden()
        bench.update(2)
        bench.look(20)
        assert bench.versions() == (1, 0)
        assert bench.results()["failed", Reason.GOLDEN] == 1
        assert len(bench.store.objects) == 1
        assert [call[0] for call in bench.trials.calls[5:]] == ["examine"]

    def test_a_busy_board(self) -> None:
        """Too slow while something else ran: tried again without a new order."""
        bench = Bench()
        busy = TrialFailedError("no answer in time", reason=Reason.LATENCY)
        bench.trials.errors["examine"] = busy
        bench.update(2)
        assert bench.versions() == (0, 0)
        bench.trials.errors.clear()
        bench.look(2)
        assert bench.versions() == (2, 0)
        assert bench.results() == {("failed", "latency"): 1, ("committed", ""): 1}

    def test_bytes_that_are_signed_anew(self) -> None:
        """The same bytes, signed for this board too, are looked at again."""
        bench = Bench()
        bench.repository.fields["kws", 2] = {"hardware": ("another",)}
        bench.update(2)
        bench.look(5)
        assert bench.results() == {("refused", "hardware"): 1}
        bench.repository.fields.clear()
        bench.look()
        assert bench.versions() == (2, 0)

    def test_a_candidate_that_dies(self) -> None:
        """A swap that fails is rolled back; the active model and the floor stay."""
        bench = Bench()
        bench.update(1)
        crash = TrialFailedError("killed its worker", reason=Reason.CRASH)
        bench.trials.errors["swap_in"] = crash
        bench.update(2)
        assert bench.versions() == (1, 0)
        assert bench.store.version_floor("kws") == 1
        assert bench.results()["rolled_back", Reason.CRASH] == 1
        assert [call[0] for call in bench.trials.calls[5:]] == [
            "examine",
            "shadow",
            "swap_in",
            "swap_back",
        ]

    def test_no_room_to_commit(self) -> None:
        """A disk that is full at COMMIT swaps back, and is tried again later."""
        bench = Bench()
        bench.update(1)
        full = DeviceError("full", reason=Reason.DISK_FULL)

        def no_commit(change: str) -> None:
            if change == "commit":
                raise full

        bench.store.fail = no_commit
        bench.update(2)
        assert bench.versions() == (1, 0)
        assert bench.trials.calls[-1] == ("swap_back", "door", 0)
        bench.store.fail = lambda _change: None
        bench.look(2)
        assert bench.versions() == (2, 1)

    def test_no_room_to_fetch(self) -> None:
        """A full disk is the operator's; with room the update goes on by itself."""
        bench = Bench()
        bench.board = replace(BOARD, free_bytes=1000)
        bench.update(2)
        bench.look(10)
        assert bench.results() == {("failed", Reason.DISK_FULL): 1}
        assert bench.fetches() == 0
        bench.board = BOARD
        bench.look(20)
        assert bench.versions() == (2, 0)

    def test_a_bug_is_not_swallowed(self) -> None:
        """What is not an AgentError ends the poller, and with it the daemon."""
        bench = Bench()
        bench.trials.errors["examine"] = KeyError("bug")
        with pytest.raises(ExceptionGroup) as caught:
            bench.update(2)
        assert caught.value.subgroup(KeyError) is not None


class TestRepository:
    """A repository that cannot be followed."""

    def test_it_is_asked_less_and_less(self) -> None:
        """A boot's failures double what the pause is drawn from, up to ``poll_s``."""
        bench = Bench()
        error = BundleRefusedError("stranger", reason=Reason.SIGNATURE)
        bench.repository.error = error
        pauses = [bench.look() for _ in range(8)]
        assert pauses == [2, 4, 8, 16, 32, 100, 100, 100]
        assert bench.results() == {("refused", Reason.SIGNATURE): 1}
        assert bench.poller.snapshot().verify_failures == {Reason.SIGNATURE: 8}
        bench.repository.error = None
        assert bench.look() == 100.0
        bench.repository.error = error
        assert bench.look() == 100.0
        assert bench.results() == {("refused", Reason.SIGNATURE): 2}

    def test_a_server_that_is_back_is_asked_for_news_alone(self) -> None:
        """What was read before it went away is not read again, unless it changed."""
        bench = Bench()
        bench.update(1)
        bench.repository.error = BundleRefusedError("gone", reason=Reason.UNREACHABLE)
        bench.look(2)
        bench.repository.error, bench.repository.changed = None, False
        # Whoever asks for desired states now would be told off.
        bench.repository.unread = BundleRefusedError("gone", reason=Reason.UNREACHABLE)
        bench.look()
        assert bench.poller.snapshot().trouble is None
        bench.repository.changed = True
        bench.look()
        assert bench.poller.snapshot().trouble is not None

    def test_out_of_reach_is_not_refused(self) -> None:
        """A repository that is away verified nothing: failed, not refused."""
        bench = Bench()
        bench.repository.error = BundleRefusedError("gone", reason=Reason.UNREACHABLE)
        bench.look(3)
        snapshot = bench.poller.snapshot()
        assert snapshot.results == {("failed", Reason.UNREACHABLE): 1}
        assert (snapshot.verify_failures, snapshot.last_refusal) == ({}, None)

    def test_what_runs_goes_on(self) -> None:
        """Whatever a repository says, the committed model stays what it was."""
        bench = Bench()
        bench.update(1)
        bench.repository.error = BundleRefusedError("old", reason=Reason.EXPIRED)
        bench.update(2)
        assert bench.versions() == (1, 0)

    def test_a_desired_state_without_sense(self) -> None:
        """A window that cannot be read is counted once; other files are followed."""
        bench = Bench()
        bench.repository.assign("lab", window=("kws", 3))
        bench.repository.assign("all", door=("kws", 2), window=("kws", 2))
        right = bench.repository.groups["lab"]
        bench.repository.groups["lab"] = replace(right, window="noon")
        bench.look(3)
        assert bench.results() == {
            ("refused", Reason.METADATA): 1,
            ("committed", ""): 1,
        }
        assert [bench.versions("door"), bench.versions("window")] == [(2, 0), (0, 0)]
        bench.repository.groups["lab"] = right
        bench.look()
        assert bench.versions("window") == (3, 0)

    def test_a_clock_behind_the_floor_is_shown(self) -> None:
        """The lag of the system clock behind what was verified is a number."""
        bench = Bench()
        bench.repository.clock_floor = NOW + 90
        assert bench.poller.snapshot().clock_floor_lag_s == 90.0
        bench.now = NOW + 100
        assert bench.poller.snapshot().clock_floor_lag_s == 0.0

    def test_the_floor_counts_as_now(self) -> None:
        """A clock that was reset does not close what ``not_before`` opened."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        later = replace(
            bench.repository.groups["all"], not_before="2026-01-01T00:00:00Z"
        )
        bench.repository.groups["all"] = later
        bench.now = 0.0
        bench.look()
        assert bench.versions() == (0, 0)
        bench.repository.clock_floor = NOW
        bench.look()
        assert bench.versions() == (2, 0)


class TestFactory:
    """The slice that was shipped with the system."""

    def test_it_gives_a_new_board_its_first_model(self) -> None:
        """Without a network: the factory's model takes the same road."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1), window=("kws", 3))
        bench = Bench(repository=False, factories={"door": lambda: factory})
        bench.look(3)
        assert bench.versions("door") == (1, 0)
        assert bench.versions("window") == (0, 0)
        assert factory.calls == ["refresh", "fetch models/kws/1.bundle"]

    def test_it_is_the_last_resort_below_the_floor(self) -> None:
        """After every model rotted on the disk, the factory's older one runs again."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1))
        bench = Bench(factories={"door": lambda: factory})
        bench.update(3)
        assert bench.versions() == (3, 1)
        newest = bench.store.slots("door").active
        assert newest is not None
        bench.store.set_aside(newest.sha256, Reason.CRASH_LOOP)
        bench.store.fall_back("door", Reason.DIGEST)
        bench.store.fall_back("door", Reason.DIGEST)
        assert bench.store.slots("door") == Slots()
        bench.look()
        assert bench.versions() == (1, 0)
        assert bench.store.version_floor("kws") == 3

    def test_the_floor_binds_the_fleet(self) -> None:
        """The same old version from the fleet's repository is refused."""
        bench = Bench()
        bench.update(3)
        bench.store.fall_back("door")
        bench.update(2)
        assert bench.results()["refused", Reason.VERSION_FLOOR] == 1

    def test_a_broken_slice_is_told_once(self) -> None:
        """A slice that cannot be opened or verified is one refusal, then silence."""

        def opens() -> Repository:
            raise BundleRefusedError("no slice", reason=Reason.METADATA)

        bench = Bench(factories={"door": opens})
        bench.repository.assign(door=("kws", 2), window=("kws", 2))
        bench.look(5)
        assert bench.results() == {
            ("refused", Reason.METADATA): 1,
            ("committed", ""): 2,
        }

    def test_factory_and_fleet_are_remembered_apart(self) -> None:
        """Both refused: neither makes the other forget, so nothing is tried twice."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1))
        bench = Bench(factories={"door": lambda: factory})
        wanted: dict[str, object] = {"hardware": ("jetson",)}
        factory.fields["kws", 1] = bench.repository.fields["kws", 2] = wanted
        bench.update(2)
        bench.look(5)
        assert bench.results() == {("refused", Reason.HARDWARE): 2}
