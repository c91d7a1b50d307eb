"""Alert rules and the timer that are shipped: checked by the tools that read them."""

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from agent.core.watching import SEVERITIES
from agent.telemetry.families import METRICS

FOLDER = Path("agent", "telemetry", "dashboards")
RULES = FOLDER / "alerts.yml"
RECORDED = FOLDER / "rules.yml"
# What a histogram and its family are called in samples.
ENDINGS = re.compile(r"_(bucket|count|sum)$")
SELECTOR = re.compile(r"(tinyward_\w+)\{([^}]*)\}")
DAY_S = 86_400
# (rule, metric with labels, value, minutes until it fires).
FIRES = [
    (
        "TinywardMetadataExpires",
        'tinyward_metadata_expires_seconds{role="timestamp"}',
        DAY_S,
        20,
    ),
    (
        "TinywardOfflineMetadataExpires",
        'tinyward_metadata_expires_seconds{role="root"}',
        20 * DAY_S,
        70,
    ),
    (
        "TinywardMetadataExpired",
        'tinyward_metadata_expires_seconds{role="fleet"}',
        -1,
        20,
    ),
    ("TinywardMetadataFrozen", "tinyward_metadata_age_seconds", 2 * DAY_S, 40),
    (
        "TinywardCertificateExpires",
        "tinyward_certificate_expires_seconds",
        20 * DAY_S,
        70,
    ),
    ("TinywardCertificateExpired", "tinyward_certificate_expires_seconds", -1, 20),
    ("TinywardPipelineNotReady", 'tinyward_pipeline_ready{pipeline="door"}', 0, 10),
    ("TinywardClockBehind", "tinyward_clock_floor_lag_seconds", 3600, 20),
    ("TinywardUnpaid", 'tinyward_meter_unpaid{pipeline="door"}', 1, 8),
]
# The same metrics as a board has them that nothing is wrong with.
QUIET = {
    'tinyward_metadata_expires_seconds{role="timestamp"}': 6 * DAY_S,
    'tinyward_metadata_expires_seconds{role="root"}': 200 * DAY_S,
    'tinyward_metadata_expires_seconds{role="fleet"}': 3 * DAY_S,
    "tinyward_metadata_age_seconds": 6 * 3600,
    "tinyward_certificate_expires_seconds": 60 * DAY_S,
    'tinyward_pipeline_ready{pipeline="door"}': 1,
    "tinyward_clock_floor_lag_seconds": 0,
    "tinyward_build_info": 1,
    'tinyward_updates_total{result="refused",reason="signature"}': 3,
    'tinyward_updates_total{result="committed",reason=""}': 7,
    'tinyward_verify_failures_total{reason="expired"}': 3,
    'tinyward_meter_unpaid{pipeline="door"}': 0,
    "tinyward_audit_lost_total": 12,
    "tinyward_audit_set_aside": 0,
    # Nothing is asked: the newest checkpoint is old, and covers everything.
    "tinyward_audit_checkpoint_age_seconds": 90_000,
    "tinyward_audit_unsigned_records": 0,
}


