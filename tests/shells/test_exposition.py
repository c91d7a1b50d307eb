"""Exposition: what Prometheus itself reads back is what the snapshot said."""

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.core.log_view import LogView
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    ServerSnapshot,
    UpdateSnapshot,
)
from agent.core.statistics_block import STAGES
from agent.core.targets import Wanted
from agent.core.update_machine import Phase
from agent.core.updates import Decision
from agent.telemetry.exposition import Exposition, render_metrics
from agent.telemetry.families import METRICS
from tests.fakes.metered import STATUS
from tests.fakes.monitored import watched
from tests.fakes.snapshots import BOARD, HOUR_S, NOW, agent, pipeline, section

OPENMETRICS = (
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
)
times = st.floats(min_value=1, max_value=2**33)
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series_of(families: Iterable[Metric]) -> Series:
    """Return (sample name, labels in order) -> value; twice the same is an error."""
    found: Series = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
    return found


def scrape(snapshot: AgentSnapshot, board: BoardReadings = BOARD) -> Series:
    """Render as text and read it back."""
    _, body = render_metrics(snapshot, board, "")
    return series_of(parse_text(body.decode()))


def value(series: Series, name: str, **labels: str) -> float:
    """Return the value of one series."""
    return series[name, tuple(sorted(labels.items()))]


def test_samples_are_counted_by_outcome_and_version() -> None:
    """Each version has its own counts, and what was dropped says why."""
    series = scrape(agent(pipeline()))
    one = {"pipeline": "door", "model": "kws", "version": "1"}
    name = "tinyward_samples_total"
    assert value(series, name, **one, outcome="ok", reason="") == 3
    assert value(series, name, **one, outcome="dropped", reason="overrun") == 2
    two = one | {"version": "2"}
    assert value(series, name, **two, outcome="ok", reason="") == 2
    outcomes = [key for key in series if key[0] == name]
    assert len(outcomes) == 3


def test_counters_start_at_zero() -> None:
    """A model that has answered nothing shows ok=0, so that its first step counts."""
    fresh = replace(
        pipeline(), counts=(ModelCounts("kws", 1, (), section([])),), restarts={}
    )
    series = scrape(agent(fresh))
    who = {"pipeline": "door", "model": "kws", "version": "1"}
    ok = {"outcome": "ok", "reason": ""}
    assert value(series, "tinyward_samples_total", **who, **ok) == 0
    restarts = [
        (labels, number)
        for (name, labels), number in series.items()
        if name == "tinyward_worker_restarts_total"
    ]
    assert [number for _, number in restarts] == [0] * 5


def test_durations_are_exact_histograms() -> None:
    """20 buckets from 10 us doubling, +Inf, the count and the sum in seconds."""
    series = scrape(agent(pipeline()))
    labels = {"pipeline": "door", "model": "kws", "version": "2", "stage": "infer"}
    name = "tinyward_inference_duration_seconds"
    buckets = {
        float(dict(key)["le"]): number
        for (sample, key), number in series.items()
        if sample == f"{name}_bucket" and set(labels.items()) <= set(key)
    }
    assert sorted(buckets) == [*(10 * 2**k / 1e6 for k in range(20)), inf]
    assert buckets[0.00004] == 0
    assert buckets[0.00008] == buckets[inf] == 2
    assert value(series, f"{name}_count", **labels) == 2
    assert value(series, f"{name}_sum", **labels) == pytest.approx(125e-6)


def test_each_stage_has_its_histogram() -> None:
    """Preprocess, infer, postprocess and total are told apart."""
    series = scrape(agent(pipeline()))
    name = "tinyward_inference_duration_seconds_count"
    stages = {dict(labels)["stage"] for sample, labels in series if sample == name}
    assert stages == set(STAGES)


def test_predictions_go_by_their_label() -> None:
    """Only labels that were answered are there."""
    series = scrape(agent(pipeline()))
    labels = {
        (dict(labels)["version"], dict(labels)["label"]): number
        for (name, labels), number in series.items()
        if name == "tinyward_predictions_total"
    }
    assert labels == {("1", "yes"): 3, ("2", "no"): 2}


def test_identities_say_what_runs() -> None:
    """The model's digest, variant and executor, and the agent's own versions."""
    series = scrape(agent(pipeline()))
    infos = {name: dict(labels) for name, labels in series if name.endswith("_info")}
    assert infos["tinyward_model_info"] == {
        "pipeline": "door",
        "model": "kws",
        "version": "2",
        "variant": "int8",
        "executor": "litert 2.3.0 / xnnpack / 1",
        "digest": "ab" * 32,
        "state": "active",
    }
    assert infos["tinyward_build_info"]["runtime"] == "litert 2.3.0"


@pytest.mark.parametrize("phase", Phase)
def test_the_phase_is_one_hot(phase: Phase) -> None:
    """Every phase is there, and exactly one of them is 1."""
    shown = agent()
    series = scrape(replace(shown, update=replace(shown.update, phase=phase.value)))
    hot = {
        dict(labels)["phase"]: number
        for (name, labels), number in series.items()
        if name == "tinyward_update_phase"
    }
    assert hot == {str(each): float(each is phase) for each in Phase}


