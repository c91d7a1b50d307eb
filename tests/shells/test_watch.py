"""The watcher: when it looks, what it says and when, and what its failures cost."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.manifest import TensorSpec
from agent.core.messages import Anchored, Watched, parse_from_child, render_message
from agent.core.reasons import Reason
from agent.core.watching import (
    Alarm,
    AnchorState,
    FeatureDrift,
    Monitored,
    Score,
)
from agent.worker.preprocess import build_preprocess
from agent.worker.samples import Array, InputError, OutputError, Wrong
from agent.worker.watch import Blind, Watcher
from agent.worker.watch_pace import NEVER
from tests.fakes.scripted_eye import (
    MS_NS,
    S_NS,
    ListReporter,
    ScriptedEye,
    Times,
    scripted_watcher,
)

INPUTS, OUTPUTS = [np.zeros(2)], [np.ones(3)]
ALARM = Alarm("shipped", "all", active=True, raised=1)


class Bench:
    """A watcher on a script, in a time of its own."""

    def __init__(
        self, *, privacy: bool = False, eye: ScriptedEye | None = None
    ) -> None:
        self.times, self.reporter = Times(), ListReporter()
        self.eye = eye or ScriptedEye()
        self.watcher = scripted_watcher(
            self.eye, self.reporter, self.times, privacy=privacy
        )
        self.seq = 0

    @property
    def due(self) -> int:
        """Number of the sample that is looked at next."""
        return self.watcher.due[0]

    def answer(self, number: int = 1, every_ns: int = 10 * MS_NS) -> None:
        """Answer samples as the turn does."""
        for _ in range(number):
            self.times.now_ns += every_ns
            self.seq += 1
            if self.seq >= self.due:
                self.watcher.look(self.seq, MS_NS, INPUTS, OUTPUTS, 1, 0.5)

    def fail(self, err: Exception, number: int = 1, every_ns: int = MS_NS) -> None:
        """Let samples fail as the turn does."""
        for _ in range(number):
            self.times.now_ns += every_ns
            self.seq += 1
            self.watcher.fail(self.seq, err)

    def last(self) -> Monitored:
        """Return what was said last."""
        return self.reporter.monitored[-1]


def test_the_eye_sees_what_the_turn_had_at_hand() -> None:
    """Inputs, outputs, label and score are passed on, with the sample's number."""
    bench = Bench()
    bench.answer()
    assert bench.eye.looked == [1]
    assert bench.eye.shown == [(INPUTS, OUTPUTS, 1, 0.5)]


@pytest.mark.parametrize("interval", [1, 7, 60])
def test_one_in_so_many(interval: int) -> None:
    """The eye's interval is kept; no other sample is looked at."""
    bench = Bench(eye=ScriptedEye(interval=interval))
    bench.answer(200)
    looked = bench.eye.looked
    gaps = [after - before for before, after in pairwise(looked)]
    assert looked[0] == 1
    assert interval <= min(gaps) <= max(gaps) <= interval + interval // 4


def test_the_first_word_comes_before_the_first_sample() -> None:
    """What there is to compare with is said once, when the model begins to answer."""
    bench = Bench()
    assert bench.reporter.reports == []
    bench.watcher.begin()
    bench.watcher.begin()
    assert bench.reporter.reports == [Watched(7, bench.eye.said)]


def test_reports_come_once_a_second() -> None:
    """At a watched sample when a second has passed since the last one."""
    bench = Bench()
    bench.answer(550)
    samples = [it.samples for it in bench.reporter.monitored]
    assert samples == [100, 200, 300, 400, 500]


def test_an_alarm_is_reported_at_once() -> None:
    """But not more often than ten times a second, and the last change is never lost."""
    bench = Bench(eye=ScriptedEye(transitions=set(range(210, 232))))
    bench.answer(300)
    samples = [it.samples for it in bench.reporter.monitored]
    assert samples == [100, 200, 210, 220, 230, 240]


