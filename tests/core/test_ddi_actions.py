"""What becomes of DDI actions: transitions one by one, then laws over any course."""

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from msgspec.structs import replace

from agent.core.ddi import MAX_OUTBOX, Execution, Feedback, Mode, Record
from agent.core.ddi_actions import (
    Offer,
    accept,
    adopt,
    cancel_ended,
    desired,
    exchange,
    hold,
    leave,
    left,
    prefetch,
    refuse,
    reopen,
    replaces,
    restart,
    say,
)
from agent.core.ddi_outbox import answered, is_full, not_offered, queue
from agent.core.ddi_progress import (
    Seen,
    cut_short,
    done_part,
    failing,
    gave_up,
    is_partly_committed,
    observe,
    strike,
)
from agent.core.targets import GroupFile, Wanted
from agent.core.updates import Decision, Progress, Report, State

KWS = {"door": Wanted("kws", 7)}
BOTH = {"door": Wanted("kws", 7), "window": Wanted("kws", 7)}


def opened(pipelines: dict[str, Wanted] = KWS, **changes: Any) -> Record:  # noqa: ANN401 - fields of what it makes
    """Return a record with action 5 open and nothing waiting to be told."""
    offer = dataclasses.replace(Offer("5", pipelines), **changes)
    record = accept(Record(), offer, 1)
    return replace(record, outbox=())


def decision(state: State, reason: str = "", **changes: Any) -> Decision:  # noqa: ANN401 - fields of what it makes
    """Return what the plan says about the door."""
    said = Decision("door", state, KWS["door"], "ddi", 1, reason, "in words")
    return msgspec.structs.replace(said, **changes)


def under_way(phase: str) -> Progress:
    """Return the update that is under way in the door."""
    return Progress(1, "door", "kws", 7, "ab", phase)


def committed(pipeline: str = "door", generation: int = 1) -> Report:
    """Return the report of an update that was committed."""
    return Report(1, pipeline, "kws", 7, "ab", "ddi", generation, "committed")


def said(record: Record) -> list[str]:
    """Return what waits to be told, each as ``execution`` or ``execution:reason``."""
    return [
        f"{it.execution}/{it.finished}" if it.finished != "none" else it.execution
        for it in record.outbox
    ]


class TestDesired:
    """What a record wants of the machine."""

    def test_nothing(self) -> None:
        """Where nobody wanted anything, nothing is wanted."""
        assert desired(Record()) is None
        assert prefetch(Record()) is None

    def test_forced(self) -> None:
        """What is forced starts at once, whatever the board's own window."""
        assert desired(opened(), "01:00-02:00") == GroupFile(1, KWS)
        assert prefetch(opened(), "01:00-02:00") is None

    @pytest.mark.parametrize(
        ("download", "update", "window_open", "paused", "window", "early"),
        [
            ("attempt", "attempt", True, False, "01:00-02:00", None),
            ("forced", "attempt", True, False, "01:00-02:00", ""),
            ("attempt", "forced", True, False, "01:00-02:00", None),
            ("forced", "skip", True, True, "", ""),
            ("forced", "skip", False, True, "", ""),
            ("forced", "forced", False, True, "", ""),
            ("attempt", "skip", True, True, "01:00-02:00", "01:00-02:00"),
            ("skip", "skip", True, True, "", None),
            ("skip", "forced", True, True, "", None),
        ],
    )
    def test_modes(
        self,
        download: Mode,
        update: Mode,
        window_open: bool,  # noqa: FBT001 - a column of the table
        paused: bool,  # noqa: FBT001 - a column of the table
        window: str,
        early: str | None,
    ) -> None:
        """Skip waits for the server, attempt for the board's window; bytes may come."""
        record = opened(download=download, update=update, window_open=window_open)
        file = desired(record, "01:00-02:00")
        assert file == GroupFile(1, KWS, paused=paused, window=window)
        found = prefetch(record, "01:00-02:00")
        assert (found.window if found else None) == early

    def test_held(self) -> None:
        """What the board had better not begin is not fetched either, until it may."""
        record = hold(opened(download="attempt", update="attempt"), "heat")
        file = desired(record)
        assert file is not None
        assert file.paused
        assert prefetch(record) is None
        assert desired(hold(record, "")) == GroupFile(1, KWS)

    def test_leaving(self) -> None:
        """What is being withdrawn is wanted no more; what ran before still is."""
        record = replace(opened(), runs={"window": Wanted("vww", 2)})
        record = leave(record, "canceled", "9")
        assert desired(record) == GroupFile(1, {"window": Wanted("vww", 2)})

    def test_failed_is_withdrawn(self) -> None:
        """After a failure that which ran before is wanted again."""
        record = replace(opened(), runs={"door": Wanted("kws", 6)})
        record = observe(record, Seen((decision("refused", "golden"),)), 2)
        assert desired(record) == GroupFile(1, {"door": Wanted("kws", 6)})


