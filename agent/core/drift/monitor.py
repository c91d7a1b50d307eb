"""The monitor of one model: feature vectors in; scores, alarms and a rate out.

The rules this module keeps:
 * No number that is not finite reaches a statistic.
 * No alarm but ``stuck`` is raised before the stream's memory was measured.
 * A board's baseline is collected only while the shipped reference is quiet, unless an
   operator asked for it; it is never replaced but by an operator.
 * Nothing here reads a clock: samples are counted.
"""

from dataclasses import replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from agent.core.drift.accuracy import Accuracy
from agent.core.drift.answers import Answers
from agent.core.drift.comparison import Comparison, describe
from agent.core.drift.latch import Latch
from agent.core.drift.mewma import STEP, Whitener
from agent.core.drift.repeats import Repeats
from agent.core.drift.setup import Setup, check_shipped, compare_with
from agent.core.drift.site import Collection, parse_baseline, render_baseline
from agent.core.drift.thinning import Thinning
from agent.core.drift.windows import WINDOW_SAMPLES
from agent.core.reasons import Reason
from agent.core.watching import AnchorState, Monitored, Scope, Score
from agent.errors import BundleRefusedError

# Detectors that need no answer at once (bets, histograms, classes) take so many samples
# together: their cost is numpy's calls, nearly the same for sixteen as for one.
BATCH_SAMPLES = 4 * STEP
# Without a calibrated reference thresholds are a table's, for samples without memory.
TARGET = 0.05
# float32, in which samples are kept, ends at 3.4e38.
_SMALL = np.array(1e-160)
LARGEST_SQUARES = (1e38 * 1e-160) ** 2
STUCK: Scope = "stuck"
__all__ = ["Monitor", "Setup"]


