"""What the page is told: words, numbers, and nothing that is not JSON."""

import json
from dataclasses import replace
from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as renew

from agent.core.discretion import Discretion
from agent.core.meter_status import MeteredPipeline
from agent.core.readings import BoardReadings
from agent.core.reasons import Reason
from agent.core.sealing import Sealed, Sealing
from agent.core.snapshot import AgentSnapshot, UpdateSnapshot
from agent.core.targets import Wanted
from agent.core.update_machine import Phase
from agent.core.updates import Decision, Progress, Report
from agent.core.watching import (
    ANCHORS,
    SCOPES,
    SEVERITIES,
    Alarm,
    AnchorState,
    Detector,
    ModelWatch,
    Monitored,
    Score,
)
from agent.endpoint.live_notices import find_failing, find_notices, judge_health
from agent.endpoint.live_state import (
    NEWEST,
    SHOWN_LABELS,
    Stories,
    describe_live,
    describe_points,
)
from agent.endpoint.live_watch import short
from agent.endpoint.live_words import ANCHORS as LIVE_ANCHORS
from agent.endpoint.live_words import (
    PHASES,
    advise,
    alarm_level,
    explain,
    say_alarm,
    say_anchor,
    say_decision,
    say_phase,
    say_result,
)
from agent.endpoint.state import describe_agent, render_json
from tests.fakes.metered import STATUS
from tests.fakes.shown import (
    ASIDE,
    LABELS,
    READINGS,
    points_of,
    reports_of,
    shown_agent,
    shown_facts,
    shown_pipeline,
    shown_server,
)
from tests.fakes.snapshots import NOW, agent, pipeline

EMPTY = AgentSnapshot("0.1.0", {}, (), UpdateSnapshot())


def told(
    shown: AgentSnapshot, readings: BoardReadings | None = None
) -> dict[str, object]:
    """Return what a page would be told, through JSON and back."""
    state = describe_live(shown, readings or BoardReadings(), {}, Stories())
    parsed: dict[str, object] = json.loads(
        msgspec.json.encode(state), parse_constant=pytest.fail
    )
    return parsed


def only(state: dict[str, object]) -> dict[str, object]:
    """Return the one pipeline of a state."""
    pipelines = state["pipelines"]
    assert isinstance(pipelines, list)
    found: dict[str, object] = pipelines[0]
    return found


def test_an_agent_without_anything_can_be_shown() -> None:
    """No pipeline, no sensor, no update: nothing is null that a page would add up."""
    state = told(EMPTY)
    assert state["pipelines"] == []
    assert state["notices"] == []
    assert state["update"]["text"] == "No update is under way."  # type: ignore[index] # JSON


def test_a_pipeline_before_its_first_sample_can_be_shown() -> None:
    """No model, no counts, no watch."""
    bare = replace(pipeline(ready=False, reason="no_model"), active=None, counts=())
    shown = only(told(agent(bare)))
    assert (shown["active"], shown["stages"], shown["late"]) == (None, [], None)
    assert (shown["labels"], shown["watch"]) == ([], None)


@pytest.mark.parametrize("sealed", [True, False])
def test_the_page_and_the_state_say_whose_copy_runs(*, sealed: bool) -> None:
    """In words for people, and in two fields for programs."""
    first = pipeline()
    assert first.active is not None
    how = Sealed("kws", 2, Sealing("chacha20-poly1305", ""), "1" * 64, 9)
    active = renew(first.active, sealed=how if sealed else None)
    changed = agent(replace(first, active=active, copy="own"))
    own = "this board's own copy, verified at activation"
    assert only(told(changed))["copy"] == (f"sealed, {own}" if sealed else own)
    state = json.loads(render_json(describe_agent(changed)))["pipelines"][first.name]
    assert (state["copy"], state["sealed"]) == ("own", sealed)


