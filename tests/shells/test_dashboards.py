"""The Grafana dashboards: valid by Grafana's own schema, about metrics that exist."""

import json
import re
import subprocess
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from agent.telemetry.families import METRICS
from agent.telemetry.metric_rows_integrity import INTEGRITY_ROWS
from agent.telemetry.metric_rows_log import LOG_ROWS
from agent.telemetry.metric_rows_meter import METER_ROWS
from tests.shells.test_alerts import FOLDER, RECORDED, SELECTOR, family, promtool

Json = dict[str, Any]
NAME = "tinyward-board.json"
FLEET = "tinyward-fleet.json"
ROWS = [
    *("What runs", "Throughput", "Latency", "Drift", "Features that moved"),
    *("Predictions", "Updates", "Board"),
]
# What Grafana puts in place of its variables before it asks.
VARIABLES = {
    "$instance": "board-1:9797",
    "$pipeline": "door|gate",
    "$job": "tinyward",
    "$model": "kws|vww",
    "$__rate_interval": "1m",
}
# Kept for the next reader of a series, not to be looked at over time.
NOT_SHOWN = {
    # Most boards neither meter nor give receipts: an empty panel on each of them would
    # look like a fault. Alerts tell what needs somebody, `tinyward status` the rest.
    *(row.name for row in (*METER_ROWS, *LOG_ROWS, *INTEGRITY_ROWS)),
    # What helps once a board is known to be slow: node_exporter's dashboards have it.
    "tinyward_board_cooling_ratio",
    "tinyward_board_cpu_frequency_max_hertz",
    "tinyward_board_cpu_scaling_governor",
    "tinyward_board_device_frequency_hertz",
    "tinyward_board_filesystem_size_bytes",
    "tinyward_board_info",
    "tinyward_board_memory_size_bytes",
    "tinyward_board_pressure_cpu_waiting_seconds_total",
    "tinyward_board_pressure_io_stalled_seconds_total",
    "tinyward_board_pressure_memory_stalled_seconds_total",
    # What is done about a level that is shown: `tinyward status` says it in words.
    "tinyward_degradation_measure",
    "tinyward_drift_alarms_total",  # "Alarms" shows when they were raised
    "tinyward_drift_confirmed",  # an alert tells it
    "tinyward_drift_feature_ks",  # beside PSI, for who looks closer
    "tinyward_drift_last_alarm_timestamp_seconds",
    "tinyward_drift_reference_info",
    "tinyward_drift_samples_total",
    "tinyward_drift_window_timestamp_seconds",
    "tinyward_monitor_seconds_total",  # the share is its rate
    "tinyward_clock_floor_lag_seconds",
    "tinyward_desired_info",
    # Of boards that a fleet's server orders about: the fleet's dashboard shows them.
    "tinyward_ddi_last_poll_seconds",
    "tinyward_ddi_outbox",
    "tinyward_ddi_requests_total",
    "tinyward_revoked_bundles",
    "tinyward_scrape_duration_seconds",
    "tinyward_set_aside_bundles",
}
# Counters that the first scrape has at 0, for all label values that a question may see
# rise; histograms and rates over many events lose one step at most.
FROM_ZERO = {"tinyward_update_bytes_total", "tinyward_samples_total"}
# Here because only crash, hang and oom are asked for, which start at 0; and what a log
# lost stands at 0 from its first record on.
FROM_ZERO_IN_RULES = {"tinyward_worker_restarts_total", "tinyward_audit_lost_total"}
INCREASE = re.compile(r"increase\((tinyward_\w+(?:\{[^}]*\})?\[[^]]+\])\)")


@pytest.fixture(scope="module")
def board(repository: Path) -> Json:
    """Give the board as JSON."""
    loaded: Json = json.loads((repository / FOLDER / NAME).read_text())
    return loaded


@pytest.fixture(scope="module", params=[NAME, FLEET])
def dashboard(repository: Path, request: pytest.FixtureRequest) -> Json:
    """Give each dashboard as JSON."""
    loaded: Json = json.loads((repository / FOLDER / request.param).read_text())
    return loaded