class TestAccept:
    """Offers."""

    def test_new(self) -> None:
        """A new action is the next generation, and is told to be scheduled."""
        record = accept(Record(generation=4), Offer("5", KWS), 7)
        assert record.open is not None
        assert (record.generation, record.open.generation) == (5, 5)
        assert record.outbox == (Feedback("deploymentBase", "5", "scheduled", at_ms=7),)

    def test_again(self) -> None:
        """The same offered again is no news, but for when it may begin."""
        record = opened()
        assert accept(record, Offer("5", KWS), 9) == record
        closed = accept(record, Offer("5", KWS, window_open=False), 9)
        assert closed.open is not None
        assert not closed.open.window_open
        assert (closed.generation, closed.outbox) == (1, ())

    def test_another(self) -> None:
        """Another one is not taken before the open one has left."""
        record, other = opened(), Offer("6", KWS)
        assert replaces(record, other)
        assert accept(record, other, 9) == record
        record = left(leave(record, "superseded"), committed=False, now_ms=3)
        assert said(record) == ["canceled"]
        record = accept(record, other, 9)
        assert record.open is not None
        assert (record.open.id, record.generation) == ("6", 2)

    def test_ended_and_still_offered(self) -> None:
        """A lost report is repeated, and nothing is installed again."""
        record = observe(opened(), Seen((decision("runs"),)), 2)
        assert said(record) == ["closed/success"]
        taken = answered(record, record.outbox[0], 200)
        assert taken.outbox == ()
        again = accept(taken, Offer("5", KWS), 9)
        assert (again.open, again.outbox) == (None, record.outbox)
        assert accept(again, Offer("5", KWS), 9) == again

    def test_offered_anew(self) -> None:
        """Not offered for a while, then again: a new order under an old id."""
        record = observe(opened(), Seen((decision("refused", "golden"),)), 2)
        # As long as the server was not told, its silence means nothing.
        assert not_offered(record, "") == record
        record = not_offered(answered(record, record.outbox[0], 200), "")
        record = accept(record, Offer("5", KWS), 9)
        assert record.open is not None
        assert (record.open.generation, said(record)) == (2, ["scheduled"])


