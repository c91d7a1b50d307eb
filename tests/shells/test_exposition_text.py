"""The text itself: byte for byte that of prometheus_client, in both formats."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import exposition as text_0_0_4
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from agent.telemetry.exposition import Exposition, render_metrics
from agent.telemetry.families import Entry, Families, MetricRow
from agent.telemetry.text import CONTENT_TYPES, Renderer, choose_format, spell_number
from tests.fakes.monitored import crowded, watched
from tests.fakes.snapshots import BOARD, agent, pipeline

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
words = st.text(max_size=20).filter(lambda word: word.isprintable() or "\n" in word)


def go_spells(number: float) -> str:
    """Return what prometheus_client calls a number."""
    return str(floatToGoString(number))  # type: ignore[no-untyped-call]  # theirs


class Theirs(Collector):
    """The same families as objects of prometheus_client."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        for row, entries in self._families.shown():
            yield their_family(row, entries)


def their_family(row: MetricRow, entries: Iterable[Entry]) -> Metric:
    """Return one family with its entries."""
    if row.kind == "info":
        info = InfoMetricFamily(row.name.removesuffix("_info"), row.text)
        for entry in entries:
            values = dict(zip(row.labels, entry.labels, strict=True))
            info.add_metric((), values)
        return info
    if row.kind == "histogram":
        histogram = HistogramMetricFamily(row.name, row.text, labels=row.labels)
        for entry in entries:
            buckets = [
                (go_spells(round(bound, 9)), float(count))
                for bound, count in entry.buckets
            ]
            histogram.add_metric(entry.labels, buckets, entry.value)
        return histogram
    family: CounterMetricFamily | GaugeMetricFamily
    if row.kind == "counter":
        family = CounterMetricFamily(row.name, row.text, labels=row.labels)
    else:
        family = GaugeMetricFamily(row.name, row.text, labels=row.labels)
    for entry in entries:
        family.add_metric(entry.labels, entry.value)
    return family


def assert_same(families: Families) -> None:
    """Both formats are what prometheus_client makes of the same families."""
    renderer = Renderer()
    expected = text_0_0_4.generate_latest(Theirs(families))
    assert renderer.render(families, "text") == expected
    assert renderer.render(families, "text") == expected  # from kept names
    expected = openmetrics.generate_latest(Theirs(families))  # type: ignore[no-untyped-call]  # theirs
    assert renderer.render(families, "openmetrics") == expected


@pytest.mark.parametrize(
    "snapshot",
    [agent(), agent(pipeline()), agent(watched(), watched("gate"), crowded("x", 4, 9))],
    ids=["no pipeline", "unwatched", "watched"],
)
def test_the_text_is_that_of_prometheus_client(snapshot: object) -> None:
    """Headers, order, escapes and numbers of everything we expose."""
    assert_same(Exposition().families(snapshot, BOARD))  # type: ignore[arg-type]  # parametrised


@given(labels=st.tuples(words, words, words), value=st.floats(allow_nan=False))
def test_law_any_label_and_number_is_spelled_alike(
    labels: tuple[str, str, str], value: float
) -> None:
    """Words with quotes, backslashes and line breaks; numbers of any size."""
    families = Families()
    families.add("tinyward_drift_samples_total", value, *labels)
    families.add("tinyward_drift_sampling_interval", -value, *labels)
    buckets = [(0.1, 1), (float("inf"), 3)]
    families.add_histogram("tinyward_output_confidence_ratio", buckets, value, *labels)
    assert_same(families)


@given(st.floats() | st.integers(min_value=-(2**62), max_value=2**62).map(float))
def test_law_numbers_are_spelled_as_go_does(number: float) -> None:
    """The same text as ``floatToGoString``, and the same number read back."""
    assert spell_number(number) == go_spells(number)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("text/plain;version=1.0.0", "text"),
        (PROMETHEUS_2, "openmetrics"),
        (PROMETHEUS_3, "openmetrics"),
        ("application/openmetrics-text", "openmetrics"),
        ('Application/OpenMetrics-Text; version="1.0.0"', "openmetrics"),
        # Not ours, so not promised: the next offer, or the text.
        ("application/openmetrics-text;version=2.0.0", "text"),
        (f"application/openmetrics-text;version=2.0.0,{OPENMETRICS}", "openmetrics"),
        ("application/vnd.google.protobuf;proto=x;encoding=delimited", "text"),
    ],
)
def test_the_format_is_what_the_scraper_reads(accept: str, form: str) -> None:
    """OpenMetrics for those who ask, in a version that they name and we have."""
    assert choose_format(accept) == form


@pytest.mark.parametrize(
    "accept",
    [
        # The client's own negotiation ends these in a TypeError or repeats them.
        "application/openmetrics-text;version=x.y",
        "text/plain;version=one",
        f"application/openmetrics-text;version={'9' * 5000}",
        "application/openmetrics-text;version=1.0.0\r\nX-Evil: 1;escaping=dots",
        "application/openmetrics-text;version=1.0.0;escaping=<script>",
        "," * 8000,
        ";=" * 4000,
        "\x00\udc80",
    ],
)
def test_a_hostile_accept_header_harms_nobody(accept: str) -> None:
    """It gets one of two fixed content types, and nothing of it comes back."""
    content_type, body = render_metrics(agent(watched()), BOARD, accept)
    assert content_type in CONTENT_TYPES.values()
    assert b"tinyward_samples_total" in body


@given(st.text())
def test_law_any_accept_header_is_answered(accept: str) -> None:
    """No text makes the choice fail."""
    assert choose_format(accept) in CONTENT_TYPES


def test_a_label_that_is_no_text_voids_no_scrape() -> None:
    """Half a surrogate pair cannot be UTF-8; the other series are still there."""
    families = Families()
    families.add("tinyward_sink_dropped_total", 1, "door", "\udc80")
    body = Renderer().render(families, "text").decode()
    assert 'tinyward_sink_dropped_total{pipeline="door",sink="?"} 1.0' in body


def test_names_that_are_gone_are_forgotten() -> None:
    """What is kept stays within twice the series of a scrape, whatever came before."""
    renderer = Renderer()
    for version in range(200):
        families = Families()
        families.add("tinyward_drift_samples_total", 1, "door", "kws", str(version))
        renderer.render(families, "text")
    assert len(renderer._names) <= 2
