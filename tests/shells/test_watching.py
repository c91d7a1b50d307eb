"""What monitors are told, what they say, what is kept of it: with scripted reports."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.explanations import EXPLANATIONS
from agent.core.manifest import MonitorRules
from agent.core.messages import MAX_MESSAGE_BYTES, Anchored, Watched, render_message
from agent.core.profile import MAX_PROFILE_BYTES
from agent.core.reasons import Reason
from agent.core.watching import (
    Alarm,
    AnchorState,
    Detector,
    FeatureDrift,
    KeptAlarm,
    ModelWatch,
    Monitored,
    Scope,
    Score,
)
from agent.errors import DeviceError, RequestRefusedError
from agent.settings import MonitorSettings
from agent.store.anchors import Anchors
from agent.supervise.baselines import NoStore
from agent.supervise.kept_alarms import WRITES as ALARM_WRITES
from agent.supervise.placing import Placed
from agent.supervise.watch_lines import LINES
from agent.supervise.watching import (
    KEPT_GENERATIONS,
    KEPT_VERSIONS,
    OVER_REPORTS,
    REPORTS,
    WRITES,
    Monitoring,
    Watching,
    WatchStore,
)
from tests.fakes.digits import in_loop, until
from tests.fakes.placed import PROFILE, place_bytes, variant_of
from tests.fakes.two_variants import SMALL, on, place_large

NOW = 1_795_000_000.0
OLD, NEW = place_bytes(7), place_bytes(8)
FULL = DeviceError("full", reason=Reason.DISK_FULL)


class MemoryAnchors(NoStore):
    """A store in memory that may fail.

    Attributes:
        kept: Pipeline -> what was saved last; ``saves`` counts how often.
        broken: The disk takes nothing.
    """

    def __init__(self, **kept: bytes) -> None:
        self.kept: dict[str, Mapping[str, bytes]] = {"door": kept}
        self.saves = 0
        self.broken = False

    def load(self, pipeline: str) -> dict[str, bytes]:
        """Return what was saved."""
        return dict(self.kept.get(pipeline, {}))

    def save(self, pipeline: str, baselines: Mapping[str, bytes]) -> None:
        """Keep it."""
        if self.broken:
            raise FULL
        self.kept[pipeline] = dict(baselines)
        self.saves += 1


class AlarmsInMemory(MemoryAnchors):
    """The same for alarms.

    Attributes:
        writes: How often they were saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alarms: tuple[str, tuple[KeptAlarm, ...]] = ("", ())
        self.writes = 0

    def load_alarms(self, pipeline: str) -> tuple[str, tuple[KeptAlarm, ...]]:
        """Return what was saved."""
        del pipeline
        return self.alarms

    def save_alarms(
        self, pipeline: str, variant: str, alarms: tuple[KeptAlarm, ...]
    ) -> None:
        """Keep it."""
        del pipeline
        if self.broken:
            raise FULL
        self.alarms = (variant, alarms)
        self.writes += 1


class Bench:
    """The watching of ``door``, whose worker is a script.

    Attributes:
        now: The daemon's clock.
        load: Number of the last load.
    """

    def __init__(self, store: WatchStore | None = None, **table: object) -> None:
        self.now = NOW
        self.load = 0
        self.store = store or MemoryAnchors()
        settings = replace(MonitorSettings(), **table)
        monitoring = Monitoring(settings, self.store, lambda: self.now)
        self.watching = Watching("door", monitoring)

    async def start(self, placed: Placed = OLD) -> None:
        """Let a worker load what is committed."""
        self.watching.commit(placed)
        await self.try_out(placed)

    async def try_out(self, placed: Placed) -> None:
        """Let a worker load a candidate."""
        self.load += 1
        self.order = await self.watching.order(self.load, placed)

    def say(self, said: Monitored, load: int = 0) -> None:
        """Let the worker report."""
        self.watching.take(Watched(load or self.load, said))

    def anchor(self, site: bytes = b"site", number: int | None = None) -> None:
        """Let the worker say that its baseline is complete: as ordered, or another."""
        number = self.order.number if number is None else number
        self.watching.take(Anchored(self.load, site, number))

    def shown(self, placed: Placed = OLD) -> ModelWatch:
        """Return what is shown of the model that answers."""
        (found,) = [
            it
            for it in self.watching.snapshot(placed.installed)
            if it.version == placed.installed.version
        ]
        return found

    def latched(self) -> tuple[tuple[str, str], ...]:
        """Return the alarms that the worker was handed."""
        return self.order.latched

    def kept(self) -> Mapping[str, bytes]:
        """Return what a later daemon would find."""
        return self.store.load("door")


