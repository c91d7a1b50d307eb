"""Drift in metrics: what a monitor says is what Prometheus reads."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_struct
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.core.histogram import bucket_bound_ns, bucket_index
from agent.core.installed import Installed
from agent.core.snapshot import PipelineSnapshot
from agent.core.watching import (
    MAX_FEATURES,
    Alarm,
    AnchorState,
    FeatureDrift,
    ModelWatch,
    Monitored,
    Score,
)
from agent.telemetry.exposition import Exposition
from agent.telemetry.families import METRICS
from agent.telemetry.feature_names import MAX_MODELS, FeatureNames
from tests.fakes.monitored import DIGEST, MONITORED, watch, watched
from tests.fakes.snapshots import BOARD, LITERT, NOW, agent
from tests.shells.test_exposition import Series, scrape, series_of, value

WHO = {"pipeline": "door", "model": "kws", "version": "2"}
ALL = {**WHO, "anchor": "shipped", "scope": "all"}


def shown(monitored: Monitored) -> Series:
    """Return the series of a pipeline whose monitor says this."""
    return scrape(agent(watched("door", watch(2, monitored))))


def named(series: Series, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return labels -> value of one metric."""
    return {
        labels: number for (found, labels), number in series.items() if found == name
    }


def test_scores_say_what_they_compare() -> None:
    """One series for each anchor, scope and detector."""
    series = scrape(agent(watched()))
    name = "tinyward_drift_score_ratio"
    assert value(series, name, **ALL, detector="mewma") == 1.75
    assert value(series, name, **ALL, detector="etable") == 0.5
    assert len(named(series, name)) == 3


def test_an_alarm_has_its_state_its_count_and_its_moment() -> None:
    """Active, confirmed, how often and when; what never alarmed counts from 0."""
    series = scrape(agent(watched()))
    assert value(series, "tinyward_drift_active", **ALL) == 1
    assert value(series, "tinyward_drift_confirmed", **ALL) == 0
    assert value(series, "tinyward_drift_alarms_total", **ALL) == 2
    never = ALL | {"scope": "output"}
    assert value(series, "tinyward_drift_alarms_total", **never) == 0
    at = "tinyward_drift_last_alarm_timestamp_seconds"
    assert value(series, at, **ALL) == NOW - 60


def test_a_reference_says_whether_it_is_of_use() -> None:
    """Valid with its identity; or not, why, and how much of it is there."""
    series = scrape(agent(watched()))
    valid = "tinyward_drift_reference_valid"
    assert value(series, valid, **WHO, anchor="shipped", reason="") == 1
    assert value(series, valid, **WHO, anchor="site", reason="commissioning") == 0
    collected = "tinyward_drift_collected_ratio"
    assert value(series, collected, **WHO, anchor="site") == 0.25
    (identity,) = named(series, "tinyward_drift_reference_info")
    assert dict(identity) == {
        **WHO,
        "anchor": "shipped",
        "calibration": "grouped",
        "digest": DIGEST,
    }


@pytest.mark.parametrize("words", ["drift\nforged 1", "x" * 64, "calibrated at 12:00"])
def test_a_worker_cannot_invent_labels(words: str) -> None:
    """Each new word would be a new series: unknown ones are ``other``, or left out."""
    spoken = AnchorState("shipped", valid=True, reason=words, digest=words)
    series = shown(replace_struct(MONITORED, anchors=(spoken,)))
    (valid,) = named(series, "tinyward_drift_reference_valid")
    assert dict(valid)["reason"] == "other"
    calibrated = AnchorState("shipped", valid=True, calibration=words, digest=words)
    series = shown(replace_struct(MONITORED, anchors=(calibrated,)))
    (identity,) = named(series, "tinyward_drift_reference_info")
    assert (dict(identity)["calibration"], dict(identity)["digest"]) == ("other", "")


def test_a_worker_cannot_invent_features() -> None:
    """As many names as a model may have, those that came first; later ones are not."""
    exposition = Exposition()
    seen: set[str] = set()
    for scrape_number in range(20):
        features = tuple(
            FeatureDrift("shipped", f"f{scrape_number}_{k}", 0.5) for k in range(15)
        )
        said = watch(2, replace_struct(MONITORED, features=features))
        _, body = exposition.render(agent(watched("door", said)), BOARD, "")
        series = series_of(parse_text(body.decode()))
        found = named(series, "tinyward_drift_feature_psi")
        seen |= {dict(labels)["feature"] for labels in found}
    assert seen == {f"f{k // 15}_{k % 15}" for k in range(MAX_FEATURES)}


def test_names_are_kept_of_a_bounded_number_of_models() -> None:
    """Versions come for years; those that are shown keep their features."""
    names = FeatureNames()
    for version in range(2 * MAX_MODELS):
        shown = watched("door", watch(version))
        assert names.admit(shown) == shown
    assert len(names._known) == MAX_MODELS


