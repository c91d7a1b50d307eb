"""One contract, two stores: the real one on a disk, and the fake in memory.

A fake that lies makes every test that uses it worthless; here it would fail.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.executors import Executor
from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES
from agent.core.update_machine import Job, Phase
from agent.core.updates import Hold, Report, SetAside
from agent.errors import BundleRefusedError, DeviceError
from agent.store import Store
from agent.update.needs import UpdateStore
from tests.fakes.memory_store import MemoryStore

AnyStore = Store | MemoryStore
BODY = bytes(range(256)) * 40
SHA = hashlib.sha256(BODY).hexdigest()
JOB = Job(pipeline="door", model="kws", version=2, sha256=SHA, phase=Phase.FETCHING)


def model(version: int, name: str = "kws") -> Installed:
    """Return a model of its own digest."""
    sha256 = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    return Installed(name, version, sha256, 10, "int8", Executor("litert", "xnnpack"))


def put(store: AnyStore, content: bytes, sha256: str = "", length: int = 0) -> str:
    """Bring an object in, announced rightly or otherwise, and return its digest."""
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    with store.stage(sha256, length or len(content)) as staging:
        staging.write(memoryview(content))
        staging.commit()
    return sha256


def report(number: int, result: str = "refused") -> Report:
    """Return how an update ended."""
    return Report(number, "door", "kws", 2, SHA, "fleet/groups/all", 7, result)


@pytest.fixture(params=["real", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyStore]:
    """Give each of the two stores, empty."""
    if request.param == "fake":
        yield MemoryStore()
        return
    opened = Store.open(tmp_path / "state")
    yield opened
    opened.close()


def test_both_are_what_updates_need(store: AnyStore) -> None:
    """Both satisfy the Protocol, which mypy checks in this assignment."""
    needed: UpdateStore = store
    assert needed.load_job() is None


class TestEnvelopes:
    """What opens sealed objects."""

    def test_lie_beside_their_objects(self, store: AnyStore) -> None:
        """Saved, replaced, and read back; of another object nothing is kept."""
        assert store.load_envelope(SHA) is None
        for content in (b"envelope", b"envelope", b"renewed"):
            store.save_envelope(SHA, content)
            assert store.load_envelope(SHA) == content
        assert store.load_envelope(model(1).sha256) is None

    def test_live_as_long_as_their_objects(self, store: AnyStore) -> None:
        """What is committed, or told to be kept, has its envelope; nothing else."""
        active = model(1)
        for sha256 in (active.sha256, SHA):
            store.save_envelope(sha256, b"envelope")
        store.commit("door", active)
        store.collect([SHA])
        assert store.load_envelope(SHA) == b"envelope"
        store.collect()
        assert store.load_envelope(SHA) is None
        store.discard(active.sha256)  # it is wanted
        assert store.load_envelope(active.sha256) == b"envelope"

    def test_have_a_size_and_a_name(self, store: AnyStore) -> None:
        """Nothing, too much, and what is no digest is refused."""
        for content in (b"", bytes(MAX_ENVELOPE_BYTES + 1)):
            with pytest.raises(BundleRefusedError) as caught:
                store.save_envelope(SHA, content)
            assert caught.value.reason == Reason.LENGTH
        with pytest.raises(BundleRefusedError):
            store.save_envelope("../state.db", b"x")
        with pytest.raises(BundleRefusedError):
            store.load_envelope("../state.db")


class TestSlots:
    """What runs and what ran before."""

    def test_begin_empty(self, store: AnyStore) -> None:
        """A new board has no models, no floors and no pipelines."""
        assert store.slots("door") == Slots()
        assert store.pipelines() == []
        assert store.version_floor("kws") == 0

    def test_commit_moves_active_to_previous(self, store: AnyStore) -> None:
        """Each commit keeps exactly the model before it."""
        for version in (1, 2, 3):
            store.commit("door", model(version))
        assert store.slots("door") == Slots(model(3), model(2))
        assert store.pipelines() == ["door"]

    def test_commit_again_changes_nothing(self, store: AnyStore) -> None:
        """COMMIT is idempotent: repeated after a restart, previous stays."""
        store.commit("door", model(1))
        for _ in range(2):
            store.commit("door", model(2))
        assert store.slots("door") == Slots(model(2), model(1))

    def test_another_executor_keeps_previous(self, store: AnyStore) -> None:
        """The same bytes with another executor replace the entry, not the slot."""
        store.commit("door", model(1))
        store.commit("door", model(2))
        chosen = replace(model(2), executor=Executor("tflite", "plain"))
        store.commit("door", chosen)
        assert store.slots("door") == Slots(chosen, model(1))

    def test_pipelines_are_apart(self, store: AnyStore) -> None:
        """A commit for one pipeline is none for another."""
        store.commit("door", model(1))
        store.commit("window", model(4, "vww"))
        assert store.slots("door") == Slots(model(1))
        assert store.slots("window") == Slots(model(4, "vww"))
        assert store.pipelines() == ["door", "window"]

    def test_commit_ends_the_job(self, store: AnyStore) -> None:
        """The transaction that moves active clears the job."""
        store.save_job(JOB)
        store.commit("door", model(2))
        assert store.load_job() is None


class TestFloors:
    """Version floors never fall."""

    @given(versions=st.lists(st.integers(1, 50), min_size=1, max_size=12))
    @settings(
        max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_floors_never_fall(self, store: AnyStore, versions: list[int]) -> None:
        """After any commits and fallbacks the floor is the highest ever committed."""
        highest = store.version_floor("kws")
        for version in versions:
            store.commit("door", model(version))
            highest = max(highest, version)
            assert store.version_floor("kws") == highest
            store.fall_back("door", Reason.CRASH)
            assert store.version_floor("kws") == highest

    def test_models_are_apart(self, store: AnyStore) -> None:
        """A floor belongs to a model, on whichever pipeline it was committed."""
        store.commit("door", model(7))
        store.commit("window", model(9))
        store.commit("window", model(2, "vww"))
        floors = [store.version_floor(name) for name in ("kws", "vww", "other")]
        assert floors == [9, 2, 0]


class TestFallBack:
    """The way back to the previous model."""

    def test_previous_becomes_active(self, store: AnyStore) -> None:
        """The failed model is set aside, the one before it is active again."""
        store.commit("door", model(1))
        store.commit("door", model(2))
        assert store.fall_back("door") == model(1)
        assert store.slots("door") == Slots(model(1))
        assert store.is_set_aside(model(2).sha256) == Reason.CRASH_LOOP
        assert store.is_set_aside(model(1).sha256) == ""

    def test_the_last_one_stays(self, store: AnyStore) -> None:
        """Without a previous model the failed one stays, and may be tried again."""
        store.commit("door", model(1))
        assert store.fall_back("door") == model(1)
        assert store.slots("door") == Slots(model(1))
        assert store.is_set_aside(model(1).sha256) == ""

    def test_rotten_bytes_leave_nothing(self, store: AnyStore) -> None:
        """Bytes that changed on disk cannot run, also if there are no others."""
        rotten = replace(model(2), sha256=put(store, BODY))
        store.commit("door", rotten)
        assert store.fall_back("door", Reason.DIGEST) is None
        assert store.fall_back("door", Reason.DIGEST) is None
        assert store.slots("door") == Slots()

    def test_rotten_bytes_are_not_set_aside(self, store: AnyStore) -> None:
        """Bytes that changed on disk are removed, and may be fetched again."""
        rotten = replace(model(2), sha256=put(store, BODY))
        store.commit("door", rotten)
        store.fall_back("door", Reason.DIGEST)
        assert store.is_set_aside(SHA) == ""
        assert not store.has_object(SHA)

    def test_the_first_reason_stays(self, store: AnyStore) -> None:
        """Setting aside twice keeps why it was done first."""
        store.set_aside(SHA, Reason.CRASH)
        store.set_aside(SHA, Reason.HANG)
        assert store.is_set_aside(SHA) == Reason.CRASH

    @pytest.mark.parametrize("reason", list(Reason)[1:])
    def test_factory_is_what_is_left(self, store: AnyStore, reason: Reason) -> None:
        """Without a previous model the factory model takes over, and stays factory."""
        store.commit("door", model(1), factory=True)
        store.commit("door", model(2))
        store.commit("door", model(3))
        store.fall_back("door", Reason.CRASH_LOOP)
        store.commit("door", model(2))
        store.commit("door", model(4))
        store.set_aside(model(2).sha256, Reason.CRASH)
        assert store.fall_back("door", reason) == model(1)
        assert store.slots("door") == Slots(model(1), None, model(1))

    def test_previous_comes_before_factory(self, store: AnyStore) -> None:
        """Factory is the last resort, also where previous is as good."""
        for version in (1, 2, 3):
            store.commit("door", model(version), factory=version == 1)
        assert store.slots("door") == Slots(model(3), model(2), model(1))
        assert store.fall_back("door") == model(2)
        assert store.fall_back("door") == model(1)
        assert store.fall_back("door") == model(1)

    def test_factory_that_was_set_aside_does_not_help(self, store: AnyStore) -> None:
        """Bytes that were set aside do not come back through the factory."""
        store.commit("door", model(1), factory=True)
        store.commit("door", model(2))
        assert store.fall_back("door") == model(1)
        store.commit("door", model(3))
        store.set_aside(model(1).sha256, Reason.REVOKED)
        assert store.fall_back("door") == model(3)
        assert store.is_set_aside(model(3).sha256) == ""

    def test_34_revoked_and_nothing_else_leaves_nothing(self, store: AnyStore) -> None:
        """A revoked model does not run on, whatever there is instead of it."""
        store.commit("door", model(1))
        assert store.fall_back("door", Reason.REVOKED) is None
        assert store.slots("door") == Slots()
        assert store.version_floor("kws") == 1

    def test_34_only_the_owners_list_says_what_is_revoked(
        self, store: AnyStore
    ) -> None:
        """Nothing is set aside for it: what the owner takes back may run again."""
        store.commit("door", model(1))
        store.commit("door", model(2))
        assert store.fall_back("door", Reason.REVOKED, {model(2).sha256}) == model(1)
        assert store.all_set_aside() == []
        store.commit("door", model(2))
        assert store.slots("door") == Slots(model(2), model(1))

    @pytest.mark.parametrize("reason", list(Reason)[1:])
    def test_34_what_is_revoked_does_not_take_over(
        self, store: AnyStore, reason: Reason
    ) -> None:
        """Whatever the active model fell of, the factory's does, before previous."""
        for version in (1, 2, 3):
            store.commit("door", model(version), factory=version == 1)
        assert store.fall_back("door", reason, {model(2).sha256}) == model(1)
        assert store.slots("door") == Slots(model(1), None, model(1))

    def test_34_with_all_others_revoked_the_failed_one_stays(
        self, store: AnyStore
    ) -> None:
        """A model that crashes is better than none; one that is revoked is not."""
        both = {model(1).sha256, model(2).sha256}
        store.commit("door", model(1))
        store.commit("door", model(2))
        store.commit("door", model(3))
        assert store.fall_back("door", Reason.CRASH_LOOP, both) == model(3)
        assert store.fall_back("door", Reason.REVOKED, both) is None

    @pytest.mark.parametrize("reason", [Reason.DIGEST, Reason.REVOKED])
    def test_a_lost_factory_is_none(self, store: AnyStore, reason: Reason) -> None:
        """A factory model that rotted or was revoked is forgotten as such."""
        store.commit("door", model(1), factory=True)
        assert store.fall_back("door", reason) is None
        assert store.slots("door") == Slots()

    def test_a_crashing_factory_stays_factory(self, store: AnyStore) -> None:
        """What crashed may be forgiven; until then previous answers."""
        store.commit("door", model(1))
        store.commit("door", model(2), factory=True)
        assert store.fall_back("door") == model(1)
        assert store.slots("door") == Slots(model(1), None, model(2))
        assert store.fall_back("door") == model(1)


