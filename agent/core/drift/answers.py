"""What a model answered, counted: labels and confidence of watched samples."""

from agent.core.watching import CONFIDENCE_BUCKETS

MAX_LABELS = 64  # as the statistics block counts them; all further ones are one more


class Answers:
    """Counters of watched answers.

    Attributes:
        labels: Counters of labels, one for all beyond ``MAX_LABELS``.
        samples: Answers counted.
        confidence: Answers by confidence, in buckets of equal width; and their sum.
        closed: Answers by label when the last window closed.
    """

    __slots__ = (
        "_counts",
        "closed",
        "confidence",
        "confidence_sum",
        "labels",
        "samples",
    )

    def __init__(self, classes: int) -> None:
        self.labels = min(classes, MAX_LABELS + 1)
        self.samples = 0
        self.confidence = [0] * CONFIDENCE_BUCKETS
        self.confidence_sum = 0.0
        self._counts = [0] * self.labels
        self.closed: tuple[int, ...] = (0,) * self.labels

    def fold(self, index: int) -> int:
        """Return the counter of a label, -1 for none.

        References count as these do: what is compared with one is folded first.
        """
        return min(index, MAX_LABELS) if index >= 0 else -1

    def update(self, index: int, confidence: float) -> None:
        """Count an answer; a label that does not exist and no confidence are none."""
        self.samples += 1
        at = self.fold(index)
        if 0 <= at < self.labels:
            self._counts[at] += 1
        if 0 <= confidence <= 1:  # false for NaN
            bucket = int(confidence * CONFIDENCE_BUCKETS)
            self.confidence[min(bucket, CONFIDENCE_BUCKETS - 1)] += 1
            self.confidence_sum += confidence

    def close(self) -> None:
        """A window closed: show the counts as they are now."""
        self.closed = tuple(self._counts)
