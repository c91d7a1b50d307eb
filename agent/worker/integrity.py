"""Whether what runs is still what was verified: the worker's own checks, off its path.

Three checks, each of which can be switched off: a trickle of hashes over the memory
that a model is computed from (``integrity_rehash``), known answers while no sample
waits (``integrity_answers``), and a shadow audit on other kernels
(``integrity_audit``). What differs is told to the daemon with evidence; it decides.

The rules this module keeps:
 * What is switched off is not imported, and costs nothing; nothing here is called for a
   sample but the audit, which takes the place that a watcher's look has in the turn.
 * A check that cannot be made refuses no model: it is skipped, and says why.
 * Whoever reads a model's memory holds the model: it is unmapped after the last look.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.core.integrity import Checked, Evidence
from agent.core.messages import Inspect, Inspected, Shed
from agent.core.reasons import Reason
from agent.worker.model import LoadedModel
from agent.worker.slot import ModelSlot
from agent.worker.watch import Watcher

if TYPE_CHECKING:
    from agent.worker.inspection import Inspection
    from agent.worker.integrity_memory import Blocks

log = logging.getLogger(__name__)
REPORT_S = 2.0  # without news, of 200 bytes; a mismatch is told at once
NEWS_S = 0.2  # of one model after the other: many swaps are no flood of messages
# Slices are hashed in turns of so many bytes: at 1 MB/s 16 a second, of 50 us each.
TURN_BYTES = 64 * 1024
TURN_S = 1.0  # between two looks at what else there is to do
Send = Callable[[Inspected], None]


class Integrity:
    """The checks of one worker, and the thread that makes them.

    Args:
        slot: Who answers; the loop rests there.
        send: Sends a message to the daemon, and may take its time.
    """

    def __init__(self, slot: ModelSlot, send: Send) -> None:
        self._slot = slot
        self._send = send
        self._order = Inspect()
        self._inspection: Inspection | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()
        self._found: list[Evidence] = []  # by the loop, for the thread to tell

    def follow(self, order: Inspect) -> None:
        """Check the models that are loaded from now on as ordered."""
        self._order = order

    def look(self) -> "Blocks | None":
        """Note what memory there is before a model is built, if that is asked for."""
        if not self._order.rehash_mbps:
            return None
        from agent.worker.integrity_memory import Blocks

        return Blocks()

    def inspect(
        self, model: LoadedModel, descriptor: int, before: "Blocks | None"
    ) -> "Inspection | None":
        """Prepare the checks of a model that was just verified and built.

        Args:
            model: What was built.
            descriptor: What it was built from; it stays the caller's.
            before: What ``look`` returned.
        """
        if self._order == Inspect():
            return None
        from agent.worker.inspection import open_inspection

        try:
            return open_inspection(self._order, model, descriptor, before)
        except Exception as err:  # noqa: BLE001 - no model is refused for its checks: logged
            facts = {"reason": Reason.INTERNAL}
            log.warning("integrity is not checked: %s", err, extra=facts)
            return None

    def attend(self, inspection: "Inspection | None") -> None:
        """Check this model from now on, which answers; the one before no more."""
        self._inspection = inspection
        self._slot.at_rest = self._ask if inspection else None
        self._changed.set()
        if inspection is not None and self._thread is None:
            thread = threading.Thread(target=self._run, name="integrity", daemon=True)
            thread.start()
            self._thread = thread

    def _ask(self) -> None:
        """Called by the loop while no sample comes: one known answer, if it is time."""
        inspection = self._inspection
        if inspection is None or inspection.answers is None:
            return
        if self._slot.shed != Shed():
            return  # a board that does less does this not at all
        try:
            found = inspection.answers.rest()
        except (ValueError, RuntimeError) as err:
            inspection.skip("answers", str(err))
            return
        if found is not None:
            self._found.append(found)
            self._changed.set()

    def _run(self) -> None:
        """Check what there is to check, for ever; the process ends it."""
        told_s = 0.0
        while True:
            pause_s, told_s = self._round(told_s)
            if self._changed.wait(pause_s):
                self._changed.clear()

    def _round(self, told_s: float) -> tuple[float, float]:
        """Check a little; return how long to wait, and when something was last told.

        The inspection is held in here only: while this thread waits, the model that it
        belongs to can go.
        """
        inspection = self._inspection
        if inspection is None:
            return TURN_S, told_s
        inspection.held_back = self._slot.shed != Shed()
        try:
            pause_s, found = inspection.turn(TURN_BYTES)
        except Exception as err:  # noqa: BLE001 - the thread's boundary: it is logged
            facts = {"reason": Reason.INTERNAL}
            log.warning("integrity is not checked any more: %s", err, extra=facts)
            self._inspection = None
            return TURN_S, told_s
        found, self._found = [*found, *self._found], []
        now_s = time.monotonic()
        due_s = told_s + (NEWS_S if inspection.fresh else REPORT_S)
        if found or now_s > due_s:
            inspection.fresh = False
            checked = inspection.say(os_thread=threading.get_native_id())
            self._tell(inspection.generation, checked, found)
            told_s = now_s
        return min(pause_s, TURN_S), told_s

    def _tell(self, generation: int, checked: Checked, found: list[Evidence]) -> None:
        """Tell the daemon what was checked, and each difference."""
        if not found:
            self._send(Inspected(generation, checked))
        for evidence in found:
            self._send(Inspected(generation, checked, evidence))


def watched(inspection: "Inspection | None", watcher: Watcher | None) -> Watcher | None:
    """Return what the turn calls: the watcher, and the audit where there is one."""
    return inspection.watcher(watcher) if inspection is not None else watcher
