"""The shadow's side: what a candidate says beside the active model, counted."""

import contextlib
import dataclasses
import math

import numpy as np
import pytest
from msgspec.structs import replace

from agent.core.executors import Executor
from agent.core.manifest import Manifest, StateLink, render_manifest
from agent.core.messages import Message, Refused, Shadow, Shadowed
from agent.core.reasons import Reason
from agent.core.shadow_ring import RING_BYTES
from agent.supervise.memfd import shared_memory
from agent.worker.content import seal_content
from agent.worker.model import LoadedModel
from agent.worker.opinion import Opinion
from agent.worker.recollection import SETTLED
from agent.worker.shadow import Comparison, shadow
from agent.worker.tapped import Tapped
from tests.fakes.bundles import manifest
from tests.fakes.tiny_models import content, executor
from tests.fakes.tiny_models import manifest as tiny
from tests.fakes.worker_parts import BAD, ENGINE, OK, WARMING, sample, scripted_model

ORDER = Shadow(b"", "int8", Executor("litert", "plain"), tolerance=0.1)
SAID = Opinion("classification", ("b",), 0.5)


def comparison(model: LoadedModel | None = None, order: Shadow = ORDER) -> Comparison:
    """Return a comparison with the scripted model, which answers label 1."""
    named = replace(manifest(), task="classification", labels=("a", "b", "c"))
    plain = dataclasses.replace(scripted_model(1), manifest=named, labels=named.labels)
    return Comparison(model or plain, order)


def tapped(seq: int, word: int = OK, said: Opinion | None = SAID) -> Tapped:
    """Return one sample with what the active model said."""
    return Tapped(seq, sample(word), said, 2_000_000)


def test_what_agrees_and_what_differs() -> None:
    """Each compared sample ends as agreed, different, failed or not finite."""
    it = comparison()
    for seq, said in enumerate(("b", "b", "a", "b")):
        it.take(tapped(seq, said=Opinion("classification", (said,))))
    it.take(tapped(9, BAD))
    it.take(tapped(10, ENGINE))
    seen = it.report(5)
    assert (seen.compared, seen.agreed, seen.failed, seen.dropped) == (6, 3, 2, 5)
    assert seen.detail == "sample 2: b instead of a"
    assert 0 < seen.timed <= 4
    assert 0 < seen.p95_ms < 1e6
    assert seen.active_p95_ms == pytest.approx(2.0, rel=0.1)


def test_what_the_active_model_did_not_answer_is_not_compared() -> None:
    """Bad input is no fault of the candidate's; nor is a window that still fills."""
    it = comparison()
    for seq, word in enumerate((OK, BAD, ENGINE)):
        it.take(tapped(seq, word, said=None))
    it.take(tapped(3, WARMING))
    assert it.report(0) == Shadowed()


def test_answers_of_nan_are_counted_for_themselves() -> None:
    """They are neither agreement nor difference: nothing may answer so."""
    odd = dataclasses.replace(
        scripted_model(1), infer=lambda _: [np.full((1, 3), math.nan, np.float32)]
    )
    it = comparison(odd)
    it.take(tapped(1))
    seen = it.report(0)
    assert (seen.compared, seen.agreed, seen.failed, seen.not_finite) == (1, 0, 0, 1)
    assert "not finite" in seen.detail


def test_a_state_settles_first() -> None:
    """A recurrent model is compared once it has forgotten how it began."""
    stated = replace(manifest(), state=(StateLink("out", "in"),))
    model = dataclasses.replace(scripted_model(1), manifest=stated)
    it = comparison(model, replace(ORDER, remembers=True))
    for seq in range(1, SETTLED + 4):
        it.take(tapped(seq, BAD if seq == 2 else OK))
    assert it.report(0).compared == 2
    assert it.report(0).failed == 0


class Ended(Exception):  # noqa: N818 - it ends a loop that never ends
    """Raised by a ``send`` that has heard enough."""


def heard(order: Shadow, model: bytes, reports: int = 2) -> list[Message]:
    """Run a shadow on an empty ring; return its first messages."""
    said: list[Message] = []

    def send(message: Message) -> None:
        said.append(message)
        if len(said) == reports:
            raise Ended

    ring = shared_memory("ring", RING_BYTES)
    descriptors = [seal_content(model, "model"), ring]
    with contextlib.suppress(Ended):
        shadow(order, descriptors, send)
    return said


def order_for(stated: Manifest) -> Shadow:
    """Return the order for a tiny model."""
    return Shadow(render_manifest(stated), "quantised", executor(), 0.1)


def test_reports_come_without_samples() -> None:
    """The first one says that it is loaded, the others that it lives."""
    said = heard(order_for(tiny("quantised")), content("quantised"))
    assert said == [Shadowed(), Shadowed()]


def test_other_bytes_are_refused() -> None:
    """What was not signed is not run in a shadow either."""
    (said,) = heard(order_for(tiny("quantised")), content("logarithm"), 9)
    assert isinstance(said, Refused)
    assert said.reason == Reason.DIGEST
