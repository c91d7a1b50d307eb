"""The monitor: what alarms, what does not, what it says and what it keeps."""

import math
from collections import deque
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.drift.comparison import Comparison
from agent.core.drift.latch import QUIET_SAMPLES
from agent.core.drift.monitor import Monitor, Setup
from agent.core.drift.opened import Columns, Floats
from agent.core.drift.repeats import STUCK_SAMPLES
from agent.core.drift.site import Collection, render_baseline
from agent.core.watching import Anchor, Monitored, Scope
from tests.fakes.drift_streams import (
    CLASSES,
    COLUMNS,
    NAMES,
    active,
    drive,
    mixed,
    reference,
    scattered,
    scenes,
    setup,
    slow,
)

ODD = {"input": 60.0, "output": 50.0, "all": 80.0}  # no alarm by chance in any test


SHIPPED = replace(reference(), thresholds=ODD)
WATCHED = setup(SHIPPED)


def shifted(seed: int, count: int, at: int, size: float) -> Floats:
    """A stream that moves by so many standard deviations at a sample."""
    rows = mixed(seed, count)
    rows[at:] += size * SHIPPED.sd
    return rows


def baseline(rows: Floats) -> bytes:
    """A board's baseline of these samples."""
    found = Collection(len(rows), 8, CLASSES)
    for at, row in enumerate(rows):
        found.add(row, at % CLASSES)
    return render_baseline(found.freeze(NAMES, COLUMNS, {}))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_alarms_while_nothing_happens(seed: int) -> None:
    """20,000 samples without memory, every one of them watched."""
    found = Monitor(WATCHED)
    assert drive(found, mixed(seed, 20_000)) == []
    assert found.say().samples == 20_000


@pytest.mark.parametrize("seed", range(3))
def test_nothing_alarms_on_a_slow_stream(seed: int) -> None:
    """A memory of .95 is spaced out; at every sample each detector would alarm."""
    found = Monitor(WATCHED)
    rows = slow(seed, 20_000, 0.95)
    assert drive(found, rows) == []
    assert found.say().interval > 20
    naive = Comparison("shipped", SHIPPED, COLUMNS)
    assert any(naive.update(row[None], armed=True) for row in rows)


def test_nothing_alarms_on_video() -> None:
    """Twenty frames of each scene are about one sample."""
    still = scenes(1, 40_000, 20)[::20]
    found = Monitor(setup(replace(reference(still), thresholds=ODD)))
    assert drive(found, scenes(2, 20_000, 20)) == []


def test_a_shift_alarms_and_is_confirmed() -> None:
    """One standard deviation: an alarm within thirty samples, confirmed in 160."""
    found = Monitor(WATCHED)
    changes = drive(found, shifted(1, 2000, 1000, 1.0))
    assert 1000 < changes[0].seq < 1030
    assert changes[0].active <= {("shipped", "all"), ("shipped", "input")}
    alarm = next(a for a in found.say().alarms if a.scope == "all")
    assert (alarm.active, alarm.confirmed, alarm.raised) == (True, True, 1)


def test_the_score_of_an_alarm_is_that_which_raised_it() -> None:
    """Above its threshold still when the statistic has fallen, both detectors'."""
    found = Monitor(WATCHED)
    rows = mixed(1, 1400)
    rows[1000:1200] += SHIPPED.sd
    drive(found, rows)
    alarm = next(a for a in found.say().alarms if a.scope == "all")
    now = {it.detector: it.ratio for it in found.say().scores if it.scope == "all"}
    assert now["mewma"] < 1 < alarm.score
    assert now["etable"] < 1 <= alarm.evidence


@pytest.mark.parametrize("size", [0.7, 1.0, 5.0])
def test_a_drift_from_the_first_sample_on_is_found(size: float) -> None:
    """As soon as the stream's memory is known: the detectors collected meanwhile."""
    changes = drive(Monitor(WATCHED), shifted(1, 1000, 0, size))
    assert 500 <= changes[0].seq <= 530


def test_a_drift_is_found_on_a_slow_stream() -> None:
    """Spaced samples still show a shift of two standard deviations."""
    found = Monitor(WATCHED)
    rows = slow(3, 20_000, 0.95)
    rows[8000:] += 2 * SHIPPED.sd
    changes = drive(found, rows)
    assert 8000 <= changes[0].seq < 12_000


