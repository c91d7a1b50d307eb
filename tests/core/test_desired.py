"""The plan: which file decides, who takes part, and when something may start."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.desired import (
    Order,
    Plan,
    Refusal,
    Situation,
    check_dates,
    has_begun,
    may_start,
    plan,
    takes_part,
)
from agent.core.executors import Executor
from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted
from agent.core.under_way import overtaken, with_job
from agent.core.update_machine import Job
from agent.core.updates import Decision, Hold
from agent.errors import BundleRefusedError

NOON = datetime(2026, 9, 1, 12, 0, tzinfo=UTC).timestamp()
KWS_2 = GroupFile(generation=4, pipelines={"door": Wanted("kws", 2)})
KWS_3 = GroupFile(generation=9, pipelines={"door": Wanted("kws", 3)})
EMPTY = {"door": Slots()}
HERE = Situation("board-1", NOON)


def running(version: int, model: str = "kws") -> dict[str, Slots]:
    """Return a board whose door runs a version."""
    executor = Executor("litert", "xnnpack")
    return {
        "door": Slots(Installed(model, version, "a" * 64, 1, "int8", executor)),
    }


def planned(
    files: list[tuple[str, GroupFile]], slots: dict[str, Slots], now: float = NOON
) -> list[int]:
    """Return the versions that are ordered."""
    return [
        order.version for order in plan(files, slots, Situation("board-1", now)).orders
    ]


def test_an_order_says_who_wants_what() -> None:
    """An order names the pipeline, the model, the version, the file, its generation."""
    files = [("fleet/groups/all", KWS_2)]
    expected = Order("door", "kws", 2, "fleet/groups/all", 4)
    assert (expected,) == plan(files, EMPTY, HERE).orders


def test_what_runs_needs_no_order() -> None:
    """The same version is left alone, another version or model is not."""
    files = [("all", KWS_2)]
    assert planned(files, running(2)) == []
    assert planned(files, running(1)) == [2]
    assert planned(files, running(3)) == [2]
    assert planned(files, running(2, "vww")) == [2]


def test_the_most_specific_file_decides_alone() -> None:
    """The first file that names a pipeline counts, also where it wants nothing new."""
    files = [("lab", KWS_3), ("all", KWS_2)]
    assert planned(files, EMPTY) == [3]
    assert planned(files, running(3)) == []
    assert planned(
        [("none", GroupFile(generation=1, pipelines={})), *files], EMPTY
    ) == [3]


def test_pipelines_without_a_word_stay() -> None:
    """A desired state for pipelines of other boards orders nothing here."""
    assert plan([("all", KWS_2)], {"window": Slots()}, HERE).orders == ()


def test_a_paused_file_holds_and_lets_no_other_in() -> None:
    """Paused: nothing new starts, and the less specific file does not step in."""
    files = [("lab", replace(KWS_3, paused=True)), ("all", KWS_2)]
    assert planned(files, EMPTY) == []


def test_a_file_out_of_its_window_holds() -> None:
    """Outside its window a file still decides, but nothing starts."""
    files = [("lab", replace(KWS_3, window="02:00-03:00")), ("all", KWS_2)]
    assert planned(files, EMPTY) == []


@pytest.mark.parametrize(
    "lab",
    [replace(KWS_3, percent=0), replace(KWS_3, not_before="2026-09-01T12:00:01Z")],
)
def test_a_file_not_in_force_gives_way(lab: GroupFile) -> None:
    """Boards that were not drawn, or not yet, follow the next file."""
    assert planned([("lab", lab), ("all", KWS_2)], EMPTY) == [2]


@given(
    salt=st.text(max_size=20),
    board=st.text(max_size=20),
    low=st.floats(0, 100),
    high=st.floats(0, 100),
)
def test_a_rollout_only_grows(salt: str, board: str, low: float, high: float) -> None:
    """Who takes part at some percentage takes part at every higher one."""
    low, high = sorted((low, high))
    fewer = takes_part(replace(KWS_2, salt=salt, percent=low), board)
    more = takes_part(replace(KWS_2, salt=salt, percent=high), board)
    assert fewer <= more


@given(salt=st.text(max_size=20), board=st.text(max_size=20))
def test_all_and_none(salt: str, board: str) -> None:
    """100 percent is every board, 0 percent none."""
    assert takes_part(replace(KWS_2, salt=salt, percent=100), board)
    assert not takes_part(replace(KWS_2, salt=salt, percent=0), board)


def test_the_draw_is_fair_and_documented() -> None:
    """SHA-256 of salt, NUL and id draws about the share that was asked for."""
    file = replace(KWS_2, salt="may", percent=25)
    drawn = sum(takes_part(file, f"board-{number}") for number in range(2000))
    assert 430 <= drawn <= 570
    # `printf 'may\0board-2' | sha256sum` begins with 20881039d808fc1e.
    drawn_at = 0x20881039D808FC1E / 2**64 * 100
    assert takes_part(replace(file, percent=drawn_at + 0.01), "board-2")
    assert not takes_part(replace(file, percent=drawn_at - 0.01), "board-2")


@pytest.mark.parametrize(
    ("window", "hour", "open_"),
    [
        ("", 12, True),
        ("12:00-13:00 local", 12, True),
        ("12:00-13:00", 12, True),
        ("11:00-12:00", 12, False),
        ("22:00-04:00", 23, True),
        ("22:00-04:00", 3, True),
        ("22:00-04:00", 4, False),
        ("22:00-04:00", 12, False),
        ("00:00-00:00", 12, True),
    ],
)
def test_windows(window: str, hour: int, *, open_: bool) -> None:
    """A window is UTC, may pass midnight, and its end does not belong to it."""
    now = NOON + (hour - 12) * 3600
    assert open_ is may_start(replace(KWS_2, window=window), now)


@pytest.mark.parametrize(
    ("date", "begun"),
    [
        ("", True),
        ("2026-09-01T12:00:00Z", True),
        ("2026-09-01T12:00:00", True),
        ("2026-09-01T12:00:01", False),
        ("2026-09-01T14:00:00+02:00", True),
        ("2026-09-02", False),
    ],
)
def test_not_before(date: str, *, begun: bool) -> None:
    """A date counts in its own zone, and as UTC where it names none."""
    assert begun is has_begun(replace(KWS_2, not_before=date), NOON)


@pytest.mark.parametrize(
    "file",
    [
        replace(KWS_2, window=text)
        for text in (
            *("12", "12:00", "12:00-24:00", "1:00-2:00", "12:00-12:60", "a-b"),
            *(" local", "12:00-13:00 Local", "12:00-13:00 local local"),
        )
    ]
    + [replace(KWS_2, not_before=text) for text in ("soon", "2026-13-01")],
)
def test_nonsense_is_the_senders_business(file: GroupFile) -> None:
    """A window or a date that cannot be read refuses the desired state."""
    with pytest.raises(BundleRefusedError) as caught:
        check_dates(file)
    assert caught.value.reason == Reason.METADATA


@pytest.mark.parametrize("times", [{"window": "25:00-26:00"}, {"not_before": "soon"}])
def test_nonsense_holds_its_own_pipelines_only(times: dict[str, str]) -> None:
    """What an unreadable file names stays as it is; other files and pipelines go on."""
    lab, board = replace(KWS_3, **times), EMPTY | {"gate": Slots()}
    everyone = {"door": Wanted("kws", 2), "gate": Wanted("vww", 5)}
    files = [("lab", lab), ("all", GroupFile(generation=1, pipelines=everyone))]
    assert planned(files, board) == [5]
    assert planned([("lab", replace(lab, percent=0)), *files[1:]], board) == [2, 5]


@given(window=st.text(max_size=32), date=st.text(max_size=32), now=st.floats(0, 1e11))
def test_any_text_is_read_or_refused(window: str, date: str, now: float) -> None:
    """No text in a signed file raises anything but BundleRefusedError."""
    file = replace(KWS_2, window=window, not_before=date)
    assert len(plan([("all", file)], EMPTY, Situation("board-1", now)).orders) <= 1
    try:
        check_dates(file)
    except BundleRefusedError as err:
        assert err.reason == Reason.METADATA  # noqa: PT017 - either way is right


# --- Decisions: what is said about each pipeline, and until when


def decided(
    files: list[tuple[str, GroupFile]],
    slots: dict[str, Slots] = EMPTY,
    situation: Situation = HERE,
) -> Decision:
    """Return the decision about the door."""
    return plan(files, slots, situation).decisions[0]


def said(decision: Decision) -> tuple[str, str]:
    """Return state and reason."""
    return decision.state, decision.reason


@pytest.mark.parametrize(
    ("file", "state", "reason", "detail"),
    [
        (KWS_2, "ordered", "", ""),
        (
            replace(KWS_2, window="22:00-04:00"),
            "waits",
            Reason.WINDOW,
            "waits for window until 2026-09-01 22:00 UTC",
        ),
        (
            replace(KWS_2, not_before="2026-09-02T07:00:30Z"),
            "waits",
            Reason.NOT_BEFORE,
            "waits for its start until 2026-09-02 07:00:30 UTC",
        ),
        (replace(KWS_2, paused=True), "waits", Reason.PAUSED, "all is paused"),
        (
            replace(KWS_2, percent=0),
            "waits",
            Reason.PERCENT,
            "all did not draw this board",
        ),
        (
            replace(KWS_2, window="noon"),
            "refused",
            Reason.METADATA,
            "all does not say when it may start",
        ),
    ],
)
def test_every_state_has_its_reason(
    file: GroupFile, state: str, reason: str, detail: str
) -> None:
    """What does not start now says why, in a word and for people."""
    decision = decided([("all", file)])
    assert (decision.pipeline, decision.desired) == ("door", Wanted("kws", 2))
    assert (decision.source, decision.generation) == ("all", 4)
    assert (*said(decision), decision.detail) == (state, reason, detail)


def test_what_runs_is_no_matter_of_time() -> None:
    """What runs as wanted runs, whether its file is paused, closed or not in force."""
    for times in (
        {},
        {"paused": True},
        {"window": "22:00-04:00"},
        {"not_before": "2027-01-01"},
        {"percent": 0.0},
    ):
        file = replace(KWS_2, **times)
        assert said(decided([("all", file)], running(2))) == ("runs", "")


def test_nobody_says_anything() -> None:
    """Without a word about it a pipeline is unassigned, whatever it runs."""
    assert decided([]).state == "unassigned"
    assert decided([("all", replace(KWS_2, pipelines={}))], running(2)).state == (
        "unassigned"
    )


def test_a_factory_model_is_said_to_run_as_such() -> None:
    """Nobody is missing where a board runs what it was shipped with."""
    active = running(2)["door"].active
    shipped = {"door": Slots(active=active, factory=active)}
    assert decided([], shipped).detail.startswith("its factory model runs")
    assert decided([], running(2)).detail == "nobody says what should run"


def test_an_operators_rollback_holds_until_something_newer() -> None:
    """Held are that source and generation; another one, or another source, is not.

    A lower generation comes here only after the keys that signed the higher were gone.
    """
    hold = replace_situation(holds=[Hold("door", "all", 4)])
    assert said(decided([("all", KWS_2)], running(1), hold)) == ("waits", Reason.HELD)
    assert plan([("all", KWS_2)], running(1), hold).orders == ()
    for generation in (3, 5):
        other = replace(KWS_2, generation=generation)
        assert decided([("all", other)], running(1), hold).state == "ordered"
    assert decided([("lab", KWS_2)], running(1), hold).state == "ordered"
    both = [("all", KWS_2), ("every", KWS_3)]
    assert said(decided(both, running(1), hold)) == ("waits", Reason.HELD)
    gate = replace_situation(holds=[Hold("gate", "all", 4)])
    assert decided([("all", KWS_2)], running(1), gate).state == "ordered"


def replace_situation(**changes: object) -> Situation:
    """Return the situation at noon with some changes."""
    return Situation("board-1", NOON, **changes)  # type: ignore[arg-type]  # ditto


def test_a_refusal_is_told_as_long_as_nothing_changed() -> None:
    """The same order is refused with its reason, and still handed on; a new one not."""
    order = Order("door", "kws", 2, "all", 4)
    refusal = Refusal(order, Reason.VERSION_FLOOR, "it is older than version 3")
    here = replace_situation(refusals={"door": refusal})
    plan_4 = plan([("all", KWS_2)], EMPTY, here)
    assert said(plan_4.decisions[0]) == ("refused", Reason.VERSION_FLOOR)
    assert plan_4.decisions[0].detail == "it is older than version 3"
    assert plan_4.orders == (order,)
    newer = replace(KWS_2, generation=5)
    assert decided([("all", newer)], EMPTY, here).state == "ordered"
    paused = replace(KWS_2, paused=True)
    assert said(decided([("all", paused)], EMPTY, here)) == ("waits", Reason.PAUSED)


def test_what_may_pass_by_itself_waits() -> None:
    """It is ``refused`` only where nobody tries again; which trial it was is said."""
    order = Order("door", "kws", 2, "all", 4)
    cut = Refusal(order, Reason.UNREACHABLE, "no route", again=True)
    slow = Refusal(order, Reason.LATENCY, "too slow", again=True, attempts=2)
    for refusal, detail in (
        (cut, "no route; it is tried again"),
        (slow, "too slow; it is tried again (attempt 2 of 3)"),
    ):
        planned_4 = plan(
            [("all", KWS_2)], EMPTY, replace_situation(refusals={"door": refusal})
        )
        (decision,) = planned_4.decisions
        assert (*said(decision), decision.detail) == ("waits", refusal.reason, detail)
        assert planned_4.orders == (order,)


def test_what_is_under_way_is_ordered() -> None:
    """Whatever came of it before; other pipelines' and newer wishes say their own."""
    job = Job("door", "kws", 2, "b" * 64, source="all", generation=4)
    order = Order("door", "kws", 2, "all", 4)
    slow = Refusal(order, Reason.LATENCY, "too slow", again=True, attempts=2)
    waiting = decided(
        [("all", KWS_2)], EMPTY, replace_situation(refusals={"door": slow})
    )
    (shown,) = with_job([waiting], job)
    assert (*said(shown), shown.detail) == ("ordered", "", "under way")
    newer = decided([("all", replace(KWS_2, generation=5, paused=True))])
    gate = replace(waiting, pipeline="gate")
    assert with_job([newer, gate], job) == (newer, gate)
    assert with_job([waiting], None) == (waiting,)
    assert with_job([waiting], replace(job, rollback=True)) == (waiting,)