def questions(board: Json) -> Iterator[tuple[str, str, str]]:
    """Yield (panel, expression, legend) of everything that it asks."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], ""


def lost(before: object, after: object, where: str = "") -> Iterator[str]:
    """Yield what the schema's reader did not take over."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{where}/{key}"
            else:
                yield from lost(value, after[key], f"{where}/{key}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield where
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from lost(old, new, f"{where}[{index}]")
    elif before != after:
        yield where


def test_grafana_knows_every_key(dashboard: Json) -> None:
    """What its schema does not know would silently have no effect."""
    register_default_plugins()
    read = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    written = json.loads(JSONEncoder().encode(read))
    assert list(lost(dashboard, written)) == []


def mistyped(value: object, hint: object, where: str) -> Iterator[str]:
    """Yield what is not of the type that the schema declares.

    The schema's reader takes any value for any key; its types are in annotations.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        found = [list(mistyped(value, part, where)) for part in parts]
        if all(found):
            yield min(found, key=len)[0]
    elif origin is list and isinstance(value, list):
        for index, each in enumerate(value):
            yield from mistyped(each, parts[0], f"{where}[{index}]")
    elif origin is typing.Literal and value not in parts:
        yield f"{where}: {value!r} is none of {parts}"
    elif isinstance(hint, type):
        yield from mistyped_object(value, hint, where)


def mistyped_object(value: object, kind: type, where: str) -> Iterator[str]:
    """Yield what of one word, number or object is not as its class declares."""
    theirs = kind.__module__.startswith("grafana_foundation_sdk")
    if issubclass(kind, Enum):
        fits = value in {member.value for member in kind} | set(kind)
    elif kind is float:
        fits = isinstance(value, int | float)
    else:
        if theirs and isinstance(value, dict):  # what the reader left as it was
            value = kind.from_json(value)  # type: ignore[attr-defined]  # they all have it
        fits = isinstance(value, kind) and not (kind is int and value is True)
    if not fits:
        yield f"{where}: {value!r} is no {kind.__name__}"
    elif theirs and not issubclass(kind, Enum):
        for name, hint in typing.get_type_hints(kind).items():
            yield from mistyped(getattr(value, name), hint, f"{where}/{name}")


def test_every_value_is_of_the_type_grafana_declares(dashboard: Json) -> None:
    """Words of enumerations, numbers, lists: as in the schema's classes."""
    register_default_plugins()
    read = Dashboard.from_json(json.loads(json.dumps(dashboard)))
    assert list(mistyped(read, Dashboard, "")) == []


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("schemaVersion", "39"), ("panels", [{"type": "row", "id": "1"}])],
)
def test_a_wrong_type_would_be_found(board: Json, key: str, wrong: object) -> None:
    """The check itself is not blind."""
    register_default_plugins()
    read = Dashboard.from_json({**json.loads(json.dumps(board)), key: wrong})
    assert list(mistyped(read, Dashboard, "")) != []


