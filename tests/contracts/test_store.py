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
from agent.core.update_machine import Job, Phase
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