def test_a_paused_file_waits_for_a_person_before_its_start_too() -> None:
    """No date frees what is paused; a more specific file that comes does."""
    paused = replace(KWS_2, paused=True, not_before="2027-01-01")
    decision = decided([("all", paused)])
    assert (*said(decision), decision.detail) == (
        "waits",
        Reason.PAUSED,
        "all is paused",
    )
    assert decision.until == 0.0
    coming = replace(KWS_3, not_before="2027-02-01")
    both = decided([("lab", coming), ("all", paused)])
    assert both.detail == "all is paused until 2027-02-01 00:00 UTC"


def test_34_a_revoked_model_does_not_run_as_wanted() -> None:
    """The wanted version is active and revoked: refused, and nothing is ordered."""
    here = replace_situation(revoked={"a" * 64})
    plan_2 = plan([("all", KWS_2)], running(2), here)
    assert said(plan_2.decisions[0]) == ("refused", Reason.REVOKED)
    assert plan_2.orders == ()


def test_unknown_pipelines_are_reported_and_harm_nothing() -> None:
    """A name that the settings do not have is one refused decision, from one source."""
    wanted = {"gate": Wanted("vww", 5), "door": Wanted("kws", 2)}
    file = replace(KWS_2, pipelines=wanted)
    made = plan([("lab", file), ("all", file)], EMPTY, HERE)
    assert [(it.pipeline, it.state, it.reason) for it in made.decisions] == [
        ("door", "ordered", ""),
        ("gate", "refused", Reason.UNKNOWN_PIPELINE),
    ]
    assert (made.decisions[1].source, made.decisions[1].desired) == (
        "lab",
        Wanted("vww", 5),
    )
    assert [order.pipeline for order in made.orders] == ["door"]
    for elsewhere in ({"percent": 0.0}, {"not_before": "2027-01-01"}):
        file_2 = replace(file, **elsewhere)
        assert len(plan([("all", file_2)], EMPTY, HERE).decisions) == 1