def test_scores_stay_below_an_alarm_until_memory_is_known() -> None:
    """Whoever alerts on scores is not told what may be memory; restarted they are 0."""
    found = Monitor(WATCHED)
    rows = slow(1, 512, 0.95) + 3 * SHIPPED.sd
    for seq, row in enumerate(rows[:-1]):
        found.observe(row, 0, 0.9, seq, seq)
        assert max(score.ratio for score in found.say().scores) <= 1
    assert found.say().interval == 1
    found.observe(rows[-1], 0, 0.9, 511, 511)
    assert found.say().interval > 1
    assert {score.ratio for score in found.say().scores} == {0.0}


def test_sources_that_go_round_are_no_drift() -> None:
    """Four cameras in turn: whatever the spacing, all of them are seen."""
    cameras = np.arange(4)[:, None] * 3 * SHIPPED.sd
    still = mixed(1, 2000) + np.tile(cameras, (500, 1))
    shipped = replace(reference(still), thresholds=ODD)
    rows = slow(2, 30_000, 0.9) + np.tile(cameras, (7500, 1))
    assert drive(Monitor(setup(shipped)), rows) == []


def test_alarms_are_latched_and_cleared_after_a_quiet() -> None:
    """What passes is remembered for 250 quiet samples, then forgotten."""
    found = Monitor(WATCHED)
    rows = mixed(1, 4000)
    rows[1000:1200] += 2 * SHIPPED.sd
    changes = drive(found, rows)
    assert changes[-1].active == frozenset()
    assert changes[-1].seq > 1200 + QUIET_SAMPLES
    assert {alarm.raised for alarm in found.say().alarms if alarm.scope == "all"} == {1}


def test_latched_alarms_survive_a_worker() -> None:
    """They are active from the start, and cleared like any other."""
    watched = replace(WATCHED, latched=(("shipped", "all"), ("shipped", "stuck")))
    found = Monitor(watched)
    assert active(found) == {("shipped", "all"), ("shipped", "stuck")}
    drive(found, mixed(1, 1000))
    assert active(found) == frozenset()


def test_a_latched_alarm_of_no_anchor_is_dropped() -> None:
    """Without the baseline that it was against there is nothing that could clear it."""
    found = Monitor(replace(WATCHED, latched=(("site", "all"),)))
    assert active(found) == frozenset()


def test_a_stuck_input_is_critical_from_the_start() -> None:
    """The same checksum thirty times in a row, before memory is known."""
    found = Monitor(WATCHED)
    row = mixed(1, 1)[0]
    changes = [found.observe(row, 0, 0.9, 7, seq) for seq in range(40)]
    assert changes.index(True) == STUCK_SAMPLES + 1
    assert ("shipped", "stuck") in active(found)
    assert found.say().repeated == 39


def test_no_baseline_of_a_stuck_input() -> None:
    """It is no place: what it waits for is said."""
    found = Monitor(SITED)
    for seq in range(40):
        found.observe(mixed(1, 1)[0], 0, 0.9, 7, seq)
    state = found.say().anchors[1]
    assert state.reason == "commissioning"
    assert state.detail == "waits until the input is no longer stuck"


def test_another_mixture_of_answers_alarms() -> None:
    """Features as ever, but one label for all of them: prediction, and nothing else."""
    found = Monitor(WATCHED)
    drive(found, mixed(1, 1000))
    changes = drive(found, mixed(2, 600), answers=lambda seq: 0 * seq, first=1000)
    assert changes[0].active == {("shipped", "prediction")}


@given(st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 1e308]), max_size=30))
@settings(max_examples=20)
def test_no_number_that_is_not_finite_reaches_a_statistic(wild: list[float]) -> None:
    """A storm of NaN and infinities leaves every score finite, and no alarm behind."""
    found = Monitor(WATCHED)
    for seq, row in enumerate(mixed(1, 600)):
        if seq % 20 < len(wild):
            row[seq % 8] = wild[seq % 20]
        found.observe(row if seq % 3 else None, 0, math.nan, seq, seq)
    said = found.say()
    assert all(math.isfinite(score.ratio) for score in said.scores)
    assert all(math.isfinite(feature.shift) for feature in said.features)


