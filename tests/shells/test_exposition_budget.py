"""The series budget and the time budget: what is left out is fixed, and said."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.core.readings import BoardReadings
from agent.core.snapshot import AgentSnapshot, PipelineSnapshot
from agent.settings import MonitorSettings
from agent.telemetry.exposition import KEPT_FOR, KEPT_S, Exposition
from agent.telemetry.families import Part
from agent.telemetry.ranks import KEPT_MODELS, Rank, least_series, rank_models
from tests.fakes.monitored import crowded, watched
from tests.fakes.snapshots import BOARD, agent
from tests.shells.test_exposition import OPENMETRICS, Series, series_of, value

ALERTS_NEED = {
    "tinyward_samples_total",
    "tinyward_deadline_missed_total",
    "tinyward_drift_active",
    "tinyward_drift_alarms_total",
    "tinyward_drift_reference_valid",
    "tinyward_drift_score_ratio",
    "tinyward_model_swaps_total",
    "tinyward_monitor_cpu_share_ratio",
    "tinyward_pipeline_ready",
    "tinyward_source_lag_seconds",
    "tinyward_updates_total",
}


rooms = st.integers(100, 1_500)


def scraped(snapshot: AgentSnapshot, max_series: int) -> Series:
    """Return what a scrape with this budget shows."""
    exposition = Exposition(MonitorSettings(max_series=max_series))
    _, body = exposition.render(snapshot, BOARD, "")
    return series_of(parse_text(body.decode()))


def kinds(series: Series) -> set[str]:
    """Return which of the parts that can be left out are there."""
    found = set()
    for name, labels in series:
        named = dict(labels)
        if name == "tinyward_predictions_total":
            found.add("labels")
        elif name.startswith(("tinyward_drift_feature", "tinyward_output_confidence")):
            found.add("features")
        elif named.get("stage", "total") != "total":
            found.add("stages")
        elif name == "tinyward_samples_total" and named["outcome"] == "ok":
            found.add(f"version {named['version']}")
    return found


def test_what_there_is_is_counted() -> None:
    """The gauge says how many lines there are, itself among them."""
    series = scraped(agent(watched(), watched("gate")), 1_000)
    assert value(series, "tinyward_series") == len(series)
    assert value(series, "tinyward_series_left_out") == 0


def quiet(pipeline: PipelineSnapshot) -> PipelineSnapshot:
    """Return a pipeline in which nothing alarms."""
    watch = tuple(
        replace_struct(it, monitored=replace_struct(it.monitored, alarms=()))
        for it in pipeline.watch
    )
    return replace(pipeline, watch=watch)


def featured(body: bytes) -> set[str]:
    """Return the pipelines whose features are shown."""
    series = series_of(parse_text(body.decode()))
    return {
        dict(labels)["pipeline"]
        for name, labels in series
        if name == "tinyward_drift_feature_psi"
    }


def test_what_is_left_out_goes_in_a_fixed_order() -> None:
    """Labels, features, stages, then older versions; what is small may stay longer."""
    snapshot = agent(quiet(crowded("door", 4, 64)))
    everything = len(scraped(snapshot, 100_000))
    seen: list[set[str]] = []
    for room in range(everything, 99, -7):
        found = kinds(scraped(snapshot, room))
        if not seen or seen[-1] != found:
            seen.append(found)
    versions = {"version 1", "version 2", "version 3", "version 4"}
    assert seen[:3] == [
        {"labels", "features", "stages"} | versions,
        {"features", "stages"} | versions,
        {"stages"} | versions,
    ]
    # Stages are the largest part: without them features fit once more, then do not.
    assert seen[-3:] == [
        versions - {"version 1"},
        versions - {"version 1", "version 2"},
        {"version 4"},
    ]


@given(room=rooms, models=st.integers(1, 6), labels=st.integers(0, 64))
def test_law_the_budget_holds_or_only_the_essential_is_there(
    room: int, models: int, labels: int
) -> None:
    """Nothing is lost uncounted, and what alerts need is always there."""
    snapshot = agent(crowded("door", models, labels))
    series, everything = scraped(snapshot, room), scraped(snapshot, 100_000)
    assert len(series) <= room or kinds(series) == {f"version {models}"}
    assert value(series, "tinyward_series") == len(series)
    left_out = value(series, "tinyward_series_left_out")
    assert left_out == len(everything) - len(series)
    assert {name for name, _ in series} >= ALERTS_NEED
    assert set(series) <= set(everything)


@given(sizes=st.lists(st.integers(0, 64), min_size=1, max_size=6), room=rooms)
def test_law_no_room_is_wasted(sizes: list[int], room: int) -> None:
    """Whatever is left out does not fit into what is left."""
    shown = [quiet(crowded(f"p{k}", 1, labels)) for k, labels in enumerate(sizes)]
    families = Exposition(MonitorSettings(max_series=room)).families(
        agent(*shown), BOARD
    )
    tally = families.tally()
    used = sum(size for part, size in tally.items() if part not in families.left_out)
    assert {part for part in families.left_out if tally[part] <= room - used} == set()


def test_pipelines_are_filled_one_by_one() -> None:
    """Eight pipelines: some lose their labels, not all lose everything."""
    shown = [quiet(crowded(f"p{k}", 1, 12)) for k in range(8)]
    series = scraped(agent(*shown), 1_000)
    assert 950 < len(series) <= 1_000
    assert scraped(agent(*shown), 1_000).keys() == series.keys()


def test_whoever_alarms_keeps_its_features() -> None:
    """An alarm asks for them, and they stay when it is over: no graph with holes."""
    calm = [quiet(crowded(f"p{k}", 1, 12)) for k in range(8)]
    loud = [*calm[:7], crowded("p7", 1, 12)]
    exposition = Exposition(MonitorSettings(max_series=900))
    found = [
        featured(exposition.render(agent(*shown), BOARD, "")[1])
        for shown in (calm, loud, calm, loud)
    ]
    assert ["p7" in one for one in found] == [False, True, True, True]
    assert found[1] == found[2] == found[3]


@given(
    st.lists(
        st.tuples(st.integers(0, 64), st.integers(0, 64), st.sampled_from((0, 1))),
        min_size=2,
        max_size=8,
    ),
    rooms,
)
def test_law_what_is_left_out_comes_back_by_an_alarm_only(
    scrapes: list[tuple[int, int, int]], room: int
) -> None:
    """Labels come and go; series do not flap."""
    exposition = Exposition(MonitorSettings(max_series=room))
    out: set[Part] = set()
    for left, right, alarmed in scrapes:
        door, gate = crowded("door", 2, left), quiet(crowded("gate", 2, right))
        shown = agent(door if alarmed else quiet(door), gate)
        now = set(exposition.families(shown, BOARD).left_out)
        tally = exposition.families(shown, BOARD).tally()
        back = {part for part in out - now if part in tally}
        assert back <= ({Part("door", Rank.FEATURES)} if alarmed else set())
        out = (out - back) | now


def test_a_new_model_is_a_new_beginning() -> None:
    """What was left out for a model that is gone may be shown again."""
    exposition = Exposition(MonitorSettings(max_series=250))
    crowd = quiet(crowded("door", 1, 64))
    exposition.render(agent(crowd), BOARD, "")
    few = quiet(crowded("door", 1, 3))
    before = exposition.families(agent(few), BOARD)
    assert Part("door", Rank.LABELS) in before.left_out
    assert few.active is not None
    other = replace(few, active=replace_struct(few.active, version=9))
    after = exposition.families(agent(other), BOARD)
    assert Part("door", Rank.LABELS) not in after.left_out


def test_leaving_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A warning when it begins, nothing while it lasts, a line when it ends."""
    caplog.set_level(logging.INFO)
    exposition = Exposition(MonitorSettings(max_series=200))
    small, large = agent(), agent(crowded("door", 4, 64))
    for snapshot in (small, large, large, large, small, small):
        exposition.render(snapshot, BOARD, "")
    said = [(line.levelname, line.getMessage()) for line in caplog.records]
    assert said == [("WARNING", "metrics.left_out"), ("INFO", "metrics.complete")]
    assert caplog.records[0].__dict__["what"] == "labels,stages,older versions"
    assert caplog.records[0].__dict__["pipelines"] == "door"
    assert caplog.records[0].__dict__["max_series"] == 200


