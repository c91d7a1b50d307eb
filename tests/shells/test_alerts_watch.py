"""Rules about drift, latency and samples: each fires when it should, and only then."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.shells.test_alerts import (
    RECORDED,
    RULES,
    counts,
    names,
    promtool,
    scenario,
)

WHO = 'job="b",instance="i",pipeline="door"'
MODEL = f'{WHO},model="kws",version="2"'
SHIPPED = f'{MODEL},anchor="shipped"'
OK = f'tinyward_samples_total{{{MODEL},outcome="ok",reason=""}}'
FAILED = f'tinyward_samples_total{{{MODEL},outcome="failed",reason="input"}}'
LATE = f"tinyward_deadline_missed_total{{{MODEL}}}"
READY = f"tinyward_pipeline_ready{{{WHO}}}"
SHARE = f"tinyward_monitor_cpu_share_ratio{{{MODEL}}}"
BUDGET = 'tinyward_monitor_cpu_budget_ratio{job="b",instance="i"}'
LAG = f"tinyward_source_lag_seconds{{{WHO}}}"
THROTTLED = 'tinyward_board_throttled{job="b",instance="i",kind="under_voltage"}'
HELD = f"tinyward_degradation_level{{{WHO}}}"
LEFT_OUT = 'tinyward_series_left_out{job="b",instance="i"}'
CRASHES = f'tinyward_worker_restarts_total{{{WHO},reason="crash"}}'
REQUESTED = f'tinyward_worker_restarts_total{{{WHO},reason="requested"}}'


def active(scope: str) -> str:
    """Return the series of an alarm."""
    return f'tinyward_drift_active{{{SHIPPED},scope="{scope}"}}'


def valid(reason: str) -> str:
    """Return the series of a reference that is not valid for this reason."""
    return f'tinyward_drift_reference_valid{{{SHIPPED},reason="{reason}"}}'


CONFIRMED = f'tinyward_drift_confirmed{{{SHIPPED},scope="all"}}'
CONFIRMED_OUTPUT = f'tinyward_drift_confirmed{{{SHIPPED},scope="output"}}'


@dataclass(frozen=True)
class Case:
    """A rule, the series that make it fire and those that only look like it."""

    rule: str
    fires: dict[str, str]
    quiet: dict[str, str]


# 60 minutes of nothing wrong, then what the rule is about; one value a minute.
CASES = [
    Case("TinywardDrift", {active("all"): "0x60 1x60"}, {active("output"): "1x120"}),
    Case("TinywardDrift", {active("input"): "0x60 1x60"}, {active("stuck"): "1x120"}),
    Case(
        "TinywardDriftCritical",
        {active("output"): "0x60 1x60"},
        {active("all"): "1x120"},
    ),
    Case(
        "TinywardDriftConfirmed",
        {CONFIRMED: "0x60 1x60"},
        {active("all"): "1x120", CONFIRMED_OUTPUT: "1x120"},
    ),
    Case(
        "TinywardDriftConfirmedCritical",
        {CONFIRMED_OUTPUT: "0x60 1x60"},
        {active("output"): "1x120", CONFIRMED: "1x120"},
    ),
    Case(
        "TinywardInputStuck", {active("stuck"): "0x60 1x60"}, {active("all"): "1x120"}
    ),
    Case(
        "TinywardMonitorInvalid",
        {valid("profile"): "_x60 0x60"},
        {
            valid("commissioning"): "0x120",
            valid("unwatched"): "0x120",
            valid(""): "1x120",
        },
    ),
    # A baseline in which no feature ever moved is not valid, and nothing to wait for.
    Case("TinywardMonitorInvalid", {valid(""): "1x60 0x60"}, {valid(""): "1x120"}),
    Case(
        "TinywardMonitorOverBudget",
        {SHARE: "0.019x60 0.04x60", BUDGET: "0.02x120"},
        {SHARE: "0.025x60 0.06x3 0.019x60", BUDGET: "0.02x120"},
    ),
    Case(
        "TinywardLatencyOverBudget",
        {OK: "0+600x120", LATE: "0+12x60 0+60x60"},
        {OK: "0+600x120", LATE: "0+24x120"},
    ),
    Case(
        "TinywardDeadlineMisses",
        {OK: "0+600x120", LATE: "0+12x60 0+400x60"},
        {OK: "0+600x120", LATE: "0+200x120"},
    ),
    Case(
        "TinywardSamplesFail",
        {OK: "0+600x120", FAILED: "0+6x60 0+60x60"},
        {OK: "0+600x120", FAILED: "0+12x120"},
    ),
    Case(
        "TinywardNoSamples",
        {OK: "0+600x60 36000x60", READY: "1x120"},
        # It answers twice an hour less than it could, or is known not to be ready.
        {OK: "0+1x60 60x60", READY: "1x60 0x60"},
    ),
    Case("TinywardSourceLags", {LAG: "0.1x60 30x60"}, {LAG: "30 0.1x3 30 0.1x120"}),
    Case(
        "TinywardWorkerRestarts",
        {CRASHES: "0x60 0+1x60"},
        {CRASHES: "0x60 1x60", REQUESTED: "0+1x120"},
    ),
    Case(
        "TinywardThrottled", {THROTTLED: "0x60 1x60"}, {THROTTLED: "0 1x3 0 1x3 0x120"}
    ),
    Case("TinywardDegraded", {HELD: "0x60 2x60"}, {HELD: "0x60 3x3 0x20 1x60"}),
    Case("TinywardDegraded", {HELD: f"0x60{' 3 2 1 1' * 15}"}, {HELD: "1x120"}),
    Case(
        "TinywardSeriesLeftOut", {LEFT_OUT: "0x60 64x60"}, {LEFT_OUT: "0x60 64x3 0x60"}
    ),
]
WELL = {
    OK: "0+600x240",
    FAILED: "0+1x240",
    LATE: "0+20x240",
    READY: "1x240",
    SHARE: "0.018x240",
    BUDGET: "0.02x240",
    LAG: "0.05x240",
    THROTTLED: "0x240",
    HELD: "1x240",
    LEFT_OUT: "0x240",
    CRASHES: "0x240",
    REQUESTED: "0+1x240",
    CONFIRMED: "0x240",
    valid(""): "1x240",
    valid("commissioning"): "0x240",
    **{
        active(scope): "0x240"
        for scope in ("input", "output", "all", "prediction", "stuck")
    },
}


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_each_rule_fires_when_it_should_and_only_then(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path, case: Case
) -> None:
    """Not before, for sure after; and never for what only resembles it."""
    tool = require_tool("promtool")
    fires, quiet = tmp_path / "fires.yml", tmp_path / "quiet.yml"
    checks = counts({case.rule: 0}, 59) + counts({case.rule: 1}, 110)
    fires.write_text(scenario(repository / RULES, case.fires, checks))
    promtool(tool, "test", "rules", str(fires))
    checks = "".join(counts({case.rule: 0}, at) for at in range(1, 120, 5))
    quiet.write_text(scenario(repository / RULES, case.quiet, checks))
    promtool(tool, "test", "rules", str(quiet))


def test_every_rule_of_the_group_has_a_case(repository: Path) -> None:
    """A rule that nobody tried may never fire."""
    _, _, group = (repository / RULES).read_text().partition("name: tinyward-watch")
    group, _, _ = group.partition("name: tinyward-proofs")
    assert {case.rule for case in CASES} == set(names(group))


def test_nothing_fires_on_a_board_that_is_watched_and_well(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """Some failures, some late answers, a monitor at its budget: no alert."""
    file = tmp_path / "test.yml"
    alerts = dict.fromkeys(names((repository / RULES).read_text()), 0)
    checks = "".join(counts(alerts, at) for at in (30, 120, 200))
    file.write_text(scenario(repository / RULES, WELL, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


def bucket(le: str, stage: str = "total") -> str:
    """Return one bucket's series."""
    name = "tinyward_inference_duration_seconds_bucket"
    return f'{name}{{{MODEL},stage="{stage}",le="{le}"}}'


