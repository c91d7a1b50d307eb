"""Judges what a fault left behind: O1 to O5, each as a sentence where it does not hold.

O1 what is durable as active, and as previous, is whole and was signed by ``targets``.
O2 version floors and the floors of trust never fell, nor did anything already durable.
O3 what answered when the life ended is what was durable then.
O4 the next clean start and look bring what is wanted, then the version after it; what
   the fleet wanted before is refused as replayed; no rubbish is left.
O5 whatever ended the life, or an update in it, has one of our reasons.

The rules this module keeps:
 * It sees what the next start of the agent sees: the state directory, nothing else.
 * A model that has to be fallen back from is a failure here, although the agent mends
   it: nothing that was committed may ever need that.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.core.floors import Floors
from agent.core.installed import Installed
from agent.core.reasons import Reason
from agent.errors import AgentError
from tests.faults.driver import Told
from tests.faults.scenes import Scene, floors_of
from tests.update.real_board import RealBoard

KNOWN = {str(reason) for reason in Reason}
MODEL, PIPELINE = "kws", "door"


class Verdict(Struct):
    """What was found.

    Attributes:
        case: Which fault, in words.
        found: Version that was active before anything tidied up.
        floors: How high its floors were then.
        wrong: What does not hold; nothing where all is well.
        said: What the life itself told, where it lived to tell.
    """

    case: str
    found: int = -1
    floors: dict[str, int] = {}
    wrong: list[str] = []
    said: list[str] = []


@dataclass(slots=True)
class Judge:
    """Judges one state directory, which it changes."""

    scene: Scene
    state: Path
    verdict: Verdict

    def judge(self, raw: bytes) -> Verdict:
        """Judge; ``raw`` is what the life wrote, empty where it was killed."""
        try:
            if raw:
                self._hear(msgspec.json.decode(raw, type=Told))
            self._start_again()
            self._go_on()
            self._replay()
        except (AgentError, AssertionError) as err:
            self.verdict.wrong.append(f"O4 {type(err).__name__}: {err}")
        return self.verdict

    def _hear(self, told: Told) -> None:
        """O3 and O5: what the life said itself."""
        self.verdict.said = [*told.results, *filter(None, [told.refused])]
        reasons = [line.partition(" ")[2] for line in told.results] + [told.refused]
        strange = {reason for reason in reasons if reason} - KNOWN
        self._expect(not strange, f"O5 unknown reasons {strange}")
        self._expect(not told.crash, f"O5 {told.crash}")
        if not told.refused and not told.crash:
            what = f"O3 {told.answers} answers, {told.active} is durable"
            self._expect(told.answers == told.active, what)

    def _start_again(self) -> None:
        """O1 and O2, before and after what was interrupted is tidied up."""
        board = self.scene.board(self.state)
        try:
            self.verdict.found = self._look_at(board, self.scene.start)
            asyncio.run(board.poller.recover())
            self._expect(not board.trials.calls, "O1 a start tried a candidate")
            self._look_at(board, self.verdict.found)
        finally:
            board.close()

    def _look_at(self, board: RealBoard, at_least: int) -> int:
        """Check what is durable, and return the active version."""
        slots = board.store.slots(PIPELINE)
        active = slots.active.version if slots.active else 0
        for kept in (slots.active, slots.previous):
            if kept is not None:
                self._check_whole(board, kept)
        floor = board.store.version_floor(MODEL)
        self._expect(active >= at_least, f"O1 {active} is active after {at_least}")
        self._expect(floor >= max(active, at_least), f"O2 the version floor is {floor}")
        now = {"version": floor, **heights(floors_of(board, self.scene.root))}
        for what in fallen(heights(self.scene.floors), now):
            self._expect(False, f"O2 {what}")
        self.verdict.floors = self.verdict.floors or now
        return active

    def _check_whole(self, board: RealBoard, kept: Installed) -> None:
        """What is durable is there, can be opened, and is what was signed."""
        signed = self.scene.signed.get(kept.sha256)
        self._expect(signed == kept.version, f"O1 {kept.version} was not signed")
        try:
            board.opened(kept)
        except AgentError as err:
            self._expect(False, f"O1 version {kept.version}: {err}")

    def _go_on(self) -> None:
        """O4: a clean look succeeds, another one too, and nothing else is left."""
        for fleet, wanted in (
            (self.scene.path, self.scene.goal),
            (self.scene.after, self.scene.goal + 1),
        ):
            board = self.scene.board(self.state, fleet=fleet)
            try:
                board.look()
                found = board.active()
                results = board.poller.snapshot().results
                what = f"O4 {found} is active, {wanted} was wanted: {results}"
                self._expect(found == wanted, what)
                self._look_at(board, wanted)
                self._expect(board.store.load_job() is None, "O4 a job is left")
                self._expect(not _rubbish(board, self.state), "O4 rubbish is left")
            finally:
                board.close()

    def _replay(self) -> None:
        """O2: what the fleet wanted before is not believed any more."""
        if not (self.scene.before / "repository").is_dir():
            return
        board = self.scene.board(self.state, fleet=self.scene.before)
        try:
            board.look()
            results = {reason for _, reason in board.poller.snapshot().results}
            self._expect(results == {Reason.REPLAYED}, f"O2 a replay: {results}")
        finally:
            board.close()

    def _expect(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 - assert's
        """Take down what does not hold."""
        if not holds and otherwise not in self.verdict.wrong:
            self.verdict.wrong.append(otherwise)


def judge(scene: Scene, state: Path, case: str, raw: bytes = b"") -> Verdict:
    """Judge a state directory, which is used up and removed."""
    try:
        return Judge(scene, state, Verdict(case)).judge(raw)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def heights(floors: Floors) -> dict[str, int]:
    """Return all that a board's trust remembers, by name."""
    named = {f"role {name}": it.height for name, it in floors.roles.items()}
    named |= {f"generation {n}": it.height for n, it in floors.generations.items()}
    return {"root": floors.root, "clock": floors.clock_s, **named}


def fallen(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return the floors that are lower than they were."""
    return [
        f"the floor of {what} fell from {was} to {after.get(what, 0)}"
        for what, was in before.items()
        if after.get(what, 0) < was
    ]


def check_order(before: Verdict, after: Verdict) -> None:
    """Of two moments of one life: what was durable at the first one still is."""
    if after.found < before.found:
        after.wrong.append(f"O1 {before.found} was active already")
    after.wrong += [f"O2 {what}" for what in fallen(before.floors, after.floors)]


def _rubbish(board: RealBoard, state: Path) -> set[str]:
    """Return the names of files that nothing refers to."""
    slots = board.store.slots(PIPELINE)
    kept = {model.sha256 for model in (slots.active, slots.previous) if model}
    return {
        path.name
        for folder in ("obj", "part", "envelope")
        for path in (state / folder).glob("*")
        if path.name not in kept
    }