def test_unknown_pipelines_are_not_endless() -> None:
    """A file for a thousand kinds of boards does not fill this one's state."""
    wanted = {f"p{number}": Wanted("kws", 1) for number in range(64)}
    others = {f"q{number}": Wanted("kws", 1) for number in range(64)}
    files = [("lab", replace(KWS_2, pipelines=wanted))]
    files.append(("all", replace(KWS_2, pipelines=others)))
    assert len(plan(files, EMPTY, HERE).decisions) == 1 + 64


def test_a_more_specific_file_that_comes_is_awaited() -> None:
    """A closed window ends early where a more specific file begins before it opens."""
    lab = replace(KWS_3, not_before="2026-09-01T13:00:00Z")
    every = replace(KWS_2, window="22:00-04:00")
    decision = decided([("lab", lab), ("all", every)])
    assert (decision.reason, decision.until) == (Reason.WINDOW, NOON + 3600)
    # The other way round nobody waits for the less specific one.
    decision = decided([("all", every), ("lab", lab)])
    assert (decision.reason, decision.until) == (Reason.WINDOW, NOON + 10 * 3600)
    assert plan([("lab", lab), ("all", KWS_2)], running(2), HERE).wake == NOON + 3600


def test_local_windows() -> None:
    """22:00 local is 20:00 UTC where clocks are two hours ahead."""
    file = replace(KWS_2, window="22:00-04:00 local")
    here = replace_situation(utc_offset_s=7200)
    assert decided([("all", file)], EMPTY, here).until == NOON + 8 * 3600
    west = replace_situation(utc_offset_s=-11 * 3600)
    assert decided([("all", file)], EMPTY, west).state == "ordered"


