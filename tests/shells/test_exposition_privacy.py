"""Privacy mode as a scraper sees it: no label, no single answer, no small count."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as replace_struct
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.core.discretion import WINDOW_SAMPLES, Discretion
from agent.core.snapshot import AgentSnapshot, ModelCounts
from agent.settings import MonitorSettings
from agent.telemetry.exposition import Exposition
from tests.fakes.monitored import MONITORED, watch, watched
from tests.fakes.snapshots import BOARD, agent, section
from tests.shells.test_exposition import Series, series_of

NAMES = ("Ada", "Grace", "nobody")


def board(samples: int, answers: int = 1_000) -> AgentSnapshot:
    """Return a board that names faces, so many of which were looked at closely."""
    said = replace_struct(
        MONITORED,
        samples=samples,
        predictions=(samples - 3, 2, 1),
        confidence=(1, *(0,) * 8, samples - 1),
    )
    answered = section([60_000] * answers)
    counts = (ModelCounts("kws", 2, NAMES, answered),)
    return agent(replace(watched("door", watch(2, said)), counts=counts))


def scraped(exposition: Exposition, snapshot: AgentSnapshot) -> Series:
    """Return what one scrape shows."""
    _, body = exposition.render(snapshot, BOARD, "")
    return series_of(parse_text(body.decode()))


def private() -> Exposition:
    """Return the exposition of a board in privacy mode."""
    return Exposition(MonitorSettings(privacy=True))


def about_answers(series: Series) -> Series:
    """Return the series that single answers could be read from."""
    told = ("tinyward_predictions", "tinyward_output", "tinyward_drift_feature")
    return {key: number for key, number in series.items() if key[0].startswith(told)}


def test_no_label_leaves_the_board() -> None:
    """Neither in predictions nor anywhere else."""
    _, body = private().render(board(5_000), BOARD, "")
    assert [name for name in NAMES if name.encode() in body] == []
    _, body = Exposition().render(board(5_000), BOARD, "")
    assert b'label="Ada"' in body


def test_one_answer_more_changes_nothing() -> None:
    """What is shown of answers stays until the next window is full."""
    exposition = private()
    first = about_answers(scraped(exposition, board(5_000)))
    one_more = about_answers(scraped(exposition, board(5_001, answers=1_001)))
    assert first == one_more
    later = about_answers(scraped(exposition, board(5_000 + WINDOW_SAMPLES)))
    assert later.keys() == first.keys()
    assert later != first


def test_the_first_answers_are_not_shown() -> None:
    """Nothing of them, until there are enough to hide in."""
    shown = about_answers(scraped(private(), board(WINDOW_SAMPLES - 1)))
    assert set(shown.values()) == {0}


def test_rare_answers_cannot_be_told_apart() -> None:
    """One answer of little confidence goes into the next bucket that has ten."""
    series = scraped(private(), board(5_000))
    counts = {
        dict(labels)["le"]: number
        for (name, labels), number in series.items()
        if name == "tinyward_output_confidence_ratio_bucket"
    }
    assert counts["0.1"] == counts["0.9"] == 0
    assert counts["1.0"] == counts["+Inf"] == 5_000


def test_alarms_are_told_all_the_same() -> None:
    """What operators act on is there, live."""
    names = {name for name, _ in scraped(private(), board(5_000))}
    assert names >= {
        "tinyward_drift_active",
        "tinyward_drift_score_ratio",
        "tinyward_drift_alarms_total",
        "tinyward_samples_total",
    }


def test_a_snapshot_that_was_hidden_already_is_shown_as_it_is() -> None:
    """The page's copy and the scraper's say the same."""
    snapshot = board(5_000)
    hidden = tuple(map(Discretion().hide, snapshot.pipelines))
    once = scraped(private(), snapshot)
    assert scraped(private(), replace(snapshot, pipelines=hidden)) == once


def test_promtool_has_nothing_to_say(require_tool: Callable[[str], Path]) -> None:
    """The same metrics in the same form."""
    _, body = private().render(board(5_000), BOARD, "")
    ran = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=body,
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
