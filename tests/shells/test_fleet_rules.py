"""Rules about fleets: each computes what it says, and fires only when it should."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from agent.cli.fleet_targets import JOB
from agent.cli.outcome import CALM
from agent.telemetry.families import METRICS
from tests.shells.test_alerts import (
    FOLDER,
    RECORDED,
    RULES,
    SELECTOR,
    counts,
    expressions,
    family,
    names,
    promtool,
    scenario,
)

FLEET = FOLDER / "fleet-rules.yml"
GIVEN = {"job", "instance", "le"}  # labels that Prometheus adds
Series = dict[str, str]


def series(name: str, values: str, board: int, **labels: str) -> Series:
    """Return one series of a board."""
    given = {"job": "tinyward", "instance": f"pi-{board}", **labels}
    words = ",".join(f'{key}="{value}"' for key, value in given.items())
    return {f"{name}{{{words}}}": values}


def model(name: str, values: str, board: int, version: int = 8, **more: str) -> Series:
    """Return one series about a version of ``kws`` in the pipeline ``door``."""
    who = {"pipeline": "door", "model": "kws", "version": str(version)}
    return series(name, values, board, **who, **more)


def waiting(values: str, board: int, reason: str = "") -> Series:
    """Return why a board does not run what is wanted."""
    who = {"pipeline": "door", "reason": reason}
    return series("tinyward_update_waiting", values, board, **who)


runs = partial(model, "tinyward_model_info", state="active")
wants = partial(model, "tinyward_desired_info", source="fleet/groups/all")
up = partial(series, "up")
drifts = partial(model, "tinyward_drift_active", anchor="shipped", scope="output")
failed = partial(model, "tinyward_samples_total", outcome="failed", reason="input")
answered = partial(model, "tinyward_samples_total", outcome="ok", reason="")
stale = partial(series, "tinyward_metadata_age_seconds")
rolled_back = partial(
    series, "tinyward_updates_total", result="rolled_back", reason="latency"
)
scraped = partial(series, "tinyward_build_info", version="1.0.0")
unheard = partial(series, "tinyward_ddi_last_poll_seconds")
untold = partial(series, "tinyward_ddi_outbox")
asked = partial(series, "tinyward_ddi_requests_total")


def bucket(le: str, values: str, board: int, version: int = 8) -> Series:
    """Return one bucket of the whole duration."""
    name = "tinyward_inference_duration_seconds_bucket"
    return model(name, values, board, version, stage="total", le=le)


def fleet(*parts: Series) -> Series:
    """Return all series of some boards."""
    together: Series = {}
    for part in parts:
        assert not together.keys() & part.keys()
        together |= part
    return together


def boards(make: Callable[..., Series], values: str, *which: int) -> Series:
    """Return the same series of several boards."""
    return fleet(*(make(values, board) for board in which))


def took(version: int, fast: str, slow: str, board: int) -> Series:
    """Return answers within 10 ms and within 20 ms."""
    return fleet(
        bucket("0.01", fast, board, version),
        bucket("0.02", slow, board, version),
        bucket("+Inf", slow, board, version),
    )


# Board 1 has committed, board 2 is on its way, board 3 refused, board 4 was not drawn.
ROLLOUT = fleet(
    *(wants("1x120", board) for board in (1, 2, 3, 4)),
    *(runs("1x120", 1), waiting("0x120", 1)),
    *(runs("1x120", 2, 7), waiting("0x120", 2)),
    *(runs("1x120", 3, 7), waiting("1x120", 3, "contract")),
    *(runs("1x120", 4, 7), waiting("1x120", 4, "percent")),
)
VERSION = 'job="tinyward",model="kws",version="{}"'


def of_gate(given: Series) -> Series:
    """Return the same series of the board's pipeline ``gate``."""
    return {name.replace('"door"', '"gate"'): it for name, it in given.items()}


