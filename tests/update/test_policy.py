"""What a board takes, waits for and refuses, from desired states to what runs.

Numbers in names are those of the project's list of attacks and faults.
"""

import asyncio
from dataclasses import replace as changed

import pytest
from msgspec.structs import replace

from agent.core.desired import Order
from agent.core.reasons import Reason
from agent.core.targets import Revocations
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    TrialFailedError,
)
from agent.update.needs import Repository
from tests.fakes.bundles import good_bundle
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.update_bench import BOARD, BUNDLES, NOW, Bench

HOUR_S = 3600.0
CUT = BundleRefusedError("cut", reason=Reason.UNREACHABLE)
SLOW = TrialFailedError("no answer in time", reason=Reason.LATENCY)
WRONG = TrialFailedError("other answers", reason=Reason.GOLDEN)


def republish(bench: Bench, group: str = "all", **changes: object) -> None:
    """Publish a newer generation of a desired state with other conditions."""
    last = bench.repository.groups[group]
    newer = replace(last, generation=last.generation + 1)
    bench.repository.groups[group] = replace(newer, **changes)


def reports(bench: Bench) -> list[tuple[int, str, str]]:
    """Return version, result and reason of all reports, newest first."""
    return [(it.version, it.result, it.reason) for it in bench.store.reports()]


def said(bench: Bench, pipeline: str = "door") -> tuple[str, str]:
    """Return state and reason of the decision about a pipeline."""
    decision = bench.decision(pipeline)
    return decision.state, decision.reason