def test_answers_are_those_of_the_model_that_answers() -> None:
    """After a swap the labels and percentiles of the old version are gone."""
    shown = only(told(shown_agent(shown_pipeline())))
    labels = shown["labels"]
    assert isinstance(labels, list)
    assert labels[0] == {"label": "six", "count": 898}
    assert len(labels) <= SHOWN_LABELS + 1
    assert {row["label"] for row in labels} <= {*LABELS, None}
    assert shown["late"] == 12
    assert shown["samples"]["ok"] == 900 + 4_012  # type: ignore[index] # JSON


@pytest.mark.parametrize("began", [(7, 8), (8, 7)])
def test_alarms_are_those_of_the_model_that_answers(began: tuple[int, int]) -> None:
    """After a rollback the monitor that began last is not the one that counts."""
    alarm = Alarm("shipped", "output", active=True)
    said = {7: Monitored(samples=1), 8: Monitored(samples=1, alarms=(alarm,))}
    watches = tuple(ModelWatch("digits", it, said[it]) for it in began)
    shown = shown_agent(replace(shown_pipeline(), watch=watches))
    assert say_alarm(alarm) in "".join(it.text for it in find_notices(shown))


def test_privacy_shows_no_answers() -> None:
    """Where answers are about people, the page says of none what it was."""
    hidden = Discretion().hide(shown_pipeline())
    shown = only(told(shown_agent(hidden)))
    assert [row["label"] for row in shown["labels"]] in ([], [None])  # type: ignore[attr-defined] # JSON
    assert "six" not in json.dumps(shown)


def test_numbers_that_were_never_measured_are_null() -> None:
    """NaN and infinity are no JSON."""
    strange = replace(
        shown_pipeline(), lag_s=nan, gap_s=inf, busy_s=nan, budgets_ms={8: nan}
    )
    shown = only(told(shown_agent(strange), readings=BoardReadings(load_1min=inf)))
    assert (shown["lag_ms"], shown["gap_ms"], shown["busy_ms"]) == (None, None, None)


@given(st.floats(allow_nan=True, allow_infinity=True) | st.none())
def test_short_numbers_keep_four_digits(value: float | None) -> None:
    """``short`` is JSON, close to what it shortens, and settles at once."""
    shown = short(value)
    json.dumps(shown, allow_nan=False)
    assert short(shown) == shown
    if shown is not None and value is not None:
        assert abs(shown - value) <= 0.5001e-3 * abs(value) + 1e-320


@given(st.lists(st.floats(), min_size=9, max_size=9))
def test_points_are_rows_of_json(values: list[float]) -> None:
    """Whatever a trend holds, a row can be parsed by a browser."""
    point = renew(points_of(count=1)[0], rate=values[0], p50_ms=values[1])
    row = describe_points([point])[0]
    json.dumps(row, allow_nan=False)
    assert len(row) == len(point.__struct_fields__)


def test_only_the_newest_points_are_sent_each_second() -> None:
    """A page that is open has the others."""
    facts = shown_facts()
    state = describe_live(facts.shown, facts.board, facts.points, Stories())
    shown = state["pipelines"][0]["points"]  # type: ignore[index] # JSON
    assert shown == describe_points(facts.points["digits"][-NEWEST:])


def test_a_state_is_small_enough_for_every_second() -> None:
    """Eight pipelines with everything in them: 40 kB a second at most."""
    facts = shown_facts(8)
    stories = Stories(reports_of() * 4, ASIDE)
    state = describe_live(facts.shown, facts.board, facts.points, stories)
    assert len(msgspec.json.encode(state)) < 40_000


# --- words


