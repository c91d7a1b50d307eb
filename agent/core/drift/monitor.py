"""The monitor of one model: feature vectors in, scores, alarms and a rate out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.core.drift.opened import Columns, OpenReference
from agent.core.watching import Anchor, Monitored, Scope


@dataclass(frozen=True, slots=True)
class Setup:
    """What a monitor is told when its model is loaded.

    Attributes:
        names: Of the features, in the order of their columns.
        columns: Columns of the scopes ``input`` and ``output`` (empty arrays allowed).
        classes: Labels of the model, 0 without.
        shipped: The bundle's reference, None without a good one.
        shipped_reason: Why there is none: a ``Reason`` word, and ``shipped_detail``.
        site: Bytes of this board's own baseline, empty before it has one.
        site_samples: Samples of a new one.
        latched: Alarms that were active when the last worker ended.
    """

    names: tuple[str, ...]
    columns: Columns
    classes: int
    shipped: OpenReference | None = None
    shipped_reason: str = ""
    shipped_detail: str = ""
    site: bytes = b""
    site_samples: int = 2000
    latched: tuple[tuple[Anchor, Scope], ...] = ()


class Monitor:
    """Everything that is known about one model's input and output, as it goes on."""

    def __init__(self, setup: Setup) -> None:
        raise NotImplementedError

    @property
    def interval(self) -> int:
        """One in so many samples should be observed now; 1 now and then, to measure."""
        raise NotImplementedError

    def observe(
        self,
        values: NDArray[np.floating] | None,
        index: int,
        confidence: float,
        checksum: int,
        seq: int,
    ) -> bool:
        """Take in one sample; return whether an alarm was raised, confirmed or cleared.

        Args:
            values: (d) features, None for a sample with NaN or infinity in it.
            index: Label that the model answered, -1 for none.
            confidence: In it, in [0, 1]; -1 for none.
            checksum: crc32 of the input.
            seq: The sample's number among all samples, watched or not.
        """
        raise NotImplementedError

    def say(self) -> Monitored:
        """What it says now, without what only its caller knows (time spent, share)."""
        raise NotImplementedError

    def baseline(self) -> bytes | None:
        """A baseline that was just completed, to be kept; None otherwise."""
        raise NotImplementedError

    def commission(self) -> None:
        """Forget this board's baseline and collect another."""
        raise NotImplementedError