def test_what_a_worker_says_twice_stands_once() -> None:
    """Scores, alarms, anchors and features: the last one holds."""
    twice = replace_struct(
        MONITORED,
        scores=(*MONITORED.scores, Score("shipped", "all", "mewma", 3.5)),
        alarms=MONITORED.alarms * 2,
        anchors=MONITORED.anchors * 2,
        features=MONITORED.features * 2,
    )
    series = shown(twice)  # which asserts that no series stands twice
    score = value(series, "tinyward_drift_score_ratio", **ALL, detector="mewma")
    assert score == 3.5
    assert series.keys() == shown(MONITORED).keys()


def test_features_say_how_far_they_moved() -> None:
    """Shift, PSI and KS of each feature."""
    series = scrape(agent(watched()))
    moved = {**WHO, "anchor": "shipped", "feature": "brightness"}
    assert value(series, "tinyward_drift_feature_shift_stddevs", **moved) == -1.25
    assert value(series, "tinyward_drift_feature_psi", **moved) == 0.4
    assert value(series, "tinyward_drift_feature_ks", **moved) == 0.125


def test_inputs_that_cannot_be_compared_are_counted_by_why() -> None:
    """All three reasons are there from the start."""
    series = scrape(agent(watched()))
    name = "tinyward_input_invalid_total"
    counts = {dict(labels)["reason"]: n for labels, n in named(series, name).items()}
    assert counts == {"nan": 2, "range": 0, "shape": 0}
    assert value(series, "tinyward_input_repeated_total", **WHO) == 3


def test_confidence_is_a_histogram() -> None:
    """Ten buckets from 0 to 1, cumulative, with count and sum."""
    series = scrape(agent(watched()))
    name = "tinyward_output_confidence_ratio"
    assert value(series, f"{name}_bucket", **WHO, le="0.5") == 0
    assert value(series, f"{name}_bucket", **WHO, le="0.7") == 50
    assert value(series, f"{name}_bucket", **WHO, le="1.0") == 5_000
    assert value(series, f"{name}_bucket", **WHO, le="+Inf") == 5_000
    assert value(series, f"{name}_count", **WHO) == 5_000
    assert value(series, f"{name}_sum", **WHO) == 4_600.5


def test_a_short_confidence_histogram_is_filled_up() -> None:
    """A worker that says less voids no scrape."""
    series = shown(replace_struct(MONITORED, confidence=(1, 2)))
    assert value(series, "tinyward_output_confidence_ratio_count", **WHO) == 3


def test_the_monitor_accounts_for_itself() -> None:
    """What it spent, its share, its budget, its pace and its estimate."""
    series = scrape(agent(watched()))
    expected = {
        "tinyward_monitor_seconds_total": 0.21,
        "tinyward_monitor_cpu_share_ratio": 0.004,
        "tinyward_drift_samples_total": 5_000,
        "tinyward_drift_sampling_interval": 20,
        "tinyward_drift_autocorrelation_ratio": 0.28,
        "tinyward_drift_window_timestamp_seconds": NOW - 5,
    }
    assert {name: value(series, name, **WHO) for name in expected} == expected
    assert value(series, "tinyward_monitor_cpu_budget_ratio") == 0.02
    estimate = "tinyward_estimated_accuracy_ratio"
    assert value(series, estimate, **WHO, method="atc") == 0.93


def test_what_is_not_known_is_left_out() -> None:
    """No estimate, no window: no number that looks like one."""
    fresh = replace(
        watched(), watch=(replace_struct(watch(2, Monitored()), window_at=0.0),)
    )
    names = {name for name, _ in scrape(agent(fresh))}
    assert "tinyward_estimated_accuracy_ratio" not in names
    assert "tinyward_drift_window_timestamp_seconds" not in names
    assert "tinyward_drift_samples_total" in names


def test_gauges_are_those_of_the_model_that_answers() -> None:
    """The alarm of a model that was replaced would never clear; its counters stay."""
    series = scrape(agent(watched("door", watch(1), watch(2))))
    versions = {
        name: {dict(labels)["version"] for labels in named(series, name)}
        for name in ("tinyward_drift_active", "tinyward_drift_alarms_total")
    }
    assert versions == {
        "tinyward_drift_active": {"2"},
        "tinyward_drift_alarms_total": {"1", "2"},
    }


def test_after_a_rollback_the_older_model_is_the_one_that_answers() -> None:
    """Age goes by who answers, not by who came last."""
    back = replace(
        watched("door", watch(1), watch(2)),
        active=Installed("kws", 1, "ab" * 32, 1_000, "int8", LITERT),
    )
    found = named(scrape(agent(back)), "tinyward_drift_active")
    assert [dict(labels)["version"] for labels in found] == ["1"]


