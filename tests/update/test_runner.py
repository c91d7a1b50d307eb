"""The runner: what it saves, in which order it performs, and how it comes back."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.executors import Executor
from agent.core.installed import Installed
from agent.core.reasons import Reason
from agent.core.update_machine import Action, Event, Job, Phase
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    IllegalTransitionError,
    TrialFailedError,
)
from agent.update.endings import Ending, report_of
from agent.update.runner import UpdateRunner
from tests.fakes.memory_store import MemoryStore

NOW = 1_790_000_100.0
ORDER = Job(
    pipeline="door",
    model="kws",
    version=2,
    sha256="a" * 64,
    id=7,
    source="fleet/groups/all",
    generation=4,
    began_at=NOW - 100,
)
INSTALLED = Installed(
    "kws", 2, "a" * 64, 9, "int8", Executor("litert", "xnnpack", 1, "2.3.0")
)
EVENTS = {
    Action.FETCH: Event.FETCHED,
    Action.VERIFY: Event.VERIFIED,
    Action.STAGE: Event.STAGED,
    Action.EXAMINE: Event.EXAMINED,
    Action.SHADOW: Event.SHADOWED,
    Action.WATCH: Event.TRIAL_PASSED,
    Action.COMMIT: Event.COMMITTED,
    Action.SWAP_BACK: Event.RESTORED,
}
UP = [
    Action.FETCH,
    Action.VERIFY,
    Action.STAGE,
    Action.EXAMINE,
    Action.SHADOW,
    Action.SWAP_IN,
    Action.WATCH,
    Action.COMMIT,
]
PHASES_UP = [
    Phase.FETCHING,
    Phase.VERIFYING,
    Phase.STAGING,
    Phase.PREFLIGHT,
    Phase.SHADOWING,
    Phase.PROBATION,
    Phase.COMMITTING,
]
Errors = Mapping[Action, BaseException]
NO_ERRORS: Errors = {}
REFUSED = BundleRefusedError("refused", reason=Reason.DIGEST)
FAILED = TrialFailedError("failed", reason=Reason.GOLDEN)
LACKING = DeviceError("no room", reason=Reason.DISK_FULL)


class ListedWork:
    """Work that lists its actions, and fails where the test says so.

    Attributes:
        done: The actions, with the phase that was on record when each began.
    """

    def __init__(self, journal: MemoryStore) -> None:
        self.done: list[tuple[Action, Phase | None]] = []
        self.errors = NO_ERRORS
        self._journal = journal

    async def perform(self, action: Action, job: Job) -> tuple[Event | None, Job]:
        """List an action and report its event."""
        saved = self._journal.load_job()
        self.done.append((action, saved.phase if saved else None))
        await asyncio.sleep(0)
        if action in self.errors:
            raise self.errors[action]
        if action is Action.EXAMINE:
            job = replace(job, installed=INSTALLED)
        if action is Action.COMMIT:
            report = report_of(job, Ending("committed"), NOW)
            self._journal.commit(job.pipeline, INSTALLED, report)
        return EVENTS.get(action), job

    @property
    def actions(self) -> list[Action]:
        """The actions alone."""
        return [action for action, _ in self.done]


def run(
    journal: MemoryStore, errors: Errors = NO_ERRORS, job: Job = ORDER
) -> tuple[Ending, ListedWork]:
    """Carry an order out and return how it ended and what was done."""
    work = ListedWork(journal)
    work.errors = errors
    runner = UpdateRunner(journal, work, lambda: NOW)
    ending = asyncio.run(runner.carry_out(job))
    assert runner.phase is Phase.IDLE
    return ending, work


def recover(
    journal: MemoryStore, errors: Errors = NO_ERRORS
) -> tuple[Ending | None, ListedWork]:
    """Start again with what a journal holds."""
    work = ListedWork(journal)
    work.errors = errors
    runner = UpdateRunner(journal, work, lambda: NOW)
    ending = asyncio.run(runner.recover())
    assert runner.phase is Phase.IDLE
    return ending, work


def reported(journal: MemoryStore) -> list[tuple[int, str, str]]:
    """Return number, result and reason of every report, newest first."""
    return [(it.id, it.result, it.reason) for it in journal.reports()]


def phases(journal: MemoryStore) -> list[Phase | None]:
    """Return every phase that was saved, None for a cleared job."""
    return [job.phase if job else None for job in journal.jobs[1:]]


def test_the_whole_road() -> None:
    """Committed: each phase is on record before its actions begin, then no job is."""
    journal = MemoryStore()
    ending, work = run(journal)
    assert ending == Ending("committed")
    assert phases(journal) == [*PHASES_UP, None]
    assert reported(journal) == [(7, "committed", "")]
    on_record = [
        *PHASES_UP[:5],
        *[Phase.PROBATION] * 2,
        Phase.COMMITTING,
    ]
    expected = list(zip(UP, on_record, strict=True))
    assert work.done == [*expected, (Action.ADOPT, None), (Action.DISCARD, None)]


def test_the_job_learns_on_the_way() -> None:
    """The attempt counts from PREFLIGHT on, what COMMIT writes is saved before it."""
    journal = MemoryStore()
    run(journal, job=replace(ORDER, attempts=1))
    saved = [job for job in journal.jobs if job]
    assert [job.attempts for job in saved] == [1, 1, 1, 2, 2, 2, 2]
    assert [job.installed for job in saved] == [None] * 4 + [INSTALLED] * 3


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    ("error", "result"), [(REFUSED, "refused"), (FAILED, "failed"), (LACKING, "failed")]
)
def test_failures_before_the_swap(index: int, error: AgentError, result: str) -> None:
    """Before SWAP_IN a failure ends with DISCARD and nothing else."""
    journal = MemoryStore()
    ending, work = run(journal, {UP[index]: error})
    assert ending == Ending(result, error)
    assert reported(journal) == [(7, result, error.reason)]
    assert work.actions == [*UP[: index + 1], Action.DISCARD]
    assert phases(journal) == [*PHASES_UP[: index + 1], None]


@pytest.mark.parametrize("index", [5, 6, 7])
def test_failures_after_the_swap(index: int) -> None:
    """From SWAP_IN on the active model answers again before anything is discarded."""
    journal = MemoryStore()
    ending, work = run(journal, {UP[index]: FAILED})
    assert ending == Ending("rolled_back", FAILED)
    assert reported(journal) == [(7, "rolled_back", Reason.GOLDEN)]
    assert work.actions == [*UP[: index + 1], Action.SWAP_BACK, Action.DISCARD]
    assert phases(journal)[-2:] == [Phase.ROLLING_BACK, None]
    assert journal.slots("door").active is None


def test_a_failure_while_rolling_back() -> None:
    """A worker that cannot swap back ends the update all the same, for the first cause.

    Its supervisor starts the active model again.
    """
    ending, work = run(MemoryStore(), {Action.WATCH: FAILED, Action.SWAP_BACK: LACKING})
    assert ending == Ending("rolled_back", FAILED)
    assert work.actions[-2:] == [Action.SWAP_BACK, Action.DISCARD]


def test_what_comes_after_commit_cannot_undo_it() -> None:
    """A supervisor that cannot be told finds the truth in the store."""
    journal = MemoryStore()
    ending, _ = run(journal, {Action.ADOPT: LACKING})
    assert ending == Ending("committed")
    assert journal.slots("door").active == INSTALLED


def test_a_bug_is_not_an_event() -> None:
    """Anything but the three branches of errors ends the daemon."""
    for bug in (KeyError("bug"), IllegalTransitionError("bug", reason="internal")):
        with pytest.raises(type(bug)):
            run(MemoryStore(), {Action.VERIFY: bug})


@pytest.mark.parametrize("number", range(1, 8))
def test_a_phase_that_cannot_be_saved(number: int) -> None:
    """What is not on record is not done; the way down needs no record."""
    journal = MemoryStore()
    journal.fail = fail_from(number, {"save_job", "clear_job"})
    ending, work = run(journal)
    up = PHASES_UP[: number - 1]
    result = "rolled_back" if Phase.PROBATION in up else "failed"
    assert (ending.result, ending.error and ending.error.reason) == (
        result,
        Reason.DISK_FULL,
    )
    down = [Action.SWAP_BACK] if result == "rolled_back" else []
    done = UP[: number - 1 + (number == 7)]
    home = [Action.DISCARD] if up else []
    assert work.actions == [*done, *down, *home]
    assert phases(journal) == up


def fail_from(number: int, changes: set[str]) -> Callable[[str], None]:
    """Return a script: these changes fail from the given one on."""
    seen = 0

    def script(change: str) -> None:
        nonlocal seen
        seen += change in changes
        if change in changes and seen >= number:
            raise LACKING

    return script


@pytest.mark.parametrize("phase", [None, *Phase])
def test_a_restart_in_every_phase(phase: Phase | None) -> None:
    """RESTARTED tidies up and never swaps in; COMMITTING is finished."""
    journal = MemoryStore()
    if phase is not None:
        journal.save_job(replace(ORDER, phase=phase, installed=INSTALLED))
    ending, work = recover(journal)
    if phase is Phase.COMMITTING:
        assert ending == Ending("committed")
        assert work.actions == [Action.COMMIT, Action.ADOPT, Action.DISCARD]
        assert journal.slots("door").active == INSTALLED
        assert reported(journal) == [(7, "committed", "")]
    elif phase in {None, Phase.IDLE}:
        assert ending is None
        assert reported(journal) == []
    else:
        assert ending == Ending("interrupted")
        assert reported(journal) == [(7, "interrupted", "")]
        assert journal.reports()[0].detail.endswith(f"stopped in {phase}")
    if phase is not Phase.COMMITTING:
        assert work.actions == [Action.DISCARD]
        assert journal.slots("door").active is None
    left = journal.load_job()
    assert left is None or left.phase is Phase.IDLE


def test_a_commit_that_cannot_be_finished() -> None:
    """Bytes that are gone when COMMIT is done again: the active model stays."""
    journal = MemoryStore()
    journal.save_job(replace(ORDER, phase=Phase.COMMITTING, installed=INSTALLED))
    ending, work = recover(journal, {Action.COMMIT: REFUSED})
    assert ending == Ending("rolled_back", REFUSED)
    assert work.actions == [Action.COMMIT, Action.SWAP_BACK, Action.DISCARD]


@given(attempts=st.integers(1, 5), phase=st.sampled_from(PHASES_UP[:6]))
def test_interrupted_trials_are_remembered(attempts: int, phase: Phase) -> None:
    """Attempts outlive the restart that interrupted them, and the one after it."""
    journal = MemoryStore()
    journal.save_job(replace(ORDER, phase=phase, attempts=attempts))
    for _ in range(2):
        recover(journal)
        assert journal.load_job() is None
        assert journal.attempts(ORDER.sha256) == attempts


def test_ended_trials_are_forgotten() -> None:
    """A trial that came to a verdict, good or bad, leaves no attempt behind."""
    for errors in (NO_ERRORS, {Action.EXAMINE: FAILED}, {Action.WATCH: FAILED}):
        journal = MemoryStore()
        run(journal, errors, replace(ORDER, attempts=2))
        assert (journal.load_job(), journal.attempts(ORDER.sha256)) == (None, 0)


@pytest.mark.parametrize("action", UP[:6])
@pytest.mark.parametrize("error", [REFUSED, LACKING])
def test_39_what_is_no_verdict_changes_no_count(
    action: Action, error: AgentError
) -> None:
    """A network or a disk that fails neither blames the bytes nor acquits them."""
    journal = MemoryStore()
    run(journal, {action: error}, replace(ORDER, attempts=2))
    assert (journal.load_job(), journal.attempts(ORDER.sha256)) == (None, 2)


@pytest.mark.parametrize("action", UP)
def test_being_stopped_is_no_fault(action: Action) -> None:
    """A polite stop in the middle of a trial does not count as an attempt."""
    journal = MemoryStore()
    with pytest.raises(asyncio.CancelledError):
        run(journal, {action: asyncio.CancelledError()})
    job = journal.load_job()
    assert job is not None
    in_commit = action is Action.COMMIT
    assert job.attempts == (1 if in_commit else 0)
    assert journal.attempts(ORDER.sha256) == job.attempts


def test_one_job_at_a_time() -> None:
    """A second order in the middle of the first is our mistake, and says so."""

    async def twice() -> None:
        journal = MemoryStore()
        runner = UpdateRunner(journal, ListedWork(journal), lambda: NOW)
        async with asyncio.TaskGroup() as group:
            group.create_task(runner.carry_out(ORDER))
            await asyncio.sleep(0)
            with pytest.raises(IllegalTransitionError, match="ORDERED while"):
                await runner.carry_out(ORDER)

    asyncio.run(twice())


SLOW = TrialFailedError("slow", reason=Reason.LATENCY)


def test_39_trials_without_a_verdict_stay_counted() -> None:
    """What was too slow just then is counted on, in the next life as well."""
    journal = MemoryStore()
    for attempts in (1, 2):
        job = replace(ORDER, attempts=journal.attempts(ORDER.sha256))
        run(journal, {Action.EXAMINE: SLOW}, job)
        assert journal.attempts(ORDER.sha256) == attempts
        recover(journal)
        assert journal.attempts(ORDER.sha256) == attempts
    run(journal, {Action.EXAMINE: SLOW}, replace(ORDER, factory=True, attempts=2))
    assert (journal.load_job(), journal.attempts(ORDER.sha256)) == (None, 0)


def test_what_a_report_says() -> None:
    """Who wanted what, how and why it ended, from when to when."""
    journal = MemoryStore()
    run(journal, {Action.WATCH: FAILED})
    (report,) = journal.reports()
    assert (report.pipeline, report.model, report.version) == ("door", "kws", 2)
    assert (report.source, report.generation) == ("fleet/groups/all", 4)
    assert (report.sha256, report.detail) == ("a" * 64, "failed")
    assert (report.began_at, report.ended_at) == (NOW - 100, NOW)


def test_a_job_of_an_older_agent_has_no_report() -> None:
    """A job without a number is tidied up, and nobody is told about number 0."""
    journal = MemoryStore()
    journal.save_job(replace(ORDER, id=0, phase=Phase.STAGING))
    ending, _ = recover(journal)
    assert (ending, reported(journal)) == (Ending("interrupted"), [])


def test_a_report_that_cannot_be_saved_ends_the_job_all_the_same() -> None:
    """The way down needs no disk, not even for the report."""
    journal = MemoryStore()
    journal.fail = fail_from(1, {"add_report"})
    ending, work = run(journal, {Action.EXAMINE: FAILED})
    assert ending == Ending("failed", FAILED)
    assert work.actions[-1] is Action.DISCARD


class LastingWork(ListedWork):
    """Work in which one action lasts until somebody ends it.

    Attributes:
        lasts: That action; ``begun`` is set when it has begun.
        stubborn: It does not let itself be cancelled, and returns all the same.
        clumsy: What it raises when it is cancelled.
    """

    def __init__(self, journal: MemoryStore, lasts: Action) -> None:
        super().__init__(journal)
        self.lasts = lasts
        self.begun = asyncio.Event()
        self.stubborn = False
        self.clumsy: AgentError | None = None

    async def perform(self, action: Action, job: Job) -> tuple[Event | None, Job]:
        """Last, or do as usual."""
        if action is not self.lasts:
            return await super().perform(action, job)
        self.done.append((action, None))
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self.clumsy is not None:
                raise self.clumsy from None
            if not self.stubborn:
                raise
        return EVENTS.get(action), job


REVOKED = BundleRefusedError("revoked meanwhile", reason=Reason.REVOKED)


def abort_during(work: LastingWork, journal: MemoryStore) -> tuple[Ending, bool]:
    """Abort while an action lasts; return how that ended, and what abort said."""

    async def abort() -> tuple[Ending, bool]:
        runner = UpdateRunner(journal, work, lambda: NOW)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(runner.carry_out(ORDER))
            await work.begun.wait()
            aborted = runner.abort(REVOKED)
            if aborted:
                assert not runner.abort(FAILED)
            else:
                running.cancel()
        assert not aborted or not running.cancelling()
        return running.result(), aborted

    return asyncio.run(abort())


@pytest.mark.parametrize("way", ["gentle", "stubborn", "clumsy"])
@pytest.mark.parametrize(
    ("lasts", "result"),
    [
        (Action.FETCH, "refused"),
        (Action.VERIFY, "refused"),
        (Action.EXAMINE, "refused"),
        (Action.SHADOW, "refused"),
        (Action.SWAP_IN, "rolled_back"),
        (Action.WATCH, "rolled_back"),
    ],
)
def test_whatever_lasts_can_be_ended(lasts: Action, result: str, way: str) -> None:
    """An abort is the event FAILED with its reason, however the action takes it."""
    journal = MemoryStore()
    work = LastingWork(journal, lasts)
    work.stubborn = way == "stubborn"
    work.clumsy = LACKING if way == "clumsy" else None
    ending, aborted = abort_during(work, journal)
    assert aborted
    assert ending == Ending(result, REVOKED)
    assert reported(journal) == [(7, result, Reason.REVOKED)]
    back = [Action.SWAP_BACK] if result == "rolled_back" else []
    after = work.actions[work.actions.index(lasts) + 1 :]
    assert after == [*back, Action.DISCARD]


def test_what_is_being_made_durable_is_not_broken_off() -> None:
    """An abort while a file is synced waits for that; the job ends behind it."""

    async def end() -> tuple[Ending, list[Action]]:
        journal = MemoryStore()
        work = PatientWork(journal)
        runner = UpdateRunner(journal, work, lambda: NOW)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(runner.carry_out(ORDER))
            await work.begun.wait()
            assert runner.abort(REVOKED)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not running.done()
            work.goes_on.set()
        return running.result(), work.actions

    ending, actions = asyncio.run(end())
    assert ending == Ending("refused", REVOKED)
    assert actions == [*UP[:3], Action.DISCARD]


class PatientWork(ListedWork):
    """Work whose STAGE waits for the test."""

    def __init__(self, journal: MemoryStore) -> None:
        super().__init__(journal)
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()

    async def perform(self, action: Action, job: Job) -> tuple[Event | None, Job]:
        """Wait in STAGE."""
        if action is Action.STAGE:
            self.begun.set()
            await self.goes_on.wait()
        return await super().perform(action, job)


@pytest.mark.parametrize("turns", range(24))
@pytest.mark.parametrize("fails", [None, Action.WATCH])
def test_an_abort_and_the_end_may_meet(turns: int, fails: Action | None) -> None:
    """However many turns of the loop it comes after: one verdict, the true one."""

    async def meet() -> tuple[bool, Ending]:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(runner.carry_out(ORDER))
            for _ in range(turns):
                await asyncio.sleep(0)
            aborted = runner.abort(REVOKED)
        return aborted, running.result()

    journal = MemoryStore()
    work = ListedWork(journal)
    work.errors = {fails: FAILED} if fails else NO_ERRORS
    runner = UpdateRunner(journal, work, lambda: NOW)
    aborted, ending = asyncio.run(meet())
    committed = journal.slots("door").active is not None
    assert committed == (ending.result == "committed")
    assert not (aborted and committed)
    assert len(reported(journal)) == 1
    assert (runner.phase, journal.load_job()) == (Phase.IDLE, None)


@pytest.mark.parametrize("lasts", [Action.COMMIT, Action.ADOPT, Action.DISCARD])
def test_what_is_committed_is_not_ended(lasts: Action) -> None:
    """From COMMIT on nothing can be aborted; the daemon's end is another way."""
    journal = MemoryStore()
    with pytest.raises(asyncio.CancelledError):
        abort_during(LastingWork(journal, lasts), journal)