def test_what_it_says_can_be_sent() -> None:
    """Every number and length is within what the daemon accepts."""
    found = Monitor(replace(WATCHED, site=baseline(mixed(1, 2000))))
    drive(found, shifted(2, 3000, 1000, 50.0))
    sent = msgspec.msgpack.encode(found.say())
    assert msgspec.msgpack.decode(sent, type=Monitored) == found.say()
    said = found.say()
    assert {score.anchor for score in said.scores} == {"shipped", "site"}
    assert sum(said.predictions) == said.windows * said.window_samples
    assert said.confidence[9] == said.samples == 3000
    assert max(feature.psi for feature in said.features) > 1


def test_features_say_what_moved() -> None:
    """The one that moved has the largest shift; the others have none to speak of."""
    found = Monitor(WATCHED)
    rows = mixed(1, 2000)
    rows[:, 2] += 2 * SHIPPED.sd[2]
    drive(found, rows)
    moved = {feature.feature: feature.shift for feature in found.say().features}
    assert max(moved, key=lambda name: abs(moved[name])) == "f2"
    assert moved["f2"] == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize(
    ("watched", "detail"),
    [
        (replace(WATCHED, shipped=replace(SHIPPED, features=("a",) * 8)), "features"),
        (setup(replace(reference(np.ones((100, 8))), thresholds=ODD)), "moved"),
        (replace(setup(), shipped_reason="profile", shipped_detail="torn"), "torn"),
    ],
)
def test_a_bad_profile_is_said_and_stops_nothing(watched: Setup, detail: str) -> None:
    """The anchor is not valid and says why; samples are counted, stuck is watched."""
    found = Monitor(watched)
    assert drive(found, mixed(1, 1000)) == []
    said = found.say()
    assert (said.anchors[0].valid, said.anchors[0].reason) == (False, "profile")
    assert detail in said.anchors[0].detail
    assert said.samples == 1000
    assert [score.scope for score in said.scores] == ["stuck"]


def test_constant_features_are_left_out_with_a_note() -> None:
    """They are named, never divided by, and no diagnostic is made of them."""
    rows = mixed(1, 500)
    rows[:, 3] = 4.0
    found = Monitor(setup(replace(reference(rows), thresholds=ODD)))
    drive(found, mixed(2, 1000))
    state = found.say().anchors[0]
    assert (state.valid, state.detail) == (True, "never moved, and left out: f3")
    assert "f3" not in {feature.feature for feature in found.say().features}


def scopes(columns: Columns, classes: int) -> set[Scope]:
    """The scopes that are scored for such a model."""
    shipped = replace(SHIPPED, classes=(100,) * classes)
    watched = Setup(NAMES, columns, classes, shipped=shipped, site_samples=0)
    return {score.scope for score in Monitor(watched).say().scores}


def test_a_model_without_softmax_has_no_output() -> None:
    """No confidence features, no labels: input and everything are watched."""
    columns: Columns = {"input": np.arange(8), "output": np.zeros(0, np.intp)}
    assert scopes(columns, 0) == {"input", "all", "stuck"}


def test_one_class_only_has_no_predictions() -> None:
    """Whatever it answers is what it always answers."""
    assert scopes(COLUMNS, 1) == {"input", "output", "all", "stuck"}
    assert scopes(COLUMNS, 2) == {"input", "output", "all", "stuck", "prediction"}


def test_a_model_without_features_is_watched_for_repeats() -> None:
    """No column at all: nothing to compare, nothing that fails."""
    nothing = np.zeros(0, np.intp)
    found = Monitor(Setup((), {"input": nothing, "output": nothing}, 0))
    for seq in range(600):
        found.observe(np.zeros(0), -1, -1, 7, seq)
    assert active(found) == {("shipped", "stuck")}


def commissioned(found: Monitor, seed: int, wanted: int = 300) -> bytes | None:
    """Show it enough samples for a baseline; return what it gives to keep."""
    drive(found, mixed(seed, 600 + wanted))
    return found.baseline()


SITED = replace(WATCHED, site_samples=300)


def test_a_baseline_is_collected_given_once_and_compared_with() -> None:
    """Commissioning ends by itself on a quiet board; the next worker opens the same."""
    found = Monitor(SITED)
    assert found.say().anchors[1].reason == "commissioning"
    raw = commissioned(found, 1)
    assert raw is not None
    assert found.baseline() is None
    state = found.say().anchors[1]
    assert (state.valid, state.collected, state.wanted) == (True, 300, 300)
    again = Monitor(replace(SITED, site=raw)).say().anchors[1]
    assert state == again