def test_stuck_and_site_alarms_are_told_apart() -> None:
    """Two anchors may alarm at once."""
    alarms = (
        Alarm("shipped", "stuck", active=True, raised=1, detector="repeat"),
        Alarm("site", "all", active=True, confirmed=True, raised=4),
    )
    series = shown(replace_struct(MONITORED, alarms=alarms))
    site = ALL | {"anchor": "site"}
    assert value(series, "tinyward_drift_confirmed", **site) == 1
    stuck = ALL | {"scope": "stuck"}
    assert value(series, "tinyward_drift_active", **stuck) == 1


@pytest.mark.parametrize(
    ("budget_ms", "late"),
    [(0.05, 2), (0.06, 1), (0.0645, 1), (0.069, 0), (0.08, 0), (5_000.0, 0), (1e6, 0)],
)
def test_deadlines_are_read_off_the_histogram(budget_ms: float, late: int) -> None:
    """Of 55 and 70 us: late is what is surely above; 69 has the bucket of 70."""
    pipeline = replace(watched(), budgets_ms={2: budget_ms})
    series = scrape(agent(pipeline))
    assert value(series, "tinyward_deadline_missed_total", **WHO) == late
    budget = "tinyward_inference_budget_seconds"
    assert value(series, budget, **WHO) == pytest.approx(budget_ms / 1e3)


@pytest.mark.parametrize("budget_ns", [1, 625, 10_000, 10_001, 77_777, 1_000_000_007])
def test_a_deadline_errs_by_an_eighth_at_most(budget_ns: int) -> None:
    """What is counted as late is late; what is more than 12.5 % late is counted."""
    bound = bucket_bound_ns(bucket_index(budget_ns))
    assert budget_ns <= bound <= max(budget_ns + 625, budget_ns * 1.125)


def test_a_model_without_a_budget_misses_none() -> None:
    """No series rather than 0: nothing was promised."""
    found = scrape(agent(replace(watched(), budgets_ms={})))
    assert named(found, "tinyward_deadline_missed_total") == {}


def test_the_queue_has_an_age() -> None:
    """How long the sample in flight has taken."""
    series = scrape(agent(watched()))
    assert value(series, "tinyward_queue_age_seconds", pipeline="door") == 0.0125


def test_every_series_of_a_monitor_says_which_model() -> None:
    """A swap must be comparable before and after."""
    whose = {"pipeline", "model", "version"}
    for name, labels in scrape(agent(watched())):
        if "_drift_" in name or "_input_" in name:
            assert whose <= {key for key, _ in labels}


def test_an_unwatched_pipeline_has_no_such_series() -> None:
    """Without a monitor nothing says 0."""
    bare: PipelineSnapshot = replace(watched(), watch=())
    names = {name for name, _ in scrape(agent(bare))}
    assert [name for name in names if "_drift_" in name] == []


def gauges(series: Series) -> set[str]:
    """Return which gauges of a monitor there are, but of its references."""
    counters = ("_total", "_bucket", "_count", "_sum")
    told = ("tinyward_drift_", "tinyward_monitor_cpu_share")
    return {
        name
        for name, _ in series
        if name.startswith(told)
        and not name.endswith(counters)
        and not name.startswith("tinyward_drift_reference")
    }


def test_what_watched_nothing_yet_has_no_gauges() -> None:
    """No score of 0, no step of 1: nobody looked."""
    waiting = AnchorState("site", valid=False, reason="commissioning")
    scores = (Score("shipped", "stuck", "repeat", 0.0),)
    alarms = (Alarm("shipped", "stuck", active=False),)
    fresh = Monitored(anchors=(waiting,), scores=scores, alarms=alarms)
    counted = ModelWatch("kws", 2, fresh)
    assert gauges(scrape(agent(watched("door", counted)))) == set()


def test_what_is_not_compared_has_no_score() -> None:
    """Without a valid reference only repeats are compared: with the input before."""
    nothing = AnchorState("shipped", valid=False, reason="profile")
    scores = (Score("shipped", "stuck", "repeat", 0.25), *MONITORED.scores)
    quiet = tuple(replace_struct(it, active=False) for it in MONITORED.alarms)
    said = replace_struct(MONITORED, anchors=(nothing,), scores=scores, alarms=quiet)
    series = shown(said)
    (score,) = named(series, "tinyward_drift_score_ratio")
    assert dict(score)["scope"] == "stuck"
    assert named(series, "tinyward_drift_active") == {}
    assert named(series, "tinyward_drift_feature_psi") == {}


def test_an_active_alarm_is_told_without_its_reference() -> None:
    """It was latched before: what it is about does not end with the worker."""
    nothing = AnchorState("shipped", valid=False, reason="profile")
    series = shown(replace_struct(MONITORED, samples=0, anchors=(nothing,)))
    assert value(series, "tinyward_drift_active", **ALL) == 1


def test_help_says_what_privacy_mode_counts() -> None:
    """All answers are in ``tinyward_samples_total``; by label only watched ones."""
    assert "privacy mode" in METRICS["tinyward_predictions_total"].text