def test_updates_count_by_result_and_reason() -> None:
    """What was refused says why; what never happened is 0 where rates need it."""
    series = scrape(agent())
    name = "tinyward_updates_total"
    assert value(series, name, result="committed", reason="") == 2
    assert value(series, name, result="refused", reason="signature") == 1
    failures = "tinyward_verify_failures_total"
    assert value(series, failures, reason="signature") == 1
    assert value(series, failures, reason=Reason.REPLAYED.value) == 0


def test_what_waits_says_why() -> None:
    """Each pipeline has one series: 1 with its reason, or 0 without any."""
    shown = agent(pipeline(), pipeline("gate"))
    runs = Decision("gate", "runs", Wanted("kws", 2), "push", 4)
    decided = (shown.update.decisions[0], runs)
    series = scrape(replace(shown, update=replace(shown.update, decisions=decided)))
    name = "tinyward_update_waiting"
    found = {key: number for key, number in series.items() if key[0] == name}
    assert found == {
        (name, (("pipeline", "door"), ("reason", "window"))): 1.0,
        (name, (("pipeline", "gate"), ("reason", ""))): 0.0,
    }
    wanted = {"model": "kws", "version": "2", "pipeline": "gate", "source": "push"}
    assert value(series, "tinyward_desired_info", **wanted) == 1


def test_nothing_wanted_has_no_identity() -> None:
    """An unassigned pipeline waits for nothing, and shows no desired model."""
    shown = agent(pipeline())
    idle = replace(shown.update, decisions=(Decision("door", "unassigned"),))
    series = scrape(replace(shown, update=idle))
    assert value(series, "tinyward_update_waiting", pipeline="door", reason="") == 0
    assert "tinyward_desired_info" not in {name for name, _ in series}


def test_expiries_are_seconds_from_now() -> None:
    """Positive before, negative after: one alert rule covers both."""
    series = scrape(agent(pipeline()))
    name = "tinyward_metadata_expires_seconds"
    assert value(series, name, role="timestamp") == 24 * HOUR_S
    assert value(series, name, role="root") == -HOUR_S
    assert value(series, "tinyward_metadata_age_seconds") == 2 * HOUR_S
    assert value(series, "tinyward_certificate_expires_seconds") == 48 * HOUR_S
    assert value(series, "tinyward_last_look_seconds") == 90


def test_a_clock_behind_the_floor_does_not_prolong_what_was_signed() -> None:
    """The board judges by the floor; so do the alerts."""
    shown = agent(pipeline())
    floor = shown.now - HOUR_S
    update = replace(shown.update, clock_floor=floor, last_look=40.0)
    series = scrape(replace(shown, update=update, now=100.0))
    name = "tinyward_metadata_expires_seconds"
    assert value(series, name, role="root") == 0
    assert value(series, name, role="timestamp") == 25 * HOUR_S
    assert value(series, "tinyward_metadata_age_seconds") == HOUR_S
    assert value(series, "tinyward_certificate_expires_seconds") == 49 * HOUR_S
    assert value(series, "tinyward_last_look_seconds") == 60


@pytest.mark.parametrize(
    "blank",
    [
        {"now": 0.0},
        {"update": UpdateSnapshot()},
    ],
    ids=["no clock", "nothing happened yet"],
)
def test_ages_of_nothing_are_left_out(blank: dict[str, Any]) -> None:
    """What never happened raises no alert by being 0, or 56 years old."""
    names = {name for name, _ in scrape(replace(agent(pipeline()), **blank))}
    ages = {
        "tinyward_metadata_expires_seconds",
        "tinyward_metadata_age_seconds",
        "tinyward_certificate_expires_seconds",
        "tinyward_last_look_seconds",
    }
    assert names & ages == set()


@given(now=times, at=times)
def test_law_ages_and_expiries_mirror_each_other(now: float, at: float) -> None:
    """What was issued when it expires has age ``a`` and ``-a`` seconds left."""
    update = UpdateSnapshot(metadata_expires={"root": at}, metadata_issued=at)
    series = scrape(replace(agent(), update=update, now=now))
    age = value(series, "tinyward_metadata_age_seconds")
    left = value(series, "tinyward_metadata_expires_seconds", role="root")
    assert (age, left) == (now - at, at - now)


def test_bundles_out_of_favour_are_counted() -> None:
    """Set aside here, and revoked everywhere; bytes start at 0 for both kinds."""
    series = scrape(agent())
    assert value(series, "tinyward_set_aside_bundles") == 1
    assert value(series, "tinyward_revoked_bundles") == 2
    assert value(series, "tinyward_update_bytes_total", kind="full") == 12_345
    assert value(series, "tinyward_update_bytes_total", kind="resumed") == 0