class TestQuarantine:
    """Bundles that are not tried again, until someone forgives them."""

    def test_all_are_told_newest_first(self, store: AnyStore) -> None:
        """What was set aside last is told first, with its reason."""
        for number, reason in enumerate((Reason.CRASH, Reason.HANG), start=1):
            store.set_aside(str(number) * 64, reason)
        store.set_aside("1" * 64, Reason.GOLDEN)
        told = [(aside.sha256[0], aside.reason) for aside in store.all_set_aside()]
        assert told == [("2", Reason.HANG), ("1", Reason.CRASH)]

    def test_forgiven_bytes_may_be_tried(self, store: AnyStore) -> None:
        """Forgiving lifts one entry, once."""
        store.set_aside(SHA, Reason.CRASH)
        assert [store.forgive(SHA), store.forgive(SHA)] == [True, False]
        assert (store.is_set_aside(SHA), store.all_set_aside()) == ("", [])
        store.set_aside(SHA, Reason.HANG)
        assert store.all_set_aside() == [SetAside(SHA, Reason.HANG)]


class TestAttempts:
    """Trials that came to no verdict, counted for each bundle."""

    def counted(self, store: AnyStore) -> list[int]:
        """Return the counts of two bundles."""
        return [store.attempts("a" * 64), store.attempts("b" * 64)]

    def begin(self, store: AnyStore, name: str, attempts: int) -> Job:
        """Save that a trial of a bundle begins."""
        job = replace(JOB, sha256=name * 64, phase=Phase.PREFLIGHT, attempts=attempts)
        store.save_job(job)
        return job

    def test_39_another_bundle_does_not_make_them_forgotten(
        self, store: AnyStore
    ) -> None:
        """There is one job, and a count for each bundle that was on trial."""
        self.begin(store, "a", 2)
        ended = self.begin(store, "b", 1)
        assert self.counted(store) == [2, 1]
        store.clear_job(replace(ended, attempts=0))
        assert self.counted(store) == [2, 0]

    def test_a_job_ends_with_what_counts_on(self, store: AnyStore) -> None:
        """Clearing a job keeps as many as it says, also where it is gone already."""
        ended = self.begin(store, "a", 2)
        store.clear_job(ended)
        assert (store.load_job(), self.counted(store)) == (None, [2, 0])
        store.clear_job(replace(ended, attempts=1))
        assert self.counted(store) == [1, 0]

    def test_a_commit_ends_the_count(self, store: AnyStore) -> None:
        """Of the bytes that were committed, and of no others."""
        self.begin(store, "b", 1)
        self.begin(store, "a", 2)
        store.commit("door", replace(model(2), sha256="a" * 64))
        assert self.counted(store) == [0, 1]

    def test_39_whoever_is_forgiven_begins_anew(self, store: AnyStore) -> None:
        """With the trials of old still counted, the first new one would be the last."""
        store.clear_job(self.begin(store, "a", 3))
        store.set_aside("a" * 64, Reason.CRASH)
        assert self.counted(store) == [3, 0]
        store.forgive("a" * 64)
        assert self.counted(store) == [0, 0]

    def test_the_bundles_counted_last_are_kept(self, store: AnyStore) -> None:
        """A repository full of crashing bundles does not fill the disk."""
        for number in range(257):
            job = replace(JOB, sha256=f"{number:064x}", attempts=1)
            store.clear_job(job)
        kept = [store.attempts(f"{number:064x}") for number in (0, 1, 256)]
        assert kept == [0, 1, 1]