def test_the_story_of_a_refusal_is_told_in_words() -> None:
    """Which bundle, how it ended, and why."""
    facts = shown_facts()
    stories = Stories(reports_of(), ASIDE)
    update = describe_live(facts.shown, facts.board, {}, stories)["update"]
    assert isinstance(update, dict)
    texts = [row["text"] for row in update["reports"]]
    assert texts == [
        "Refused digits 9 for the pipeline digits: signature threshold 1 of 2.",
        "Installed digits 8 for the pipeline digits.",
    ]
    assert update["refusal"] == "digits 9: signature threshold 1 of 2 [threshold]"
    assert update["aside"][0]["reason"] == "golden"


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_its_sentence(phase: Phase) -> None:
    """With and without an update that is under way; no placeholder is left."""
    progress = Progress(1, "door", "kws", 3, "ab", phase, 50, 100)
    for told_of in (None, progress):
        text = say_phase(UpdateSnapshot(phase=phase, progress=told_of))
        assert phase in PHASES
        assert "{" not in text
    assert "kws 3" in say_phase(UpdateSnapshot(phase="FETCHING", progress=progress))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("anchor", ["shipped", "site"])
def test_every_alarm_has_its_sentence_and_level(scope: str, anchor: str) -> None:
    """Critical ones are errors; what is confirmed says so."""
    alarm = msgspec.convert(
        {"anchor": anchor, "scope": scope, "active": True, "confirmed": True}, Alarm
    )
    assert say_alarm(alarm).endswith("(confirmed).")
    assert "{" not in say_alarm(alarm)
    critical = SEVERITIES[alarm.scope] == "critical"
    assert alarm_level(alarm) == ("error" if critical else "warning")


def test_anchors_say_why_they_are_not_compared() -> None:
    """A bad profile and a commissioning read differently."""
    bad = AnchorState("shipped", valid=False, reason="profile", detail="of kws 2")
    young = AnchorState(
        "site", valid=False, reason="commissioning", collected=3, wanted=9
    )
    assert say_anchor(bad).endswith("shipped with: of kws 2.")
    assert say_anchor(young) == "Learning what is normal here: 3 of 9 samples."
    waits = "Learning what is normal here: 3 of 9 samples; it waits while an alarm"
    assert say_anchor(young, waits=True).startswith(waits)


def test_readings_that_people_care_about_are_told() -> None:
    """Which board, what is left of memory and disk, how worn it is, and its clock."""
    state = told(EMPTY, READINGS)
    shown = state["readings"]
    assert isinstance(shown, dict)
    assert shown["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert (shown["memory_available_bytes"], shown["disk_free_bytes"]) == (
        1.1e9,
        1.2e10,
    )
    assert (shown["memory_stalled_percent"], shown["disk_wear"]) == (
        0.5,
        [["mmcblk0", 0.3]],
    )
    assert shown["clock_synchronised"] is True


def test_notices_name_what_somebody_should_know() -> None:
    """A pipeline that fails, an alarm, a throttled board, a clock that is behind."""
    silent = pipeline("door", ready=False, reason="source_failed")
    beginning = pipeline("gate", ready=False, reason="starting")
    shown = shown_agent(shown_pipeline(), silent, beginning)
    update = replace(
        shown.update, clock_floor_lag_s=9.0, trouble=("expired", "too old")
    )
    found = find_notices(
        replace(shown, update=update), (("throttled", True), ("x_y", True))
    )
    levels = [it.level for it in found]
    # Of three pipelines each was refused what is wanted of it.
    assert levels == ["error", *["warning"] * 8, "info"]
    texts = [it.text for it in found]
    assert texts[0].startswith("door does not answer: ")
    assert "The processor is throttled." in texts
    assert "X y." in texts
    assert "The last look for updates failed: too old. [expired]" in texts
    alarm = next(it for it in found if it.text.startswith("digits: The input"))
    assert alarm.since == NOW - 95.0