def raised(
    scope: Scope = "input", detector: Detector = "mewma", **more: object
) -> Monitored:
    """Return a report with an alarm, after which the statistic has fallen again."""
    alarm = Alarm("shipped", scope, active=True, raised=1, detector=detector)
    alarm = replace(alarm, score=1.2345, evidence=1.5)
    return Monitored(
        samples=500,
        alarms=(replace(alarm, **more),),
        scores=(
            Score("shipped", scope, "etable", 0.5),
            Score("shipped", scope, detector, 0.9),
        ),
        features=(
            FeatureDrift("shipped", "sharpness", 0.5),
            FeatureDrift("shipped", "brightness", -2.125),
            FeatureDrift("shipped", "entropy", 0.25),
            FeatureDrift("shipped", "axis0", -5.5),
            FeatureDrift("site", "mean", 9.0),
        ),
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines so far, and forget them."""
    found = [f"{it.levelname.lower()} {it.getMessage()}" for it in caplog.records]
    caplog.clear()
    return found


class TestOrders:
    """What a worker is told before it loads a model."""

    @in_loop
    async def test_a_first_load(self) -> None:
        """The profile, the settings, no baseline and no alarms."""
        bench = Bench(cpu_share=0.05, site_samples=300, privacy=True)
        await bench.start()
        order = bench.order
        assert (order.generation, order.profile, order.site) == (1, PROFILE, b"")
        assert (order.cpu_share, order.site_samples) == (0.05, 300)
        assert (order.privacy, bench.latched()) == (True, ())

    @in_loop
    async def test_the_baseline_of_an_earlier_life(self) -> None:
        """Of this variant, and of no other."""
        store = MemoryAnchors(**{variant_of(OLD): b"mine", "f" * 64: b"not mine"})
        bench = Bench(store)
        await bench.start()
        assert bench.order.site == b"mine"
        await bench.try_out(NEW)
        assert bench.order.site == b""

    @in_loop
    async def test_a_variant_that_stands_in_is_not_watched(self) -> None:
        """Nothing is heard of it, and what was known of the other one goes on."""
        large = place_large(1)
        small = replace(large.installed, variant=SMALL)
        bench = Bench(AlarmsInMemory())
        await bench.start(large)
        bench.say(raised())
        before = bench.shown(large)
        await bench.try_out(Placed(large.bundle, small, stands_in=True))
        assert (bench.order.cpu_share, bench.latched()) == (0.0, ())
        reasons = {it.reason for it in bench.shown(large).monitored.anchors}
        assert reasons == {Reason.UNWATCHED}
        bench.say(raised("output"))
        bench.anchor(b"of another variant", number=0)
        await bench.try_out(large)
        assert bench.shown(large) == before
        assert (bench.latched(), bench.order.site) == ((("shipped", "input"),), b"")
        calm = replace(large.installed, executor=on(1))
        await bench.try_out(Placed(large.bundle, calm, stands_in=True))
        assert (bench.order.cpu_share, bench.latched()) != (0.0, ())

    @in_loop
    async def test_alarms_go_to_the_next_worker(self) -> None:
        """Of the same version: what was found is not forgotten by a crash."""
        bench = Bench()
        await bench.start()
        bench.say(raised())
        await bench.start()
        assert bench.latched() == (("shipped", "input"),)
        assert not bench.order.confirmed
        bench.say(raised(confirmed=True))
        await bench.start()
        assert bench.order.confirmed == (("shipped", "input"),)
        bench.say(raised(active=False))
        await bench.start()
        assert bench.latched() == ()

    @in_loop
    async def test_a_candidate_begins_innocent(self) -> None:
        """Neither the alarms of the model before it, nor those of its last trial."""
        bench = Bench()
        await bench.start(OLD)
        bench.say(raised())
        await bench.try_out(NEW)
        assert bench.latched() == ()
        bench.say(raised("output"))
        await bench.try_out(OLD)
        assert bench.latched() == (("shipped", "input"),)
        await bench.try_out(NEW)
        assert bench.latched() == ()

    @in_loop
    async def test_an_alarm_about_a_baseline_that_is_gone(self) -> None:
        """It is not handed on: nothing could ever clear it."""
        bench = Bench()
        await bench.start()
        site = Alarm("site", "input", active=True, raised=1)
        bench.say(Monitored(samples=9, alarms=(site,)))
        await bench.start()
        assert bench.latched() == ()
        bench.anchor()
        await bench.start()
        assert bench.latched() == (("site", "input"),)

    @pytest.mark.parametrize("how", ["settings", "manifest"])
    def test_who_is_not_watched(self, how: str) -> None:
        """No time by the settings, or nothing kept by the manifest: it is said so."""

        @in_loop
        async def case() -> None:
            bench = Bench(cpu_share=0.0) if how == "settings" else Bench()
            rules = MonitorRules("nothing") if how == "manifest" else None
            placed = place_bytes(7, rules=rules)
            await bench.start(placed)
            order = bench.order
            assert (order.cpu_share, order.profile, order.site) == (0.0, b"", b"")
            states = bench.shown(placed).monitored.anchors
            assert [(it.valid, it.reason) for it in states] == [
                (False, "unwatched"),
                (False, "unwatched"),
            ]
            with pytest.raises(RequestRefusedError) as caught:
                await bench.watching.begin_anew(placed)
            assert caught.value.reason == "watching_off"
            # Whoever turned it off is not sent to make a profile.
            assert "profile" not in EXPLANATIONS[Reason.WATCHING_OFF].todo

        case()

    def test_a_profile_that_fits_no_record(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is not sent, the anchor is invalid, it is said once; the model runs."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            huge = place_bytes(7, profile=b"x" * (MAX_PROFILE_BYTES + 1))
            await bench.start(huge)
            await bench.start(huge)
            assert bench.order.profile == b""
            site = AnchorState("site", valid=True)
            bench.say(Monitored(samples=1, anchors=(site,)))
            shipped, other = bench.shown(huge).monitored.anchors
            assert (shipped.anchor, shipped.valid) == ("shipped", False)
            assert (shipped.reason, other) == ("profile", site)

        case()
        assert lines(caplog) == ["warning monitor.invalid"]

    @in_loop
    async def test_the_largest_order_fits_one_record(self) -> None:
        """The largest profile, and the largest baseline."""
        large = b"x" * MAX_PROFILE_BYTES
        bench = Bench(MemoryAnchors(**{variant_of(OLD): large}))
        await bench.start(place_bytes(7, profile=large))
        assert len(bench.order.profile) == len(bench.order.site) == MAX_PROFILE_BYTES
        assert len(render_message(bench.order)) < MAX_MESSAGE_BYTES


class TestTotals:
    """What is shown."""

    @in_loop
    async def test_counters_go_on_over_workers(self) -> None:
        """A death takes nothing away, before and after the next one reports."""
        bench = Bench()
        await bench.start()
        bench.say(Monitored(samples=100, interval=5))
        await bench.start()
        assert bench.shown().monitored.samples == 100
        bench.say(Monitored(samples=10, interval=7))
        assert bench.shown().monitored.samples == 110
        assert bench.shown().monitored.interval == 7

    @in_loop
    async def test_versions_have_their_own(self) -> None:
        """A candidate's reports are its own; rolled back, the old one counts on."""
        bench = Bench()
        await bench.start(OLD)
        bench.say(Monitored(samples=100))
        await bench.try_out(NEW)
        bench.say(Monitored(samples=30))
        await bench.try_out(OLD)
        bench.say(Monitored(samples=5))
        found = bench.watching.snapshot(OLD.installed)
        rows = [(it.model, it.version, it.monitored.samples) for it in found]
        assert rows == [("kws", 7, 105), ("kws", 8, 30)]

    @in_loop
    async def test_who_answers_no_more_is_quiet(self) -> None:
        """Its alarm is active no more while another answers, and is again after it."""
        bench = Bench()
        await bench.start(OLD)
        bench.say(raised())
        await bench.try_out(NEW)
        old, new = bench.watching.snapshot(NEW.installed)
        assert [it.active for it in old.monitored.alarms] == [False]
        assert old.monitored.scores == ()
        assert new.monitored == Monitored()
        assert [it.active for it in bench.shown(OLD).monitored.alarms] == [True]

    @in_loop
    async def test_who_was_refused_is_not_shown(self) -> None:
        """A candidate that never reported leaves no trace."""
        bench = Bench()
        await bench.start(OLD)
        await bench.try_out(NEW)
        assert [it.version for it in bench.watching.snapshot(OLD.installed)] == [7]
        assert bench.watching.snapshot(None) == ()

    @in_loop
    async def test_moments_are_the_daemons(self) -> None:
        """Alarms and windows are stamped when they were heard of first."""
        bench = Bench()
        await bench.start()
        bench.say(Monitored(samples=1, windows=1))
        bench.now += 60
        bench.say(replace(raised(), windows=1))
        bench.now += 60
        bench.say(replace(raised(), windows=1))
        shown = bench.shown()
        assert shown.last_alarm == {("shipped", "input"): NOW + 60}
        assert shown.window_at == NOW


class TestLies:
    """Workers that report what cannot be."""

    @in_loop
    async def test_numbers_that_fall(self) -> None:
        """They stay where they were."""
        bench = Bench()
        await bench.start()
        for samples in (100, 5, 60):
            bench.say(Monitored(samples=samples))
        assert bench.shown().monitored.samples == 100

    @in_loop
    async def test_words_of_other_loads(self) -> None:
        """What was never loaded, or is over, counts for nobody."""
        bench = Bench()
        await bench.start()
        bench.say(Monitored(samples=1))
        bench.say(Monitored(samples=50), load=99)
        await bench.start()
        bench.say(Monitored(samples=2))
        bench.say(Monitored(samples=70), load=1)
        assert bench.shown().monitored.samples == 3
        for _ in range(KEPT_GENERATIONS):
            await bench.start()
        bench.say(Monitored(samples=90), load=2)
        assert bench.shown().monitored.samples == 3

    @in_loop
    async def test_candidates_that_never_answered(self) -> None:
        """Many refused loads later the model that answers is still listened to."""
        bench = Bench()
        await bench.start(OLD)
        bench.say(Monitored(samples=5))
        for version in range(8, 9 + 2 * KEPT_GENERATIONS):
            await bench.try_out(place_bytes(version))
        bench.say(Monitored(samples=70), load=1)
        assert bench.shown(OLD).monitored.samples == 70

    @in_loop
    async def test_versions_of_years(self) -> None:
        """What old versions said is forgotten, but never of what is committed."""
        bench = Bench()
        await bench.start(OLD)
        bench.say(Monitored(samples=5))
        for version in range(8, 60):
            await bench.try_out(place_bytes(version))
        kept = {version for _, version in bench.watching._watches}
        assert OLD.installed.version in kept
        assert len(kept) <= KEPT_VERSIONS + KEPT_GENERATIONS + 1
        assert bench.shown(OLD).monitored.samples == 5
        assert 59 in kept

    @in_loop
    async def test_a_flood(self) -> None:
        """So many reports are read in their span, and no more."""
        bench = Bench()
        await bench.start()
        for samples in range(1, 10 * REPORTS):
            bench.say(Monitored(samples=samples))
        assert bench.shown().monitored.samples == REPORTS

    def test_a_flood_of_alarms(self, caplog: pytest.LogCaptureFixture) -> None:
        """The log gets its share of it, and is told with the next line what is left."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            await bench.start()
            for number in range(1, REPORTS):
                bench.say(raised(raised=number))
            assert bench.shown().monitored.alarms[0].raised == REPORTS - 1

        case()
        assert len(caplog.records) == LINES

    @in_loop
    async def test_a_flood_of_baselines(self) -> None:
        """The disk is written a few times an hour at most."""
        store = MemoryAnchors()
        bench = Bench(store)
        await bench.start()
        bench.anchor(b"")
        for number in range(10):
            bench.anchor(b"%d" % number)
        task = asyncio.create_task(bench.watching.run())  # noqa: TID251 - of a test
        await until(lambda: store.saves > 0, "a save")
        task.cancel()
        assert bench.kept() == {variant_of(OLD): b"%d" % (WRITES - 1)}


class TestLines:
    """One line for each transition."""

    def test_an_alarm_comes_and_goes(self, caplog: pytest.LogCaptureFixture) -> None:
        """Raised, raised still, confirmed, cleared: three lines, one has all facts."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            await bench.start()
            for said in (raised(), raised(), raised(confirmed=True)):
                bench.say(said)
            bench.say(raised(active=False))

        with caplog.at_level(logging.INFO):
            case()
        alarm, confirmed, _ = map(vars, caplog.records)
        assert lines(caplog) == [
            "warning drift.alarm",
            "warning drift.confirmed",
            "info drift.cleared",
        ]
        facts = {
            "pipeline": "door",
            "model": "kws",
            "version": 7,
            "anchor": "shipped",
            "scope": "input",
            "detector": "mewma",
            "score": 1.234,
            "feature": "brightness",
            "shift": -2.12,
        }
        assert {key: alarm.get(key) for key in facts} == facts
        facts |= {"detector": "etable", "score": 1.5}
        assert {key: confirmed.get(key) for key in facts} == facts

    @pytest.mark.parametrize(
        ("scope", "detector", "level", "moved"),
        [
            ("input", "mewma", "warning", "brightness"),
            ("output", "mewma", "error", "entropy"),
            ("stuck", "repeat", "error", ""),
            ("prediction", "chi2", "warning", ""),
            ("all", "mewma", "warning", "axis0"),
        ],
    )
    def test_grave_ones_are_errors(
        self,
        caplog: pytest.LogCaptureFixture,
        scope: Scope,
        detector: Detector,
        level: str,
        moved: str,
    ) -> None:
        """What costs answers now is an error. The feature that moved most is one of
        those that were compared; a class or a checksum has none."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            await bench.start()
            bench.say(raised(scope, detector))

        case()
        assert getattr(caplog.records[0], "feature", "") == moved
        assert lines(caplog) == [f"{level} drift.alarm"]

    def test_a_restart_is_no_news(self, caplog: pytest.LogCaptureFixture) -> None:
        """An alarm that outlives its worker is told once."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            await bench.start()
            bench.say(raised())
            await bench.start()
            bench.say(raised(raised=0))

        case()
        assert lines(caplog) == ["warning drift.alarm"]

    def test_a_profile_that_cannot_be_used(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The worker found out: once, however often it says so."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            await bench.start()
            bad = AnchorState("shipped", False, Reason.PROFILE, "of another model")
            new = AnchorState("site", valid=False, reason=Reason.COMMISSIONING)
            for samples in range(1, 4):
                bench.say(Monitored(samples=samples, anchors=(bad, new)))
            await bench.start()
            bench.say(Monitored(samples=1, anchors=(bad,)))

        case()
        assert lines(caplog) == ["warning monitor.invalid"]

    def test_over_its_budget(self, caplog: pytest.LogCaptureFixture) -> None:
        """Told once it lasts, and again only after it was inside."""

        @in_loop
        async def case() -> None:
            bench = Bench(cpu_share=0.02)
            await bench.start()

            def report(share: float, times: int) -> None:
                for _ in range(times):
                    bench.say(Monitored(samples=1, share=share))

            report(0.031, OVER_REPORTS - 1)
            report(0.029, 1)
            report(0.031, OVER_REPORTS - 1)
            assert caplog.records == []
            report(0.031, 5)
            report(0.029, 1)
            report(0.031, OVER_REPORTS)

        case()
        assert lines(caplog) == ["warning monitor.over_budget"] * 2


class TestBaselines:
    """What is kept on disk."""

    async def kept(self, bench: Bench, *sites: bytes) -> None:
        """Let the worker's baselines be written."""
        task = asyncio.create_task(bench.watching.run())  # noqa: TID251 - of a test
        for site in sites:
            bench.anchor(site)
            await until(lambda s=site: s in bench.kept().values(), "kept")  # type: ignore[misc] # the one of this round
        task.cancel()

    def test_a_baseline_outlives_the_daemon(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Real files: the next daemon's first worker gets it."""

        @in_loop
        async def case() -> None:
            bench = Bench(Anchors(tmp_path))
            await bench.start()
            await self.kept(bench, b"first", b"second")
            again = Bench(Anchors(tmp_path))
            await again.start()
            assert again.order.site == b"second"

        with caplog.at_level(logging.INFO):
            case()
        assert lines(caplog) == ["info monitor.anchored"] * 2

    def test_a_full_disk(self, caplog: pytest.LogCaptureFixture) -> None:
        """A warning; the next worker has it from memory, and the disk gets it later."""

        @in_loop
        async def case() -> None:
            store = MemoryAnchors()
            store.broken = True
            bench = Bench(store)
            await bench.start()
            task = asyncio.create_task(bench.watching.run())  # noqa: TID251 - of a test
            bench.anchor(b"one")
            await until(lambda: "monitor.not_kept" in caplog.messages, "a warning")
            await bench.start()
            assert bench.order.site == b"one"
            store.broken = False
            bench.anchor(b"two")
            await until(lambda: store.saves > 0, "a save")
            task.cancel()
            assert bench.kept() == {variant_of(OLD): b"two"}

        case()

    @in_loop
    async def test_of_versions_the_last_two_are_kept(self) -> None:
        """Active and previous; the same bytes again, or nothing, drop none."""
        third = place_bytes(9)
        bench = Bench()
        for placed in (OLD, NEW):
            await bench.start(placed)
            await self.kept(bench, f"{placed.installed.version}".encode())
        assert set(bench.kept()) == {variant_of(OLD), variant_of(NEW)}
        for again in (NEW, None, NEW):
            bench.watching.commit(again)
        assert set(bench.kept()) == {variant_of(OLD), variant_of(NEW)}
        await bench.start(NEW)
        await bench.start(third)
        await self.kept(bench, b"9")
        assert set(bench.kept()) == {variant_of(NEW), variant_of(third)}

    def test_commissioning(self, caplog: pytest.LogCaptureFixture) -> None:
        """Gone from disk and memory before it is answered, of all versions."""

        @in_loop
        async def case() -> None:
            bench = Bench()
            await bench.start(OLD)
            await self.kept(bench, b"old")
            await bench.start(NEW)
            await self.kept(bench, b"new")
            await bench.watching.begin_anew(NEW)
            assert bench.kept() == {}
            await bench.start(NEW)
            assert bench.order.site == b""
            await self.kept(bench, b"again")
            assert bench.kept() == {variant_of(NEW): b"again"}

        with caplog.at_level(logging.INFO):
            case()
        assert lines(caplog) == [
            "info monitor.anchored",
            "info monitor.anchored",
            "info monitor.commissioning",
            "info monitor.anchored",
        ]

    @in_loop
    async def test_what_was_under_way_while_it_was_removed(self) -> None:
        """It is of a collection that an operator ended: no later worker gets it."""
        bench = Bench()
        await bench.start(OLD)
        number = await bench.watching.begin_anew(OLD)
        bench.anchor(b"was in the socket")
        await bench.start(OLD)
        assert (bench.order.site, bench.order.number) == (b"", number)
        bench.anchor(b"asked for")
        await bench.start(OLD)
        assert bench.order.site == b"asked for"

    @given(st.lists(st.booleans(), max_size=8), st.data())
    def test_only_the_last_collection_counts(
        self, orders: list[bool], data: st.DataObject
    ) -> None:
        """Law: a baseline is kept if no order that was performed came after it."""
        store = MemoryAnchors()
        bench = Bench(store)
        numbers = [0]

        @in_loop
        async def case() -> None:
            await bench.start(OLD)
            for works in orders:
                store.broken = not works
                with suppress(DeviceError):
                    numbers.append(await bench.watching.begin_anew(OLD))
            number = data.draw(st.sampled_from(numbers))
            bench.anchor(b"this", number)
            await bench.start(OLD)
            assert (bench.order.site == b"this") == (number == numbers[-1])

        case()

    @in_loop
    async def test_the_newest_stands_last(self) -> None:
        """A baseline that was replaced is a new one: of too many the oldest go."""
        bench = Bench(MemoryAnchors(**{variant_of(OLD): b"1", variant_of(NEW): b"2"}))
        await bench.start(OLD)
        await self.kept(bench, b"3")
        assert list(bench.kept().values()) == [b"2", b"3"]

    @in_loop
    async def test_commissioning_that_cannot_be(self) -> None:
        """Without a model, or with a disk that lets nothing be removed: all stays."""
        store = MemoryAnchors(**{variant_of(OLD): b"mine"})
        bench = Bench(store)
        with pytest.raises(RequestRefusedError) as caught:
            await bench.watching.begin_anew(None)
        assert caught.value.reason == "no_model"
        await bench.start()
        store.broken = True
        with pytest.raises(DeviceError):
            await bench.watching.begin_anew(OLD)
        await bench.start()
        assert bench.order.site == b"mine"

    @in_loop
    async def test_commissioning_lets_the_disk_be_written_again(self) -> None:
        """Baselines that an operator asked for are none of a flood."""
        bench = Bench()
        await bench.start()
        for _ in range(WRITES + 1):
            bench.anchor(b"many")
        await bench.watching.begin_anew(OLD)
        await bench.start()
        await self.kept(bench, b"asked for")
        assert bench.kept() == {variant_of(OLD): b"asked for"}


class TestAlarms:
    """What is kept of alarms that are active."""

    async def kept(self, bench: Bench, *expected: tuple[str, str]) -> None:
        """Let alarms be written, until these are there."""
        task = asyncio.create_task(bench.watching.run())  # noqa: TID251 - of a test
        await until(lambda: self.on_disk(bench) == set(expected), "the alarms")
        task.cancel()

    def on_disk(self, bench: Bench) -> set[tuple[str, str]]:
        """Return (anchor, scope) of what a later daemon would find."""
        _, alarms = bench.store.load_alarms("door")
        return {(it.anchor, it.scope) for it in alarms}

    def test_they_outlive_the_daemon(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first worker gets them; they are shown at once, and are no news; gone
        with the line that says so."""

        @in_loop
        async def case() -> None:
            bench = Bench(Anchors(tmp_path))
            await bench.start()
            bench.say(raised(confirmed=True))
            await self.kept(bench, ("shipped", "input"))
            again = Bench(Anchors(tmp_path))
            again.now += 3600
            await again.start()
            assert again.latched() == (("shipped", "input"),)
            assert again.shown().last_alarm == {("shipped", "input"): NOW}
            (alarm,) = again.shown().monitored.alarms
            assert (alarm.active, alarm.confirmed) == (True, True)
            again.say(raised(raised=0, confirmed=True))
            again.say(raised(raised=0, active=False))
            await self.kept(again)
            assert list((tmp_path / "anchors").iterdir()) == []

        with caplog.at_level(logging.INFO):
            case()
        assert lines(caplog) == [
            "warning drift.alarm",
            "warning drift.confirmed",
            "info drift.cleared",
        ]

    @in_loop
    async def test_another_variant_is_innocent(self) -> None:
        """Of what was kept for one model nothing is held against the next."""
        store = AlarmsInMemory()
        bench = Bench(store)
        await bench.start(OLD)
        bench.say(raised())
        await self.kept(bench, ("shipped", "input"))
        again = Bench(store)
        await again.start(NEW)
        assert again.latched() == ()
        assert again.shown(NEW).monitored.alarms == ()

    @in_loop
    async def test_a_candidates_are_not_kept_before_it_is_committed(self) -> None:
        """Nor are those of the model before it afterwards."""
        bench = Bench(AlarmsInMemory())
        await bench.start(OLD)
        await bench.try_out(NEW)
        bench.say(raised("output"))
        bench.say(raised("output", raised=2))
        assert self.on_disk(bench) == set()
        bench.watching.commit(NEW)
        await self.kept(bench, ("shipped", "output"))
        assert bench.store.load_alarms("door")[0] == variant_of(NEW)

    @in_loop
    async def test_a_first_model_that_came_as_a_candidate(self) -> None:
        """A board that began with nothing keeps alarms of what it was sent."""
        bench = Bench(AlarmsInMemory())
        bench.watching.commit(None)
        await bench.try_out(OLD)
        bench.watching.commit(OLD)
        bench.say(raised())
        await self.kept(bench, ("shipped", "input"))

    @in_loop
    async def test_reports_write_nothing_and_changes_only_so_often(self) -> None:
        """A worker whose alarms come and go with each report wears out no flash."""
        store = AlarmsInMemory()
        bench = Bench(store)
        await bench.start()
        task = asyncio.create_task(bench.watching.run())  # noqa: TID251 - of a test
        for number in range(REPORTS - 1):
            written = store.writes
            bench.say(raised(raised=number // 2, active=number % 2 == 0))
            bench.say(raised(raised=number // 2, active=number % 2 == 0))
            if written < ALARM_WRITES and number < REPORTS // 2 - 1:
                await until(lambda w=written: store.writes > w, "a write")  # type: ignore[misc] # of this round
        task.cancel()
        assert store.writes == ALARM_WRITES

    def test_a_disk_that_is_full(self, caplog: pytest.LogCaptureFixture) -> None:
        """A warning, and the next change is written when there is room."""

        @in_loop
        async def case() -> None:
            store = AlarmsInMemory()
            store.broken = True
            bench = Bench(store)
            await bench.start()
            task = asyncio.create_task(bench.watching.run())  # noqa: TID251 - of a test
            bench.say(raised())
            await until(lambda: "monitor.not_kept" in caplog.messages, "a warning")
            store.broken = False
            bench.say(raised("output"))
            await until(lambda: store.writes > 0, "a write")
            task.cancel()
            assert self.on_disk(bench) == {("shipped", "output")}

        case()