class TestHolds:
    """An operator's rollback holds until something newer is committed."""

    HOLD = Hold("door", "fleet/groups/all", 7)

    def test_a_hold_comes_with_a_commit_and_ends_with_one(
        self, store: AnyStore
    ) -> None:
        """One transaction writes both; other pipelines are not concerned."""
        store.commit("door", model(1), hold=self.HOLD)
        assert store.holds() == [self.HOLD]
        store.commit("window", model(2))
        assert store.holds() == [self.HOLD]
        store.commit("door", model(2))
        assert store.holds() == []

    def test_the_last_hold_counts(self, store: AnyStore) -> None:
        """Each pipeline has at most one."""
        other = Hold("window", "push", 3)
        store.commit("window", model(1), hold=other)
        store.commit("door", model(1), hold=replace(self.HOLD, generation=1))
        store.commit("door", model(2), hold=self.HOLD)
        assert store.holds() == [self.HOLD, other]

    def test_a_fall_back_keeps_it(self, store: AnyStore) -> None:
        """What the operator overruled does not come back by a crash."""
        store.commit("door", model(1))
        store.commit("door", model(2), hold=self.HOLD)
        store.fall_back("door")
        assert store.holds() == [self.HOLD]


class TestReports:
    """How updates ended, the newest first."""

    def test_reports_come_back(self, store: AnyStore) -> None:
        """Those of commits and those without, in order, as many as are asked for."""
        store.commit("door", model(1), report(1, "committed"))
        store.add_report(report(2))
        store.add_report(report(3, "failed"))
        expected = [report(3, "failed"), report(2), report(1, "committed")]
        assert store.reports() == expected
        assert store.reports(2) == expected[:2]
        assert store.reports(0) == store.reports(-1) == []

    def test_the_same_report_twice_is_one(self, store: AnyStore) -> None:
        """A report that is written again after a restart replaces itself."""
        for result in ("interrupted", "failed", "failed"):
            store.add_report(report(5, result))
        assert store.reports() == [report(5, "failed")]

    def test_a_report_ends_nothing(self, store: AnyStore) -> None:
        """Only COMMIT clears the job; a report without one is only that."""
        store.save_job(JOB)
        store.add_report(report(1))
        assert store.load_job() == JOB

    def test_the_newest_256_stay(self, store: AnyStore) -> None:
        """The history is bounded, and its numbers go on rising."""
        for number in range(1, 259):
            store.add_report(report(number))
        kept = [told.id for told in store.reports(1000)]
        assert kept == list(range(258, 2, -1))
        assert store.next_update_id() == 259

    def test_numbers_are_above_all_others(self, store: AnyStore) -> None:
        """The next number is above every report and above the job under way."""
        assert store.next_update_id() == 1
        store.add_report(report(4))
        assert store.next_update_id() == 5
        store.save_job(replace(JOB, id=9))
        assert store.next_update_id() == 10
        store.commit("door", model(2), report(9, "committed"))
        assert store.next_update_id() == 10