TIMES = st.integers(0, 3 * 86400).map(lambda second: NOON + second)


@st.composite
def desired_states(draw: st.DrawFn) -> GroupFile:
    """Draw a desired state for the door that has to do with time in some way."""
    minutes = st.integers(0, 24 * 60 - 1).map(lambda m: f"{m // 60:02}:{m % 60:02}")
    window = f"{draw(minutes)}-{draw(minutes)}{draw(st.sampled_from(['', ' local']))}"
    begin = datetime.fromtimestamp(draw(TIMES), UTC).isoformat()
    return GroupFile(
        generation=draw(st.integers(1, 3)),
        pipelines={"door": Wanted("kws", draw(st.integers(1, 3)))},
        paused=draw(st.sampled_from([False, False, True])),
        percent=draw(st.sampled_from([100.0, 0.0, 50.0])),
        not_before=draw(st.sampled_from(["", begin, begin])),
        window=draw(st.sampled_from(["", window, window])),
    )


def gist(decision: Decision) -> tuple[str, str, str]:
    """Return what a decision comes down to."""
    return decision.state, decision.reason, decision.source


@given(
    files=st.lists(desired_states(), max_size=3),
    version=st.integers(0, 3),
    now=TIMES,
    offset_s=st.integers(-14, 14).map(lambda quarter: quarter * 900),
    share=st.floats(0, 1, exclude_max=True),
)
def test_until_is_exact(
    files: list[GroupFile], version: int, now: float, offset_s: int, share: float
) -> None:
    """Before ``until`` a decision stays what it is, at ``until`` it is another."""
    named = [(f"group-{index}", file) for index, file in enumerate(files)]
    slots = running(version) if version else EMPTY

    def at(moment: float) -> Plan:
        return plan(named, slots, Situation("board-1", moment, offset_s))

    first = at(now)
    until = first.decisions[0].until
    if until:
        assert until > now
        for between in (now + (until - now) * share, until - 0.001):
            assert at(between).decisions == first.decisions
        assert gist(at(until).decisions[0]) != gist(first.decisions[0])
    for between in [now + (first.wake - now) * share] if first.wake else [now + 7e5]:
        # Time alone opens nothing earlier; what is open may close.
        assert set(at(between).orders) <= set(first.orders)