def test_an_idle_source_is_no_news() -> None:
    """What was seen is said a second later; after that nothing is said."""
    bench = Bench()
    bench.answer(50)
    for _ in range(100):
        bench.times.now_ns += 50 * MS_NS
        bench.watcher.rest()
    assert [it.samples for it in bench.reporter.monitored] == [50]


def test_a_source_that_became_slow_is_watched_again_soon() -> None:
    """What a fast source made wide does not last while the loop rests."""
    bench = Bench(eye=ScriptedEye(interval=4))
    bench.eye.cost = lambda: setattr(
        bench.times, "spent_ns", bench.times.spent_ns + 20 * MS_NS
    )
    bench.answer(3000, every_ns=MS_NS)
    looked, far = bench.eye.looked[-1], bench.due
    assert far > looked + 30
    bench.times.now_ns += MS_NS
    bench.watcher.rest()
    assert bench.due == far  # a pause between two samples is none
    bench.times.now_ns += S_NS
    bench.watcher.rest()
    assert bench.due == looked + 4


def test_time_spent_is_published() -> None:
    """What looks took, and its share of the time since the report before."""
    bench = Bench()
    bench.eye.cost = lambda: setattr(
        bench.times, "spent_ns", bench.times.spent_ns + 50_000
    )
    bench.answer(200)
    said = bench.last()
    assert (said.samples, said.spent_ns) == (200, 200 * 50_000)
    assert said.share == pytest.approx(0.005)
    assert said.interval == 1


def test_a_baseline_is_handed_over_once() -> None:
    """Complete, it follows the report of that moment."""
    bench = Bench()
    bench.answer(5)
    bench.eye.completed = b"baseline"
    bench.eye.transitions = {6, 20}
    bench.answer(200)
    anchored = [it for it in bench.reporter.reports if isinstance(it, Anchored)]
    assert anchored == [Anchored(7, b"baseline")]


def test_an_operators_order_is_performed_at_the_next_look() -> None:
    """Another thread asks; the loop's thread does it, once."""
    bench = Bench(eye=ScriptedEye(interval=30))
    bench.answer(15)
    bench.watcher.commission(1)
    assert bench.eye.commissioned == []
    bench.answer(100)
    assert bench.eye.commissioned == [1]


def test_a_baseline_says_which_collection_it_is_of() -> None:
    """What was complete before the order was performed has the number before it."""
    bench = Bench(eye=ScriptedEye(interval=10))
    bench.answer(15)
    bench.eye.completed = b"old"
    bench.watcher.commission(3)
    bench.watcher.finish()
    bench.answer(300)
    bench.eye.completed = b"new"
    bench.answer(300)
    anchored = [it for it in bench.reporter.reports if isinstance(it, Anchored)]
    assert anchored == [Anchored(7, b"old", 0), Anchored(7, b"new", 3)]


@given(st.lists(st.sampled_from(["nan", "range", "shape", "output", "other"])))
def test_bad_samples_are_counted_by_what_was_wrong(words: list[str]) -> None:
    """Each one, whether it was due or not; failures of the runtime are not counted."""
    kinds: dict[str, tuple[Exception, Wrong | None]] = {
        "nan": (InputError("it", wrong="nan"), "nan"),
        "range": (InputError("it", wrong="range"), "range"),
        "shape": (InputError("it"), "shape"),
        "output": (OutputError("it"), "nan"),
        "other": (RuntimeError("it"), None),
    }
    bench = Bench()
    expected: dict[str, int] = {}
    for word in words:
        err, counted = kinds[word]
        bench.fail(err)
        if counted:
            expected[counted] = expected.get(counted, 0) + 1
    bench.watcher.finish()
    said = bench.reporter.monitored[-1:]
    assert [it.invalid for it in said] == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("sample", "wrong"),
    [
        (np.array([1.0, np.nan]), "nan"),
        (np.array([np.inf, 1.0]), "nan"),
        (np.array([1.0, 300.0]), "range"),
        (np.array([1.0, 2.0, 3.0]), "shape"),
        (np.array(["a", "b"]), "shape"),
    ],
)
def test_preprocess_says_what_is_wrong(sample: Array, wrong: str) -> None:
    """NaN, a value that the tensor cannot hold, and everything else that misfits."""
    spec = TensorSpec(name="image", shape=(2,), dtype="uint8")
    preprocess = build_preprocess((), (spec,), "float")
    with pytest.raises(InputError) as refused:
        preprocess(sample)
    assert refused.value.wrong == wrong