class Monitor:
    """Everything that is known about one model's input and output, as it goes on."""

    def __init__(self, setup: Setup) -> None:
        width = len(setup.names)
        shipped, self._shipped_state = check_shipped(setup)
        target = TARGET if shipped is None else shipped.target
        self._thinning = Thinning(width, target, Whitener(shipped))
        self._answers = Answers(setup.classes)
        self._accuracy = Accuracy(-1.0 if shipped is None else shipped.confidence)
        self._repeats = Repeats()
        self._stuck = Latch("repeat", active=("shipped", STUCK) in setup.latched)
        self._stuck_ratio = 0.0
        self._batch = np.zeros((BATCH_SAMPLES, width), np.float32)
        self._batch_answers: list[int] = []
        self._windows = self._in_window = 0
        self._shipped = compare_with("shipped", shipped, setup)
        self._site: Comparison | None = None
        self._site_raised: dict[Scope, int] = {}
        self._site_detail = ""
        self._collection: Collection | None = None
        self._ordered = False
        self._fresh: bytes | None = None
        self._open_site(setup)
        self._setup = replace(setup, shipped=None, site=b"")  # opened, and not kept

    @property
    def interval(self) -> int:
        """One in so many samples should be observed now; 1 now and then, to measure."""
        return self._thinning.interval

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
        self._stuck_ratio = ratio = self._repeats.update(checksum)
        changed = False
        if ratio > 1 or self._stuck.active:
            changed = self._stuck.update(ratio) != ""
        self._answers.update(index, confidence)
        if values is None or not len(values):
            return changed
        # False for NaN, too; so small that the squares of no number are too large.
        small = values * _SMALL
        if not small.dot(small) < LARGEST_SQUARES:
            return changed
        thinning = self._thinning
        counted = thinning.counts(seq)
        if counted:
            self._accuracy.update(confidence)
            changed |= self._take(values, index)
        if thinning.update(values, seq, counted=counted):
            self._restart()
        return changed

    def say(self) -> Monitored:
        """What it says now, without what only its caller knows (time spent, share)."""
        scores = [Score("shipped", STUCK, "repeat", self._stuck_ratio)]
        alarms = [describe("shipped", STUCK, self._stuck)]
        features = []
        for comparison in self._comparisons:
            scores += comparison.scores(armed=self._thinning.trusted)
            alarms += comparison.alarms()
            features += comparison.features()
        answers = self._answers
        return Monitored(
            samples=answers.samples,
            interval=self._thinning.spacing,
            autocorrelation=self._thinning.autocorrelation,
            windows=self._windows,
            window_samples=WINDOW_SAMPLES,
            anchors=(self._noted(self._shipped_state), self._site_state()),
            scores=tuple(scores),
            alarms=tuple(alarms),
            features=tuple(features),
            confidence=tuple(answers.confidence),
            confidence_sum=answers.confidence_sum,
            repeated=self._repeats.repeated,
            accuracy=self._accuracy.value,
            predictions=answers.closed,
        )

    def baseline(self) -> bytes | None:
        """A baseline that was just completed, to be kept; None otherwise."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def commission(self) -> None:
        """Forget this board's baseline and collect another.

        An operator who asks for it has seen what alarms and says that it is well: the
        shipped reference need not be quiet.
        """
        if self._site is not None:
            # Counters go on: who adds them up would miss as many alarms of the next.
            self._site_raised = {it.scope: it.raised for it in self._site.alarms()}
        self._site = None
        self._site_detail = ""
        self._ordered = True
        self._fresh = None
        if self._collection is not None:
            self._collection.wipe()
        self._collect(self._setup)

    def _take(self, values: NDArray[np.floating], index: int) -> bool:
        """Give a sample to the detectors; return whether an alarm changed."""
        armed = self._thinning.trusted
        changed = False
        answers = self._batch_answers
        self._batch[len(answers)] = values
        answers.append(self._answers.fold(index))
        count = len(answers)
        if count % STEP == 0:
            rows = self._batch[count - STEP : count]
            for comparison in self._comparisons:
                changed |= comparison.update(rows, armed=armed)
            if count == BATCH_SAMPLES:
                changed |= self._take_batch(armed=armed)
        if self._collection is not None and armed:
            self._add(self._collection, values, index)
        return changed

    def _take_batch(self, *, armed: bool) -> bool:
        """Give the samples that have come together to the slower detectors."""
        changed = False
        for comparison in self._comparisons:
            changed |= comparison.update_batch(
                self._batch, self._batch_answers, armed=armed
            )
        self._batch_answers.clear()
        self._in_window += BATCH_SAMPLES
        if self._in_window >= WINDOW_SAMPLES:
            self._in_window = 0
            self._windows += 1
            self._answers.close()
        return changed

    def _restart(self) -> None:
        """Samples are spaced otherwise now: what was averaged is of another stream."""
        self._batch_answers.clear()
        for comparison in self._comparisons:
            comparison.restart()

    @property
    def _comparisons(self) -> list[Comparison]:
        """The anchors that there are."""
        return [c for c in (self._shipped, self._site) if c is not None]

    def _open_site(self, setup: Setup) -> None:
        """Compare with the board's baseline, or collect one."""
        if not setup.site:
            self._collect(setup)
            return
        try:
            reference = parse_baseline(setup.site, setup.names)
        except BundleRefusedError as err:
            self._site_detail = str(err)[:500]
            self._collect(setup)
            return
        self._site = compare_with("site", reference, setup)

    def _collect(self, setup: Setup) -> None:
        """Begin a baseline."""
        width, wanted = len(setup.names), setup.site_samples
        if wanted > 0 and width > 0:
            self._collection = Collection(wanted, width, self._answers.labels)

    def _add(
        self, collection: Collection, values: NDArray[np.floating], index: int
    ) -> None:
        """Give a sample to the baseline, if nothing is wrong with it."""
        if self._obstacle():
            collection.distrust()
        elif collection.add(values, self._answers.fold(index)):
            self._freeze(collection)

    def _obstacle(self) -> str:
        """Why no baseline is collected now, empty if one may be."""
        if self._stuck.active:
            return "waits until the input is no longer stuck"
        shipped = self._shipped
        if shipped is not None and shipped.active and not self._ordered:
            return "waits until the shipped anchor is quiet"
        return ""

    def _freeze(self, collection: Collection) -> None:
        """Compare with the baseline that is now complete."""
        shipped = self._shipped.reference if self._shipped else None
        # A profile's thresholds hold for a baseline of the size it was calibrated with.
        fits = shipped is not None and collection.rows >= shipped.site_count
        thresholds = shipped.site_thresholds if shipped is not None and fits else {}
        reference = collection.freeze(
            self._setup.names, self._setup.columns, thresholds
        )
        self._collection = None
        self._ordered = False
        self._fresh = render_baseline(reference)
        # From its bytes, as the next worker will: the same numbers, and its digest.
        opened = parse_baseline(self._fresh, self._setup.names)
        innocent = replace(self._setup, latched=(), confirmed=())
        self._site = compare_with("site", opened, innocent, self._site_raised)

    def _noted(self, state: AnchorState) -> AnchorState:
        """Say of the shipped reference what it cannot tell, too."""
        note = self._shipped.note if self._shipped else ""
        said = "; ".join(part for part in (state.detail, note) if part)
        return structs.replace(state, detail=said[:500]) if note else state

    def _site_state(self) -> AnchorState:
        """How far the board's own baseline is."""
        if self._site is not None:
            found = self._site.reference
            return AnchorState(
                "site",
                valid=bool(found.moving.any()),
                detail=self._site.note,
                digest=found.digest,
                calibration=found.calibration,
                collected=found.count,
                wanted=found.count,
            )
        collection = self._collection
        obstacle = self._obstacle() if collection else ""
        return AnchorState(
            "site",
            valid=False,
            reason=Reason.COMMISSIONING if collection else Reason.UNWATCHED,
            detail=obstacle or self._site_detail,
            collected=collection.collected if collection else 0,
            wanted=collection.wanted if collection else 0,
        )