class TestNotes:
    """What other folders keep here."""

    def test_notes_come_back(self, store: AnyStore) -> None:
        """The newest value of each key comes back, byte by byte."""
        assert store.load_note("floor") is None
        for value in (b"", b"\0\xff", b"two"):
            store.save_note("floor", value)
            assert store.load_note("floor") == value
        assert store.load_note("other") is None

    def test_a_board_keeps_its_name(self, store: AnyStore) -> None:
        """The board's id is 32 hexadecimal digits, and always the same."""
        name = store.board_id()
        assert (len(name), set(name) <= set("0123456789abcdef")) == (32, True)
        assert store.board_id() == name


class TestObjects:
    """Bytes that are whole, or not there."""

    def test_what_was_committed_comes_back(self, store: AnyStore) -> None:
        """Written in pieces, committed, opened: the same bytes."""
        with store.stage(SHA, len(BODY)) as staging:
            for start in range(0, len(BODY), 1000):
                staging.write(memoryview(BODY)[start : start + 1000])
            assert staging.view() == BODY
            assert not store.has_object(SHA)
            staging.commit()
        assert store.has_object(SHA)
        assert store.open_object(SHA) == BODY

    def test_what_was_not_committed_leaves_nothing(self, store: AnyStore) -> None:
        """Leaving without commit, by error or not, keeps nothing."""
        with suppress(KeyError), store.stage(SHA, len(BODY)) as staging:
            staging.write(memoryview(BODY))
            raise KeyError
        assert not store.has_object(SHA)
        with pytest.raises(BundleRefusedError) as caught:
            store.open_object(SHA)
        assert caught.value.reason == Reason.DIGEST

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (BODY + b"x", Reason.LENGTH),
            (BODY[:-1], Reason.LENGTH),
            (BODY[:-1] + b"x", Reason.DIGEST),
        ],
    )
    def test_other_bytes_are_refused(
        self, store: AnyStore, content: bytes, reason: Reason
    ) -> None:
        """Longer, shorter or changed: refused, and nothing stays."""
        with pytest.raises(BundleRefusedError) as caught:
            put(store, content, SHA, len(BODY))
        assert caught.value.reason == reason
        assert not store.has_object(SHA)

    @pytest.mark.parametrize("name", ["", "../../etc/passwd", SHA.upper(), SHA + "0"])
    def test_names_are_digests(self, store: AnyStore, name: str) -> None:
        """Nothing but a SHA-256 becomes a name on disk."""
        with pytest.raises(BundleRefusedError):
            store.stage(name, 10)
        with pytest.raises(BundleRefusedError):
            store.open_object(name)
        with pytest.raises(BundleRefusedError):
            store.discard(name)

    def test_nothing_is_no_object(self, store: AnyStore) -> None:
        """An object of no bytes is refused."""
        with pytest.raises(BundleRefusedError) as caught:
            store.stage(hashlib.sha256().hexdigest(), 0)
        assert caught.value.reason == Reason.LENGTH

    def test_abandoned_writes_fail(self, store: AnyStore) -> None:
        """After ``abandon`` a thread that still writes is told so."""
        with store.stage(SHA, len(BODY)) as staging:
            staging.write(memoryview(BODY)[:10])
            staging.abandon()
            with pytest.raises(DeviceError) as caught:
                staging.write(memoryview(BODY)[10:])
        assert caught.value.reason == Reason.STOPPING

    def test_only_rubbish_is_collected(self, store: AnyStore) -> None:
        """Active, previous, kept and about to be committed stay; the rest goes."""
        contents = [bytes([number]) * 100 for number in range(6)]
        names = [put(store, content) for content in contents]
        for version, name in enumerate(names[:3], start=1):
            store.commit("door", replace(model(version), sha256=name))
        store.save_job(replace(JOB, sha256=names[3], phase=Phase.COMMITTING))
        assert store.collect([names[4]]) == sorted([names[0], names[5]])
        assert store.collect([names[4]]) == []
        store.discard(names[1])
        store.discard(names[4])
        left = [store.has_object(name) for name in names]
        assert left == [False, True, True, True, False, False]

    def test_an_unfinished_trial_is_rubbish(self, store: AnyStore) -> None:
        """A job that has not come to COMMITTING keeps nothing on disk."""
        put(store, BODY)
        store.save_job(replace(JOB, phase=Phase.PROBATION))
        assert store.collect() == [SHA]

    def test_factory_is_no_rubbish(self, store: AnyStore) -> None:
        """A factory model stays, however many came after it."""
        names = [put(store, bytes([number]) * 100) for number in range(4)]
        for version, name in enumerate(names, start=1):
            entry = replace(model(version), sha256=name)
            store.commit("door", entry, factory=version == 1)
        assert store.collect() == [names[1]]
        store.discard(names[0])
        assert store.has_object(names[0])