def promtool(tool: Path, *words: str) -> str:
    """Run promtool, which has to be content; return what it said."""
    ran = subprocess.run([tool, *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def names(text: str) -> list[str]:
    """Return the rules in a file."""
    return re.findall(r"- alert: (\w+)", text)


@pytest.mark.parametrize("file", [RULES, RECORDED], ids=str)
def test_prometheus_reads_the_rules(
    repository: Path, require_tool: Callable[[str], Path], file: Path
) -> None:
    """``promtool check rules`` finds nothing to say."""
    tool = require_tool("promtool")
    said = promtool(tool, "check", "rules", str(repository / file))
    rules = re.findall(r"- (?:alert|record): ", (repository / file).read_text())
    assert f"{len(rules)} rules found" in said


def family(sample: str) -> str:
    """Return the metric that a sample belongs to."""
    return sample if sample in METRICS else ENDINGS.sub("", sample)


def expressions(text: str) -> str:
    """Return a file's expressions: names elsewhere are words for people."""
    prose = re.compile(
        r"^\s*(#|- alert:|- record:|summary:|description:).*$", re.MULTILINE
    )
    return prose.sub("", text)


@pytest.mark.parametrize("file", [RULES, RECORDED], ids=str)
def test_every_metric_of_a_rule_exists(repository: Path, file: Path) -> None:
    """A rule about a metric that nobody exposes would never fire."""
    text = expressions((repository / file).read_text())
    used = {family(name) for name in re.findall(r"tinyward_\w+", text)}
    assert used != set()
    assert used <= set(METRICS)


@pytest.mark.parametrize("file", [RULES, RECORDED], ids=str)
def test_every_label_of_a_rule_exists(repository: Path, file: Path) -> None:
    """Labels that rules choose by are those of the metric."""
    found = SELECTOR.findall(expressions((repository / file).read_text()))
    assert found != []
    for metric, matchers in found:
        for label in re.findall(r"(\w+)[=!~]+\"", matchers):
            assert label in METRICS[family(metric)].labels


@pytest.mark.parametrize(
    "metric", ["tinyward_drift_active", "tinyward_drift_confirmed"]
)
def test_drift_is_as_severe_as_the_monitor_says(repository: Path, metric: str) -> None:
    """Alerts, page and log agree on which scope is critical."""
    text = (repository / RULES).read_text()
    rule = re.compile(
        metric + r'\{scope=~?"([^"]+)"\} == 1\s+labels:\s+severity: (\w+)'
    )
    found = {
        scope: severity
        for scopes, severity in rule.findall(text)
        for scope in scopes.split("|")
    }
    assert found == SEVERITIES


def scenario(rules: Path, series: dict[str, str], checks: str) -> str:
    """Return a file for ``promtool test rules``."""
    lines = "\n".join(
        f"      - series: '{name}'\n        values: '{values}'"
        for name, values in series.items()
    )
    return (
        f"rule_files: ['{rules}']\nevaluation_interval: 1m\ntests:\n"
        f"  - interval: 1m\n    input_series:\n{lines}\n"
        f"    promql_expr_test:\n{checks}"
    )


def counts(alerts: dict[str, int], minutes: int) -> str:
    """Return checks that so many alerts of each kind fire at a time."""
    return "".join(
        f'      - expr: count(ALERTS{{alertname="{name}",alertstate="firing"}}) '
        f"or vector(0)\n        eval_time: {minutes}m\n        exp_samples:\n"
        f"          - value: {count}\n            labels: '{{}}'\n"
        for name, count in alerts.items()
    )


@pytest.mark.parametrize(("name", "series", "value", "minutes"), FIRES)
def test_19_each_rule_fires(  # noqa: PLR0913, PLR0917 - a row of the table and two fixtures
    repository: Path,
    require_tool: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    series: str,
    value: float,
    minutes: int,
) -> None:
    """What ends, freezes or stands still is told, and not before it lasts."""
    file = tmp_path / "test.yml"
    values = {series: f"{value}x120"}
    checks = counts({name: 0}, 1) + counts({name: 1}, minutes)
    file.write_text(scenario(repository / RULES, values, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


@pytest.mark.parametrize(
    ("series", "name"),
    [
        (
            'tinyward_updates_total{result="rolled_back",reason="latency"}',
            "TinywardUpdateNotCommitted",
        ),
        ('tinyward_verify_failures_total{reason="signature"}', "TinywardVerifyFails"),
        ("tinyward_audit_lost_total", "TinywardReceiptsLost"),
    ],
)
def test_refusals_are_told(
    repository: Path,
    require_tool: Callable[[str], Path],
    tmp_path: Path,
    series: str,
    name: str,
) -> None:
    """A counter that rises is an alert; one that stands is not."""
    file = tmp_path / "test.yml"
    values = {series: "0x30 0+1x30"}
    checks = counts({name: 0}, 30) + counts({name: 1}, 55)
    file.write_text(scenario(repository / RULES, values, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


def test_the_first_refusal_is_told(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its series begins with 1: nothing rises. After an hour it is history."""
    file = tmp_path / "test.yml"
    board = 'job="tinyward",instance="pi-1"'
    refused = f'tinyward_updates_total{{{board},result="refused",reason="contract"}}'
    values = {
        f"tinyward_build_info{{{board}}}": "1x240",
        # The daemon restarts after two hours: the series is gone, and then back.
        refused: "_x30 1x90 stale _x8 1x120",
    }
    name = "TinywardUpdateNotCommitted"
    told = [(29, 0), (31, 1), (88, 1), (95, 0), (119, 0), (125, 0), (131, 1)]
    checks = "".join(counts({name: number}, at) for at, number in told)
    file.write_text(scenario(repository / RULES, values, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


def test_a_log_that_nobody_signs_is_told(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """Records that wait for a checkpoint for long; an old checkpoint alone is none."""
    file = tmp_path / "test.yml"
    board = '{job="tinyward",instance="pi-1"}'
    values = {
        f"tinyward_audit_checkpoint_age_seconds{board}": "5+60x60",
        f"tinyward_audit_unsigned_records{board}": "0x30 7x30",
    }
    name = "TinywardLogNotSigned"
    checks = "".join(
        counts({name: told}, at) for at, told in ((29, 0), (33, 0), (37, 1))
    )
    file.write_text(scenario(repository / RULES, values, checks))
    promtool(require_tool("promtool"), "test", "rules", str(file))


def test_nothing_fires_on_a_board_that_is_well(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """Rules that cry without need are switched off, and then nobody hears."""
    file = tmp_path / "test.yml"
    values = {name: f"{value}x240" for name, value in QUIET.items()}
    alerts = dict.fromkeys(names((repository / RULES).read_text()), 0)
    file.write_text(scenario(repository / RULES, values, counts(alerts, 200)))
    promtool(require_tool("promtool"), "test", "rules", str(file))


def test_the_rules_are_part_of_the_package() -> None:
    """After an installation they lie beside the module that exposes the metrics."""
    assert (files("agent.telemetry") / "dashboards" / RULES.name).is_file()


def test_systemd_reads_the_timer(
    repository: Path, require_tool: Callable[[str], Path], tmp_path: Path
) -> None:
    """``systemd-analyze verify`` finds nothing to say."""
    tool = require_tool("systemd-analyze")
    program = str(Path(sys.executable).with_name("tinyward"))
    for name in ("tinyward-timestamp.service", "tinyward-timestamp.timer"):
        text = (repository / "systemd" / name).read_text()
        (tmp_path / name).write_text(
            text.replace("/opt/tinyward/current/bin/tinyward", program)
        )
    ran = subprocess.run(
        [tool, "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in ran.stderr.splitlines() if "tinyward" in line]
    assert (ran.returncode, said) == (0, [])


def test_the_timer_calls_a_command_that_exists(repository: Path) -> None:
    """Every option of its line is one of ``tinyward repo timestamp``."""
    from agent.cli.repo import command

    text = (repository / "systemd" / "tinyward-timestamp.service").read_text()
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    words = line.split()[1:]
    assert words[:2] == ["repo", "timestamp"]
    options = {
        name for one in command.commands["timestamp"].params for name in one.opts
    }
    assert {word for word in words if word.startswith("--")} <= options
