"""Privacy mode: what a board may show of its answers where they are about people.

Counters read every 15 s tell who came into the room, and when: one more ``face``, one
answer with a confidence never seen before. In privacy mode the answers go by no label,
and what depends on few samples is shown as of a moment that only moves on with many.

The rules this module keeps:
 * What is shown of confidence, predictions, features and accuracy changes only after
   another ``WINDOW_SAMPLES`` watched samples; nothing is shown of the first ones.
 * A count below ``SMALL`` is shown as part of a larger one, or not at all.
 * Counters still never fall, and scores and alarms are live: they are joint statistics
   of hundreds of samples, and what an operator has to act on.
"""

from collections.abc import Sequence
from dataclasses import replace

from msgspec.structs import replace as replace_struct

from agent.core.snapshot import ModelCounts, PipelineSnapshot
from agent.core.watching import CONFIDENCE_BUCKETS, ModelWatch, Monitored

WINDOW_SAMPLES = 250  # the share of one answer in it is 0.4 %
SMALL = 10  # the least count that statistical offices publish
MAX_KEPT = 256  # models whose last window is remembered; 4 pipelines have some 16


class Discretion:
    """Shows pipelines as privacy mode wants them; remembers what it showed last."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str, int], Monitored] = {}

    def hide(self, pipeline: PipelineSnapshot) -> PipelineSnapshot:
        """Return a pipeline without what its single answers could be read from."""
        watch = tuple(self._window(pipeline.name, one) for one in pipeline.watch)
        windows = {(one.model, one.version): one.monitored for one in watch}
        counts = tuple(
            _without_labels(one, windows.get((one.model, one.version), _NOTHING))
            for one in pipeline.counts
        )
        return replace(pipeline, watch=watch, counts=counts)

    def _window(self, pipeline: str, watch: ModelWatch) -> ModelWatch:
        """Return what is shown of one monitor: live sums, and an older window."""
        key = (pipeline, watch.model, watch.version)
        now, before = watch.monitored, self._shown.get(key, _NOTHING)
        if now.samples - before.samples >= WINDOW_SAMPLES:
            answered = max(sum(now.predictions), sum(before.predictions))
            before = replace_struct(
                now,
                confidence=join_small(now.confidence, before.confidence),
                # One number from here on: which labels these were is not kept either.
                predictions=(answered if answered >= SMALL else 0,),
            )
            self._shown.pop(key, None)  # the newest at the end: the oldest goes first
            self._shown[key] = before
            if len(self._shown) > MAX_KEPT:
                del self._shown[next(iter(self._shown))]
        window = {name: getattr(before, name) for name in _WINDOWED}
        return replace_struct(watch, monitored=replace_struct(now, **window))


def join_small(counts: Sequence[int], shown: Sequence[int]) -> tuple[int, ...]:
    """Return counts of ordered buckets in which each new one is 0 or not ``SMALL``.

    Small ones go up into the next bucket. Cumulative counts are never below those that
    were shown before, nor above the true ones.

    >>> join_small((3, 4, 5, 90), (0, 0, 0, 0))
    (0, 0, 12, 90)
    """
    true_so_far = joined_so_far = shown_so_far = before = 0
    joined: list[int] = []
    for count, count_shown in zip(counts, shown, strict=True):
        true_so_far += count
        shown_so_far += count_shown
        if true_so_far - joined_so_far >= SMALL:
            joined_so_far = true_so_far
        joined_so_far = max(joined_so_far, shown_so_far)
        joined.append(joined_so_far - before)
        before = joined_so_far
    return tuple(joined)


def _without_labels(counts: ModelCounts, window: Monitored) -> ModelCounts:
    """Return a model's counts with all its answers of the last window as ``other``."""
    words = (0,) * (len(counts.section.labels) - 1)
    hidden = replace(counts.section, labels=(*words, sum(window.predictions)))
    return replace(counts, labels=(), section=hidden)


_WINDOWED = (
    "confidence",
    "confidence_sum",
    "predictions",
    "features",
    "accuracy",
    "windows",
)
_NOTHING = Monitored(confidence=(0,) * CONFIDENCE_BUCKETS)
