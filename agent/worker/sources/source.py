"""What every source offers to the loop."""

from typing import Protocol

from agent.worker.samples import Sample


class Source(Protocol):
    """Where samples come from.

    A sample of a live source lies in a buffer that ``take`` may write again: it is
    valid until the next ``take``.

    Attributes:
        ready_ns: When the sample taken last was available (CLOCK_MONOTONIC, as
            ``time.perf_counter_ns``); 0 means at once.
        dropped: Samples lost so far because a newer one came before they were taken.
        partial: Samples so far of which only a part arrived.
        ended: No sample is left and none will come, unless a program starts again.
    """

    ready_ns: int
    dropped: int
    partial: int
    ended: bool

    def take(self, timeout_s: float) -> Sample | None:
        """Return the next sample, or None if none came in time or the source ended.

        Raises:
            InputError: The next sample is bad; those behind it are not.
        """

    def replace(self, descriptor: int) -> None:
        """Go on with the pipe of a program that was started again; it is closed here.

        Sources without a pipe only close it.
        """

    def close(self) -> None:
        """Release files, pipes and threads; ``take`` must not be called again."""
