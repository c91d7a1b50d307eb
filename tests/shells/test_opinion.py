"""Opinions: what two versions of a model agree on, by task."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from agent.core.manifest import TensorSpec
from agent.worker.opinion import Opinion, agree, build_opinion
from tests.fakes.bundles import manifest
from tests.fakes.worker_parts import scripted_model


def raw(*values: float) -> Opinion:
    """Return the opinion of a raw model with one output."""
    return Opinion("raw", outputs=[np.array(values, np.float32)])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Opinion("classification", ("a",)), Opinion("classification", ("a",), 9), True),
        (Opinion("classification", ("a",)), Opinion("classification", ("b",)), False),
        (Opinion("regression", score=1.0), Opinion("regression", score=1.5), True),
        (Opinion("regression", score=1.0), Opinion("regression", score=1.6), False),
        (Opinion("anomaly", score=1.0), Opinion("anomaly", score=math.nan), False),
        (Opinion("detection", ("a", "b")), Opinion("detection", ("a", "b")), True),
        (Opinion("detection", ("a", "b")), Opinion("detection", ("a",)), False),
        (Opinion("detection", ("a", "a")), Opinion("detection", ("a",)), False),
        (Opinion("detection"), Opinion("detection"), True),
        (raw(1.0, 2.0), raw(1.5, 2.0), True),
        (raw(1.0, 2.0), raw(1.6, 2.0), False),
        (raw(1.0, 2.0), raw(1.0), False),
        (raw(1.0), Opinion("raw"), False),
        (raw(math.nan), raw(math.nan), False),
        (raw(1.0), Opinion("classification", ("a",)), True),
    ],
)
def test_agreement(one: Opinion, other: Opinion, *, expected: bool) -> None:
    """Both ways round, with a tolerance of 0.5."""
    assert (agree(one, other, 0.5), agree(other, one, 0.5)) == (expected, expected)


def formed(form: Callable[..., Opinion], index: int, value: float) -> Opinion:
    """Return the opinion of an answer."""
    return form([], [np.array([[value, 0, 0]], np.float32)], index, value)


def changed(model: Any, **fields: Any) -> Any:  # noqa: ANN401 - a model's own fields
    """Return a scripted model of another manifest."""
    stated = replace(manifest(), **fields)
    return dataclasses.replace(
        model, manifest=stated, variant=stated.variants[0], labels=stated.labels
    )


def test_opinions_speak_in_words() -> None:
    """A label goes by its word, or by its number where there is none."""
    model = scripted_model(1)
    named = build_opinion(changed(model, task="classification", labels=("x", "y")))
    bare = build_opinion(changed(model, task="classification", labels=()))
    assert formed(named, 1, 0.5) == Opinion("classification", ("y",), 0.5)
    assert formed(bare, 1, 0.5) == Opinion("classification", ("1",), 0.5)
    assert formed(named, 2, 0.5).labels == ("2",)


def test_scores_and_outputs() -> None:
    """Regression and anomaly have a score, raw models all their real outputs."""
    model = scripted_model(1)
    assert formed(build_opinion(changed(model, task="anomaly")), -1, 2.5) == Opinion(
        "anomaly", score=2.5
    )
    stated = manifest().variants[0]
    scaled = TensorSpec("out", (1, 3), "int8", 0.5, 2)
    variant = replace(stated, outputs=(scaled,))
    form = build_opinion(changed(model, task="raw", variants=(variant,)))
    opinion = form([], [np.array([[4, 2, 0]], np.int8)], -1, 0.0)
    assert [values.tolist() for values in opinion.outputs] == [[[1.0, 0.0, -1.0]]]


def test_boxes_are_named_and_sorted() -> None:
    """Where a box is says nothing; what it is, and how often, does."""
    boxes = [{"label": "dog"}, {"label": "cat"}, {"label": "dog"}]
    model = dataclasses.replace(
        changed(scripted_model(1), task="detection"),
        describe=lambda *_: {"boxes": boxes},
    )
    assert formed(build_opinion(model), 0, 0.9).labels == ("cat", "dog", "dog")
