"""What a board's answers mean for a rollout: from one look to its standing.

The rules this module keeps:
 * Nothing here asks or waits: what a board says goes in, where it stands comes out.
 * Only what the board has committed counts as committed; only what it will not do by
   itself any more counts as failed.
 * A desired state that is not the one we gave means that somebody else gave one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from agent.cli.board_answers import ModelAnswer, PipelineState, State, Updates
from agent.cli.outcome import UNDONE, version_text
from agent.cli.plain_text import plain
from agent.core.gates import COUNTED, compare, worst
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted
from agent.core.updates import Report
from agent.core.waves import BoardCourse, Standing, untell
from agent.core.waves_course import FLYING, Before, Figures, Health

Assign = Mapping[str, tuple[str, int]]
CANDIDATE = "candidate"  # a pipeline's state on trial
# What a network, a clock or another order ends is not the version's fault, and the
# board tries it again: whoever loses a line in the middle of a download has not failed.
EXCUSED = frozenset(
    {
        *(Reason.UNREACHABLE, Reason.TOO_SLOW, Reason.RATE_LIMITED, Reason.TLS),
        *(Reason.REDIRECT, Reason.STOPPING, Reason.BUSY, Reason.SUPERSEDED),
        *(Reason.WINDOW, Reason.NOT_BEFORE, Reason.PAUSED, Reason.PERCENT),
    }
)


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a board.

    Attributes:
        pushed: The desired state that was pushed last; None where none was, or where
            nobody asked because boards follow a repository.
    """

    state: State
    updates: Updates
    pushed: GroupFile | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads looks at boards for one rollout.

    Attributes:
        assign: Pipeline -> (model, version); an empty model is the pipeline's own.
        by_push: We tell boards ourselves; else a signed repository does.
    """

    assign: Assign
    by_push: bool = True

    def wanted(self, state: State) -> dict[str, Wanted]:
        """Return what a board's pipelines shall run; those it lacks are left out."""
        return {
            name: Wanted(model or state.pipelines[name].model, version)
            for name, (model, version) in self.assign.items()
            if name in state.pipelines
        }

    def runs(self, state: State) -> bool:
        """Return whether a board has committed all of what is assigned."""
        wanted = self.wanted(state)
        runs = [_runs(state.pipelines[name], it) for name, it in wanted.items()]
        return len(wanted) == len(self.assign) and all(runs)

    def runs_one(self, state: State, pipeline: str) -> bool:
        """Return whether one pipeline has committed what is assigned to it."""
        wanted = self.wanted(state).get(pipeline)
        return wanted is not None and _runs(state.pipelines[pipeline], wanted)

    def running(self, state: State) -> str:
        """Return what the assigned pipelines run, for people."""
        active = [state.pipelines[name].active for name in self.wanted(state)]
        return ", ".join(version_text(it) or "nothing" for it in active)

    def prepare(self, board: BoardCourse, sight: Sight, now: float) -> BoardCourse:
        """Return a board that is about to be told, with how it is before that."""
        last = sight.pushed.generation if sight.pushed is not None else 0
        before = {
            name: _before(sight.state.pipelines[name], wanted, board.before.get(name))
            for name, wanted in self.wanted(sight.state).items()
        }
        return replace(
            board,
            lost_at=0.0,
            seen_at=now,
            ready=True,
            before=before,
            mark=sight.updates.newest_id(),
            generation=last + 1 if self.by_push else board.generation,
        )

    def has_arrived(self, board: BoardCourse, sight: Sight) -> bool:
        """Return whether a board has our order; a lost answer leaves that open."""
        pushed = sight.pushed
        return not self.by_push or (
            pushed is not None and pushed.generation >= board.generation
        )

    def read(self, board: BoardCourse, sight: Sight, now: float) -> BoardCourse:
        """Return where a board stands by what it says now.

        Args:
            board: As it stood.
            sight: What it says.
            now: When the look began, Unix seconds: what it says is as old as that.
        """
        known = replace(board, lost_at=0.0, seen_at=now)
        board = replace(known, reason="", detail="")
        if board.standing in {Standing.BACK, Standing.NEW}:
            return board
        standing, reason, detail = self._stand(board, sight)
        # It refused what we brought: it is not on its way before it has our order.
        begun = board.ready and self.has_arrived(board, sight)
        if board.standing is Standing.FAILED and standing in FLYING and not begun:
            return known
        down = self._down(sight.state) if standing in COUNTED else ""
        settled_at = board.settled_at if standing is board.standing else now
        health = board.health
        if standing is Standing.COMMITTED:
            health = self._health(board, sight.state)
        return replace(
            board,
            standing=standing,
            reason=plain(reason, 64),
            detail=plain(detail, 200),
            settled_at=settled_at,
            health=health,
            down=plain(down, 64),
            down_at=(board.down_at or now) if down else 0.0,
        )

    def is_contested(self, board: BoardCourse, sight: Sight) -> bool:
        """Return whether somebody wants something else since we told a board."""
        pushed = sight.pushed
        if pushed is None or self._is_ours(pushed, sight.state):
            return False
        return bool(self._overruled(board, sight))

    def taken_up(self, board: BoardCourse, sight: Sight, now: float) -> BoardCourse:
        """Return a board that runs what is assigned before we tell it.

        Where an order of ours did that after all, it is a board like any that we
        updated: judged by how it does, and taken back by an abort.
        """
        pushed = sight.pushed
        ours = pushed is not None and 0 < board.generation == pushed.generation
        if pushed is not None and self._is_ours(pushed, sight.state):
            # Whoever ordered the same since has settled it.
            newest = max(board.generation, pushed.generation)
            board = replace(board, generation=newest)
        untold = untell(board)
        standing = Standing.COMMITTED if untold.told or ours else Standing.RUNS
        # What an order has brought about was told, however the telling ended.
        told = max(1, untold.told) if standing is Standing.COMMITTED else untold.told
        settled = replace(untold, standing=standing, told=told, settled_at=now)
        return self.read(settled, sight, now)

    def _stand(self, board: BoardCourse, sight: Sight) -> tuple[Standing, str, str]:
        """Return standing, reason and words."""
        state = sight.state
        other = self._overruled(board, sight)
        if other:
            return Standing.OVERRULED, Reason.ROLLOUT, other
        if self.runs(state):
            ran = board.standing is Standing.RUNS
            return (Standing.RUNS if ran else Standing.COMMITTED), "", ""
        failure = next(self._failures(board, sight), None)
        if failure is not None:
            return Standing.FAILED, *failure
        if board.standing in {Standing.COMMITTED, Standing.RUNS}:
            what = f"runs {self.running(state)} again"
            return Standing.FAILED, Reason.CRASH_LOOP, what
        progress = state.update.progress or sight.updates.progress
        if progress is not None and progress.pipeline in self.assign:
            return Standing.UPDATING, "", progress.phase
        decisions = self._decisions(board, state)
        waits = next((it for it in decisions if it[0] == "waits"), None)
        return Standing.TOLD, waits[1] if waits else "", waits[2] if waits else ""

    def _overruled(self, board: BoardCourse, sight: Sight) -> str:
        """Return who said something else since, in words; empty if nobody did."""
        pushed = sight.pushed
        if not self.by_push or not board.generation or pushed is None:
            return ""
        if pushed.generation <= board.generation and self._is_ours(pushed, sight.state):
            return ""
        if pushed.generation < board.generation:
            return ""  # what was said before us: our order has not arrived yet
        said = ", ".join(
            f"{name} = {it.model} {it.version}" for name, it in pushed.pipelines.items()
        )
        return (
            f"somebody else ordered {said} (generation {pushed.generation}) after we "
            f"gave it generation {board.generation}"
        )

    def _is_ours(self, pushed: GroupFile, state: State) -> bool:
        """Return whether a desired state says what we say."""
        wanted = self.wanted(state).items()
        return all(pushed.pipelines.get(name) == it for name, it in wanted)

    def _failures(self, board: BoardCourse, sight: Sight) -> Iterator[tuple[str, str]]:
        """Yield why a board will not run what is assigned."""
        for name in self.assign:
            if name not in sight.state.pipelines:
                yield Reason.UNKNOWN_PIPELINE, f"it has no pipeline {name!r}"
        for report in self._reports(board, sight):
            if report.result in UNDONE and report.reason not in EXCUSED:
                if report.result == "interrupted":
                    continue  # the board lost power, and goes on by itself
                yield report.reason or report.result, report.detail or report.result
        for state, reason, detail in self._decisions(board, sight.state):
            if state == "refused" or reason == Reason.HELD:
                yield reason, detail

    def _reports(self, board: BoardCourse, sight: Sight) -> list[Report]:
        """Return the newest report of each pipeline since the board was told."""
        newest: dict[str, Report] = {}
        for report in sorted(sight.updates.reports, key=lambda it: it.id):
            assigned = self.assign.get(report.pipeline)
            ours = assigned is not None and assigned[1] == report.version
            if ours and report.id > board.mark:
                newest[report.pipeline] = report
        return list(newest.values())

    def _decisions(
        self, board: BoardCourse, state: State
    ) -> Iterator[tuple[str, str, str]]:
        """Yield (state, reason, detail) of the decisions about what is assigned.

        What was decided about an earlier generation says nothing about ours.
        """
        wanted = self.wanted(state)
        for name, decision in state.decisions().items():
            ours = name in wanted and decision.desired == wanted[name]
            if ours and decision.generation >= board.generation:
                yield decision.state, decision.reason, decision.detail

    def _down(self, state: State) -> str:
        """Return why a pipeline that runs what is assigned is not ready."""
        rows = [state.pipelines[name] for name in self.wanted(state)]
        return next((it.reason or Reason.HANG for it in rows if not it.ready), "")

    def _health(self, board: BoardCourse, state: State) -> Health:
        """Return how a board does since it committed."""
        rows = []
        for name, wanted in self.wanted(state).items():
            before = board.before.get(name, Before())
            now = figures_of(state.pipelines[name], wanted)
            rows.append(compare(before.active, before.wanted, now))
        return worst(rows)