def test_throttling_is_one_hot_by_kind() -> None:
    """What holds is 1, what could hold is 0."""
    series = scrape(agent())
    name = "tinyward_board_throttled"
    assert value(series, name, kind="under_voltage") == 1
    assert value(series, name, kind="throttled") == 0


def test_absent_sensors_are_left_out() -> None:
    """A board without sensors has no such series, rather than NaN."""
    series = scrape(agent(), BoardReadings())
    assert [name for name, _ in series if name.startswith("tinyward_board_")] == []


def test_a_pipeline_before_its_first_model_is_shown() -> None:
    """Without a model there is no identity, and ready is 0."""
    empty = replace(pipeline(ready=False), active=None, state="none", counts=())
    series = scrape(agent(empty))
    assert value(series, "tinyward_pipeline_ready", pipeline="door") == 0
    assert "tinyward_model_info" not in {name for name, _ in series}


@pytest.mark.parametrize("label", ['a "quoted" one', "back\\slash", "line\nbreak", "é"])
def test_labels_survive_any_spelling(label: str) -> None:
    """Words from a manifest are escaped: they cannot forge a series."""
    odd = replace(
        pipeline(), counts=(ModelCounts("kws", 1, (label,), section([1_000])),)
    )
    found = {
        dict(labels)["label"]
        for name, labels in scrape(agent(odd))
        if name == "tinyward_predictions_total"
    }
    assert found == {label}


def test_both_formats_say_the_same() -> None:
    """OpenMetrics, as its own strict parser reads it, has the same series."""
    snapshot = agent(watched(), watched("gate"))
    content_type, body = render_metrics(snapshot, BOARD, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # theirs
    assert series_of(families) == scrape(snapshot)


def test_text_is_the_default() -> None:
    """A scraper that asks for nothing gets version 0.0.4."""
    content_type, _ = render_metrics(agent(), BOARD, "")
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_everything_exposed_stands_in_the_table() -> None:
    """Names, labels, types and help are those of ``METRICS``, and none is missing."""
    shown = agent(watched())
    server = ServerSnapshot("https://fleet.example", last_poll=NOW - 60)
    shown = replace(shown, update=replace(shown.update, ddi=server))
    shown = replace(shown, log=LogView(*range(7)), meter=STATUS)
    _, body = render_metrics(shown, BOARD, "")
    lines = body.decode().splitlines()
    helps = dict(line.split(" ", 3)[2:] for line in lines if line.startswith("# HELP"))
    assert helps == {name: row.text for name, row in METRICS.items()}
    for name, labels in scrape(shown):
        family = max((row for row in METRICS if name.startswith(row)), key=len)
        assert {key for key, _ in labels} - {"le"} == set(METRICS[family].labels)


def test_promtool_has_nothing_to_say(
    require_tool: Callable[[str], Path],
) -> None:
    """Prometheus' own linter accepts the text."""
    _, body = render_metrics(agent(watched(), watched("gate")), BOARD, "")
    ran = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=body,
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_a_scrape_reports_how_long_the_last_one_took() -> None:
    """The clock is read before and after; the first scrape has no predecessor."""
    ticks = count(start=0, step=2)
    exposition = Exposition(clock=lambda: float(next(ticks)))
    took = []
    for _ in range(3):
        _, body = exposition.render(agent(), BOARD, "")
        took.append(
            series_of(parse_text(body.decode()))["tinyward_scrape_duration_seconds", ()]
        )
    assert took == [0.0, 2.0, 2.0]


def test_readiness_is_a_number() -> None:
    """Alerts can be written on what ``/readyz`` says."""
    ready: PipelineSnapshot = pipeline(ready=True)
    series = scrape(agent(ready, pipeline("gate", ready=False, reason="hang")))
    assert value(series, "tinyward_pipeline_ready", pipeline="door") == 1
    assert value(series, "tinyward_pipeline_ready", pipeline="gate") == 0


def test_a_fleets_server_is_counted_only_where_there_is_one() -> None:
    """Its requests by result from 0 on, its outbox, and how long it has been silent."""
    alone = agent(pipeline())
    _, body = render_metrics(alone, BOARD, "")
    assert b"tinyward_ddi" not in body
    server = ServerSnapshot(
        "https://fleet.example", last_poll=NOW - 60, outbox=3, requests={"ok": 7}
    )
    shown = replace(alone, update=replace(alone.update, ddi=server))
    _, body = render_metrics(shown, BOARD, "")
    lines = [it for it in body.decode().splitlines() if it.startswith("tinyward_ddi")]
    assert lines == [
        "tinyward_ddi_last_poll_seconds 60.0",
        "tinyward_ddi_outbox 3.0",
        'tinyward_ddi_requests_total{result="ok"} 7.0',
        'tinyward_ddi_requests_total{result="unchanged"} 0.0',
        'tinyward_ddi_requests_total{result="refused"} 0.0',
        'tinyward_ddi_requests_total{result="failed"} 0.0',
    ]