class TestObserve:
    """From facts to feedback."""

    def test_each_state_in_its_turn(self) -> None:
        """Fetching, verified, on trial, committed: each is told once."""
        record, told = opened(), []
        for phase in ("FETCHING", "VERIFYING", "STAGING", "PREFLIGHT", "PROBATION"):
            record = observe(record, Seen(progress=under_way(phase)), 2)
            told.append(said(record))
            record = replace(record, outbox=())
        record = observe(record, Seen((decision("runs"),), reports=(committed(),)), 3)
        told.append(said(record))
        assert told == [
            ["download"],
            [],
            ["downloaded"],
            ["proceeding"],
            [],
            ["closed/success"],
        ]
        assert record.open is None
        assert record.runs == KWS

    def test_between_two_looks(self) -> None:
        """States that passed between two looks are told all the same."""
        seen = Seen((decision("runs"),), reports=(committed(),))
        assert said(observe(opened(), seen, 2)) == [
            "download",
            "downloaded",
            "proceeding",
            "closed/success",
        ]

    def test_it_ran_before(self) -> None:
        """What runs already is a success, and nothing else is claimed."""
        record = observe(opened(), Seen((decision("runs"),)), 2)
        assert said(record) == ["closed/success"]

    def test_refused(self) -> None:
        """A refusal is a failure, with its reason and its words."""
        record = observe(opened(), Seen((decision("refused", "hardware"),)), 2)
        (word,) = record.outbox
        assert (word.execution, word.finished) == ("closed", "failure")
        assert (word.reason, word.details) == ("hardware", ("door: in words",))
        assert (record.open, record.runs) == (None, {})

    def test_decisions_about_other_orders(self) -> None:
        """What was decided about an earlier order says nothing of this one."""
        for changes in ({"generation": 9}, {"source": "push"}):
            seen = Seen((decision("refused", "hardware", **changes),))
            assert observe(opened(), seen, 2) == opened()

    def test_after_a_restart(self) -> None:
        """What was begun is resumed, and told anew from where it is."""
        record = observe(opened(), Seen(progress=under_way("PROBATION")), 2)
        record = restart(replace(record, outbox=()), 3)
        assert said(record) == ["resumed"]
        record = observe(record, Seen(progress=under_way("FETCHING")), 4)
        assert said(record) == ["resumed", "download"]
        assert restart(opened(), 3) == opened()  # nothing was begun

    def test_committed_before_a_power_cut(self) -> None:
        """Between commit and report: resumed, then success, and no trial again."""
        record = observe(opened(), Seen(progress=under_way("PROBATION")), 2)
        record = restart(replace(record, outbox=()), 3)
        record = observe(record, Seen(reports=(committed(),)), 4)
        assert said(record) == ["resumed", "closed/success"]

    def test_an_operators_rollback_is_no_success(self) -> None:
        """A report of another version under this order does not close it."""
        back = msgspec.structs.replace(committed(), version=6)
        record = observe(opened(), Seen((decision("waits", "held"),), None, (back,)), 2)
        assert said(record) == ["closed/failure"]
        assert record.outbox[0].reason == "held"

    @pytest.mark.parametrize("reason", ["window", "unreachable", "disk_full"])
    def test_not_now(self, reason: str) -> None:
        """What cannot be now is a warning, told once, and then goes on."""
        waits = Seen((decision("waits", reason),))
        record = observe(observe(opened(), waits, 2), waits, 3)
        assert [it.reason for it in record.outbox] == [reason]
        assert said(record) == ["rejected"]
        record = observe(record, Seen(progress=under_way("FETCHING")), 4)
        assert said(record) == ["rejected", "download"]

    def test_fetched_and_not_now(self) -> None:
        """What lies here and waits for the board's own window: told once, both."""
        seen = Seen((decision("waits", "window"),), fetched=frozenset({"door"}))
        record = opened(update="attempt")
        for _ in range(3):
            record = observe(record, seen, 2)
        assert said(record) == ["download", "downloaded", "rejected"]

    def test_paused_is_no_trouble(self) -> None:
        """What the server itself holds back is no news; what lies here is."""
        paused = decision("waits", "paused")
        record = opened(update="skip")
        assert observe(record, Seen((paused,)), 2) == record
        record = observe(record, Seen((paused,), fetched=frozenset({"door"})), 2)
        assert said(record) == ["download", "downloaded"]

    def test_heat(self) -> None:
        """A board that had better wait says so."""
        record = hold(opened(update="attempt"), "heat")
        record = observe(record, Seen((decision("waits", "paused"),)), 2)
        assert [it.reason for it in record.outbox] == ["heat"]

    def test_several_pipelines(self) -> None:
        """An action of two pipelines ends with the second, and keeps the first."""
        record = opened(BOTH)
        first = decision("runs")
        ordered = decision("ordered", pipeline="window")
        assert said(observe(record, Seen((first, ordered)), 2)) == []
        other = decision("refused", "golden", pipeline="window")
        record = observe(record, Seen((first, other)), 2)
        assert (said(record), record.runs) == (["closed/failure"], KWS)

    def test_gave_up(self) -> None:
        """After so many failures that may pass it leaves, and then has failed."""
        words = "the network is down; it is tried again, at most 3 times"
        seen = Seen((decision("waits", "unreachable", detail=words),))
        record = strike(opened(), seen, 2)
        assert record.open is not None
        assert (record.open.failures, said(record)) == (1, [])
        record = strike(record, seen, 2)
        assert (said(record), desired(record)) == ([], None)
        record = gave_up(record, Seen(), 3)
        assert [it.reason for it in record.outbox] == ["gave_up"]
        # It is not tried again, and nobody reads that it were.
        assert record.outbox[0].details == (
            "gave up after 2 attempts",
            "unreachable: door: the network is down",
        )
        assert record.open is None

    def test_gave_up_when_part_was_committed(self) -> None:
        """What was committed stays wanted; where all was, it has succeeded."""
        failed = decision("waits", "unreachable", pipeline="window")
        seen = Seen((failed,), reports=(committed(),))
        record = strike(opened(BOTH), seen, 1)
        partly = gave_up(record, Seen(reports=(committed(),)), 3)
        assert (said(partly), partly.runs) == (["closed/failure"], KWS)
        reports = committed(), committed("window")
        wholly = gave_up(record, Seen(reports=reports), 3)
        assert (said(wholly)[-1], wholly.runs) == ("closed/success", BOTH)

    @pytest.mark.parametrize(
        ("ordered", "progress"),
        [(True, None), (False, replace(under_way("PROBATION"), pipeline="window"))],
    )
    def test_no_attempt_while_something_goes_on(
        self,
        ordered: bool,  # noqa: FBT001 - a column of the table
        progress: Progress | None,
    ) -> None:
        """While the machine is at something else no failure is counted."""
        other = decision("ordered", pipeline="window")
        decisions = (decision("waits", "unreachable"), *((other,) if ordered else ()))
        seen = Seen(decisions, progress)
        assert not failing(opened(BOTH), seen)
        assert strike(opened(BOTH), seen, 1) == opened(BOTH)
        assert failing(opened(BOTH), Seen(decisions[:1]))

    def test_under_another_generation(self) -> None:
        """What was committed before an action was reopened was committed of it."""
        record = reopen(reopen(opened(BOTH)))
        assert record.open is not None
        assert (record.open.generation, record.generation) == (3, 3)
        seen = Seen(reports=(committed(), committed("window", 3)))
        assert is_partly_committed(record, Seen(reports=(committed(),)))
        assert not is_partly_committed(record, Seen(reports=(committed("door", 4),)))
        assert said(observe(record, seen, 4))[-1] == "closed/success"

    def test_exchanged(self) -> None:
        """What was carried out of the earlier content stays wanted."""
        record = opened(BOTH)
        done = done_part(record, Seen(reports=(committed(),)))
        later = {"window": Wanted("kws", 9)}
        record = exchange(record, Offer("5", later), done)
        file = desired(record)
        assert file is not None
        assert (file.generation, dict(file.pipelines)) == (2, KWS | later)

    def test_nothing_failed(self) -> None:
        """What waits for its time is not counted."""
        seen = Seen((decision("waits", "window"),))
        assert strike(opened(), seen, 1) == opened()

    def test_cut_short(self) -> None:
        """Replaced when half was committed: that half stays, the action failed."""
        record = cut_short(opened(BOTH), Seen((decision("runs"),)), 2)
        assert (said(record), record.runs) == (["closed/failure"], KWS)
        assert record.outbox[0].details == ("window: it was replaced",)

    def test_many_news(self) -> None:
        """An action that goes to and fro is told of no more at some time."""
        record = opened()
        for _ in range(600):
            record = observe(record, Seen((decision("waits", "heat"),)), 2)
            record = observe(record, Seen(progress=under_way("FETCHING")), 2)
            record = replace(record, outbox=())
        assert observe(record, Seen((decision("waits", "heat"),)), 2) == record
        ended = observe(record, Seen((decision("refused", "golden"),)), 2)
        assert said(ended) == ["closed/failure"]