def test_nothing_to_abort() -> None:
    """In IDLE there is no trial to end."""
    journal = MemoryStore()
    assert not UpdateRunner(journal, ListedWork(journal), lambda: NOW).abort(REVOKED)


def test_the_daemons_end_counts_more_than_an_abort() -> None:
    """Stopped and aborted at once: the daemon stops, the attempt is taken back."""

    async def both() -> None:
        journal = MemoryStore()
        work = LastingWork(journal, Action.WATCH)
        runner = UpdateRunner(journal, work, lambda: NOW)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            running = group.create_task(runner.carry_out(ORDER))
            await work.begun.wait()
            runner.abort(REVOKED)
            running.cancel()
        assert running.cancelled()
        job = journal.load_job()
        assert job is not None
        assert (job.phase, job.attempts) == (Phase.PROBATION, 0)

    asyncio.run(both())


@given(
    failing=st.dictionaries(
        st.sampled_from(Action),
        st.sampled_from([REFUSED, FAILED, LACKING, SLOW]),
        max_size=3,
    ),
    broken_from=st.integers(1, 30),
)
def test_every_road_ends_in_idle_with_the_truth(
    failing: dict[Action, AgentError], broken_from: int
) -> None:
    """Whatever fails, the disk included: committed is what is active, else it is not.

    And the next life finds nothing of a trial, and comes home to IDLE.
    """
    journal = MemoryStore()
    changes = {"save_job", "clear_job", "add_report", "commit"}
    journal.fail = fail_from(broken_from, changes)
    ending, work = run(journal, failing)
    committed = journal.slots("door").active == INSTALLED
    assert committed == (ending.result == "committed")
    assert (ending.error is None) == committed
    if Action.SWAP_IN in work.actions and not committed:
        assert Action.SWAP_BACK in work.actions
    journal.fail = lambda _change: None
    again, work = recover(journal)
    assert Action.SWAP_IN not in work.actions
    assert again is None or again.result in {"interrupted", "committed"}
    assert len({it.id for it in journal.reports()}) == len(journal.reports())
