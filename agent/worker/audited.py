"""A watcher that also picks samples for the shadow audit.

The turn looks up one number per sample, ``due``, to see whether anyone wants it: here
the smaller of what the monitor and what the audit wants, so that the audit costs a
sample that it does not pick nothing at all.
"""

from collections.abc import Callable

from agent.worker.samples import Arrays
from agent.worker.watch import Watcher
from agent.worker.watch_pace import NEVER

Offer = Callable[[int, Arrays, Arrays], None]


class Audited(Watcher):
    """Passes everything on to the watcher it stands for, if there is one.

    Args:
        inner: The model's watcher; None where nobody watches.
        one_in: One in so many samples is offered.
        offer: Takes (number, inputs, outputs); never waits.
    """

    def __init__(self, inner: Watcher | None, one_in: int, offer: Offer) -> None:
        # No super().__init__: it has no eye, no pace and no budget of its own.
        self._inner = inner
        self._one_in = one_in
        self._offer = offer
        self._wanted = 0  # by the audit
        self.due = [0]

    def begin(self) -> None:
        """Say what there is to compare with."""
        if self._inner is not None:
            self._inner.begin()
        self._choose()

    def look(
        self,
        seq: int,
        busy_ns: int,
        inputs: Arrays,
        outputs: Arrays,
        index: int,
        score: float,
    ) -> None:
        """Offer the sample, let it be watched, or both; see ``Watcher.look``."""
        inner = self._inner
        if inner is not None and seq >= inner.due[0]:
            inner.look(seq, busy_ns, inputs, outputs, index, score)
        if seq >= self._wanted:
            self._wanted = seq + self._one_in
            self._offer(seq, inputs, outputs)
        self._choose()

    def fail(self, seq: int, err: Exception) -> None:
        """Count a sample that became no answer."""
        if self._inner is not None:
            self._inner.fail(seq, err)
            self._choose()

    def rest(self) -> None:
        """Called while no sample comes."""
        if self._inner is not None:
            self._inner.rest()
            self._choose()

    def commission(self, number: int) -> None:
        """Collect another baseline."""
        if self._inner is not None:
            self._inner.commission(number)

    def finish(self) -> None:
        """Say the last word."""
        if self._inner is not None:
            self._inner.finish()

    def _choose(self) -> None:
        """Be due when the first of both is."""
        watched = self._inner.due[0] if self._inner is not None else NEVER
        self.due[0] = min(watched, self._wanted)