SCORE = "tinyward_drift_score_ratio"
RECORDED_CASES: list[tuple[str, dict[str, str], dict[str, float]]] = [
    # 600 answers a minute, half of them within 10 ms, all within 20 ms.
    (
        f'pipeline_stage:tinyward_inference_duration_seconds:{{}}_rate5m{{{WHO},stage="total"}}',
        {
            bucket("0.01"): "0+300x60",
            bucket("0.02"): "0+600x60",
            bucket("+Inf"): "0+600x60",
        },
        {"p50": 0.01, "p95": 0.019, "p99": 0.0198},
    ),
    (
        f'pipeline_outcome:tinyward_samples:rate5m{{{WHO},outcome="{{}}"}}',
        {OK: "0+600x60", FAILED: "0+60x60"},
        {"ok": 10, "failed": 1},
    ),
    (
        f"pipeline:tinyward_samples_not_ok:ratio_rate5m{{{WHO}}}",
        {OK: "0+600x60", FAILED: "0+200x60"},
        {"": 0.25},
    ),
    (
        f"pipeline:tinyward_samples_not_ok:ratio_rate5m{{{WHO}}}",
        {OK: "0+600x60"},
        {"": 0},
    ),
    (
        f"model:tinyward_deadline_missed:ratio_rate10m{{{MODEL}}}",
        {OK: "0+600x60", LATE: "0+30x60"},
        {"": 0.05},
    ),
    (
        f'pipeline_anchor_scope:{SCORE}:max{{{SHIPPED},scope="all"}}',
        {
            f'{SCORE}{{{SHIPPED},scope="all",detector="mewma"}}': "0.5x60",
            f'{SCORE}{{{SHIPPED},scope="all",detector="etable"}}': "0.75x60",
        },
        {"": 0.75},
    ),
]


@pytest.mark.parametrize(("name", "series", "expected"), RECORDED_CASES)
def test_recorded_rules_compute_what_they_say(
    repository: Path,
    require_tool: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    series: dict[str, str],
    expected: dict[str, float],
) -> None:
    """Percentiles, rates and shares of counters whose answer is known."""
    file = tmp_path / "test.yml"
    checks = "".join(
        f"      - expr: round(1e6 * {name.replace('{}', part)})\n"
        "        eval_time: 50m\n        exp_samples:\n"
        f"          - value: {round(1e6 * value)}\n"
        f"            labels: '{{{_labels(name.replace('{}', part))}}}'\n"
        for part, value in expected.items()
    )
    file.write_text(scenario(repository / RECORDED, series, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


def _labels(selector: str) -> str:
    """Return what stands in the braces of a selector."""
    found = re.search(r"\{(.*)\}", selector)
    assert found is not None
    return found[1]


def test_every_recorded_rule_is_tried(repository: Path) -> None:
    """Names of the file and of the cases are the same."""
    recorded = re.findall(r"- record: (\S+)", (repository / RECORDED).read_text())
    tried = {
        name.replace("{}", part).partition("{")[0]
        for name, _, expected in RECORDED_CASES
        for part in expected
    }
    assert tried == set(recorded)
