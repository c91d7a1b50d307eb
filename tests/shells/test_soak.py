"""The soak: what it measures is what was done, and a Ctrl-C keeps what was seen."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.core.manifest import TrialRules
from benchmarks.rows import Row
from benchmarks.soak import Plan, run
from benchmarks.soak_board import DEADLINE_S, PIPELINES
from benchmarks.soak_looks import (
    LEAST_LOOKS,
    MB,
    WINDOW_S,
    YOUNG_S,
    Look,
    Mark,
    Usage,
    answered,
    descriptor_growth,
    fallen,
    rss_slope,
    windows,
)
from benchmarks.soak_plot import render_plot
from benchmarks.soak_rows import soak_rows
from tests.conftest import REPOSITORY

SVG = "{http://www.w3.org/2000/svg}"
RULES = TrialRules(shadow_samples=10, probation_s=0.1)
SMALL = Plan(3.0, update_s=1.2, fault_s=0.9, away_s=0.2, look_s=0.2, rules=RULES)
# As a person at a terminal: it would go on for ten minutes, and is interrupted.
LONG = """
import json, signal, sys
from pathlib import Path
from rich.console import Console
from benchmarks.soak import Plan, run
signal.signal(signal.SIGINT, signal.default_int_handler)
rows = run(Plan(600, update_s=1.0, look_s=0.1), Path(sys.argv[1]), Console(stderr=True))
print(json.dumps([row.render() for row in rows]))
"""


@dataclass(frozen=True)
class Soaked:
    """What one small soak left behind."""

    rows: Mapping[str, Row]
    plot: ET.Element


def by_measure(rows: list[Row]) -> dict[str, Row]:
    """Return rows by what they measure."""
    return {row.measure: row for row in rows}


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Soaked:
    """Give what some seconds of soak came to."""
    plot = tmp_path_factory.mktemp("soak") / "plot.svg"
    rows = run(SMALL, plot, Console(file=io.StringIO()))
    return Soaked(by_measure(rows), ET.parse(plot).getroot())  # noqa: S314 - our own


def test_a_small_soak_loses_nothing(soaked: Soaked) -> None:
    """Samples were answered; none was lost, no counter fell, each hit is explained."""
    rows = soaked.rows
    zeros = (
        *("samples lost", "samples not numbered", "samples failed, beyond one a hit"),
        *("counters that fell", "updates not committed, though nothing hit them"),
        *("workers replaced, beyond those hit", "scrapes without an answer"),
        "the daemon died",
    )
    assert {name: rows[name].value for name in zeros} == dict.fromkeys(zeros, 0)
    assert rows["samples"].value > 100
    assert rows["updates offered"].value >= 2
    assert rows["workers hit"].value >= 1
    assert rows["SIGKILL to an answer of another worker"].value > 0


def test_its_plot_shows_what_happened(soaked: Soaked) -> None:
    """Well-formed, named, with lines for each process and marks for each kind."""
    plot = soaked.plot
    assert plot.tag == f"{SVG}svg"
    title = plot.find(f"{SVG}title")
    assert title is not None
    assert "updates" in str(title.text)
    assert len(plot.findall(f"{SVG}polyline")) >= 6
    words = {text.text for text in plot.findall(f"{SVG}text")}
    assert {"daemon", "full", "steady", "update", "SIGKILL"} <= words


def test_a_ctrl_c_reports_what_was_seen_so_far(short_path: Path) -> None:
    """Rows and plot of the first seconds; nothing is left running or lying about."""
    folder, plot = short_path / "tmp", short_path / "plot.svg"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", LONG, plot],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not list(folder.glob("*/repo/targets/models/*/*2.bundle")):
        assert time.monotonic() < deadline, "no update was published"
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    rows = {row["measure"]: row for row in json.loads(said)}
    assert process.returncode == 0
    assert rows["samples lost"]["value"] == 0
    assert rows["time"]["value"] < 5
    assert ET.parse(plot).getroot().tag == f"{SVG}svg"  # noqa: S314 - our own
    assert list(folder.iterdir()) == []


def looks_of(
    sizes_mb: list[float], pid: int = 7, start_s: float = 0.0, descriptors: int = 9
) -> list[Look]:
    """Return a look a second at a daemon of such sizes."""
    return [
        look_at(start_s + at, Usage(pid, round(size * MB), descriptors))
        for at, size in enumerate(sizes_mb)
    ]


def look_at(at_s: float, usage: Usage, **more: object) -> Look:
    """Return a look at a board with nothing but a daemon."""
    empty: dict[str, object] = {
        "scrape_ms": 1.0,
        "usage": {"daemon": usage},
        **dict.fromkeys(("received", "ended", "failed", "lost", "numbered"), 0),
        "restarts": {},
        "versions": {},
    }
    return Look(at_s=at_s, **{**empty, **more})  # type: ignore[arg-type] # by its name


@given(
    st.floats(-5, 5),
    st.lists(st.floats(20, 200), min_size=1, max_size=4),
    st.integers(LEAST_LOOKS, 60),
)
def test_a_slope_is_that_of_each_process(
    mb_per_h: float, levels_mb: list[float], count: int
) -> None:
    """Whatever their levels: replacing a worker is no growth."""
    length = count + int(YOUNG_S)
    looks = [
        look
        for pid, level in enumerate(levels_mb)
        for look in looks_of(
            [level + at * mb_per_h / 3600 for at in range(length)], pid, pid * length
        )
    ]
    slope = rss_slope(looks, "daemon")
    assert slope.mb_per_h == pytest.approx(mb_per_h, abs=0.01)
    assert slope.error < 0.01


def test_a_slope_needs_looks() -> None:
    """A worker of some seconds says nothing."""
    assert isnan(rss_slope(looks_of([50.0] * int(YOUNG_S)), "daemon").mb_per_h)
    assert isnan(rss_slope([], "daemon").error)


def test_what_resembles_the_look_before_is_less_sure() -> None:
    """The same spread in long waves leaves more doubt than in a flicker."""
    length = 30 + 200
    flicker = [50.0 + at % 2 for at in range(length)]
    waves = [50.0 + at // 25 % 2 for at in range(length)]
    errors = [rss_slope(looks_of(it), "daemon").error for it in (flicker, waves)]
    assert errors[1] > 3 * errors[0]


def test_descriptors_that_stay_open_are_seen() -> None:
    """A connection now and then is no growth; one more for good is."""
    now_and_then = [
        look_at(at, Usage(7, MB, 9 + (at % 10 == 0))) for at in range(4 * LEAST_LOOKS)
    ]
    leaking = [look_at(at, Usage(7, MB, 9 + at // 20)) for at in range(80)]
    assert descriptor_growth(now_and_then, "daemon") == 0
    assert descriptor_growth(leaking, "daemon") == 3


@given(st.dictionaries(st.text("ab", min_size=1), st.floats(0, 9), max_size=5))
def test_counters_that_grow_never_fell(counters: dict[str, float]) -> None:
    """Nor do those that went with their version, or came with a new one."""
    grown = {name: value + 1 for name, value in counters.items()}
    assert fallen(counters, grown) == []
    assert fallen({}, counters) == fallen(counters, {}) == []
    assert fallen(grown, counters) == list(counters)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_answers_of_versions_add_up(counts: list[int]) -> None:
    """What was answered in between, whoever answered; older answers are not counted."""
    before = {bucket("1", bound): 10.0 * at for at, bound in enumerate("123")}
    total = 0
    after = dict(before)
    for bound, count in zip("123", counts, strict=True):
        total += count
        after[bucket("1", bound)] += total
        after[bucket("2", bound)] = total
    found = answered(before, after)
    twice = [2.0 * count for count in counts]
    assert found == {"a": dict(zip((1.0, 2.0, 3.0), twice, strict=True))}


def bucket(version: str, bound: str) -> str:
    """Return the name of a series."""
    rest = f'le="{bound}",model="m",pipeline="a",stage="total",version="{version}"'
    return f"tinyward_inference_duration_seconds_bucket{{{rest}}}"


@given(st.floats(0.001, 5), st.integers(1, 1000))
def test_a_p99_lies_within_its_bucket(bound_s: float, count: int) -> None:
    """Of answers in one bucket."""
    counts = {bound_s / 2: 0.0, bound_s: float(count), float("inf"): 0.0}
    looks = [
        look_at(at, Usage(7, MB, 9), answered={"full": counts})
        for at in (0.0, WINDOW_S)
    ]
    (window,) = windows(looks, "full")
    assert bound_s / 2 * 1e3 <= window.p99_ms <= bound_s * 1e3
    assert windows(looks, "steady") == []


def rows_of(marks: list[Mark], **last: object) -> dict[str, Row]:
    """Return the rows of a soak of 100 s that ended so."""
    usage = Usage(7, MB, 9)
    looks = [look_at(0.0, usage), look_at(100.0, usage, **last)]
    return by_measure(soak_rows(looks, marks, {}, missed=0, warm_up_s=0.0))


def test_what_is_wrong_misses_its_target() -> None:
    """A lost sample, one failed too many, a worker nobody hit, a counter that fell."""
    rows = rows_of(
        [Mark(50.0, "kill", "full")],
        lost=1,
        failed=3,
        restarts={"crash": 2},
        fallen=1,
        received=5,
        numbered=4,
    )
    wrong = (
        *("samples lost", "samples failed, beyond one a hit", "counters that fell"),
        *("workers replaced, beyond those hit", "samples not numbered"),
    )
    assert {name: rows[name].ok for name in wrong} == dict.fromkeys(wrong, False)
    assert rows["samples failed, beyond one a hit"].value == 2


@pytest.mark.parametrize(
    ("hit", "unexplained"),
    [
        ([], 1),
        ([Mark(21.0, "kill", "full")], 0),
        ([Mark(21.0, "gone")], 1),
        ([Mark(70.0, "kill", "full")], 1),
    ],
)
def test_an_update_that_was_hit_may_end_otherwise(
    hit: list[Mark], unexplained: int
) -> None:
    """Only a death on its trial excuses a version that never answers."""
    offers = [
        Mark(20.0 * at, "update", PIPELINES[(at + 1) % 2], at + 1) for at in range(1, 5)
    ]
    versions = {"full": 4, "steady": 5}
    marks = [*offers, *hit]
    looks = [
        look_at(30.0, Usage(7, MB, 9), versions={"full": 1, "steady": 3}),
        look_at(100.0, Usage(7, MB, 9), versions=versions),
    ]
    rows = by_measure(soak_rows(looks, marks, {}, missed=0, warm_up_s=0.0))
    assert rows["updates not committed, though nothing hit them"].value == unexplained
    assert rows["updates committed"].value == 3


def test_a_plot_of_nothing_is_still_a_picture() -> None:
    """A Ctrl-C in the first second."""
    assert ET.fromstring(render_plot([], [], PIPELINES)).tag == f"{SVG}svg"  # noqa: S314


def test_a_stopped_worker_has_time_to_be_noticed() -> None:
    """The target knows of the deadline after which a worker counts as hung."""
    looks = [look_at(at, Usage(7, MB, 9)) for at in (0.0, 9.0)]
    rows = soak_rows(looks, [], {"stop": [DEADLINE_S + 1.0]}, missed=0, warm_up_s=0.0)
    row = by_measure(rows)["SIGSTOP to an answer of another worker"]
    assert (row.ok, row.value) == (True, DEADLINE_S + 1.0)