def test_no_baseline_while_an_alarm_is_active() -> None:
    """What the shipped reference calls drift never becomes what is normal here."""
    found = Monitor(SITED)
    drive(found, shifted(1, 3000, 0, 1.0))
    state = found.say().anchors[1]
    assert (state.valid, state.collected) == (False, 0)
    assert state.detail == "waits until the shipped anchor is quiet"
    assert found.baseline() is None


def test_an_operator_may_call_it_normal() -> None:
    """Commissioned by order, the drifted place becomes the baseline, alarms or not."""
    found = Monitor(SITED)
    drive(found, shifted(1, 1000, 0, 1.0))
    assert found.say().anchors[1].detail != ""
    found.commission()
    assert found.say().anchors[1].detail == ""
    drive(found, shifted(2, 1000, 0, 1.0), first=1000)
    assert found.baseline() is not None
    assert ("site", "all") not in active(found)
    assert ("shipped", "all") in active(found)


def test_a_board_is_never_commissioned_anew_by_itself() -> None:
    """With a baseline, drift for ever is drift for ever."""
    raw = baseline(mixed(1, 500))
    found = Monitor(replace(SITED, site=raw))
    drive(found, shifted(2, 6000, 1000, 1.0))
    assert ("site", "all") in active(found)
    assert found.baseline() is None


def test_commissioning_forgets_the_old_baseline() -> None:
    """From the order on there is no site anchor, until another one is complete."""
    found = Monitor(replace(SITED, site=baseline(mixed(1, 500))))
    assert found.say().anchors[1].valid
    found.commission()
    assert not found.say().anchors[1].valid
    assert commissioned(found, 3) is not None


def test_a_damaged_baseline_is_collected_again() -> None:
    """It says what was wrong with the old one, and begins anew."""
    found = Monitor(replace(SITED, site=b"{}"))
    state = found.say().anchors[1]
    assert (state.valid, state.reason) == (False, "commissioning")
    assert "baseline" in state.detail


def test_without_a_profile_the_board_compares_with_itself() -> None:
    """Collected from the start; a shift afterwards is found, by the site's alarm."""
    found = Monitor(replace(setup(), site_samples=1000))
    rows = mixed(1, 4000)
    rows[2500:] += SHIPPED.sd
    changes = drive(found, rows)
    assert 2500 < changes[0].seq < 2550
    assert {anchor for anchor, _ in changes[0].active} == {"site"}
    assert found.say().anchors[0].reason == "unwatched"


def bytes_of(thing: object, seen: set[int]) -> int:
    """Bytes of all arrays that a monitor holds, wherever."""
    if id(thing) in seen or isinstance(thing, type):
        return 0
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        return thing.nbytes if thing.base is None else bytes_of(thing.base, seen)
    if isinstance(thing, dict):
        return sum(bytes_of(part, seen) for part in thing.values())
    if isinstance(thing, list | tuple | deque):
        return sum(bytes_of(part, seen) for part in thing)
    kind = type(thing)
    if not kind.__module__.startswith("agent.core.drift"):
        return 0
    slots = [name for part in kind.__mro__ for name in getattr(part, "__slots__", ())]
    held = [getattr(thing, name) for name in slots if hasattr(thing, name)]
    own = getattr(thing, "__dict__", {}).values()
    return sum(bytes_of(part, seen) for part in (*own, *held))


def test_a_wide_monitor_is_small() -> None:
    """Thirty-five features: 64 kB with the shipped reference, 96 with both."""
    names = tuple(f"f{at}" for at in range(35))
    columns: Columns = {"input": np.arange(33), "output": np.arange(33, 35)}
    rows = np.random.default_rng(1).normal(size=(2000, 35))
    found = Collection(len(rows), 35, CLASSES)
    for at, row in enumerate(rows):
        found.add(row, at % CLASSES)
    raw = render_baseline(found.freeze(names, columns, {}))
    shipped = replace(reference(rows), thresholds={"all": 200.0})
    watched = Setup(names, columns, CLASSES, shipped=shipped, site_samples=0)
    sizes = []
    for site in (b"", raw):
        monitor = Monitor(replace(watched, site=site))
        drive(monitor, rows)
        sizes.append(bytes_of(monitor, set()))
    assert 30_000 < sizes[0] <= 64_000
    assert sizes[0] < sizes[1] <= 96_000


