"""A rollout at work: decides, writes it down, tells boards, looks at them, again.

The rules this module keeps:
 * What is decided is durable before any board is told; a board's generation, too: who
   comes after a crash can tell an order that arrived from one that did not.
 * Only the main thread decides, writes and draws; threads ask one board each.
 * An order from another terminal is taken between two looks, within ``TICK_S``.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec.structs import replace

from agent.cli.fleet_crew import Crew
from agent.cli.fleet_pace import due_boards
from agent.cli.fleet_return import is_ours
from agent.cli.fleet_runner_needs import Opener, Task, View
from agent.cli.fleet_sight import Sight
from agent.cli.fleet_state import Asked, Kept, StateFile
from agent.cli.fleet_stop import as_decision, may_stop
from agent.cli.fleet_threads import LOOKERS
from agent.cli.fleet_trouble import after_delivery, after_look, after_return
from agent.core.waves import (
    Act,
    BoardCourse,
    Course,
    Decision,
    Phase,
    Plan,
    Standing,
    carry_out,
    decide,
    untell,
    wake,
)
from agent.core.waves_course import FLYING, is_settled
from agent.errors import AgentError, SettingsError

TICK_S = 0.25  # a person who asks for a pause sees it at once
# Between two turns of the loop lies a tick, or a disk that syncs for a second. More is
# a machine that slept, or that somebody stopped: boards went on without it.
BREAK_S = 5.0
SAVE_S = 10.0  # figures alone may be lost with the machine


@dataclass(slots=True)
class Runner:
    """Carries a rollout to its end, or to where it stops.

    Attributes:
        kept: The rollout, as it is in the file.
        opener: None where we tell boards ourselves.
        clock: Unix seconds.
        back: Boards that were updated go back after an abort.
    """

    plan: Plan
    kept: Kept
    file: StateFile
    crew: Crew
    view: View
    pool: ThreadPoolExecutor
    clock: Callable[[], float]
    opener: Opener | None = None
    back: bool = False
    _tasks: dict[str, Task] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    _ready: set[str] = field(default_factory=set)
    _dirty: bool = True
    _saved_at: float = 0.0
    _opened: int = -1
    _turned_at: float = 0.0
    _decided_at: float = 0.0
    _moved: bool = True
    _decision: Decision = field(default_factory=lambda: Decision(Act.WAIT))

    @property
    def course(self) -> Course:
        """How far it has come."""
        return self.kept.course

    def run(self) -> None:
        """Go on until it is done, paused or aborted, and boards came to rest.

        Raises:
            AgentError: The file cannot be written, or a publication failed.
        """
        while True:
            self._collect()
            self._take_asked()
            now = self.clock()
            self._notice_break(now)
            # Ten thousand boards are judged in 40 ms: not after each of their answers.
            if self._moved or now - self._decided_at >= TICK_S:
                decision = self._decide(now)
                if decision.act is Act.REST:
                    break
                self._open_wave()
                self.view.draw(self.course, decision, now)
            self._send(now)
            # What was decided may allow for more at once; only a wait takes a moment.
            if self._decision.act is Act.WAIT:
                self._rest()
        self._come_to_rest()

    # --- deciding

    def _notice_break(self, now: float) -> None:
        """Begin anew after a sleep, or with a clock that was set."""
        slept_s = now - self._turned_at
        broken = bool(self._turned_at) and not 0 <= slept_s <= BREAK_S
        self._turned_at = now
        if broken:
            self._keep(wake(self.course, slept_s, now))
            self._looked.clear()
            self._dirty = self._moved = True

    def _decide(self, now: float) -> Decision:
        """Decide, and carry out what is not a wait."""
        self._decision = decision = decide(self.plan, self.course, now)
        # After an act comes the next decision at once.
        self._decided_at, self._moved = now, False
        if decision.act not in {Act.WAIT, Act.REST}:
            self._carry_out(decision, now)
        return decision

    def _carry_out(self, decision: Decision, now: float) -> None:
        """Write a decision down, before anything of it is done."""
        self._moved = True
        self._keep(carry_out(self.course, decision, now))
        self._save(now)
        self.view.decided(self.course, decision, now)

    def _take_asked(self) -> None:
        """Take what another terminal asks for."""
        try:
            asked = self.file.asked()
        except SettingsError as err:
            # Somebody wanted something: to stop is never wrong.
            asked = Asked("pause", by=f"an order that is not understood ({err})")
        if asked is None:
            return
        if may_stop(self.course.phase, asked):
            self._carry_out(as_decision(asked), self.clock())
        # Who asked once for boards to go back is not talked out of it by a pause.
        self.back |= asked.back and self.course.phase is Phase.ABORTED
        self.file.forget_asked()

    def _open_wave(self) -> None:
        """Let a wave begin once all its boards were seen, where they begin alone."""
        course, now = self.course, self.clock()
        if self.opener is not None:
            self.opener.check(course)
        if self.opener is None or self._opened >= course.wave:
            return
        names = self.plan.waves[course.wave].boards
        boards = [course.boards[name] for name in names]
        seen = [it.ready or is_settled(it, now, self.plan.patience_s) for it in boards]
        if course.phase is not Phase.RUNNING or not all(seen):
            return
        generation = self.opener.open_wave(course)
        self._opened = course.wave
        for name, board in zip(names, boards, strict=True):
            if board.standing in FLYING:
                self._set(name, replace(board, generation=generation))
                self._ready.add(name)

    # --- boards

    def _send(self, now: float) -> None:
        """Give threads their boards: those to be told first, then those to look at."""
        if self._dirty or now - self._saved_at > SAVE_S:
            self._save(now)
        for name in self._ready - self._tasks.keys():
            generation = self.course.boards[name].generation
            future = self.pool.submit(partial(self.crew.deliver, name, generation))
            self._tasks[name] = Task("deliver", future)
        self._ready.clear()
        taken = self._tasks.keys()
        spare = LOOKERS - sum(not self._is_told(name) for name in taken)
        asked = self._decision.boards if self._decision.look else ()
        for name in due_boards(self.plan, self.course, self._looked, taken, now, asked):
            # A hundred boards that are gone must not hold up those on their way.
            if not self._is_told(name):
                spare -= 1
                if spare < 0:
                    return
            self._looked[name] = now
            look = self.pool.submit(partial(self.crew.look, name))
            self._tasks[name] = Task("look", look, now)

    def _is_told(self, name: str) -> bool:
        """Return whether a board is on its way, and answers."""
        board = self.course.boards[name]
        return board.standing in FLYING and not board.lost_at

    def _collect(self) -> None:
        """Take what threads have brought."""
        now = self.clock()
        ended = [(n, it) for n, it in self._tasks.items() if it.future.done()]
        for name, task in ended:
            del self._tasks[name]
            board = self.course.boards[name]
            try:
                brought = task.future.result()
            except AgentError as err:
                after = {
                    "look": after_look,
                    "deliver": after_delivery,
                    "back": after_return,
                }[task.kind]
                self._set(name, after(name, board, err, now))
            else:
                # What a look brings is as old as the look.
                self._take(name, board, brought, task.began_at or now)

    def _take(
        self, name: str, board: BoardCourse, brought: Sight | str | None, now: float
    ) -> None:
        """Take what a thread brought from one board."""
        if brought is None:
            self._looked.pop(name, None)  # it was told: what does it say?
        elif isinstance(brought, str):
            back = {"standing": Standing.BACK, "detail": brought, "settled_at": now}
            self._set(name, replace(board, reason="", **back))
        elif board.standing in FLYING and not board.ready:
            self._prepare(name, board, brought, now)
        elif board.standing in FLYING and not self._has_arrived(name, board, brought):
            going = self.course.phase is Phase.RUNNING
            board = replace(board, lost_at=0.0, seen_at=now)
            self._set(name, board if going else untell(board))
            if going and self._may_deliver:
                self._ready.add(name)
        else:
            self._set(name, self.crew.reader.read(board, brought, now))
        if board.standing not in FLYING:
            self.crew.close(name)

    @property
    def _may_deliver(self) -> bool:
        """Whether the wave was published, where boards follow a signed file."""
        return self.opener is None or self._opened >= self.course.wave

    def _has_arrived(self, name: str, board: BoardCourse, sight: Sight) -> bool:
        """Return whether a board knows our order."""
        if name in self.plan.waves[self.course.wave].boards and not self._may_deliver:
            return False
        return self.crew.reader.has_arrived(board, sight)

    def _prepare(self, name: str, board: BoardCourse, sight: Sight, now: float) -> None:
        """Note how a board is before it is told, durably; then tell it."""
        reader = self.crew.reader
        if self.course.phase is not Phase.RUNNING:
            self._set(name, untell(board))
        elif reader.runs(sight.state) and not reader.is_contested(board, sight):
            self._set(name, reader.taken_up(board, sight, now))
        else:
            self._set(name, reader.prepare(board, sight, now))
            if self._may_deliver:
                self._ready.add(name)

    # --- the end

    def _come_to_rest(self) -> None:
        """Follow what is under way for a while; take boards back if that was asked."""
        for name, task in self._tasks.items():
            if task.kind == "deliver":
                self.crew.break_off(name)
        if self.opener is not None:
            self.opener.close(self.course)
        until = self.clock() + self.plan.patience_s
        while self._is_moving() and self.clock() < until:
            self._step()
        if self.back and self.course.phase is Phase.ABORTED:
            self._take_back()
        self._save(self.clock())

    def _is_moving(self) -> bool:
        """Return whether boards that answer are on their way, or threads are."""
        boards = self.course.boards.values()
        flying = any(it.standing in FLYING and not it.lost_at for it in boards)
        return bool(self._tasks) or (flying and not self.back)

    def _step(self) -> None:
        """Look once more, decide nothing but what another terminal asks for."""
        self._collect()
        self._take_asked()
        now = self.clock()
        if not self.back:
            self._send(now)
        self.view.draw(self.course, decide(self.plan, self.course, now), now)
        self._rest()

    def _take_back(self) -> None:
        """Take the version from all boards that have it, or are getting it."""
        by_push = self.kept.mode == "push"
        for name, board in self.course.boards.items():
            if is_ours(board, by_push=by_push):
                future = self.pool.submit(partial(self.crew.take_back, name, board))
                self._tasks[name] = Task("back", future)
            elif board.standing in FLYING:
                # Written down, and then nobody came to say it.
                self._set(name, untell(board))
        while self._tasks:
            self._step()

    # --- keeping

    def _set(self, name: str, board: BoardCourse) -> None:
        """Note where a board stands; what changed is shown."""
        before = self.course.boards[name]
        self._keep(self.course.with_boards({name: board}))
        shown = (board.standing, bool(board.lost_at))
        moved = shown != (before.standing, bool(before.lost_at))
        self._dirty |= moved or board.ready is not before.ready
        self._moved |= moved
        if moved:
            self.view.changed(name, board, self.clock())

    def _keep(self, course: Course) -> None:
        """Keep a course in memory."""
        self.kept = replace(self.kept, course=course)

    def _save(self, now: float) -> None:
        """Make all of it durable."""
        self.file.save(self.kept)
        self._saved_at, self._dirty = now, False

    def _rest(self) -> None:
        """Wait for a thread, or for a moment."""
        futures: list[Future[Any]] = [task.future for task in self._tasks.values()]
        if futures:
            wait(futures, TICK_S, FIRST_COMPLETED)
        else:
            self.crew.pause(TICK_S)