def test_a_storm_of_bad_samples_is_reported_and_costs_little() -> None:
    """Counted each, said once a second, and only those that were due do more."""
    bench = Bench()
    looks = 0

    def spent() -> None:
        nonlocal looks
        looks += 1

    bench.eye.cost = spent
    bench.fail(InputError("NaN", wrong="nan"), 30_000, every_ns=100_000)
    counts = [it.invalid.get("nan", 0) for it in bench.reporter.monitored]
    assert counts == sorted(counts)
    assert len(counts) == 2
    assert (looks, bench.eye.looked) == (0, [])
    bench.watcher.finish()
    assert bench.last().invalid == {"nan": 30_000}
    bench.answer(100)
    assert bench.eye.looked


def test_invalid_samples_of_the_eye_are_added() -> None:
    """What the features found out of range counts beside what did not fit."""
    said = Monitored(invalid={"nan": 3, "range": 1})
    bench = Bench(eye=ScriptedEye(said=said))
    bench.fail(InputError("NaN", wrong="nan"), 2)
    bench.watcher.finish()
    assert bench.last().invalid == {"nan": 5, "range": 1}


def test_a_monitor_that_fails_ends_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Logged once; what it counted and latched stays; no sample is looked at again."""
    alarms = (Alarm("shipped", "all", active=True, raised=1),)
    said = Monitored(alarms=alarms, repeated=4, anchors=())
    bench = Bench(eye=ScriptedEye(broken={31}, said=said))
    with caplog.at_level(logging.WARNING):
        bench.answer(100)
    detail = "FloatingPointError: a singular matrix"
    assert [(it.message, it.__dict__["reason"]) for it in caplog.records] == [
        (f"the model is not watched any more: {detail}", Reason.INTERNAL)
    ]
    state = AnchorState("shipped", valid=False, reason=Reason.INTERNAL, detail=detail)
    last = bench.last()
    assert (bench.due, last.samples, last.repeated) == (NEVER, 30, 4)
    assert (last.anchors, last.alarms) == ((state,), alarms)
    bench.watcher.rest()
    bench.watcher.commission(1)
    bench.watcher.finish()
    assert bench.last() is last


def test_an_idle_loop_spends_nothing() -> None:
    """The share of a busy second is not shown for hours; then nothing is said."""
    bench = Bench()
    times = bench.times
    bench.eye.cost = lambda: setattr(times, "spent_ns", times.spent_ns + MS_NS)
    bench.answer(300)
    assert bench.last().share > 0
    reports = len(bench.reporter.reports)
    for _ in range(100):
        bench.times.now_ns += S_NS
        bench.watcher.rest()
    assert bench.last().share == 0
    assert len(bench.reporter.reports) <= reports + 2


NAN = float("nan")


@pytest.mark.parametrize(
    "odd",
    [
        Monitored(scores=(Score("shipped", "all", "mewma", NAN),)),
        Monitored(features=(FeatureDrift("shipped", "mean", NAN),)),
        Monitored(autocorrelation=NAN),
        Monitored(share=-1.0, scores=(Score("site", "all", "mewma", 1e10),)),
    ],
)
def test_what_the_daemon_cannot_read_is_not_said(odd: Monitored) -> None:
    """It would end the worker, and the model with it, for a bad profile's statistic."""
    bench = Bench()
    bench.answer(2)
    bench.eye.said = replace(odd, alarms=(ALARM,))
    bench.answer(2, S_NS)
    for report in bench.reporter.reports:
        assert parse_from_child(render_message(report)) == report
    assert bench.due == NEVER
    assert not bench.last().anchors[0].valid
    assert bench.last().anchors[0].reason == Reason.INTERNAL