class TestCancel:
    """Cancellations, before and after."""

    def test_before_the_commit(self) -> None:
        """It is ended, and the cancellation closed: that is its last word."""
        record = left(leave(opened(), "canceled", "9"), committed=False, now_ms=3)
        (word,) = record.outbox
        assert (word.resource, word.action) == ("cancelAction", "9")
        assert (word.execution, word.finished) == ("closed", "success")
        assert (record.open, record.runs) == (None, {})
        # Its answer got lost: it is repeated, whatever happened since.
        lost = cancel_ended(replace(record, outbox=()), "9", "5", 8)
        assert lost.outbox == record.outbox

    def test_after_the_commit(self) -> None:
        """It is refused, and the action goes on to its own end."""
        record = left(leave(opened(), "canceled", "9"), committed=True, now_ms=3)
        assert [(it.resource, it.execution) for it in record.outbox] == [
            ("cancelAction", "rejected")
        ]
        record = observe(record, Seen(reports=(committed(),)), 4)
        assert said(record)[-1] == "closed/success"

    def test_after_the_end(self) -> None:
        """What succeeded cannot be taken back; what failed, or never was, can."""
        done = observe(opened(), Seen((decision("runs"),)), 2)
        assert said(cancel_ended(done, "9", "5", 3))[-1] == "rejected"
        failed = observe(opened(), Seen((decision("refused", "golden"),)), 2)
        assert said(cancel_ended(failed, "9", "5", 3))[-1] == "closed/success"
        assert said(cancel_ended(Record(), "9", "5", 3)) == ["closed/success"]