HALF = fleet(
    *(wants("1x120", 1), of_gate(wants("1x120", 1)), runs("1x120", 1)),
    of_gate(waiting("1x120", 1, "contract")),
)
RECORDED_CASES: list[tuple[str, str, Series, Mapping[str, float]]] = [
    (
        "model_version:tinyward_boards_running:count",
        VERSION,
        fleet(
            ROLLOUT,
            # Two pipelines of one board are one board.
            series(
                "tinyward_model_info",
                "1x120",
                2,
                pipeline="gate",
                model="kws",
                version="7",
                state="active",
            ),
        ),
        {"7": 3, "8": 1},
    ),
    ("model_version:tinyward_boards_due:count", VERSION, ROLLOUT, {"8": 3}),
    ("model_version:tinyward_boards_committed:count", VERSION, ROLLOUT, {"8": 1}),
    ("model_version:tinyward_boards_failing:count", VERSION, ROLLOUT, {"8": 1}),
    ("model_version:tinyward_boards_pending:count", VERSION, ROLLOUT, {"8": 1}),
    (
        "model_version:tinyward_boards_committed:ratio",
        VERSION,
        ROLLOUT,
        {"8": 1 / 3},
    ),
    (
        "model_version:tinyward_boards_committed:ratio",
        VERSION,
        fleet(wants("1x120", 1), runs("1x120", 1, 7), waiting("0x120", 1)),
        {"8": 0},
    ),
    # What is on trial is not committed.
    (
        "model_version:tinyward_boards_committed:count",
        VERSION,
        fleet(
            wants("1x120", 1),
            model("tinyward_model_info", "1x120", 1, state="candidate"),
        ),
        {"8": 0},
    ),
    ("model_version:tinyward_boards_failing:ratio", VERSION, ROLLOUT, {"8": 1 / 3}),
    # Two pipelines that are both there, and a board of which one pipeline only is.
    (
        "model_version:tinyward_boards_committed:count",
        VERSION,
        fleet(
            *(wants("1x120", 1), runs("1x120", 1), of_gate(wants("1x120", 1))),
            *(of_gate(runs("1x120", 1)), wants("1x120", 2), runs("1x120", 2)),
            of_gate(wants("1x120", 2)),
        ),
        {"8": 1},
    ),
    # One pipeline is there, the other one says why it never will be.
    (
        "model_version:tinyward_boards_pending:count",
        VERSION,
        HALF,
        {"8": 0},
    ),
    ("model_version:tinyward_boards_committed:count", VERSION, HALF, {"8": 0}),
    ("model_version:tinyward_boards_failing:count", VERSION, HALF, {"8": 1}),
    (
        "instance_result_reason:tinyward_updates_not_committed:increase1h",
        'job="tinyward",instance="pi-{}",result="rolled_back",reason="latency"',
        # Born at 1; born again after a restart; and long there, between lost scrapes.
        fleet(
            boards(scraped, "1x120", 1, 2),
            *(rolled_back("_x60 1x9 2x60", 1), rolled_back("1x60 _x20 1x60", 2)),
            *(scraped("1x70 _x20 1x60", 3), rolled_back("1x70 _x20 1x60", 3)),
        ),
        {"1": 2, "2": 1, "3": 0},
    ),
    (
        "result_reason:tinyward_updates_not_committed:increase1h",
        'job="tinyward",result="rolled_back",reason="{}"',
        # Beside the edges of the hour: what Prometheus extrapolates is not our matter.
        fleet(rolled_back("0x75 1x45", 1), rolled_back("0x75 2x45", 2)),
        {"latency": 3 * 60 / 60},
    ),
    (
        "model_version:tinyward_inference_duration_seconds:p95_rate10m",
        VERSION,
        # Board 1 answers all within 10 ms, board 2 none; version 7 answers no more.
        fleet(
            took(8, "0+300x120", "0+300x120", 1),
            took(8, "0x120", "0+300x120", 2),
            took(7, "5x120", "9x120", 3),
        ),
        {"8": 0.019},
    ),
    (
        "model_version:tinyward_samples_failed:ratio_rate10m",
        VERSION,
        fleet(
            *(answered("0+90x120", 1), failed("0+10x120", 1)),
            *(answered("0+100x120", 2), answered("0+5x120", 3, 7)),
        ),
        {"8": 0.05, "7": 0},
    ),
    (
        "model_version:tinyward_boards_drifting:count",
        VERSION,
        fleet(boards(drifts, "1x120", 1, 2), drifts("0x120", 3), drifts("0x120", 4, 7)),
        {"8": 2, "7": 0},
    ),
    (
        "model_version:tinyward_boards_drifting:ratio",
        VERSION,
        fleet(
            boards(drifts, "1x120", 1, 2),
            *(drifts("0x120", board) for board in (3, 4)),
            model("tinyward_drift_active", "1x120", 4, anchor="site", scope="stuck"),
        ),
        {"8": 0.5},
    ),
    (
        "job:tinyward_metadata_age_seconds:max",
        'job="{}"',
        fleet(stale("100x120", 1), stale("90000x120", 2)),
        {"tinyward": 90_000},
    ),
    (
        "job:tinyward_metadata_stale:ratio",
        'job="{}"',
        fleet(boards(stale, "100x120", 1, 3, 4), stale("90000x120", 2)),
        {"tinyward": 0.25},
    ),
    (
        "job:tinyward_up:ratio",
        'job="{}"',
        fleet(boards(up, "1x120", 1, 2, 3), up("0x120", 4), up("0x120", 5, job="node")),
        {"tinyward": 0.75},
    ),
    (
        "job:tinyward_ddi_unheard:ratio",
        'job="{}"',
        # Board 5 follows no server.
        fleet(boards(unheard, "60x120", 1, 2, 3), unheard("9000x120", 4), up("1x9", 5)),
        {"tinyward": 0.25},
    ),
    (
        "result:tinyward_ddi_requests:rate15m",
        'job="tinyward",result="{}"',
        fleet(
            *(asked("0+30x120", board, result="ok") for board in (1, 2)),
            asked("0+6x120", 1, result="failed"),
        ),
        {"ok": 1, "failed": 0.1},
    ),
]


