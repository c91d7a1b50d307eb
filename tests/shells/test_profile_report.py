"""The report and the profile behind it: whole, readable, and without a sample."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.cli.profile_charts import Floats, histogram, number, score_chart
from agent.cli.profile_delays import PATIENCE, shift_delays
from agent.cli.profile_making import columns_of
from agent.cli.profile_report import render
from agent.cli.profile_shifts import SHIFTS, shift_inputs
from agent.core.drift.fitting import fit_reference
from agent.core.drift.packing import unpack_counts, unpack_floats
from agent.core.profile import MAX_PROFILE_BYTES, Kind, parse_profile, render_profile
from tests.fakes.profiled import made_digits

MAX_REPORT_BYTES = 1_000_000
VOID = {"meta", "br", "line", "rect", "polyline"}


class Page(HTMLParser):
    """Reads a page: its tags, its text, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.words.append(data)


@pytest.fixture(scope="module")
def text() -> str:
    """Give the report of the demo's second model."""
    return render(made_digits())


def test_the_report_needs_nothing_else(text: str) -> None:
    """No script, no link, no address: it works without a network, and is small."""
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe"} == set()
    named = [attributes for _, attributes in page.tags]
    assert not any({"src", "onclick", "onload"} & set(each) for each in named)
    assert all(
        each["href"] == "#" or "#" in str(each["href"])
        for each in named
        if "href" in each
    )
    assert re.findall(r"https?://|url\(|@import", text) == []
    assert len(text.encode()) < MAX_REPORT_BYTES


def test_the_report_says_what_was_made(text: str) -> None:
    """Model, groups, warnings, every feature, every shift and every class."""
    made = made_digits()
    (one,) = made.variants
    said = " ".join(" ".join(Page(text).words).split())
    assert "Reference profile of digits 2 (conv)" in said
    for word in (*one.reference.features, *one.labels, *one.warnings):
        assert word in said
    for delay in one.delays:
        assert delay.meaning in said
    assert one.variant.sha256 in said
    assert len(one.delays) == len(SHIFTS["image"])


def test_every_picture_has_a_name_and_is_drawn_inside(text: str) -> None:
    """Pictures are well-formed, named for those who do not see them, and finite."""
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    moving = made_digits().variants[0].calibrated.reference.moving
    assert len(pictures) == 1 + int(moving.sum())
    for picture in pictures:
        root = ET.fromstring(picture)  # noqa: S314 - our own words
        assert root.get("role") == "img"
        assert len(root.get("aria-label") or "") > 10
        assert not re.search(r"nan|inf\b", picture)


def test_the_same_profile_gives_the_same_report(text: str) -> None:
    """No time, no place, no chance."""
    assert text == render(made_digits())


def test_names_of_strangers_are_text() -> None:
    """Labels, notes and a version's name are never markup."""
    made = made_digits()
    evil = '<script>alert("x")</script>'
    one = replace(made.variants[0], labels=(evil,) * 10, warnings=(evil,))
    manifest = msgspec.structs.replace(made.manifest, version_name=evil)
    page = Page(render(replace(made, manifest=manifest, variants=(one, one))))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.open == []
    assert evil in " ".join(page.words)


def test_the_profile_holds_no_sample_and_no_extreme() -> None:
    """Of no feature is the smallest, the largest or any whole row among the numbers."""
    made = made_digits()
    (one,) = made.variants
    raw = render_profile(made.profile)
    assert raw == made.raw
    assert len(raw) <= MAX_PROFILE_BYTES
    (reference,) = parse_profile(raw).references
    packed = ("mean", "sd", "abs_mean", "abs_sd", "whitening", "edges", "eps")
    held = np.concatenate(
        [unpack_floats(getattr(reference, key), -1) for key in packed]
    )
    values = one.rows.values
    for at, moves in enumerate(one.calibrated.reference.moving):
        if moves:
            ends = np.array([values[:, at].min(), values[:, at].max()], np.float32)
            assert not np.isin(ends, held.astype(np.float32)).any()
    counts = unpack_counts(reference.counts, len(reference.features), -1)
    assert (counts.sum(axis=1) == len(values)).all()


def test_scores_of_held_out_data_stay_below_their_thresholds() -> None:
    """Data look like themselves; the course has as many points as there are rows."""
    (one,) = made_digits().variants
    assert set(one.paths) == {"input", "output", "all"}
    for path in one.paths.values():
        assert len(path) == len(one.rows.values)
        assert 0 <= path.min() <= path.max() < 1
    assert len(one.bounds) == 13  # between 14 writers


def test_shifts_are_found_sooner_than_never() -> None:
    """What moves features is found; the same samples unchanged are not."""
    (one,) = made_digits().variants
    assert all(delay.warning is not None for delay in one.delays)
    same = replace(one.rows, shifts=dict.fromkeys(one.rows.shifts, one.rows.values))
    for delay in shift_delays(same, one.calibrated, columns_of(same), 0):
        assert (delay.warning, delay.critical, delay.found) == (None, None, 0.0)


@given(
    st.sampled_from(["image", "spectrogram", "vector", "other"]),
    st.sampled_from(["int8", "uint8", "float32", "int16"]),
    st.integers(0, 99),
)
def test_shifted_inputs_keep_shape_and_type(kind: Kind, dtype: str, seed: int) -> None:
    """What is changed is still what the model takes; the original stays as it was."""
    random = np.random.default_rng(seed)
    stack = random.integers(0, 100, (5, 1, 6, 8, 3)).astype(dtype)
    before = stack.copy()
    for _, changed in shift_inputs(stack, kind, seed):
        assert (changed.shape, changed.dtype) == (stack.shape, stack.dtype)
        assert not np.array_equal(changed, stack)
    assert np.array_equal(before, stack)


@given(
    arrays(
        np.float64,
        st.integers(60, 200),
        elements=st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, 1.0])),
    )
)
def test_histograms_are_drawn_of_any_feature(values: Floats) -> None:
    """Spread, lumped or nearly constant: every bar is finite and inside the picture."""
    fitted = fit_reference(("x",), values[:, None])
    if not fitted.moving[0]:
        return
    picture = histogram(
        fitted.edges[0], fitted.counts[0], float(fitted.mean[0]), "x: any"
    )
    root = ET.fromstring(picture)  # noqa: S314 - our own words
    for bar in root.iter("rect"):
        x, wide, y = (float(bar.get(key) or "nan") for key in ("x", "width", "y"))
        assert -0.1 <= x <= x + wide <= 220.2
        assert -0.1 <= y <= 96


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3000))
def test_scores_are_drawn_inside_whatever_they_are(ratios: list[float]) -> None:
    """Few or many, small or beyond all bounds: points stay on the paper."""
    picture = score_chart({"all": np.array(ratios)}, (0,), "samples", "scores of any")
    points = re.search(r'points="([^"]*)"', picture)
    assert points is not None
    places = [tuple(map(float, pair.split(","))) for pair in points[1].split()]
    assert 1 <= len(places) <= 450
    assert all(0 <= x <= 900 and 0 <= y <= 250 for x, y in places)


def test_numbers_are_short() -> None:
    """Three digits, whatever the size."""
    shown = [number(value) for value in (0, -0.5, 1234.5, 1e-7, 123456, 0.995)]
    assert shown == ["0", "-0.5", "1,230", "1e-07", "123,000", "0.995"]
    assert PATIENCE > 0