class TestOutbox:
    """What waits to be told."""

    @pytest.mark.parametrize("status", [200, 204, 404, 410])
    def test_taken(self, status: int) -> None:
        """What was taken, or is nobody's business any more, leaves."""
        record = refuse(Record(), "5", "protocol", "no", 1)
        assert answered(record, record.outbox[0], status).outbox == ()

    @pytest.mark.parametrize(
        "status", [302, 400, 401, 403, 407, 408, 409, 421, 425, 429, 500, 503]
    )
    def test_last_words_stay(self, status: int) -> None:
        """Anything else keeps a last word."""
        record = refuse(Record(), "5", "protocol", "no", 1)
        assert answered(record, record.outbox[0], status) == record

    @pytest.mark.parametrize(
        ("status", "kept"),
        [(400, 0), (409, 0), (401, 1), (407, 1), (421, 1), (425, 1), (500, 1)],
    )
    def test_progress_that_is_wrong(self, status: int, kept: int) -> None:
        """News that a server calls wrong are not told twice."""
        record = accept(Record(), Offer("5", KWS), 1)
        assert len(answered(record, record.outbox[0], status).outbox) == kept

    def test_progress_piles_up(self) -> None:
        """The oldest news go, the last words stay, in their order."""
        record = refuse(Record(), "1", "protocol", "no", 1)
        for at_ms in range(100):
            news = Feedback("deploymentBase", "5", "download", at_ms=at_ms)
            record = queue(record, news)
        assert len(record.outbox) == 17
        assert record.outbox[0].is_last
        assert [it.at_ms for it in record.outbox[1:]] == list(range(84, 100))

    def test_full(self) -> None:
        """A server that never listens gets nothing more begun."""
        record = Record()
        for number in range(40):
            assert not is_full(record)
            record = refuse(record, str(number), "protocol", "no", 1)
        assert is_full(record)


class TestAdopt:
    """What a new board ran in an earlier life."""

    def test_new(self) -> None:
        """A new board wants it again, and tells nobody."""
        assert adopt(Record(identity="x"), KWS) == Record(1, KWS, identity="x")

    def test_not_new(self) -> None:
        """A board that heard of any action does not."""
        for record in (opened(), refuse(Record(), "5", "protocol", "no", 1)):
            assert adopt(record, KWS) == record