def test_alarms_outlive_a_statistic_that_is_no_number() -> None:
    """What was raised stays raised: nobody has seen it clear."""
    bench = Bench()
    score = Score("shipped", "all", "mewma", NAN)
    bench.eye.said = Monitored(scores=(score,), alarms=(ALARM,))
    bench.answer(2, S_NS)
    assert bench.last().alarms == (ALARM,)


def test_a_monitor_without_words_ends_as_well() -> None:
    """What cannot even be asked has counted nothing; the loop goes on."""
    bench = Bench()
    bench.answer(5)
    bench.eye.dumb = True
    bench.answer(200)
    assert bench.due == NEVER
    assert bench.last().anchors[0].detail == "ValueError: no words"


def test_a_reporter_that_fails_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    """Not even that costs a sample."""
    times, eye = Times(), ScriptedEye()

    def refuse(report: object) -> None:
        raise MemoryError(type(report).__name__)

    watcher = scripted_watcher(eye, ListReporter(), times)
    watcher._say = refuse
    for seq in range(1, 5):
        times.now_ns += S_NS
        if seq >= watcher.due[0]:
            watcher.look(seq, 0, INPUTS, OUTPUTS, 0, 0.0)
    watcher.finish()
    assert (watcher.due[0], len(caplog.records)) == (NEVER, 1)


def test_the_last_word() -> None:
    """Whatever was not reported yet is said in the end, and nothing else."""
    bench = Bench()
    bench.watcher.begin()
    bench.watcher.finish()
    assert len(bench.reporter.reports) == 1
    bench.answer(3)
    bench.watcher.finish()
    bench.watcher.finish()
    assert [it.samples for it in bench.reporter.monitored] == [0, 3]


def test_in_private_counts_wait_for_the_end_of_a_window() -> None:
    """Scores and alarms are live; answers and features are those of the last window."""
    bench = Bench(privacy=True)
    bench.eye.said = replace(bench.eye.said, confidence=(1,) * 10, confidence_sum=2.5)
    bench.answer(100)
    assert bench.last().confidence == (0,) * 10
    bench.eye.close_window(
        confidence=(3,) * 10,
        confidence_sum=9.0,
        predictions=(20, 10),
        accuracy=0.9,
        features=(FeatureDrift("shipped", "mean", 1.0),),
    )
    bench.answer(100)
    closed = bench.last()
    assert (closed.predictions, closed.confidence_sum) == ((20, 10), 9.0)
    alarms = (Alarm("shipped", "all", active=True),)
    bench.eye.said = replace(
        bench.eye.said,
        alarms=alarms,
        predictions=(21, 10),
        confidence_sum=9.5,
        accuracy=0.8,
        features=(FeatureDrift("shipped", "mean", 2.0),),
    )
    bench.answer(100)
    later = bench.last()
    assert (later.alarms, later.samples) == (alarms, closed.samples + 100)
    for field in ("predictions", "confidence", "confidence_sum", "accuracy"):
        assert getattr(later, field) == getattr(closed, field)
    assert later.features == closed.features


def test_reports_survive_the_channel() -> None:
    """What a watcher composes is within the bounds that the daemon checks."""
    bench = Bench()
    bench.fail(InputError("NaN", wrong="nan"), 5)
    bench.answer(200)
    for report in bench.reporter.reports:
        assert parse_from_child(render_message(report)) == report


def test_what_was_never_seen_says_why() -> None:
    """A blind eye is due never, and says so when the model begins."""
    reporter, times = ListReporter(), Times()
    watcher: Watcher = scripted_watcher(Blind("x" * 900), reporter, times)
    watcher.begin()
    (said,) = reporter.monitored
    assert watcher.due == [NEVER]
    assert said.anchors == (
        AnchorState("shipped", valid=False, reason="internal", detail="x" * 500),
    )