def figures_of(pipeline: PipelineState, wanted: Wanted) -> Figures:
    """Return what one version in a pipeline has counted."""
    rows = [it for it in pipeline.models or () if _is(it, wanted)]
    critical = any(
        alarm.active and alarm.severity == "critical"
        for watch in pipeline.watch or ()
        if (watch.model, watch.version) == (wanted.model, wanted.version)
        for alarm in watch.alarms
    )
    if not rows:
        return Figures(critical=critical)
    total = rows[-1].latency_ms.get("total")
    return Figures(
        answered=rows[-1].samples.ok,
        failed=rows[-1].samples.failed,
        p95_ms=(total.p95 or 0.0) if total is not None else 0.0,
        critical=critical,
        budget_ms=rows[-1].budget_ms or 0.0,
    )


def _before(
    pipeline: PipelineState, wanted: Wanted, known: Before | None = None
) -> Before:
    """Return a pipeline as it is before its board is told.

    Args:
        pipeline: What it says.
        wanted: What it will be told.
        known: How it was before an order that did not come to its end.
    """
    active = pipeline.active
    # On trial by that order the new version answers: what was before is known already.
    if known is not None and (active is None or _answers(pipeline, wanted)):
        return known
    runs = Wanted(active.model, active.version) if active else None
    return Before(
        active=figures_of(pipeline, runs) if runs else Figures(),
        wanted=figures_of(pipeline, wanted),
        runs=version_text(active),
    )


def _runs(pipeline: PipelineState, wanted: Wanted) -> bool:
    """Return whether a pipeline's durable model is the wanted one.

    On probation a candidate answers, and is shown as what does.
    """
    return pipeline.state != CANDIDATE and _answers(pipeline, wanted)


def _answers(pipeline: PipelineState, wanted: Wanted) -> bool:
    """Return whether a version answers, on probation or not."""
    active = pipeline.active
    return active is not None and (active.model, active.version) == (
        wanted.model,
        wanted.version,
    )


def _is(row: ModelAnswer, wanted: Wanted) -> bool:
    """Return whether a row is about a version."""
    return (row.model, row.version) == (wanted.model, wanted.version)
