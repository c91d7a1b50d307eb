"""Other settings for updates that run: pipelines that come and go, groups, limits."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.flow import FilesSource
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget
from agent.errors import RequestRefusedError
from agent.repositories import Repositories
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.update.needs import Supply
from agent.update.poller import UpdatePoller
from tests.fakes.lives import running, until
from tests.fakes.memory_notes import MemoryNotes
from tests.fakes.scripted_repository import ScriptedRepository
from tests.fakes.update_bench import BUNDLES, Bench


class TellingRepository(ScriptedRepository):
    """Calls somebody while a target is being found."""

    found: Callable[[], object] = staticmethod(lambda: None)

    def find(self, model: str, version: int) -> SignedTarget:
        """Find it, and tell."""
        target = super().find(model, version)
        self.found()
        return target


def telling() -> tuple[Bench, TellingRepository]:
    """Return a board that follows a repository which tells."""
    bench, repository = Bench(), TellingRepository(BUNDLES)
    bench.repository, bench.supply = repository, Supply(repository)
    bench.start()
    return bench, repository


def pipelines(settings: Settings, *names: str, model: str = "kws") -> Settings:
    """Return settings with these pipelines."""
    source = FilesSource(path="x")
    tables = tuple(PipelineSettings(name, model, source) for name in names)
    return replace(settings, pipeline=tables)


def update(settings: Settings, **keys: object) -> Settings:
    """Return settings with other keys in ``[update]``."""
    return replace(settings, update=replace(settings.update, **keys))


def test_a_pipeline_that_comes_gets_its_model() -> None:
    """At the next look, which is at once."""
    bench = Bench(names=("door",))
    bench.repository.assign(door=("kws", 1), gate=("kws", 2))

    async def live() -> None:
        async with running(bench):
            await until(lambda: bench.versions("door") == (1, 0))
            bench.poller.follow(pipelines(bench.settings, "door", "gate"))
            await until(lambda: bench.versions("gate") == (2, 0))

    asyncio.run(live())
    assert bench.desk._named("gate") == "gate"


def test_a_pipeline_that_goes_is_ordered_nothing() -> None:
    """Neither planned for, nor known at the desk."""
    bench = Bench()
    bench.poller.follow(pipelines(bench.settings, "window"))
    bench.repository.assign(door=("kws", 1), window=("kws", 1))
    bench.look()
    assert (bench.versions("door"), bench.versions("window")) == ((0, 0), (1, 0))
    assert bench.decision("door").reason == Reason.UNKNOWN_PIPELINE
    with pytest.raises(RequestRefusedError) as err:
        bench.desk._named("door")
    assert err.value.reason == Reason.UNKNOWN_PIPELINE
    assert bench.desk._only() == "window"


def test_a_pipeline_that_goes_while_its_target_is_found() -> None:
    """Nothing begins, and the looks go on; when it comes back it is tried again."""
    bench, repository = telling()
    repository.assign(door=("kws", 1))
    repository.found = lambda: bench.poller.models.pop("door", None)
    bench.look()
    assert (bench.versions("door"), bench.poller.intake.job) == ((0, 0), None)
    assert bench.store.all_set_aside() == []
    repository.found = lambda: None
    bench.poller.follow(bench.settings)
    bench.poller.intake.ledger.memory.hurry()  # as after every poke
    bench.look()
    assert bench.versions("door") == (1, 0)


def test_another_model_is_wanted_of_a_pipeline() -> None:
    """What the desired state names for the old one is refused."""
    bench = Bench()
    bench.poller.follow(pipelines(bench.settings, "door", model="vww"))
    bench.update(1)
    assert bench.versions("door") == (0, 0)
    assert bench.decision().reason == Reason.MISMATCH


def test_other_groups_are_read_although_nothing_changed() -> None:
    """The repository says that all is as it was; the board is in another group."""
    bench = Bench()
    bench.repository.assign("all", door=("kws", 1))
    bench.repository.assign("hall", door=("kws", 2))
    bench.look()
    bench.repository.changed = False
    bench.poller.follow(update(bench.settings, groups=("hall",)))
    bench.look()
    assert bench.versions("door") == (2, 1)


def test_what_was_read_for_other_groups_does_not_count() -> None:
    """The groups change while those of before are being read."""
    bench = Bench()
    bench.repository.assign("all", door=("kws", 1))
    bench.repository.assign("hall", door=("kws", 2))
    table = update(bench.settings, groups=("hall",)).update
    bench.repository.refreshed = lambda: bench.poller.sources.follow(table)
    bench.look()
    bench.repository.changed = False
    bench.look()
    assert bench.versions("door") == (2, 0)


def test_other_groups_are_read_from_the_factory_too() -> None:
    """Its slice says by group what a pipeline without any model begins with."""
    slice_ = ScriptedRepository(BUNDLES)
    slice_.assign("hall", door=("kws", 1))
    bench = Bench(repository=False, factories={"door": lambda: slice_})
    bench.look()
    assert bench.versions("door") == (0, 0)
    bench.poller.follow(update(bench.settings, groups=("hall",)))
    bench.look()
    assert bench.versions("door") == (1, 0)


def test_the_pause_between_two_looks() -> None:
    """Counts from the next pause on."""
    bench = Bench()
    assert bench.look() == 100.0
    bench.poller.follow(update(bench.settings, poll_s=7.0))
    assert bench.look() == 7.0


def test_the_largest_bundle() -> None:
    """Larger ones are refused before they are fetched, and taken once they may be."""
    bench = Bench()
    bench.poller.follow(update(bench.settings, max_bundle_mb=0.000001))
    bench.update(1)
    assert bench.results() == {("refused", "too_large"): 1}
    assert bench.fetches() == 0
    bench.poller.follow(bench.settings)
    bench.update(1)
    assert bench.versions("door") == (1, 0)


def test_slices_come_and_go_where_they_were_supplied(tmp_path: Path) -> None:
    """Whoever got the supply sees them; one that did not change stays the same."""
    table = UpdateSettings(root="/root.json")

    def settings(**slices: str) -> Settings:
        """Return settings with a factory slice for each pipeline."""
        source = FilesSource(path="x")
        tables = tuple(
            PipelineSettings(name, "kws", source, factory=path)
            for name, path in slices.items()
        )
        return Settings(pipeline=tables, update=table)

    first = settings(door="/a", window="/b")
    known = Repositories(first, MemoryNotes(), tmp_path, b"")
    supply = known.supply(tmp_path)
    door, window = supply.factories["door"], supply.factories["window"]
    known.follow(settings(door="/a", window="/c", gate="/d", yard=""))
    assert supply.factories["door"] is door
    assert supply.factories["window"] is not window
    assert set(supply.factories) == {"door", "window", "gate"}
    known.follow(settings())
    assert supply.factories == {}


def test_a_poller_begins_with_the_settings_models() -> None:
    """As the desk shows them."""
    bench = Bench(names=("door", "window"))
    assert isinstance(bench.poller, UpdatePoller)
    assert bench.poller.models == {"door": "kws", "window": "kws"}