class TestVersions:
    """Anti-rollback."""

    def test_36_below_the_floor(self) -> None:
        """A lower version is refused before a byte of it is fetched, and reported."""
        bench = Bench()
        for version in (1, 2, 3):
            bench.update(version)
        bench.update(1)
        bench.look(5)
        assert bench.versions() == (3, 2)
        assert reports(bench)[:2] == [
            (1, "refused", Reason.VERSION_FLOOR),
            (3, "committed", ""),
        ]
        assert said(bench) == ("refused", Reason.VERSION_FLOOR)
        assert "older than version 3" in bench.decision().detail

    def test_36_the_same_version_with_other_bytes(self) -> None:
        """Signed anew under a version that is ``previous``: refused, unfetched."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        bench.repository.bundles["kws", 1] = BUNDLES["kws", 3]
        bench.update(1)
        assert bench.versions() == (2, 1)
        assert said(bench) == ("refused", Reason.VERSION_FLOOR)
        assert bench.fetches() == 2

    def test_41_an_old_model_under_a_higher_version(self) -> None:
        """The authorised downgrade: the same model, republished, is admitted."""
        bench = Bench()
        for version in (1, 2, 3):
            bench.update(version)
        bench.repository.bundles["kws", 4] = good_bundle(4)  # what 1 was, renumbered
        bench.update(4)
        assert bench.versions() == (4, 3)
        assert bench.store.version_floor("kws") == 4

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"hardware": ("jetson",)}, Reason.HARDWARE),
            ({"min_agent": "9.0"}, Reason.MIN_AGENT),
        ],
    )
    def test_37_other_hardware_newer_agent(
        self, fields: dict[str, object], reason: Reason
    ) -> None:
        """Refused before the first byte, told once, and visible as the decision."""
        bench = Bench()
        bench.update(1)
        bench.repository.fields["kws", 2] = fields
        bench.update(2)
        bench.look(5)
        assert bench.versions() == (1, 0)
        assert reports(bench)[0] == (2, "refused", reason)
        assert len(reports(bench)) == 2
        assert said(bench) == ("refused", reason)

    def test_37_more_memory_than_the_board_has(self) -> None:
        """Not even the smallest variant fits: refused after it was verified."""
        bench = Bench()
        bench.board = replace(BOARD, ram_bytes=100)
        bench.update(2)
        assert said(bench) == ("refused", Reason.MEMORY)
        assert (bench.trials.calls, bench.store.objects) == ([], {})


class TestQuarantine:
    """Trials that failed."""

    @pytest.mark.parametrize(
        "reason", [Reason.GOLDEN, Reason.NOT_FINITE, Reason.CONTRACT]
    )
    def test_38_wrong_answers_are_not_asked_for_again(self, reason: Reason) -> None:
        """The bytes are set aside durably: the next life does not try them either."""
        bench = Bench()
        bench.update(1)
        bench.trials.errors["examine"] = TrialFailedError("no", reason=reason)
        bench.update(2)
        assert bench.store.is_set_aside(bench.sha256(2)) == reason
        assert bench.poller.snapshot().set_aside == 1
        bench.start()
        asyncio.run(bench.poller.recover())
        assert bench.poller.snapshot().set_aside == 1
        bench.look(3)
        republish(bench)
        bench.look(3)
        assert bench.versions() == (1, 0)
        examined = [call for call in bench.trials.calls if call[0] == "examine"]
        assert examined == [("examine", "door", 1), ("examine", "door", 2)]
        assert said(bench) == ("refused", reason)

    def test_38_other_bytes_are_innocent(self) -> None:
        """The repaired model under the next version is tried and committed."""
        bench = Bench()
        bench.trials.errors["examine"] = WRONG
        bench.update(2)
        bench.update(3)
        assert bench.versions() == (3, 0)

    @pytest.mark.parametrize("where", ["swap_in", "watch"])
    def test_38_a_rollback_from_probation_sets_aside(self, where: str) -> None:
        """What failed while it answered live samples is not tried again, however."""
        bench = Bench()
        bench.update(1)
        bench.trials.errors[where] = SLOW
        bench.update(2)
        bench.look(100)
        assert bench.versions() == (1, 0)
        assert bench.trials.calls.count(("examine", "door", 2)) == 1
        assert bench.store.is_set_aside(bench.sha256(2)) == Reason.LATENCY
        assert reports(bench)[-2:] == [
            (2, "rolled_back", Reason.LATENCY),
            (1, "committed", ""),
        ]

    @pytest.mark.parametrize(
        "reason", [Reason.CRASH, Reason.HANG, Reason.MEMORY, Reason.LATENCY]
    )
    def test_39_a_crash_at_load_is_tried_three_times(self, reason: Reason) -> None:
        """Each time later; then it is set aside, over restarts, with its reason."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        for attempt in range(1, 4):
            assert bench.store.is_set_aside(bench.sha256(2)) == ""
            error = TrialFailedError("it died", reason=reason)
            bench.trials.errors["examine"] = error
            bench.start()
            asyncio.run(bench.poller.recover())
            bench.look()
            assert len(bench.trials.calls) == attempt
        assert bench.store.is_set_aside(bench.sha256(2)) == reason
        bench.trials.errors.clear()
        bench.look(100)
        assert (len(bench.trials.calls), bench.versions()) == (3, (0, 0))

    def test_39_in_one_life_as_well(self) -> None:
        """Without a restart between them, three failures are enough, too."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        for _ in range(100):
            bench.trials.errors["examine"] = SLOW
            bench.look()
        assert len(bench.trials.calls) == 3
        assert bench.store.is_set_aside(bench.sha256(2)) == Reason.LATENCY

    def test_39_what_is_tried_again_says_so(self) -> None:
        """It waits, with the attempt; is under way while it lasts; then it is over."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        during: list[tuple[str, str]] = []

        async def note() -> None:
            decision = bench.decision()
            during.append((decision.state, decision.detail))

        bench.trials.pauses["examine"] = note
        after: list[tuple[str, str]] = []
        for attempt in range(1, 4):
            while len(during) < attempt:
                bench.trials.errors["examine"] = SLOW
                bench.look()
            after.append((bench.decision().state, bench.decision().detail))
        assert during == [("ordered", "under way")] * 3
        why = "no answer in time"
        assert after == [
            ("waits", f"{why}; it is tried again (attempt 1 of 3)"),
            ("waits", f"{why}; it is tried again (attempt 2 of 3)"),
            ("refused", why),
        ]

    def test_39_a_good_day_ends_the_count(self) -> None:
        """Two busy days, then it passes: committed, and nothing is held against it."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        for _ in range(2):
            bench.trials.errors["examine"] = SLOW
            bench.look(4)
        bench.trials.errors.clear()
        bench.look(100)
        assert bench.versions() == (2, 0)
        assert bench.store.all_set_aside() == []

    def test_a_full_disk_is_nobodys_fault(self) -> None:
        """A candidate that could not be committed for want of room is tried again."""
        bench = Bench()
        bench.trials.errors["watch"] = DeviceError("full", reason=Reason.DISK_FULL)
        bench.update(2)
        assert reports(bench) == [(2, "rolled_back", Reason.DISK_FULL)]
        bench.look(2)
        assert bench.versions() == (2, 0)

    def test_a_quarantine_that_cannot_be_written(self) -> None:
        """It is logged; this life does not try the bytes again all the same."""
        bench = Bench()

        def full(change: str) -> None:
            if change == "set_aside":
                raise DeviceError("full", reason=Reason.DISK_FULL)

        bench.store.fail = full
        bench.trials.errors["examine"] = WRONG
        bench.update(2)
        bench.look(5)
        assert bench.trials.calls == [("examine", "door", 2)]


class TestRevoked:
    """What the owner revoked."""

    def revoke(self, bench: Bench, *versions: int) -> None:
        """Revoke versions."""
        digests = tuple(bench.sha256(version) for version in versions)
        bench.repository.revocations = Revocations(bundles=digests)

    def test_34_the_active_model_falls_back(self) -> None:
        """``previous`` takes over, its pipeline is told; it is not taken in again."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        self.revoke(bench, 2)
        bench.look(3)
        assert bench.versions() == (1, 0)
        assert bench.told == ["door"]
        assert said(bench) == ("refused", Reason.REVOKED)
        assert bench.poller.snapshot().revoked == 1
        assert bench.results()["refused", Reason.REVOKED] == 1
        bench.update(3)
        assert bench.versions() == (3, 1)

    def test_34_with_previous_revoked_too(self) -> None:
        """Nothing may run: the pipeline stops answering, and is told so once."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        self.revoke(bench, 1, 2)
        bench.look(3)
        assert bench.store.slots("door").active is None
        assert bench.told == ["door"]

    def test_34_then_the_factory_takes_over(self) -> None:
        """In the same look the factory slice brings its model, unless revoked, too."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1))
        bench = Bench(factories={"door": lambda: factory})
        bench.update(2)
        assert bench.versions() == (2, 1)
        self.revoke(bench, 1, 2)
        bench.look(2)
        assert bench.versions() == (0, 0)
        assert bench.results()["refused", Reason.REVOKED] == 2
        factory.assign(door=("kws", 3))
        bench.look()
        assert bench.versions() == (3, 0)
        self.revoke(bench, 1, 2, 3)
        factory.bundles["kws", 4] = good_bundle(4)
        factory.assign(door=("kws", 4))
        bench.look()
        assert bench.versions() == (4, 0)

    def test_34_it_is_not_admitted(self) -> None:
        """A revoked bundle that is desired is refused before its first byte."""
        bench = Bench()
        self.revoke(bench, 2)
        bench.update(2)
        assert (bench.fetches(), bench.versions()) == (0, (0, 0))
        assert reports(bench) == [(2, "refused", Reason.REVOKED)]

    def test_34_before_the_first_worker_of_a_life(self) -> None:
        """What was noted as revoked does not run after a start without a network."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        bench.known_revoked = (bench.sha256(2),)
        bench.repository.error = BundleRefusedError("away", reason=Reason.UNREACHABLE)
        bench.start()
        asyncio.run(bench.poller.recover())
        assert (bench.versions(), bench.told) == ((1, 0), [])
        bench.look()
        assert bench.poller.snapshot().revoked == 1

    def test_34_a_disk_that_is_full_keeps_no_board_from_starting(self) -> None:
        """Recovery logs what it could not write; the next look tries again."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        bench.known_revoked = (bench.sha256(2),)

        def full(change: str) -> None:
            if change == "fall_back":
                raise DeviceError("full", reason=Reason.DISK_FULL)

        bench.store.fail = full
        bench.start()
        asyncio.run(bench.poller.recover())
        assert bench.versions() == (2, 1)
        bench.store.fail = lambda _change: None
        self.revoke(bench, 2)
        bench.look()
        assert (bench.versions(), bench.told) == ((1, 0), ["door"])

    def test_34_a_full_disk_lets_no_revoked_model_answer(self) -> None:
        """Its pipeline is told once, the others fall back; later it is written."""
        bench = Bench()
        bench.update(1)
        bench.repository.assign(door=("kws", 2), window=("kws", 2))
        bench.look()

        def full(change: str) -> None:
            if change == "fall_back":
                raise DeviceError("full", reason=Reason.DISK_FULL)

        bench.store.fail = full
        self.revoke(bench, 2)
        bench.look(5)
        assert bench.told == ["door", "window"]
        assert (bench.versions("door"), bench.versions("window")) == ((2, 1), (2, 0))
        bench.store.fail = lambda _change: None
        bench.look(2)
        assert bench.told == ["door", "window"] * 2
        assert (bench.versions("door"), bench.versions("window")) == ((1, 0), (0, 0))

    def test_34_a_disk_that_fails_once_keeps_no_other_pipeline(self) -> None:
        """The first one cannot be written: the second one falls back all the same."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2), window=("kws", 2))
        bench.look()
        left = [DeviceError("full", reason=Reason.DISK_FULL)]

        def full(change: str) -> None:
            if change == "fall_back" and left:
                raise left.pop()

        bench.store.fail = full
        self.revoke(bench, 2)
        bench.look()
        assert (bench.versions("door"), bench.versions("window")) == ((2, 0), (0, 0))
        assert bench.told == ["door", "window"]

    @pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.METADATA])
    def test_34_no_unreadable_desired_state_hides_it(self, reason: Reason) -> None:
        """Whoever writes a group file, or cuts it off, cannot keep a model running."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        self.revoke(bench, 2)
        bench.repository.unread = BundleRefusedError("unknown field", reason=reason)
        bench.look()
        assert (bench.versions(), bench.told) == ((1, 0), ["door"])
        assert bench.poller.snapshot().trouble == (reason, "unknown field")

    @pytest.mark.parametrize("again", [False, True])
    def test_34_taken_back_it_runs_again(self, *, again: bool) -> None:
        """``--undo`` reaches the board, under the same generation and a newer one."""
        bench = Bench()
        bench.update(1)
        bench.update(2)
        self.revoke(bench, 2)
        bench.look(3)
        assert bench.versions() == (1, 0)
        assert bench.store.all_set_aside() == []
        self.revoke(bench)
        if again:
            republish(bench)
        bench.look()
        assert bench.versions() == (2, 1)
        assert said(bench) == ("runs", "")
        assert bench.poller.snapshot().revoked == 0

    @pytest.mark.parametrize("again", [False, True])
    def test_34_taken_back_on_a_board_without_a_model(self, *, again: bool) -> None:
        """What was the only model comes back, and what was refused at admission."""
        for runs_before in (True, False):
            bench = Bench()
            if runs_before:
                bench.update(2)
            self.revoke(bench, 2)
            bench.repository.assign(door=("kws", 2))
            bench.look(3)
            assert bench.versions() == (0, 0)
            self.revoke(bench)
            if again:
                republish(bench)
            bench.look()
            assert bench.versions() == (2, 0)

    def test_34_taken_back_for_one_of_two(self) -> None:
        """What stays revoked stays refused."""
        bench = Bench()
        self.revoke(bench, 1, 2)
        bench.repository.assign(door=("kws", 1), window=("kws", 2))
        bench.look()
        self.revoke(bench, 2)
        bench.look()
        assert (bench.versions("door"), bench.versions("window")) == ((1, 0), (0, 0))
        assert said(bench, "window") == ("refused", Reason.REVOKED)

    def test_34_the_factory_model_taken_back(self) -> None:
        """The last resort that was revoked is asked for again once it is not."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1))
        bench = Bench(factories={"door": lambda: factory})
        bench.look()
        self.revoke(bench, 1)
        bench.look(2)
        assert bench.versions() == (0, 0)
        self.revoke(bench)
        bench.look()
        assert bench.versions() == (1, 0)

    @pytest.mark.parametrize("revoked", [False, True])
    def test_34_at_boot_without_a_network_the_list_alone_counts(
        self, *, revoked: bool
    ) -> None:
        """What an older agent set aside for it is forgotten; what is listed stays so.

        A slice from a stick brings the model that was taken back.
        """
        bench = Bench(repository=False)
        bench.store.set_aside(bench.sha256(2), Reason.REVOKED)
        bench.store.set_aside(bench.sha256(3), Reason.GOLDEN)
        bench.known_revoked = (bench.sha256(2),) if revoked else ()
        if revoked:
            bench.slice.revocations = Revocations(bundles=bench.known_revoked)
        bench.start()
        asyncio.run(bench.poller.recover())
        assert [it.reason for it in bench.store.all_set_aside()] == [Reason.GOLDEN]
        assert bench.poller.snapshot().set_aside == 1
        bench.slice.assign(door=("kws", 2))
        bench.inbox.full = True
        bench.look()
        assert bench.versions() == ((0, 0) if revoked else (2, 0))

    def test_34_one_of_two_pipelines(self) -> None:
        """Pipelines that run something else are left alone."""
        bench = Bench()
        bench.repository.assign(door=("kws", 1), window=("kws", 2))
        bench.look()
        self.revoke(bench, 2)
        bench.look()
        assert bench.versions("door") == (1, 0)
        assert bench.versions("window") == (0, 0)
        assert bench.told == ["window"]


class TestTime:
    """Windows, beginnings, and looks that come in time for them."""

    def test_a_window_opens_without_anything_new(self) -> None:
        """The repository says that nothing changed; the plan is made all the same."""
        bench = Bench(poll_s=100_000.0)
        bench.repository.assign(door=("kws", 2))
        opens = NOW + 2 * HOUR_S
        hour = int(opens // HOUR_S) % 24
        republish(bench, window=f"{hour:02}:00-{(hour + 1) % 24:02}:00")
        pause_s = bench.look()
        assert said(bench) == ("waits", Reason.WINDOW)
        until = bench.decision().until
        # The look comes as it opens, a drawn share of poll_s later.
        assert pause_s == until - NOW + 0.1 * 0.5 * 100_000.0
        bench.repository.changed = False
        bench.now = until - 1
        bench.look()
        assert bench.versions() == (0, 0)
        bench.now = until
        bench.look()
        assert bench.versions() == (2, 0)

    def test_a_window_in_local_time(self) -> None:
        """The same window opens when the board's own clock says so."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        hour = int((NOW + 5 * HOUR_S) // HOUR_S) % 24
        republish(bench, window=f"{hour:02}:00-{(hour + 1) % 24:02}:00 local")
        bench.look()
        assert said(bench) == ("waits", Reason.WINDOW)
        bench.utc_offset_s = 5 * 3600
        bench.look()
        assert bench.versions() == (2, 0)

    def test_an_early_end_of_the_wait_does_not_come_late(self) -> None:
        """A poll that comes sooner than ``until`` stays the next look."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2))
        republish(bench, not_before="2030-01-01")
        assert bench.look() == 100.0
        assert said(bench) == ("waits", Reason.NOT_BEFORE)

    def test_a_trial_is_not_ended_by_its_window(self) -> None:
        """A window that closes keeps new things from starting, and nothing else."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2), window=("kws", 2))
        hour = int(NOW // HOUR_S) % 24
        republish(bench, window=f"{hour:02}:00-{(hour + 1) % 24:02}:00")

        async def hours_pass() -> None:
            bench.now += 2 * HOUR_S

        bench.trials.pauses["watch"] = hours_pass
        bench.look()
        assert bench.versions("door") == (2, 0)
        assert bench.versions("window") == (0, 0)
        assert said(bench, "window") == ("waits", Reason.WINDOW)


class TestSources:
    """Who says what should run, and where its bytes come from."""

    def test_a_device_file_is_the_exception(self) -> None:
        """This board's own file counts before those of its groups."""
        bench = Bench()
        bench.repository.assign(door=("kws", 2), window=("kws", 2))
        bench.repository.assign("own", door=("kws", 1))
        bench.repository.devices[BOARD.id] = bench.repository.groups.pop("own")
        bench.look()
        assert [bench.versions("door"), bench.versions("window")] == [(1, 0), (2, 0)]
        assert bench.decision("door").source == f"fleet/devices/{BOARD.id}"

    def test_files_are_read_again_only_after_changes(self) -> None:
        """Where a refresh says that nothing changed, what was read stays in use."""
        bench = Bench()
        bench.update(2)
        bench.repository.changed = False
        bench.update(3)
        assert bench.versions() == (2, 0)
        bench.repository.changed = True
        bench.look()
        assert bench.versions() == (3, 2)

    @pytest.mark.parametrize("what", ["unread", "unheard"])
    def test_a_change_is_read_however_late(self, what: str) -> None:
        """A change is announced once; a file that was cut off then is asked for again.

        So it is where what is revoked could not be read.
        """
        bench = Bench()
        bench.update(1)
        setattr(bench.repository, what, CUT)
        bench.update(2)
        assert bench.versions() == (1, 0)
        setattr(bench.repository, what, None)
        bench.repository.changed = False
        bench.look(2)
        assert bench.versions() == (2, 1)

    def test_nothing_starts_on_metadata_that_does_not_verify(self) -> None:
        """What was ordered and not carried out waits for the next good refresh."""
        bench = Bench()
        bench.board = replace(BOARD, free_bytes=0)
        bench.update(2)
        bench.board = BOARD
        bench.repository.error = BundleRefusedError("freeze", reason=Reason.EXPIRED)
        bench.look(10)
        assert bench.versions() == (0, 0)
        assert bench.poller.snapshot().trouble == (Reason.EXPIRED, "freeze")
        bench.repository.error = None
        bench.look(2)
        assert bench.versions() == (2, 0)
        assert bench.poller.snapshot().trouble is None

    def test_an_interrupted_fetch_goes_on_where_it_stopped(self) -> None:
        """What a network cut off is kept; only the rest comes the second time."""
        bench = Bench()
        bench.repository.broken_at = 3000
        bench.update(2)
        assert reports(bench) == [(2, "failed", Reason.UNREACHABLE)]
        bench.look(2)
        assert bench.versions() == (2, 0)
        length = len(BUNDLES["kws", 2])
        bytes_ = bench.poller.snapshot().bytes
        assert bytes_ == {"full": length, "delta": 0, "resumed": 2048}

    def test_what_was_refused_is_not_kept(self) -> None:
        """Bytes that are not the signed ones leave nothing to be resumed."""
        bench = Bench()
        bench.repository.spoiled["kws", 2] = BUNDLES["kws", 3]
        bench.update(2)
        assert said(bench) == ("waits", Reason.DIGEST)
        assert bench.store.parts == {}

    def test_quota_and_room(self) -> None:
        """Room is made before the first byte; where there is none, that is told."""
        bench = Bench()
        bench.store.quota_bytes = 100
        bench.update(2)
        assert said(bench) == ("waits", Reason.QUOTA)
        assert reports(bench) == [(2, "failed", Reason.QUOTA)]
        bench.store.quota_bytes = 10**9
        bench.look(2)
        assert bench.versions() == (2, 0)

    def test_an_unknown_pipeline_is_told_and_harms_nothing(self) -> None:
        """A name that this board does not have; the others are updated."""
        bench = Bench()
        bench.repository.assign(gate=("kws", 2), door=("kws", 2))
        bench.look()
        assert bench.versions() == (2, 0)
        assert said(bench, "gate") == ("refused", Reason.UNKNOWN_PIPELINE)

    def test_retry_after_is_honoured(self) -> None:
        """A server's wish stretches the pause after a failure, to a day at most."""
        bench = Bench()
        bench.repository.error = BundleRefusedError("429", reason=Reason.RATE_LIMITED)
        bench.repository.retry_after = 1234.0
        assert bench.look() == 1234.0
        bench.repository.retry_after = 1e9
        assert bench.look() == 86_400.0
        assert bench.results() == {("failed", Reason.RATE_LIMITED): 1}
        assert bench.poller.snapshot().verify_failures == {}

    def test_what_a_look_shows(self) -> None:
        """Metadata's age and end, when it was looked at, the clock's floor."""
        bench = Bench()
        assert bench.poller.snapshot().last_look == 0.0
        bench.repository.ends = {"timestamp": NOW + 5}
        bench.repository.issued = NOW - 7
        bench.repository.clock_floor = NOW - 9
        bench.update(2)
        snapshot = bench.poller.snapshot()
        assert snapshot.metadata_expires == {"timestamp": NOW + 5}
        assert (snapshot.metadata_issued, snapshot.clock_floor) == (NOW - 7, NOW - 9)
        assert (snapshot.last_look, snapshot.orchestrator) == (NOW, "tuf")
        bench.repository.error = BundleRefusedError("away", reason=Reason.UNREACHABLE)
        bench.now += 50
        bench.look()
        assert bench.poller.snapshot().last_look == NOW
        assert bench.poller.snapshot().metadata_issued == NOW - 7


class TestSlice:
    """A slice of a repository that was uploaded."""

    def upload(self, bench: Bench, version: int) -> None:
        """Upload a slice that wants a version on the door, and ring."""
        bench.slice.assign(door=("kws", version))
        bench.inbox.full = True
        bench.poller.poke(inbox=True)

    def test_a_board_without_a_network(self) -> None:
        """What a USB stick brought is verified, installed, and removed."""
        bench = Bench(repository=False)
        self.upload(bench, 2)
        bench.look()
        assert bench.versions() == (2, 0)
        assert (bench.inbox.full, bench.inbox.cleared) == (False, 1)
        bench.look(5)
        assert bench.slice.calls == ["refresh", "fetch models/kws/2.bundle"]

    def test_a_start_finds_it(self) -> None:
        """A slice that was there before a restart is looked at without a doorbell."""
        bench = Bench(repository=False)
        bench.slice.assign(door=("kws", 2))
        bench.inbox.full = True
        bench.start()
        bench.look()
        assert bench.versions() == (2, 0)

    def test_without_a_doorbell_nobody_looks(self) -> None:
        """An upload under way is not looked at: who uploads rings when it is whole."""
        bench = Bench(repository=False)
        bench.look()
        bench.slice.assign(door=("kws", 2))
        bench.inbox.full = True
        bench.look(5)
        assert bench.slice.calls == []

    def test_what_waits_is_kept(self) -> None:
        """A slice whose window is closed stays, and is installed when it opens."""
        bench = Bench(repository=False)
        self.upload(bench, 2)
        bench.slice.groups["all"] = replace(
            bench.slice.groups["all"], not_before="2027-01-01T00:00:00Z"
        )
        bench.look(3)
        assert (bench.versions(), bench.inbox.cleared) == ((0, 0), 0)
        bench.now = bench.decision().until
        bench.look()
        assert (bench.versions(), bench.inbox.cleared) == ((2, 0), 1)

    def test_the_next_one_on_its_way_is_not_removed(self) -> None:
        """What is uploaded while a slice is carried out stays; its doorbell clears."""
        bench = Bench(repository=False)

        async def upload() -> None:
            bench.inbox.changes += 1

        bench.trials.pauses["watch"] = upload
        self.upload(bench, 2)
        bench.look(3)
        assert (bench.versions(), bench.inbox.cleared) == ((2, 0), 0)
        bench.poller.poke(inbox=True)
        bench.look()
        assert bench.inbox.cleared == 1

    def test_a_slice_that_was_taken_away(self) -> None:
        """Uploads that somebody removed are no source any more when the time comes."""
        bench = Bench(repository=False)
        self.upload(bench, 2)
        bench.slice.groups["all"] = replace(
            bench.slice.groups["all"], not_before="2027-01-01T00:00:00Z"
        )
        bench.look()
        bench.inbox.full = False
        bench.now = bench.decision().until
        bench.look(3)
        assert bench.slice.calls == ["refresh"]
        assert (bench.versions(), bench.results()) == ((0, 0), {})

    def test_what_was_refused_for_good_is_removed(self) -> None:
        """A slice with an older version is refused, and does not stay."""
        bench = Bench()
        bench.update(3)
        bench.repository.error = BundleRefusedError("away", reason=Reason.UNREACHABLE)
        self.upload(bench, 1)
        bench.look()
        assert said(bench) == ("refused", Reason.VERSION_FLOOR)
        assert bench.inbox.cleared == 1

    def test_what_may_mend_itself_is_kept(self) -> None:
        """A full disk: the slice stays until there is room."""
        bench = Bench(repository=False)
        bench.board = replace(BOARD, free_bytes=0)
        self.upload(bench, 2)
        bench.look(3)
        assert bench.inbox.cleared == 0
        bench.board = BOARD
        bench.look(10)
        assert (bench.versions(), bench.inbox.cleared) == ((2, 0), 1)

    @pytest.mark.parametrize(
        "reason",
        [
            *(Reason.SIGNATURE, Reason.THRESHOLD, Reason.EXPIRED, Reason.REPLAYED),
            *(Reason.MIXED, Reason.METADATA, Reason.TOO_LARGE),
        ],
    )
    def test_a_slice_that_nothing_completes(self, reason: Reason) -> None:
        """It is told of once, and gone: no later look or doorbell meets it again."""
        bench = Bench()
        bench.slice.error = BundleRefusedError("stranger", reason=reason)
        self.upload(bench, 2)
        assert bench.look() == 100.0  # the fleet's repository is not to blame
        trouble = bench.poller.snapshot().trouble
        assert trouble == (reason, "the uploaded slice: stranger")
        assert (bench.inbox.full, bench.inbox.cleared) == (False, 1)
        for _ in range(3):
            bench.poller.poke(inbox=True)
            bench.look()
            assert bench.poller.snapshot().trouble is None
        assert bench.results() == {("refused", reason): 1}
        assert bench.poller.snapshot().verify_failures == {reason: 1}
        assert (bench.slice.calls, bench.inbox.cleared) == (["refresh"], 1)

    def test_the_next_slice_is_another(self) -> None:
        """One that is as bad is told of anew, one that is good is installed."""
        bench = Bench()
        bench.slice.error = BundleRefusedError("stranger", reason=Reason.SIGNATURE)
        for count in (1, 2):
            self.upload(bench, 2)
            bench.look()
            assert bench.results() == {("refused", Reason.SIGNATURE): count}
        bench.slice.error = None
        self.upload(bench, 2)
        bench.look()
        assert bench.versions() == (2, 0)

    def test_a_slice_whose_desired_state_makes_no_sense(self) -> None:
        """Its metadata verified, and it is as lost; what it revoked was heard."""
        bench = Bench()
        bench.slice.unread = BundleRefusedError("what?", reason=Reason.METADATA)
        bench.slice.revocations = Revocations(bundles=(bench.sha256(2),))
        self.upload(bench, 2)
        bench.repository.error = CUT
        bench.look()
        assert bench.inbox.cleared == 1
        assert bench.poller.sources.revoked == {bench.sha256(2)}

    def test_the_next_slice_on_its_way_is_spared(self) -> None:
        """What came since the refused one was announced stays until its doorbell."""
        bench = Bench()
        bench.slice.error = BundleRefusedError("stranger", reason=Reason.SIGNATURE)
        self.upload(bench, 2)
        bench.inbox.changes += 1
        bench.look(3)
        assert (bench.inbox.full, bench.inbox.cleared) == (True, 0)
        bench.slice.error = None
        bench.poller.poke(inbox=True)
        bench.look()
        assert bench.versions() == (2, 0)

    @pytest.mark.parametrize(
        "error",
        [
            BundleRefusedError("a file is missing", reason=Reason.MISSING_TARGET),
            BundleRefusedError("cut", reason=Reason.LENGTH),
            BundleRefusedError("a flipped bit", reason=Reason.DIGEST),
            DeviceError("full", reason=Reason.DISK_FULL),
        ],
    )
    def test_a_slice_that_can_be_completed(self, error: AgentError) -> None:
        """It is counted once, and not looked at again before the next doorbell."""
        bench = Bench()
        bench.slice.error = error
        self.upload(bench, 2)
        bench.look(5)
        assert sum(bench.results().values()) == 1
        assert (bench.slice.calls, bench.inbox.cleared) == (["refresh"], 0)
        assert bench.look() == 100.0
        bench.slice.error = None
        bench.poller.poke(inbox=True)
        bench.look()
        assert bench.versions() == (2, 0)

    def test_bytes_come_from_whoever_has_them(self) -> None:
        """A slice that lacks a bundle is completed from the repository; either way."""
        for lacking in ("slice", "repository"):
            bench = Bench()
            source = bench.slice if lacking == "slice" else bench.repository
            source.gone.add(("kws", 2))
            bench.repository.assign(door=("kws", 2))
            self.upload(bench, 2)
            bench.look()
            assert bench.versions() == (2, 0)

    def test_a_slice_without_bytes_spoils_no_resumption(self) -> None:
        """What the repository sent until it broke off stays, whatever a slice lacks."""
        bench = Bench()
        bench.slice.gone.add(("kws", 2))
        bench.repository.assign(door=("kws", 2))
        bench.repository.broken_at = 3000
        self.upload(bench, 2)
        bench.look(3)
        assert bench.versions() == (2, 0)
        assert bench.poller.snapshot().bytes["resumed"] == 2048

    def test_a_slice_that_lies_about_a_bundle(self) -> None:
        """Spoiled bytes of the slice are passed over for those of the repository."""
        bench = Bench()
        bench.slice.spoiled["kws", 2] = BUNDLES["kws", 3]
        bench.repository.assign(door=("kws", 2))
        self.upload(bench, 2)
        bench.look()
        assert bench.versions() == (2, 0)
        assert bench.results() == {("committed", ""): 1}


class TestFactory:
    """The last resort."""

    def test_it_becomes_the_factory_model(self) -> None:
        """What a factory slice brought is kept as such, and reported."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1))
        bench = Bench(repository=False, factories={"door": lambda: factory})
        bench.look()
        slots = bench.store.slots("door")
        assert slots.factory is not None
        assert slots.factory == slots.active
        assert reports(bench) == [(1, "committed", "")]

    def test_it_is_found_by_the_boards_own_file(self) -> None:
        """A slice may name single boards, as the fleet's repository does."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign("own", door=("kws", 2))
        factory.devices[BOARD.id] = factory.groups.pop("own")
        bench = Bench(repository=False, factories={"door": lambda: factory})
        bench.look()
        assert bench.versions() == (2, 0)

    def test_it_comes_before_a_repository_that_is_away(self) -> None:
        """A new board answers without waiting for a network."""
        factory = ScriptedRepository(BUNDLES)
        factory.assign(door=("kws", 1))
        bench = Bench(factories={"door": lambda: factory})
        asked: list[int] = []
        bench.repository.refreshed = lambda: asked.append(bench.versions()[0])
        bench.look()
        assert asked == [1]


def test_two_sources_that_disagree_about_a_bundle() -> None:
    """The nearer one's word counts, and only who says the same is asked for bytes."""
    bench = Bench()
    bench.slice.bundles["kws", 2] = good_bundle(2)
    bench.repository.bundles["kws", 2] = BUNDLES["kws", 3]
    bench.slice.assign(door=("kws", 2))
    bench.slice.gone.add(("kws", 2))
    bench.inbox.full = True
    bench.look()
    assert bench.results() == {("refused", Reason.MISSING_TARGET): 1}
    bench.slice.gone.clear()
    bench.look(2)
    assert bench.versions() == (2, 0)
    assert bench.fetches() == 0


def test_orders_name_what_was_planned() -> None:
    """The plan that a look leaves behind is what the desired states say by then."""
    bench = Bench()
    bench.repository.fields["kws", 2] = {"hardware": ("jetson",)}
    bench.update(2)
    order = Order("door", "kws", 2, "fleet/groups/all", 1)
    assert bench.poller.plan.orders == (order,)
    supply: Repository = bench.repository
    bench.supply = changed(bench.supply, repository=supply)
    assert bench.start().plan.decisions == ()