@pytest.mark.parametrize(
    ("failed", "level"), [(0.5, "good"), (2.0, "warning"), (100.0, "error")]
)
def test_samples_that_fail_are_told_and_are_no_green_answers(
    failed: float, level: str
) -> None:
    """One word for a pipeline, everywhere: what still answers hides no storm."""
    calm = shown_pipeline(drifts=False)
    points = [
        renew(it, rate=100.0, failed=failed * (at > 400))
        for at, it in enumerate(points_of())
    ]
    found = find_notices(agent(calm), (), {"digits": points})
    storms = [it for it in found if "samples failed" in it.text]
    assert judge_health(calm, points)[1] == level
    assert [it.level for it in storms] == ([level] if level != "good" else [])
    for storm in storms:
        assert storm.since == points[401].at
        share = failed / (100 + failed)
        assert f"digits: {share * 100:.0f} % of the last minute's" in storm.text
    state = describe_live(agent(calm), BoardReadings(), {"digits": points}, Stories())
    assert json.loads(msgspec.json.encode(only(state)["health"]))[1] == level


def test_a_storm_that_has_ended_is_told_no_longer() -> None:
    """A minute without a failure ends it; without points nothing is known."""
    points = [renew(it, failed=9.0 * (at < 400)) for at, it in enumerate(points_of())]
    assert find_failing(points[:400]) is not None
    assert find_failing(points) is None
    assert find_failing(()) is None


def test_a_storm_begins_after_a_minute_of_quiet() -> None:
    """An earlier storm is another one; a short pause is part of the same."""
    bad = {*range(100, 150), *range(400, 410), *range(425, 450)}
    points = [renew(it, failed=9.0 * (at in bad)) for at, it in enumerate(points_of())]
    found = find_failing(points)
    assert found is not None
    assert found.since == points[400].at


@given(st.lists(st.floats(0, 1e6), max_size=80))
def test_a_failing_share_is_a_share(failed: list[float]) -> None:
    """Whatever a trend holds: a share of 1 % to 100 %, since a moment of the trend."""
    points = points_of(count=len(failed))
    rows = [renew(it, failed=new) for it, new in zip(points, failed, strict=True)]
    found = find_failing(rows)
    if found is not None:
        assert 0.01 <= found.share <= 1
        assert found.since in {0.0, *(it.at for it in rows[1:])}


def test_stuck_and_impossible_inputs_are_notices() -> None:
    """What is wrong and how much of it there was."""
    made = shown_pipeline(drifts=False)
    stuck = Alarm("shipped", "stuck", active=True)
    said = renew(
        made.watch[0].monitored, alarms=(stuck,), repeated=5_000, invalid={"nan": 900}
    )
    odd = replace(made, watch=(renew(made.watch[0], monitored=said),))
    texts = [it.text for it in find_notices(agent(odd))]
    assert texts == [
        f"digits: {say_alarm(stuck)} 5,000 repeated so far.",
        "digits: inputs so far that cannot be right: 900 with NaN or infinity.",
    ]
    assert judge_health(odd, ()) == ("stuck", "error")


def wants_8(shown: AgentSnapshot) -> AgentSnapshot:
    """Return an agent of which another version is wanted by now, and runs."""
    decisions = (Decision("digits", "runs", Wanted("digits", 8)),)
    return replace(shown, update=replace(shown.update, decisions=decisions))


def test_a_refusal_of_an_order_that_was_taken_back_is_not_shown() -> None:
    """Neither in the banner nor as the last refusal; the story below has it."""
    shown = shown_agent(shown_pipeline(drifts=False))
    stories = Stories(reports=reports_of())
    refused = stories.reports[0]
    told = replace(shown.update, last_refusal=(refused.reason, refused.detail))
    shown = replace(shown, update=told)
    before = describe_live(shown, READINGS, {}, stories)
    after = describe_live(wants_8(shown), READINGS, {}, stories)
    assert before["update"]["refusal"] == f"{refused.detail} [threshold]"  # type: ignore[index] # JSON
    assert after["update"]["refusal"] is None  # type: ignore[index] # JSON
    assert len(before["notices"]) == 1  # type: ignore[arg-type] # JSON
    assert after["notices"] == []


