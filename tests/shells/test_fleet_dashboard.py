"""The fleet's dashboard: about what is recorded or exposed, of the fleet chosen."""

import json
import re
from pathlib import Path

import pytest

from agent.telemetry.families import METRICS
from tests.shells.test_alerts import FOLDER, RECORDED, SELECTOR, family
from tests.shells.test_dashboards import FLEET, NAME, Json, questions

ROWS = ["Fleet", "Rollouts", "Versions compared", "Boards"]
# What the names of recorded rules begin with -> the labels that they keep.
KEPT = {
    "model_version": {"model", "version"},
    "result_reason": {"result", "reason"},
    "result": {"result"},
    "job": set[str](),
}
ASKED = re.compile(r"((?:\w+:)?(?:tinyward_|up\b|ALERTS\b)[\w:]*)(?:\{([^}]*)\})?")


@pytest.fixture(scope="module")
def fleet(repository: Path) -> Json:
    """Give the dashboard as JSON."""
    loaded: Json = json.loads((repository / FOLDER / FLEET).read_text())
    return loaded


def test_every_metric_and_label_exists(repository: Path, fleet: Json) -> None:
    """Each name is one of ours, a recorded rule's or Prometheus's; so is each label."""
    rules = "".join(
        (repository / FOLDER / name).read_text()
        for name in ("fleet-rules.yml", RECORDED.name)
    )
    recorded = set(re.findall(r"- record: (\S+)", rules))
    for title, expr, legend in questions(fleet):
        known = {"instance", "job", "alertname", "alertstate", "severity", "le"}
        for name, matchers in ASKED.findall(expr):
            if ":" in name:
                assert name in recorded, title
                known |= KEPT[name.partition(":")[0]]
            elif "tinyward" in name:
                assert family(name) in METRICS, title
                known |= set(METRICS[family(name)].labels)
            assert set(re.findall(r'(\w+)[=!~]+"', matchers)) <= known, title
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= known, title


def test_every_question_is_about_the_fleet_that_was_chosen(fleet: Json) -> None:
    """A Prometheus may scrape several, and much that is no board."""
    for title, expr, _ in questions(fleet):
        found = ASKED.findall(expr.replace("Tinyward.*", ""))
        assert found, title
        for name, matchers in found:
            assert 'job="$job"' in matchers, title
            if name.startswith("model_version:"):
                assert 'model=~"$model"' in matchers, title


def test_every_recorded_rule_of_the_fleet_is_shown(
    repository: Path, fleet: Json
) -> None:
    """What is computed for every fleet is there to be looked at, or for an alert."""
    text = (repository / FOLDER / "fleet-rules.yml").read_text()
    shown = {name for _, expr, _ in questions(fleet) for name, _ in ASKED.findall(expr)}
    hidden = set(re.findall(r"- record: (\S+)", text)) - shown
    # Their shares are shown; the numbers are for alerts.
    assert hidden == {
        "instance_result_reason:tinyward_updates_not_committed:increase1h",
        "model_version:tinyward_boards_due:count",
        "model_version:tinyward_boards_committed:count",
        "model_version:tinyward_boards_failing:ratio",
        "model_version:tinyward_boards_drifting:count",
        "job:tinyward_ddi_unheard:ratio",
    }


def test_rows_and_variables_are_in_order(fleet: Json) -> None:
    """From the whole to its boards; any data source, one fleet, some models."""
    rows = [panel["title"] for panel in fleet["panels"] if panel["type"] == "row"]
    assert rows == ROWS
    variables = [each["name"] for each in fleet["templating"]["list"]]
    assert variables == ["datasource", "job", "model"]
    sources = {
        source["datasource"]["uid"]
        for panel in fleet["panels"]
        if panel["type"] != "row"
        for source in (panel, *panel["targets"])
    }
    assert sources == {"${datasource}"}


def test_a_boards_name_leads_to_its_own_dashboard(
    repository: Path, fleet: Json
) -> None:
    """The link is that of the other file, and fills its variable."""
    board = json.loads((repository / FOLDER / NAME).read_text())
    links = set(re.findall(r'"url": "(/[^"]+)"', json.dumps(fleet)))
    assert links == {f"/d/{board['uid']}?var-instance=${{__value.text}}"}
    assert "instance" in [each["name"] for each in board["templating"]["list"]]
    assert SELECTOR.search(json.dumps(board))
