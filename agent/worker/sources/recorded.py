"""The ``files`` source: recorded samples, lossless, at once or at a rate.

The rules this module keeps:
 * Nothing is dropped: if the model is slower, the samples wait.
 * With ``memory`` a ``take`` is one step of an iterator over a list, and no file is
   touched after the start.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from agent.core.flow import FilesSource
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.samples import InputError, Sample
from agent.worker.sources.reading import Item, find_files, read_all, read_from
from agent.worker.sources.schedule import Schedule

MAX_MEMORY_BYTES = 256 * 1024 * 1024  # what `memory = true` may hold


class RecordedSource:
    """Samples from files; see ``Source`` for its attributes."""

    def __init__(self, items: Iterator[Item], schedule: Schedule | None) -> None:
        self.ready_ns = 0
        self.dropped = 0
        self.partial = 0
        self.ended = False
        self._items = items
        self._schedule = schedule
        self._begun = False

    def take(self, timeout_s: float) -> Sample | None:
        """Return the next sample, None if it is not yet due or there is none.

        With a rate, ``ready_ns`` is when the sample was due.

        Raises:
            InputError: The next sample is bad.
        """
        if self._schedule is not None and not self._is_due(self._schedule, timeout_s):
            return None
        item = next(self._items, None)
        if item is None:
            self.ended = True
        elif isinstance(item, InputError):
            raise item.with_traceback(None)  # kept items are raised every round
        return item

    def replace(self, descriptor: int) -> None:
        """Close the pipe: files have none."""
        os.close(descriptor)

    def close(self) -> None:
        """Forget the samples, and close the file being read."""
        self._items = iter(())
        self.ended = True

    def _is_due(self, schedule: Schedule, timeout_s: float) -> bool:
        """Wait for the next sample's time, at most ``timeout_s``."""
        if self.ended:
            return True
        now_ns = time.perf_counter_ns()
        if not self._begun:
            self._begun = True
            schedule.begin(now_ns)
        early_s = (schedule.due_ns - now_ns) / 1e9
        if early_s > timeout_s:
            time.sleep(timeout_s)
            return False
        if early_s > 0:
            time.sleep(early_s)
        self.ready_ns = schedule.due_ns
        schedule.advance(now_ns)
        return True


class EndlessSource:
    """Good samples in memory, for ever and at once; see ``Source`` for its attributes.

    Its ``take`` is bare: beside a keyword model of 25 us every step counts.
    """

    ready_ns = 0
    dropped = 0
    partial = 0
    ended = False

    def __init__(self, samples: Sequence[Sample]) -> None:
        following = itertools.cycle(samples).__next__

        def take(timeout_s: float) -> Sample:
            del timeout_s
            return following()

        self.take: Callable[[float], Sample | None] = take

    def replace(self, descriptor: int) -> None:
        """Close the pipe: memory has none."""
        os.close(descriptor)

    def close(self) -> None:
        """Give no sample any more."""
        self.take = lambda _timeout_s: None
        self.ended = True


def open_recorded(
    settings: FilesSource, start: int = 0
) -> RecordedSource | EndlessSource:
    """Return the source of a ``files`` table.

    Args:
        settings: The table.
        start: Samples to pass over, bad ones included; with ``loop`` modulo their
            number.

    Raises:
        DeviceError: There is nothing to read (``source_missing``), it is of no known
            kind or too large for ``memory`` (``source_failed``), or it needs Pillow
            (``input``).
    """
    files = find_files(Path(settings.path).expanduser())
    schedule = Schedule(settings.rate) if settings.rate else None
    if not settings.memory:
        items = read_from(files, settings.array, start, loop=settings.loop)
        return RecordedSource(items, schedule)
    kept = _preload(read_all(files, settings.array, loop=False))
    if settings.loop:
        first = start % len(kept)
        kept = kept[first:] + kept[:first]
        samples = [item for item in kept if not isinstance(item, InputError)]
        if schedule is None and len(samples) == len(kept):
            return EndlessSource(samples)
        return RecordedSource(itertools.cycle(kept), schedule)
    return RecordedSource(iter(kept[start:]), schedule)


def _preload(items: Iterator[Item]) -> list[Item]:
    """Return all items, if they fit and one of them is a sample."""
    kept: list[Item] = []
    total = 0
    for item in items:
        total += _bytes(item)
        if total > MAX_MEMORY_BYTES:
            raise DeviceError(
                f"more than {MAX_MEMORY_BYTES >> 20} MB of samples",
                reason=Reason.SOURCE_FAILED,
                todo="Set memory = false: files are then read as they are needed.",
            )
        kept.append(_own(item))
    if all(isinstance(item, InputError) for item in kept):
        raise DeviceError(
            f"no sample can be read: {kept[0]}", reason=Reason.SOURCE_FAILED
        )
    return kept


def _own(item: Item) -> Item:
    """Return a sample in arrays of its own.

    Rows of a file are views into bytes objects, from which a 27 kB picture takes 0.8 us
    longer to reach the tensor.
    """
    if isinstance(item, InputError):
        return item
    if isinstance(item, dict):
        return {name: np.array(array) for name, array in item.items()}
    return np.array(item)


def _bytes(item: Item) -> int:
    """Return what an item holds in memory."""
    if isinstance(item, InputError):
        return 0
    arrays = item.values() if isinstance(item, dict) else (item,)
    return sum(array.nbytes for array in arrays)