@given(
    files=st.lists(desired_states(), max_size=3),
    version=st.integers(0, 3),
    now=TIMES,
)
def test_orders_and_decisions_agree(
    files: list[GroupFile], version: int, now: float
) -> None:
    """One decision for each pipeline; ordered means an order, everything else none."""
    named = [(f"group-{index}", file) for index, file in enumerate(files)]
    slots = (running(version) if version else EMPTY) | {"gate": Slots()}
    made = plan(named, slots, Situation("board-1", now))
    assert [it.pipeline for it in made.decisions] == ["door", "gate"]
    ordered = [it.pipeline for it in made.decisions if it.state == "ordered"]
    assert [it.pipeline for it in made.orders] == ordered
    for decision in made.decisions:
        assert bool(decision.reason) == (decision.state in {"waits", "refused"})
        assert bool(decision.detail) == (decision.state not in {"runs", "ordered"})


def test_what_ends_a_trial() -> None:
    """Revoked bytes, and something else that is wanted; nothing else does."""
    job = Job("door", "kws", 2, "b" * 64, source="all", generation=4)
    wants_2, wants_3 = decided([("all", KWS_2)]), decided([("all", KWS_3)])
    assert overtaken(job, [wants_2], ()) == ""
    assert overtaken(job, [wants_3], ()) == Reason.SUPERSEDED
    assert overtaken(job, [wants_2], {"b" * 64}) == Reason.REVOKED
    assert overtaken(job, [decided([])], ()) == ""
    assert overtaken(job, [decided([("all", replace(KWS_2, paused=True))])], ()) == ""
    back = decided([("all", KWS_3)], running(3))
    assert overtaken(job, [back], ()) == Reason.SUPERSEDED
    for spared in (replace(job, rollback=True), replace(job, factory=True)):
        assert overtaken(spared, [wants_3], ()) == ""
        assert overtaken(spared, [wants_2], {"b" * 64}) == Reason.REVOKED