def test_series_of_old_models_are_bounded() -> None:
    """A daemon may live through a hundred updates; four models are shown."""
    few, many = agent(crowded("door", 4, 3)), agent(crowded("door", 100, 3))
    assert len(scraped(many, 100_000)) == len(scraped(few, 100_000))
    shown = rank_models(crowded("door", 100, 3))
    assert shown == {("kws", 100 - age): age for age in range(KEPT_MODELS)}


def test_the_model_that_answers_is_shown_however_old() -> None:
    """After a rollback to the first of ten."""
    newest = crowded("door", 10, 1)
    back = replace(newest, active=watched().active)  # version 2
    assert rank_models(back) == {
        ("kws", 2): 0,
        ("kws", 10): 1,
        ("kws", 9): 2,
        ("kws", 8): 3,
    }


@pytest.mark.parametrize("pipelines", [0, 1, 3, 8])
def test_the_least_series_are_known_ahead(pipelines: int) -> None:
    """``tinyward check`` says what the settings need before anything runs."""
    shown = [crowded(f"p{k}", 4, 64) for k in range(pipelines)]
    found = len(scraped(agent(*shown), 100))
    assert found <= least_series(pipelines) <= found * 1.5


def ticking(step_s: float) -> tuple[Callable[[], float], Callable[[float], None]]:
    """Return a clock of which each look takes a step, and a way to move it."""
    moved = [0.0]
    steps = count()

    def clock() -> float:
        return moved[0] + step_s * next(steps)

    def move(seconds: float) -> None:
        moved[0] += seconds

    return clock, move


