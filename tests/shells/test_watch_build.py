"""Building watchers: no model is refused for its monitor, and some have none."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as with_fields

from agent.core.manifest import MonitorRules
from agent.core.messages import Watch
from agent.core.reasons import Reason
from agent.core.watching import Alarm, AnchorState
from agent.worker.model import LoadedModel
from agent.worker.watch import Eye
from agent.worker.watch_build import build_eye, unwatched, watcher_builder
from agent.worker.watch_pace import NEVER
from tests.fakes.scripted_eye import (
    S_NS,
    ListReporter,
    ScriptedEye,
    Times,
    scripted_eyes,
)
from tests.fakes.worker_parts import scripted_model

ORDER = Watch(1)


def test_a_watched_model() -> None:
    """Its watcher looks with the eye that was built, and reports under its load."""
    reporter, times, eye = ListReporter(), Times(), ScriptedEye()
    build = watcher_builder(reporter, times.clocks(), scripted_eyes(eye))
    watcher = build(ORDER, scripted_model(3))
    assert watcher is not None
    assert reporter.started == 1
    times.now_ns += S_NS
    watcher.look(1, 0, [np.zeros(1)], [np.zeros(1)], 0, 0.5)
    watcher.finish()
    assert eye.looked == [1]
    assert [it.generation for it in reporter.reports] == [3]


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan")])
def test_what_may_cost_nothing_is_not_watched(share: float) -> None:
    """No watcher, no thread, no report."""
    reporter = ListReporter()
    build = watcher_builder(reporter, build=scripted_eyes(ScriptedEye()))
    assert build(Watch(1, cpu_share=share), scripted_model(1)) is None
    assert (reporter.started, reporter.reports) == (0, [])


def test_what_may_keep_nothing_is_not_watched() -> None:
    """The author's word in the manifest counts more than the board's settings."""
    model = scripted_model(1)
    silent = with_fields(model.manifest, monitor=MonitorRules(keep="nothing"))
    build = watcher_builder(ListReporter(), build=scripted_eyes(ScriptedEye()))
    assert build(ORDER, replace(model, manifest=silent)) is None


def test_a_load_without_an_order_is_not_watched() -> None:
    """Preflights, shadows and older daemons say nothing of watching."""
    build = watcher_builder(ListReporter(), build=scripted_eyes(ScriptedEye()))
    assert build(None, scripted_model(1)) is None
    assert unwatched(ORDER, scripted_model(1)) is None  # type: ignore[func-returns-value] # that is the claim


@pytest.mark.parametrize(
    "broken", [MemoryError("enough"), ValueError("a bug"), NotImplementedError("eyes")]
)
def test_whatever_fails_is_said(
    broken: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The model gets a watcher that says why it sees nothing."""

    def build(order: Watch, model: LoadedModel) -> Eye:
        del order, model
        raise broken

    reporter = ListReporter()
    watcher = watcher_builder(reporter, build=build)(ORDER, scripted_model(1))
    assert watcher is not None
    watcher.begin()
    (said,) = reporter.monitored
    detail = f"{type(broken).__name__}: {broken}"
    assert said.anchors == (
        AnchorState("shipped", valid=False, reason=Reason.INTERNAL, detail=detail),
    )
    assert watcher.due == [NEVER]
    assert [it.message for it in caplog.records] == [
        f"the model is not watched: {detail}"
    ]


def test_alarms_outlive_an_eye_that_cannot_be_built() -> None:
    """Nobody has seen them clear: what the worker before said still holds."""

    def build(order: Watch, model: LoadedModel) -> Eye:
        del order, model
        raise MemoryError

    reporter = ListReporter()
    order = Watch(1, latched=(("shipped", "output"),))
    watcher = watcher_builder(reporter, build=build)(order, scripted_model(1))
    assert watcher is not None
    watcher.begin()
    (said,) = reporter.monitored
    assert said.alarms == (Alarm("shipped", "output", active=True),)


def test_an_eye_without_words_is_blind() -> None:
    """What cannot say anything at its birth is not used."""
    reporter = ListReporter()
    eyes = scripted_eyes(ScriptedEye(dumb=True))
    watcher = watcher_builder(reporter, build=eyes)(ORDER, scripted_model(1))
    assert watcher is not None
    watcher.begin()
    assert reporter.monitored[0].anchors[0].detail == "ValueError: no words"


@pytest.mark.parametrize("profile", [b"", b"{}", b"\xff" * 70_000])
def test_real_eyes_see_without_a_good_profile(profile: bytes) -> None:
    """A bundle without a profile, or with a bad one, is watched all the same."""
    eye = build_eye(Watch(1, profile=profile, site=b"\x00junk"), scripted_model(1))
    inputs = [np.zeros((1, 8, 8, 1), np.int8)]
    outputs = [np.array([[0, 4, 0]], np.int8)]
    for seq in range(1, 20):
        eye.look(seq, inputs, outputs, 1, 1.0)
    said = eye.say()
    states = {it.anchor: it for it in said.anchors}
    assert not states["shipped"].valid
    assert (states["shipped"].reason == Reason.PROFILE) == bool(profile)
    assert said.repeated == 18
    assert eye.interval >= 1
    assert eye.baseline() is None
    eye.commission()
