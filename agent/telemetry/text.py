"""Families as text: Prometheus' format 0.0.4 and OpenMetrics 1.0.

prometheus_client takes 9 to 15 us for a series, 9 ms for a thousand of them, on the
thread that also watches the workers. What a series is called does not change, so that
this spells it once and then only its number: under 1 us. The text is byte for byte that
of prometheus_client's encoders; a test holds the two against each other.

The rules this module keeps:
 * Both formats have the same lines for the samples; they differ in the headers.
 * What it keeps is bounded: twice as many names as the last scrape had, at most.
"""

from collections.abc import Iterator
from typing import Literal

from agent.telemetry.families import Entry, Families, MetricRow

Format = Literal["text", "openmetrics"]
CONTENT_TYPES: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
OPENMETRICS_VERSIONS = ("", "0.0.1", "1.0.0")  # 0.0.1 is what old scrapers call it
MAX_ACCEPT_CHARS = 1000  # Prometheus 3 sends 280
_WORDS = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


class Renderer:
    """Spells families; keeps the names of series from one scrape to the next."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def render(self, families: Families, form: Format) -> bytes:
        """Return the text of all families that are shown."""
        lines: list[str] = []
        entries_shown = 0
        for row, entries in families.shown():
            lines += _header(row, form)
            entries_shown += len(entries)
            for entry in entries:
                self._spell(row, entry, lines)
        if form == "openmetrics":
            lines.append("# EOF\n")
        if len(self._names) > 2 * entries_shown:
            self._names.clear()  # versions and labels come and go
        return "".join(lines).encode(errors="replace")  # one label voids no scrape

    def _spell(self, row: MetricRow, entry: Entry, lines: list[str]) -> None:
        """Append the lines of one entry."""
        key = (row.name, entry.labels)
        names = self._names.get(key)
        if names is None:
            names = self._names[key] = tuple(_series_names(row, entry))
        if not entry.buckets:
            lines.append(f"{names[0]}{spell_number(entry.value)}\n")
            return
        counts = [float(count) for _, count in entry.buckets]
        # prometheus_client writes the count before the sum.
        for name, value in zip(names, (*counts, counts[-1], entry.value), strict=True):
            lines.append(f"{name}{spell_number(value)}\n")


def choose_format(accept: str) -> Format:
    """Return the format to answer an ``Accept`` header with.

    Whoever names OpenMetrics in a version that is known gets it, as Prometheus always
    did; anything else, nonsense included, gets the text that everybody reads. Nothing
    of the header is repeated in the answer.

    >>> choose_format("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    'openmetrics'
    >>> choose_format("application/openmetrics-text;version=9;escaping=x")
    'text'
    """
    for offer in accept[:MAX_ACCEPT_CHARS].split(","):
        kind, *parameters = (part.strip() for part in offer.split(";"))
        if kind.lower() != "application/openmetrics-text":
            continue
        named = dict(part.partition("=")[::2] for part in parameters)
        if named.get("version", "").strip('"') in OPENMETRICS_VERSIONS:
            return "openmetrics"
    return "text"


def spell_number(value: float) -> str:
    """Spell a number as Prometheus' own tools do.

    Go writes an exponent from 1e+06 on, Python from 1e+16 on; both are read back as
    the same number, and text that stays the same compresses best.

    >>> spell_number(3), spell_number(12_500_000), spell_number(float("inf"))
    ('3.0', '1.25e+07', '+Inf')
    """
    spelled = repr(float(value))
    dot = spelled.find(".")
    if dot <= 6 or value < 0:
        return _WORDS.get(spelled, spelled)
    digits = f"{spelled[0]}.{spelled[1:dot]}{spelled[dot + 1 :]}".rstrip("0.")
    return f"{digits}e+{dot - 1:02d}"


def _header(row: MetricRow, form: Format) -> Iterator[str]:
    """Yield HELP and TYPE; OpenMetrics names the family without its samples' ending."""
    name, kind = row.name, row.kind
    help_ = row.text.replace("\\", r"\\").replace("\n", r"\n")
    if form == "openmetrics":
        name = name.removesuffix("_total" if kind == "counter" else "_info")
        help_ = help_.replace('"', r"\"")
    elif kind == "info":
        kind = "gauge"  # 0.0.4 knows no identities
    yield f"# HELP {name} {help_}\n"
    yield f"# TYPE {name} {kind}\n"


def _series_names(row: MetricRow, entry: Entry) -> Iterator[str]:
    """Yield the names of an entry's series, each with the space behind it."""
    labels = dict(zip(row.labels, entry.labels, strict=True))
    if not entry.buckets:
        yield f"{row.name}{_braces(labels)} "
        return
    for bound, _ in entry.buckets:
        # A bound is part of the series' name: 0.00032 must never be 0.00032000000001.
        le = {"le": spell_number(round(bound, 9))}
        yield f"{row.name}_bucket{_braces(labels | le)} "
    yield f"{row.name}_count{_braces(labels)} "
    yield f"{row.name}_sum{_braces(labels)} "


def _braces(labels: dict[str, str]) -> str:
    """Return labels in braces, by name; nothing for none."""
    pairs = [f'{name}="{_escape(value)}"' for name, value in sorted(labels.items())]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escape(value: str) -> str:
    """Escape a label's value: words from a manifest cannot forge a series."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