@pytest.mark.parametrize("gap", [3, 50])
def test_gaps_wider_than_asked_break_nothing(gap: int) -> None:
    """A budget that leaves out samples still finds a shift, as many samples later."""
    found = Monitor(WATCHED)
    rows = shifted(1, 3000 * gap, 1500 * gap, 1.0)
    alarms = [
        seq
        for seq in range(0, len(rows), gap)
        if found.observe(rows[seq], seq // gap % CLASSES, 0.9, seq, seq)
    ]
    moved = [seq for seq in alarms if ("shipped", "all") in active(found)]
    assert moved
    assert min(seq for seq in alarms if seq >= 1500 * gap) < (1500 + 60) * gap


def test_many_labels_are_compared_as_they_are_counted() -> None:
    """Of a hundred labels 64 have a counter: all others are one, here as there."""
    watched = Setup(NAMES, COLUMNS, 100, site_samples=1000)
    found = Monitor(watched)
    chance = np.random.default_rng(5).integers(100, size=6000).tolist()
    assert drive(found, mixed(1, 6000), answers=lambda seq: chance[seq]) == []
    scores = {score.detector: score.ratio for score in found.say().scores}
    assert 0 < scores["chi2"] < 1


def test_predictions_of_one_label_are_not_compared_and_that_is_said() -> None:
    """With one answer in a thousand of another label there is nothing to count."""
    shipped = replace(SHIPPED, classes=(1999, 1, 0, 0))
    watched = replace(WATCHED, shipped=shipped, latched=(("shipped", "prediction"),))
    said = Monitor(watched).say()
    assert "prediction" not in {score.scope for score in said.scores}
    assert "prediction" not in {alarm.scope for alarm in said.alarms}
    assert "predictions not compared" in said.anchors[0].detail


def test_alarms_are_counted_on_over_a_commissioning() -> None:
    """Who adds them up takes the highest: from 0 the next ones would be lost."""
    found = Monitor(replace(SITED, site=baseline(mixed(1, 500))))
    rows = mixed(2, 3000)
    rows[1000:1100] += 3 * SHIPPED.sd
    drive(found, rows)
    before = {it.scope: it.raised for it in found.say().alarms if it.anchor == "site"}
    assert before["all"] == 1
    found.commission()
    found.commission()
    drive(found, mixed(3, 1500), first=3000)
    after = {it.scope: it.raised for it in found.say().alarms if it.anchor == "site"}
    assert after == before


def test_a_stuck_stretch_costs_a_baseline_a_hundred_samples() -> None:
    """Not a hundred for each sample that it lasts."""
    found = Monitor(replace(WATCHED, site_samples=2000))
    rows = mixed(1, 1500)
    drive(found, rows)
    known = found.say().anchors[1].collected
    for seq in range(1500, 1560):
        found.observe(rows[seq - 1500], scattered(seq), 0.9, 7, seq)
    assert known - 100 <= found.say().anchors[1].collected <= known


def test_what_bets_alone_found_is_one_alarm() -> None:
    """A shift far below the other's threshold: raised once for as long as it lasts."""
    deaf = replace(SHIPPED, thresholds=dict.fromkeys(ODD, 1e6))
    found = Monitor(setup(deaf))
    rows = mixed(1, 10_000)
    rows[1000:7000] += 0.35 * SHIPPED.sd
    drive(found, rows[:7000])
    alarm = next(it for it in found.say().alarms if it.scope == "all")
    assert (alarm.active, alarm.raised, alarm.detector) == (True, 1, "etable")
    drive(found, rows[7000:], first=7000)
    assert active(found) == frozenset()


def test_what_was_confirmed_stays_so_over_a_worker() -> None:
    """It is not confirmed anew; one that is not active is not confirmed either."""
    every: tuple[tuple[Anchor, Scope], ...] = (("shipped", "all"), ("shipped", "input"))
    found = Monitor(replace(WATCHED, latched=every[:1], confirmed=every))
    confirmed = {it.scope for it in found.say().alarms if it.confirmed}
    assert confirmed == {"all"}