PIPELINES = st.sampled_from(["door", "window", "gate"])
WANTED = st.builds(Wanted, st.sampled_from(["kws", "vww"]), st.integers(1, 3))
IDS = st.sampled_from(["1", "2", "3", "-1"])
MODES: st.SearchStrategy[Mode] = st.sampled_from(["skip", "attempt", "forced"])
OFFERS = st.builds(
    Offer,
    IDS,
    st.dictionaries(PIPELINES, WANTED, min_size=1),
    MODES,
    MODES,
    st.booleans(),
)
REASONS = st.sampled_from(["", "window", "paused", "held", "golden", "disk_full"])
STATES: st.SearchStrategy[State] = st.sampled_from(
    ["runs", "ordered", "waits", "refused", "unassigned"]
)
PHASES = st.sampled_from(["FETCHING", "STAGING", "PROBATION", "IDLE", "ROLLING_BACK"])
ANSWERS = st.sampled_from([200, 404, 410, 400, 403, 500])


@given(
    saids=st.sampled_from(["scheduled", "download", "rejected", "resumed"]),
    held=st.sampled_from(["", "heat"]),
    decisions=st.lists(st.tuples(STATES, REASONS), min_size=2, max_size=2),
    phase=PHASES | st.none(),
    fetched=st.frozensets(st.sampled_from(["door", "window"])),
)
def test_the_same_look_twice_is_no_news(
    saids: Execution,
    held: str,
    decisions: list[tuple[State, str]],
    phase: str | None,
    fetched: frozenset[str],
) -> None:
    """``observe(observe(r, s), s) == observe(r, s)``."""
    record = say(hold(opened(BOTH), held), saids, 1)
    seen = Seen(
        tuple(
            decision(state, reason, pipeline=name)
            for name, (state, reason) in zip(BOTH, decisions, strict=True)
        ),
        under_way(phase) if phase else None,
        (),
        fetched,
    )
    once = observe(record, seen, 2)
    assert observe(once, seen, 3) == once