@pytest.mark.parametrize(
    ("name", "labels", "given", "expected"),
    RECORDED_CASES,
    ids=[name for name, *_ in RECORDED_CASES],
)
def test_recorded_rules_compute_what_they_say(  # noqa: PLR0913, PLR0917 - a row and two fixtures
    repository: Path,
    require_tool: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    labels: str,
    given: Series,
    expected: Mapping[str, float],
) -> None:
    """Counts, shares and percentiles of boards whose answer is known; none besides."""
    file = tmp_path / "test.yml"
    rows = "".join(
        f"          - value: {round(1e6 * value)}\n"
        f"            labels: '{{{labels.format(which)}}}'\n"
        for which, value in expected.items()
    )
    checks = (
        f"      - expr: round(1e6 * {name})\n        eval_time: 110m\n"
        f"        exp_samples:\n{rows}"
    )
    file.write_text(scenario(repository / FLEET, given, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


@dataclass(frozen=True)
class Case:
    """A rule, the series that make it fire after an hour, and those that never do."""

    rule: str
    fires: Series
    quiet: Series


# 60 minutes of nothing wrong, then what the rule is about; one value a minute.
CASES = [
    Case(
        "TinywardBoardSilent",
        fleet(up("1x60 0x120", 1), up("1x180", 2)),
        fleet(up("1 0x9 1x170", 1), up("0x180", 2, job="node")),
    ),
    Case(
        "TinywardBoardGone",
        fleet(up("1x60 _x120", 1), up("1x180", 2)),
        fleet(up("1x60 0x120", 1), up("1x60 _x9 1x110", 2)),
    ),
    Case(
        "TinywardFleetSilent",
        fleet(boards(up, "1x60 0x120", 1, 2), boards(up, "1x180", 3, 4, 5, 6)),
        # One of eleven; and half of a fleet that is none.
        fleet(
            up("0x180", 1),
            boards(up, "1x180", *range(2, 12)),
            up("1x60 0x120", 1, job="tinyward-lab"),
            up("1x180", 2, job="tinyward-lab"),
        ),
    ),
    Case(
        "TinywardFleetMetadataStale",
        fleet(boards(stale, "9x60 90000x120", 1, 2), stale("9x180", 3)),
        fleet(boards(stale, "9x180", 1, 2), stale("90000x180", 3)),
    ),
    Case(
        "TinywardManyRefusals",
        # As boards expose it: nothing, then 1, one after the other.
        fleet(
            boards(scraped, "1x180", 1, 2, 3),
            *(rolled_back(f"_x{58 + 4 * board} 1x120", board) for board in (1, 2, 3)),
        ),
        # Two of them; one that refused long ago; and three whose scrapes failed since.
        fleet(
            boards(scraped, "1x180", 1, 2, 3),
            *(rolled_back("0+1x180", 1), rolled_back("_x60 1x120", 2)),
            rolled_back("1x180", 3),
            *(scraped("1x60 _x15 1x120", board) for board in (4, 5, 6)),
            *(rolled_back("1x60 _x15 1x120", board) for board in (4, 5, 6)),
        ),
    ),
    Case(
        "TinywardRolloutFails",
        fleet(
            *(wants("1x180", board) for board in range(1, 5)),
            *(waiting("0x60 1x120", board, "contract") for board in (1, 2)),
        ),
        # One of four; two of fifty; and those that wait on purpose.
        fleet(
            *(wants("1x180", board) for board in range(1, 5)),
            waiting("1x180", 1, "contract"),
            *(waiting("1x180", board, "window") for board in (2, 3, 4)),
            *(wants("1x180", board, 9) for board in range(10, 60)),
            *(waiting("1x180", board, "contract") for board in (10, 11)),
        ),
    ),
    Case(
        "TinywardRolloutStuck",
        fleet(
            *(wants("_x60 1x180", board) for board in (1, 2)),
            *(runs("1x60 _x180", 1, 7), runs("_x60 1x180", 1)),
            runs("1x240", 2, 7),
        ),
        # One board an hour arrives; one never will and says why; and all are there.
        fleet(
            *(wants("1x240", board) for board in range(1, 7)),
            *(runs(f"_x{40 * board} 1x240", board) for board in range(1, 6)),
            waiting("1x240", 6, "contract"),
            *(wants("1x240", 9, 9), runs("1x240", 9, 9)),
        ),
    ),
    Case(
        "TinywardVersionDrifts",
        # Three of nine.
        fleet(
            boards(drifts, "0x60 1x120", 1, 2, 3),
            boards(drifts, "0x180", *range(4, 10)),
        ),
        # Two boards, all of one version; three of ten of another; stuck cameras.
        fleet(
            *(drifts("1x180", board, 7) for board in (21, 22)),
            boards(drifts, "1x180", 1, 2, 3),
            boards(drifts, "0x180", *range(4, 11)),
            *(
                model(
                    "tinyward_drift_active",
                    "1x180",
                    it,
                    anchor="shipped",
                    scope="stuck",
                )
                for it in range(1, 9)
            ),
        ),
    ),
    Case(
        "TinywardVersionFails",
        fleet(
            boards(answered, "0+100x180", 1, 2), boards(failed, "0x60 0+20x120", 1, 2)
        ),
        # One board of ten fails a third of the time: that board's matter.
        fleet(boards(answered, "0+100x180", *range(1, 11)), failed("0+30x180", 1)),
    ),
    Case(
        "TinywardVersionSlower",
        # 9.5 ms before; then version 8 comes, and takes 15.2 ms, or 13.3 ms.
        fleet(
            took(7, "0+600x60 36000x120", "0+600x60 36000x120", 1),
            took(8, "_x60 0+896x120", "_x60 0+1000x120", 1),
        ),
        fleet(
            took(7, "0+600x180", "0+600x180", 1),
            took(8, "_x60 0+925x120", "_x60 0+1000x120", 2),
        ),
    ),
    Case(
        "TinywardServerUnheard",
        fleet(unheard("60x60 9000x120", 1), unheard("60x180", 2)),
        fleet(unheard("3600x180", 1), unheard("9000x9 60x180", 2)),
    ),
    Case(
        "TinywardServerSilent",
        fleet(boards(unheard, "60x60 9000x120", 1, 2), unheard("60x180", 3)),
        # One of two, and both of a pair that is no fleet.
        fleet(
            boards(unheard, "9000x180", 1, 2),
            *(unheard("60x180", board, job="tinyward-b") for board in (3, 4)),
            *(unheard("9000x180", board, job="tinyward-b") for board in (5, 6)),
        ),
    ),
    Case(
        "TinywardServerRefuses",
        fleet(
            asked("0+1x60 60x120", 1, result="ok"),
            asked("0x60 0+1x120", 1, result="refused"),
        ),
        fleet(
            asked("0+1x180", 1, result="ok"),
            asked("0+2x180", 1, result="refused"),
            asked("0+1x180", 2, result="failed"),
        ),
    ),
    Case(
        "TinywardServerUntold",
        fleet(untold("0x60 2x180", 1), unheard("60x240", 1)),
        # It gets there in the end; and a board that hears nothing has another alert.
        fleet(
            untold("1x50 0 1x50 0 1x50 0", 1),
            unheard("60x240", 1),
            *(untold("1x240", 2), unheard("9000x240", 2)),
        ),
    ),
]


# Alerts that wait for more than an hour.
SLOW = {"TinywardRolloutStuck", "TinywardServerUntold"}


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_each_rule_fires_when_it_should_and_only_then(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path, case: Case
) -> None:
    """Not before, for sure after; and never for what only resembles it."""
    tool = require_tool("promtool")
    fires, quiet = tmp_path / "fires.yml", tmp_path / "quiet.yml"
    late = 235 if case.rule in SLOW else 110
    checks = counts({case.rule: 0}, 59) + counts({case.rule: 1}, late)
    fires.write_text(scenario(repository / FLEET, case.fires, checks))
    promtool(tool, "test", "rules", str(fires))
    checks = "".join(counts({case.rule: 0}, at) for at in range(1, 180, 7))
    quiet.write_text(scenario(repository / FLEET, case.quiet, checks))
    promtool(tool, "test", "rules", str(quiet))


def test_nothing_fires_in_a_fleet_that_is_well(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """A rollout that goes well, some failures: no alert, of boards neither."""
    given: Series = {}
    for board in range(1, 9):
        given |= fleet(
            *(up("1x240", board), stale("9000x240", board), wants("1x240", board)),
            runs(f"1x{20 * board} _x240", board, 7),
            runs(f"_x{20 * board} 1x240", board),
            *(waiting("0x240", board), answered("0+600x240", board)),
            *(failed("0+1x240", board), drifts("0x240", board)),
            *(unheard("200x240", board), untold("0x240", board)),
            *(asked("0+1x240", board, result="ok"),),
            took(8, "0+600x240", "0+610x240", board),
            *(scraped("1x240", board), rolled_back("1x240", board)),
        )
    file = tmp_path / "test.yml"
    for rules in (FLEET, RULES):
        alerts = dict.fromkeys(names((repository / rules).read_text()), 0)
        checks = "".join(counts(alerts, at) for at in (30, 120, 200))
        file.write_text(scenario(repository / rules, given, checks))
        promtool(require_tool("promtool"), "test", "rules", str(file))


def test_prometheus_reads_the_rules(
    repository: Path, require_tool: Callable[[str], Path]
) -> None:
    """``promtool check rules`` finds nothing to say."""
    said = promtool(require_tool("promtool"), "check", "rules", str(repository / FLEET))
    rules = re.findall(r"- (?:alert|record): ", (repository / FLEET).read_text())
    assert f"{len(rules)} rules found" in said


def test_every_metric_and_label_of_a_rule_exists(repository: Path) -> None:
    """A rule about what nobody exposes or records would never fire."""
    text = (repository / FLEET).read_text()
    recorded = set(re.findall(r"- record: (\S+)", text))
    rules = expressions(text)
    used = set(re.findall(r"[a-z_]*:?tinyward_[a-z_0-9]+(?::[a-z_0-9]+)?", rules))
    assert {name for name in used if ":" in name} <= recorded
    assert {family(name) for name in used if ":" not in name} <= set(METRICS)
    for metric, matchers in SELECTOR.findall(rules):
        labels = {*METRICS[family(metric)].labels, *GIVEN}
        assert set(re.findall(r"(\w+)[=!~]+\"", matchers)) <= labels


def test_every_rule_is_tried_and_none_has_a_name_twice(repository: Path) -> None:
    """Names of the file and of the cases are the same, and those of others differ."""
    text = (repository / FLEET).read_text()
    recorded = re.findall(r"- record: (\S+)", text)
    assert {name for name, *_ in RECORDED_CASES} == set(recorded)
    assert {case.rule for case in CASES} == set(names(text))
    others = [(repository / file).read_text() for file in (RULES, RECORDED)]
    for other in others:
        assert set(names(other)) & set(names(text)) == set()
        assert set(re.findall(r"- record: (\S+)", other)) & set(recorded) == set()


def test_what_waits_on_purpose_is_the_same_everywhere(repository: Path) -> None:
    """The rules' list of reasons is the command line's."""
    text = (repository / FLEET).read_text()
    lists = re.findall(r'tinyward_update_waiting\{reason=?!?~"([^"]+)"', text)
    assert [set(found.split("|")) - {""} for found in lists] == [set(CALM)] * 4


def test_the_rules_find_the_jobs_that_we_name(repository: Path) -> None:
    """Whoever copies the printed scrape_config is heard."""
    jobs = set(re.findall(r'job=~"([^"]+)"', (repository / FLEET).read_text()))
    assert [bool(re.fullmatch(pattern, JOB)) for pattern in jobs] == [True]