def test_the_fleets_server_is_shown() -> None:
    """Where it is, since when it is silent, its order, what it has not heard."""
    shown = shown_agent(shown_pipeline(drifts=False))
    assert told(shown)["update"]["server"] is None  # type: ignore[index] # JSON
    update = replace(shown.update, orchestrator="ddi", ddi=shown_server())
    assert told(replace(shown, update=update))["update"]["server"] == {  # type: ignore[index] # JSON
        "url": "https://fleet.example",
        "last_poll": NOW - 600,
        "next_poll": NOW + 240,
        "order": "17, told download: download at once, install no, its maintenance "
        "window is closed, this board waits [heat]",
        "untold": "2 reports",
        "trouble": f"poll: the fleet's server answered 401. {explain('unauthorized')} "
        "[unauthorized]",
    }


def test_a_server_that_lets_nobody_in_stands_before_old_stories() -> None:
    """It stops every update; how the last one ended does not."""
    shown = shown_agent(shown_pipeline(drifts=False))
    update = replace(shown.update, ddi=shown_server())
    first, *others = find_notices(replace(shown, update=update), reports=reports_of())
    assert first.text.startswith("The fleet's orders cannot be followed: poll: ")
    assert "[unauthorized]" in first.text
    assert [it.text[:27] for it in others] == ["The last update ended badly"]


def test_an_update_that_ended_badly_is_a_notice_until_one_succeeds() -> None:
    """The newest of each pipeline counts."""
    shown = shown_agent(shown_pipeline(drifts=False))
    refused, installed = reports_of()
    bad = find_notices(shown, reports=[refused, installed])
    expected = (
        "The last update ended badly. Refused digits 9 for the pipeline digits: "
        "signature threshold 1 of 2."
    )
    assert [it.text for it in bad] == [expected]
    assert bad[0].since == refused.ended_at
    assert find_notices(wants_8(shown), reports=[installed, refused]) == []


def test_a_model_that_is_not_watched_says_so() -> None:
    """No time for monitors: no figure that looks like watching."""
    why = "the settings give monitors no time (monitor.cpu_share)"
    anchors = tuple(
        AnchorState(it, valid=False, reason="unwatched", detail=why) for it in ANCHORS
    )
    watch = ModelWatch("digits", 8, Monitored(anchors=anchors))
    shown = only(told(shown_agent(replace(shown_pipeline(), watch=(watch,)))))["watch"]
    assert shown["unwatched"] == f"Not watched: {why}."  # type: ignore[index] # JSON


def test_without_an_anchor_there_is_no_score() -> None:
    """No repetition is no likeness: 0.00 would look like a measurement."""
    idle = Score("shipped", "stuck", "repeat", 0.0)
    watch = ModelWatch("digits", 8, Monitored(scores=(idle,)))
    shown = only(told(shown_agent(replace(shown_pipeline(), watch=(watch,)))))["watch"]
    assert shown["score"] is None  # type: ignore[index] # JSON
    assert shown["compares"] is False  # type: ignore[index] # JSON


def test_features_say_what_they_are_beside() -> None:
    """The same feature beside two anchors stands in two lists."""
    made = shown_pipeline()
    monitored = made.watch[0].monitored
    site = tuple(renew(it, anchor="site") for it in monitored.features)
    both = renew(monitored, features=monitored.features + site)
    watch = renew(made.watch[0], monitored=both)
    shown = only(told(shown_agent(replace(made, watch=(watch,)))))["watch"]
    moved = shown["moved"]  # type: ignore[index] # JSON
    assert [row["beside"] for row in moved] == list(LIVE_ANCHORS.values())
    for row in moved:
        names = [it["feature"] for it in row["features"]]
        assert len(names) == len(set(names)) > 0