class AnyCourse(RuleBasedStateMachine):
    """Any server and any machine, in any order, with restarts in between."""

    def __init__(self) -> None:
        super().__init__()
        self.record = Record()
        self.now_ms = 0
        self.named: set[Wanted] = set()  # what any offer named
        self.owed: list[Feedback] = []  # last words that nobody has taken
        self.ended: dict[int, str] = {}  # generation -> how often it got a last word

    def take(self, after: Record) -> None:
        """Go on with a record; keep account of last words."""
        before, self.record = self.record, after
        new = [it for it in after.outbox if it.is_last and it not in before.outbox]
        self.owed += new
        opened = before.open
        closed = opened and (after.open is None or after.open.id != opened.id)
        if opened and closed:
            assert opened.generation not in self.ended
            self.ended[opened.generation] = opened.id
            word = after.ended[-1].word
            assert after.ended[-1].id == opened.id
            assert word in after.outbox
            assert word.action in {opened.id, opened.cancel}

    @property
    def generation(self) -> int:
        """Of the action that is open."""
        return self.record.open.generation if self.record.open else 0

    @rule(offer=OFFERS)
    def offered(self, offer: Offer) -> None:
        """The server offers something; what it replaces leaves first."""
        self.now_ms += 1
        self.named |= set(offer.pipelines.values())
        if is_full(self.record):
            return
        if replaces(self.record, offer):
            self.take(leave(self.record, "superseded"))
            self.take(left(self.record, committed=False, now_ms=self.now_ms))
        self.take(accept(self.record, offer, self.now_ms))

    @rule(offered=IDS | st.just(""))
    def polled(self, offered: str) -> None:
        """A poll offers this, and not that."""
        self.take(not_offered(self.record, offered))

    @rule(action=IDS)
    def refused(self, action: str) -> None:
        """An offer makes no sense."""
        self.now_ms += 1
        is_open = self.record.open is not None and self.record.open.id == action
        if not is_open and not is_full(self.record):
            self.take(refuse(self.record, action, "protocol", "no", self.now_ms))

    @rule(cancel=IDS, committed=st.booleans())
    def canceled(self, cancel: str, committed: bool) -> None:  # noqa: FBT001 - drawn
        """The server takes something back."""
        self.now_ms += 1
        action = self.record.open
        if action is not None and action.id == cancel:
            self.take(leave(self.record, "canceled", cancel))
            self.take(left(self.record, committed=committed, now_ms=self.now_ms))
        elif not is_full(self.record):
            self.take(cancel_ended(self.record, cancel, cancel, self.now_ms))

    @rule(
        state=STATES,
        reason=REASONS,
        phase=PHASES | st.none(),
        wanted=WANTED,
        pipeline=PIPELINES,
        done=st.booleans(),
        here=st.booleans(),
        ours=st.booleans(),
        strikes=st.booleans(),
    )
    def seen(  # noqa: PLR0913 - drawn
        self,
        *,
        state: State,
        reason: str,
        phase: str | None,
        wanted: Wanted,
        pipeline: str,
        done: bool,
        here: bool,
        ours: bool,
        strikes: bool,
    ) -> None:
        """The machine says something, true or not."""
        self.now_ms += 1
        generation = self.generation
        if self.record.open is not None and ours:
            pipeline, wanted = next(iter(self.record.open.pipelines.items()))
        it = Decision(pipeline, state, wanted, "ddi", generation, reason)
        under = phase and Progress(1, pipeline, wanted.model, wanted.version, "", phase)
        report = Report(
            1,
            pipeline,
            wanted.model,
            wanted.version,
            "",
            "ddi",
            generation,
            "committed",
        )
        fetched = frozenset({pipeline} if here else ())
        seen = Seen((it,), under or None, (report,) if done else (), fetched)
        self.take(observe(self.record, seen, self.now_ms))
        # The same look again is no news.
        assert observe(self.record, seen, self.now_ms + 1) == self.record
        if strikes:
            self.take(strike(self.record, seen, 2))
            # Power may go in between, or the server take it back.
            if done:
                self.take(gave_up(self.record, seen, self.now_ms))

    @rule()
    def reopened(self) -> None:
        """A commit came before the end of what was taken back."""
        self.take(reopen(self.record))

    @precondition(lambda self: self.record.outbox)
    @rule(status=ANSWERS)
    def told(self, status: int) -> None:
        """The server answers what waits first."""
        said = self.record.outbox[0]
        self.take(answered(self.record, said, status))
        if said in self.owed and status in {200, 404, 410}:
            self.owed.remove(said)

    @rule()
    def restarted(self) -> None:
        """Power goes and comes: what was saved is all there is."""
        raw = msgspec.json.encode(self.record)
        self.record = msgspec.json.decode(raw, type=Record)
        self.take(restart(self.record, self.now_ms))

    @rule(reason=st.sampled_from(["", "heat"]))
    def held(self, reason: str) -> None:
        """The board is hot, or is not."""
        self.take(hold(self.record, reason))

    @invariant()
    def no_last_word_is_lost(self) -> None:
        """All that is owed waits, and the outbox is bounded."""
        waiting = [it for it in self.record.outbox if it.is_last]
        assert all(it in waiting for it in self.owed)
        assert len(self.record.outbox) <= MAX_OUTBOX

    @invariant()
    def only_named_targets_are_wanted(self) -> None:
        """Nothing is desired but what an offer named; the file can be read."""
        for file in (desired(self.record), prefetch(self.record)):
            if file is not None:
                assert set(file.pipelines.values()) <= self.named
                assert file.generation == max(self.record.generation, 1)
        file = desired(self.record, "01:00-02:00 local")
        if file is not None:
            raw = msgspec.json.encode(file)
            assert msgspec.json.decode(raw, type=GroupFile) == file


AnyCourse.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestAnyCourse = AnyCourse.TestCase