def looks(exposition: Exposition, accept: str = "") -> Iterator[int]:
    """Yield how many snapshots were taken so far, after each further scrape."""
    taken = 0

    def look() -> tuple[AgentSnapshot, BoardReadings]:
        nonlocal taken
        taken += 1
        return agent(watched()), BOARD

    while True:
        _, body = exposition.scrape(look, accept)
        assert body
        yield taken


def test_fifty_scrapers_at_once_cost_one_scrape() -> None:
    """What one was given is given to all who ask within 20 times its own duration."""
    clock, move = ticking(step_s=0.001)
    asked = looks(Exposition(clock=clock))
    assert [next(asked) for _ in range(KEPT_FOR)] == [1] * KEPT_FOR
    move(1.0)
    assert next(asked) == 2


def test_a_render_that_was_held_up_is_soon_forgotten() -> None:
    """A board that slept for half a minute shows no numbers of ten minutes ago."""
    clock, move = ticking(step_s=30.0)
    asked = looks(Exposition(clock=clock))
    assert next(asked) == 1
    move(KEPT_S)
    assert next(asked) == 2


def test_rendering_has_its_share_of_time() -> None:
    """Scraped without a pause, it takes a twentieth of the time at most."""
    clock, _ = ticking(step_s=0.001)
    asked = looks(Exposition(clock=clock))
    scrapes = 2_000
    taken = [next(asked) for _ in range(scrapes)][-1]
    assert taken <= scrapes / KEPT_FOR + 1


def test_a_scraper_every_second_sees_every_change() -> None:
    """Counters are those of the moment."""
    clock, move = ticking(step_s=0.001)
    asked = looks(Exposition(clock=clock))
    for scrape in range(1, 5):
        assert next(asked) == scrape
        move(1.0)


def test_both_formats_are_kept_apart() -> None:
    """Whoever asks for OpenMetrics is never given the other text."""
    exposition = Exposition(clock=lambda: 0.0)
    text = exposition.scrape(lambda: (agent(), BOARD), "")
    openmetrics = exposition.scrape(lambda: (agent(), BOARD), OPENMETRICS)
    assert text[0].startswith("text/plain")
    assert openmetrics[0].startswith("application/openmetrics-text")
    assert openmetrics[1].endswith(b"# EOF\n")