def test_wishes_are_said_with_their_reasons() -> None:
    """What runs, what waits, and nobody's wish."""
    runs = Decision("door", "runs", Wanted("kws", 3))
    waits = Decision("door", "waits", Wanted("kws", 3), reason="paused")
    assert say_decision(runs) == "Runs what is wanted: kws 3."
    assert say_decision(waits).startswith("Wanted: kws 3, waits: ")
    nobody = Decision("door", "unassigned")
    assert say_decision(nobody) == "Nobody says what should run."


@pytest.mark.parametrize(
    "reason", [Reason.UNPAID, Reason.LOG, Reason.SEAL_KEY, Reason.ENVELOPE]
)
def test_what_is_wanted_does_not_hide_that_nothing_is_answered(reason: Reason) -> None:
    """The page says why, what to do, and not that it runs."""
    runs = (Decision("digits", "runs", Wanted("digits", 3)),)
    quiet = replace(pipeline(), name="digits", ready=False, reason=reason)
    shown = agent(quiet)
    state = told(replace(shown, update=replace(shown.update, decisions=runs)))
    row = only(state)
    assert (row["wish"], row["why"]) == ("Wanted: digits 3.", explain(reason))
    notice = find_notices(shown)[0]
    assert notice.level == "error"
    assert notice.text.endswith(f"[{reason}] {advise(reason)}")
    assert advise(reason)


def test_one_in_so_many_is_no_green_answer() -> None:
    """A pipeline that degrades for want of units says so, and what to do."""
    thinned = MeteredPipeline("degrade", 0, 10, 9, "unpaid")
    digits = replace(pipeline(), name="digits")
    for paid, word in ((thinned, "unpaid: answers 1 in 10"), (None, "answers")):
        pipelines = {"digits": paid} if paid else {}
        shown = replace(agent(digits), meter=renew(STATUS, pipelines=pipelines))
        health = only(told(shown))["health"]
        assert health == [word, "warning" if paid else "good"]
        texts = [it.text for it in find_notices(shown)]
        assert any(advise("unpaid") in it for it in texts) == bool(paid)


@pytest.mark.parametrize("reason", [it for it in Reason if it])
def test_every_reason_is_explained(reason: Reason) -> None:
    """The page shows a sentence beside every word."""
    assert explain(reason).endswith(".")
    assert explain("of a newer agent") == ""


@given(st.text(max_size=30), st.text(max_size=30))
def test_names_stand_in_words_as_they_are(name: str, label: str) -> None:
    """Braces and markup in names are text, and break no sentence."""
    progress = Progress(1, name, label, 3, "ab", "FETCHING")
    text = say_phase(UpdateSnapshot(phase="FETCHING", progress=progress))
    assert f"{label} 3" in text
    assert label in say_result("refused", label, 3)
    told(EMPTY)


def test_a_report_without_detail_explains_its_reason() -> None:
    """An older agent's report has a word only."""
    old = Report(1, "door", "kws", 2, "ab", "push", 1, "refused", "digest", "", NOW)
    state = describe_live(EMPTY, BoardReadings(), {}, Stories([old]))
    update = state["update"]
    assert isinstance(update, dict)
    expected = f"Refused kws 2 for the pipeline door: {explain('digest')}"
    assert update["reports"][0]["text"] == expected
    assert update["reports"][0]["at"] == NOW


@given(
    st.sampled_from(["mewma", "etable", "chi2", "repeat"]),
    st.floats(min_value=0, max_value=1e9),
)
def test_the_largest_score_is_shown(detector: Detector, ratio: float) -> None:
    """One figure stands for all detectors: how near the nearest alarm is."""
    made = shown_pipeline(drifts=False)
    watch = made.watch[0]
    scores = (*watch.monitored.scores, Score("site", "all", detector, ratio))
    watch = renew(watch, monitored=renew(watch.monitored, scores=scores))
    shown = only(told(shown_agent(replace(made, watch=(watch,)))))
    expected = short(max(0.41, ratio))
    assert shown["watch"]["score"] == expected  # type: ignore[index] # JSON
