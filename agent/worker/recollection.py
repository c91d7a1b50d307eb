"""Recollection: lets a model that remembers follow one that began long before it.

A shadow joins in the middle. A model with a window answers when its window is full, so
one that begins later would answer at other moments than the active model, for ever:
where it is silent while the active one answers, it is begun anew on the last samples,
as many as its window takes. A model with state is no equal before it has forgotten how
it began: its first answers are not compared.

The rules this module keeps:
 * Where a sample is missing, everything begins anew: a window with a gap is no window.
 * What is kept is bounded, in samples and in bytes.
"""

from collections import deque

from agent.core.steps import Window
from agent.worker.model import LoadedModel
from agent.worker.samples import Array, Arrays, Sample

SETTLED = 16  # answers after which a recurrent state is taken for settled
MAX_KEPT_BYTES = 64 * 1024 * 1024  # 17 minutes of 16 kHz float audio


class Recollection:
    """Feeds one model the samples of a sequence, from anywhere in the middle.

    Args:
        model: Who follows.
        remembers: Whether it depends on earlier samples at all.
        max_kept_bytes: Of samples, for a window that begins again.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        remembers: bool,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._model = model
        self._max_kept_bytes = max_kept_bytes
        self._remembers = remembers
        steps = model.manifest.preprocess
        self._window = next((it for it in steps if isinstance(it, Window)), None)
        self._kept: deque[Sample] = deque()
        self._kept_bytes = 0
        self._last_seq = 0
        self._answers = 0

    @property
    def settled(self) -> bool:
        """Whether its answers may be compared."""
        return not self._model.manifest.state or self._answers > SETTLED

    def follow(self, seq: int, sample: Sample, *, answered: bool) -> Arrays | None:
        """Return the model's inputs for a sample; None if it has nothing to answer.

        Args:
            seq: Number of the sample.
            sample: As the source gave it.
            answered: Whether the active model answers this one.

        Raises:
            InputError: The sample does not become the model's input.
        """
        if self._remembers:
            self._remember(seq, sample)
        inputs = self._model.preprocess(sample)
        if inputs is None and answered and self._window is not None:
            inputs = self._begin_again(self._window)
        self._answers += inputs is not None
        return inputs

    def _remember(self, seq: int, sample: Sample) -> None:
        """Keep a sample; after a gap, nothing from before it."""
        if seq != self._last_seq + 1:
            self._model.reset()
            self._kept.clear()
            self._kept_bytes = self._answers = 0
        self._last_seq = seq
        if self._window is None:
            return
        self._kept.append(sample)
        self._kept_bytes += _bytes(sample)
        while (
            len(self._kept) > self._window.length
            or self._kept_bytes > self._max_kept_bytes
        ):
            self._kept_bytes -= _bytes(self._kept.popleft())

    def _begin_again(self, window: Window) -> Arrays | None:
        """Fill the window with the last samples; return what it then gives."""
        rows, first = 0, len(self._kept)
        while first and rows < window.length:
            first -= 1
            rows += _rows(self._kept[first], window)
        if rows < window.length:
            return None
        self._model.reset()
        self._answers = 0
        kept = list(self._kept)[first:]
        # Exactly as many rows as it takes: it answers when the last of them comes.
        kept[0] = _without(kept[0], rows - window.length, window)
        inputs = None
        for sample in kept:
            inputs = self._model.preprocess(sample)
        return inputs


def _arrays(sample: Sample) -> list[Array]:
    """Return the arrays of a sample."""
    return list(sample.values()) if isinstance(sample, dict) else [sample]


def _bytes(sample: Sample) -> int:
    """Return how long a sample is."""
    return sum(array.nbytes for array in _arrays(sample))


def _rows(sample: Sample, window: Window) -> int:
    """Return how many rows of the window a sample fills."""
    array = sample[_key(sample, window)] if isinstance(sample, dict) else sample
    many = window.sample_is == "rows" and array.ndim
    return len(array) if many else 1


def _without(sample: Sample, rows: int, window: Window) -> Sample:
    """Return a sample without its first rows."""
    if not rows:
        return sample
    if isinstance(sample, dict):
        key = _key(sample, window)
        return {**sample, key: sample[key][rows:]}
    return sample[rows:]


def _key(sample: dict[str, Array], window: Window) -> str:
    """Return which of a sample's arrays is windowed."""
    return window.input or next(iter(sample))