def test_prometheus_parses_every_question(
    dashboard: Json, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """With the variables filled in, as rules that promtool reads."""
    rules = []
    for index, (_, expr, _) in enumerate(questions(dashboard)):
        assert "$" not in filled(expr)
        rules.append({"record": f"asked:{index}", "expr": filled(expr)})
    file = tmp_path / "asked.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    ran = subprocess.run(
        [require_tool("promtool"), "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{len(rules)} rules found" in ran.stdout, ran.stdout + ran.stderr


def filled(expr: str) -> str:
    """Return a question with Grafana's variables replaced."""
    for variable, word in VARIABLES.items():
        expr = expr.replace(variable, word)
    return expr


def test_what_is_born_late_is_asked_so_that_its_first_step_counts(
    repository: Path,
) -> None:
    """``increase`` sees no series that begins with 1: each looks for births as well."""
    seen = set()
    rules = [it.read_text() for it in (repository / FOLDER).glob("*.yml")]
    texts = [(it, FROM_ZERO | FROM_ZERO_IN_RULES) for it in rules]
    for name in (NAME, FLEET):
        loaded = json.loads((repository / FOLDER / name).read_text())
        texts += [(expr, FROM_ZERO) for _, expr, _ in questions(loaded)]
    for text, from_zero in texts:
        for asked in INCREASE.findall(text):
            metric = re.split(r"[{\[]", asked)[0]
            seen.add(metric)
            if metric not in from_zero:
                assert f"count_over_time({asked})" in text
    assert {"tinyward_updates_total", "tinyward_update_bytes_total"} <= seen


def test_panels_show_the_first_of_its_kind(
    board: Json, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """A series that begins with 1 is shown as one event, once."""
    asked = [filled(it) for _, it, _ in questions(board) if "count_over_time" in it]
    given = 'job="tinyward",instance="board-1:9797"'
    metrics = {re.findall(r"tinyward_\w+_total", it)[0] for it in asked}
    rows = [{"series": f"tinyward_build_info{{{given}}}", "values": "1x99"}]
    rows += [
        {"series": f'{it}{{{given},pipeline="door"}}', "values": "_x60 1x39"}
        for it in metrics
    ]
    rules = [
        {"record": f"asked:{number}", "expr": expr.replace("[1m]", "[5m]")}
        for number, expr in enumerate(asked)
    ]
    (tmp_path / "rules.yml").write_text(
        json.dumps({"groups": [{"name": "asked", "rules": rules}]})
    )
    checks = [
        {
            "expr": f"sum(asked:{number}) or vector(0)",
            "eval_time": at,
            "exp_samples": [{"value": expected}],
        }
        for number in range(len(asked))
        for at, expected in (("58m", 0), ("61m", 1), ("70m", 0))
    ]
    case = {"interval": "1m", "input_series": rows, "promql_expr_test": checks}
    file = tmp_path / "test.yml"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [case]}))
    promtool(require_tool("promtool"), "test", "rules", str(file))
    assert len(asked) == 5


def test_every_metric_and_label_exists(repository: Path, board: Json) -> None:
    """Each name is one of ours or a recorded rule's; so is each label in use."""
    recorded = re.findall(r"- record: (\S+)", (repository / RECORDED).read_text())
    given = {"instance"}  # Prometheus adds it
    for title, expr, legend in questions(board):
        for sample in re.findall(r"[a-z_:]*tinyward_[a-z_:0-9]+", expr):
            assert sample in recorded or family(sample) in METRICS, title
        known = set(given)
        for sample, matchers in SELECTOR.findall(expr):
            labels = {*METRICS[family(sample)].labels, *given, "le"}
            assert set(re.findall(r'(\w+)[=!~]+"', matchers)) <= labels, title
            known |= labels
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= known, title


def test_every_question_is_about_the_board_that_was_chosen(board: Json) -> None:
    """Without it, a panel would add up the whole fleet."""
    for title, expr, _ in questions(board):
        for sample, matchers in SELECTOR.findall(expr):
            assert 'instance="$instance"' in matchers, title
            per_pipeline = "pipeline" in METRICS[family(sample)].labels
            assert per_pipeline == ('pipeline=~"$pipeline"' in matchers), title
        assert len(re.findall(r"tinyward_", expr)) == len(SELECTOR.findall(expr)), title


def test_every_metric_is_shown_or_left_out_on_purpose(board: Json) -> None:
    """A metric that is added later is decided upon."""
    shown = {
        family(sample)
        for _, expr, _ in questions(board)
        for sample in re.findall(r"tinyward_\w+", expr)
    }
    assert set(METRICS) - shown == NOT_SHOWN


def test_rows_stand_in_the_order_of_questions(board: Json) -> None:
    """From what runs to how the board is."""
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ROWS


def test_variables_choose_source_board_and_pipelines(board: Json) -> None:
    """The dashboard can be imported anywhere: it names no data source of its own."""
    variables = board["templating"]["list"]
    assert [each["name"] for each in variables] == [
        "datasource",
        "instance",
        "pipeline",
    ]
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert {t["datasource"]["uid"] for t in panel["targets"]} == {
                "${datasource}"
            }


def test_panels_have_names_and_room(dashboard: Json) -> None:
    """Each has its id, says what it shows, and none covers another."""
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"].endswith(".")
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_threshold_is_drawn_where_scores_are(board: Json) -> None:
    """Above 1 it alarms: the line says so."""
    (scores,) = (p for p in board["panels"] if p["title"].startswith("Score against"))
    defaults = scores["fieldConfig"]["defaults"]
    assert [step["value"] for step in defaults["thresholds"]["steps"]] == [None, 1]
    assert defaults["custom"]["thresholdsStyle"] == {"mode": "line"}