class TestResuming:
    """What an interrupted download left is not fetched again."""

    def interrupt(self, store: AnyStore, count: int, tag: str = '"e1"') -> None:
        """Fetch so many bytes, then lose the network."""
        with store.stage(SHA, len(BODY)) as staging:
            staging.remember(tag)
            staging.write(memoryview(BODY)[len(staging.kept) : count])
            staging.close(keep=True)

    def test_a_new_one_has_nothing(self, store: AnyStore) -> None:
        """Nothing is kept of what never came."""
        with store.stage(SHA, len(BODY)) as staging:
            assert (bytes(staging.kept), staging.tag) == (b"", "")

    def test_it_goes_on_where_it_stopped(self, store: AnyStore) -> None:
        """Cut twice, then finished: the same bytes, each of them written once."""
        for count in (1000, 3000):
            self.interrupt(store, count)
        with store.stage(SHA, len(BODY)) as staging:
            assert (bytes(staging.kept), staging.tag) == (BODY[:3000], '"e1"')
            staging.write(memoryview(BODY)[3000:])
            assert staging.view() == BODY
            staging.commit()
        assert store.open_object(SHA) == BODY
        with store.stage(SHA, len(BODY)) as staging:
            assert bytes(staging.kept) == b""

    def test_without_keep_nothing_stays(self, store: AnyStore) -> None:
        """An ending that is no interruption leaves nothing."""
        self.interrupt(store, 1000)
        store.stage(SHA, len(BODY)).close()
        with store.stage(SHA, len(BODY)) as staging:
            assert bytes(staging.kept) == b""

    def test_restart_begins_again(self, store: AnyStore) -> None:
        """A server that serves other bytes now: the next byte is the first."""
        self.interrupt(store, 1000)
        with store.stage(SHA, len(BODY)) as staging:
            staging.restart()
            assert (bytes(staging.kept), staging.tag) == (b"", "")
            staging.write(memoryview(BODY))
            staging.commit()
        assert store.open_object(SHA) == BODY

    def test_what_was_refused_is_not_resumed(self, store: AnyStore) -> None:
        """Other bytes than the digest says: the next try begins with none."""
        with store.stage(SHA, len(BODY)) as staging:
            staging.write(memoryview(BODY)[:-1])
            staging.write(memoryview(b"x"))
            with pytest.raises(BundleRefusedError):
                staging.commit()
            staging.close(keep=True)
        with store.stage(SHA, len(BODY)) as staging:
            assert bytes(staging.kept) == b""
            staging.write(memoryview(BODY)[:10])
            with pytest.raises(BundleRefusedError):
                staging.write(memoryview(BODY))
            staging.close(keep=True)
        with store.stage(SHA, len(BODY)) as staging:
            assert bytes(staging.kept) == b""

    def test_another_length_is_another_bundle(self, store: AnyStore) -> None:
        """A part of another announced length is not gone on with."""
        self.interrupt(store, 1000)
        with store.stage(SHA, len(BODY) + 1) as staging:
            assert (bytes(staging.kept), staging.tag) == (b"", "")

    def test_abandoned_bytes_can_be_kept(self, store: AnyStore) -> None:
        """A stop in the middle is an interruption like any other."""
        with store.stage(SHA, len(BODY)) as staging:
            staging.write(memoryview(BODY)[:10])
            staging.abandon()
            staging.close(keep=True)
        with store.stage(SHA, len(BODY)) as staging:
            assert staging.kept == BODY[:10]

    def test_parts_are_no_objects(self, store: AnyStore) -> None:
        """What is kept to be resumed neither is an object nor rubbish."""
        self.interrupt(store, 1000)
        assert not store.has_object(SHA)
        assert store.collect() == []
        with store.stage(SHA, len(BODY)) as staging:
            assert staging.kept == BODY[:1000]


class TestRoom:
    """The quota: rubbish goes, models stay."""

    @pytest.fixture
    def small(self, store: AnyStore) -> AnyStore:
        """Give a store of 1000 bytes, with 100 each active, previous and factory."""
        store.quota_bytes = 1000
        for version in (1, 2, 3):
            name = put(store, bytes([version]) * 100)
            entry = replace(model(version), sha256=name)
            store.commit("door", entry, factory=version == 1)
        return store

    def has(self, store: AnyStore) -> list[bool]:
        """Return which of version 1 to 3 and of the rubbish are there."""
        contents = [bytes([version]) * 100 for version in (1, 2, 3)]
        contents.append(b"rubbish" * 50)
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
        return [store.has_object(digest) for digest in digests]

    def test_room_that_is_there_costs_nothing(self, small: AnyStore) -> None:
        """As long as it fits, not even rubbish is removed."""
        put(small, b"rubbish" * 50)
        small.make_room(350)
        assert self.has(small) == [True] * 4

    def test_rubbish_goes_first(self, small: AnyStore) -> None:
        """Models stay, what nothing refers to goes."""
        put(small, b"rubbish" * 50)
        small.make_room(700)
        assert self.has(small) == [True, True, True, False]

    def test_models_never_go(self, small: AnyStore) -> None:
        """Active, previous and factory stay; what does not fit beside them is told."""
        with pytest.raises(DeviceError) as caught:
            small.make_room(701)
        assert caught.value.reason == Reason.QUOTA
        assert self.has(small) == [True, True, True, False]

    def test_what_is_on_trial_is_no_rubbish(self, small: AnyStore) -> None:
        """The object of the job under way stays in every phase."""
        name = put(small, b"rubbish" * 50)
        small.save_job(replace(JOB, sha256=name, phase=Phase.SHADOWING))
        with pytest.raises(DeviceError):
            small.make_room(700)
        assert self.has(small) == [True] * 4

    def test_parts_go_after_rubbish(self, small: AnyStore) -> None:
        """What could be resumed goes when nothing else is left to remove."""
        put(small, b"rubbish" * 10)
        with small.stage(SHA, 600) as staging:
            staging.write(memoryview(BODY)[:10])
            staging.close(keep=True)
        small.make_room(20)
        staging = small.stage(SHA, 600)
        assert staging.kept == BODY[:10]
        staging.close(keep=True)
        small.make_room(600)
        with small.stage(SHA, 600) as staging:
            assert bytes(staging.kept) == b""

    def test_the_part_it_is_for_counts_once(self, small: AnyStore) -> None:
        """Going on with a download needs no more room than it has."""
        with small.stage(SHA, 600) as staging:
            staging.write(memoryview(BODY)[:10])
            staging.close(keep=True)
        small.make_room(600, SHA)
        with small.stage(SHA, 600) as staging:
            assert staging.kept == BODY[:10]
