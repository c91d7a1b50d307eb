"""The way of a sample to the model: per input a chain of steps, then the fit.

The rules this module keeps:
 * Everything that can be is computed by ``build_preprocess``; a step that contradicts
   itself or the model fails there, not at the first sample.
 * What is returned is never written again, so that callers may keep it; it may be the
   sample itself.
 * Whatever a step trips over in a sample leaves as ``InputError``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from agent.core.manifest import TensorSpec
from agent.core.steps import (
    Cast,
    Colour,
    Crop,
    Fill,
    LogMel,
    Mfcc,
    Normalise,
    Resize,
    Scale,
    Step,
    Window,
)
from agent.worker.preprocess.arrays import (
    build_cast,
    build_fill,
    build_normalise,
    build_scale,
    misfit,
)
from agent.worker.preprocess.audio import build_log_mel, build_mfcc
from agent.worker.preprocess.fit import Fit
from agent.worker.preprocess.images import build_colour, build_crop, build_resize
from agent.worker.preprocess.window import SlidingWindow
from agent.worker.samples import Array, InputError, Sample, check_finite

Performed = Callable[[Array], Array | None]


class Preprocess:
    """Turns samples into the model's inputs; made by ``build_preprocess``."""

    def __init__(self, lanes: tuple["Lane", ...]) -> None:
        self._lanes = lanes
        self._names = {lane.name for lane in lanes}
        first = lanes[0]
        # The short cut for samples that are tensors already: no chain, no copies.
        direct = len(lanes) == 1 and first.is_direct
        self._dtype = first.fit.dtype if direct else None
        self._shape = first.fit.shape
        self._row = first.fit.shape[1:] if first.fit.shape[:1] == (1,) else None
        self._finite = first.finite and first.fit.dtype.kind == "f"

    def __call__(self, sample: Sample) -> list[Array] | None:
        """Return one array per model input, or None while a window is filling.

        Raises:
            InputError: The sample cannot become the model's input.
        """
        if isinstance(sample, dict):
            return self._run(sample)
        if sample.dtype is self._dtype:
            shape = sample.shape
            if shape in (self._shape, self._row):
                if self._finite:
                    check_finite(sample, "the sample")
                return [sample if shape == self._shape else sample[None]]
        if len(self._lanes) != 1:
            raise InputError(f"the model takes a sample by name: {self._wanted()}")
        tensor = self._lanes[0](sample)
        return None if tensor is None else [tensor]

    def sample_path(self) -> Callable[[Sample], list[Array] | None]:
        """Return what the loop calls: for tensors that need no work, a bare closure.

        It costs 80 ns instead of the 210 of ``__call__``, of 2,400 that a keyword
        model leaves for everything.
        """
        if self._dtype is None or self._finite:
            return self
        dtype, shape, whole = self._dtype, self._shape, self.__call__

        def direct(sample: Sample) -> list[Array] | None:
            try:
                if sample.dtype is dtype and sample.shape == shape:  # type: ignore[union-attr]  # a dict has neither: below
                    return [sample]  # type: ignore[list-item]  # it is an array here
            except AttributeError:
                return whole(sample)
            return whole(sample)

        return direct

    def reset(self) -> None:
        """Forget what windows hold: the next sample is the first."""
        for lane in self._lanes:
            lane.reset()

    def _run(self, sample: dict[str, Array]) -> list[Array] | None:
        """Take each input's array by its name; every window advances."""
        if sample.keys() != self._names:
            got = ", ".join(sorted(sample)) or "nothing"
            raise InputError(f"the model takes {self._wanted()}; the sample has {got}")
        tensors = [lane(sample[lane.name]) for lane in self._lanes]
        whole = [tensor for tensor in tensors if tensor is not None]
        return whole if len(whole) == len(tensors) else None

    def _wanted(self) -> str:
        """List the names of the model's inputs."""
        return ", ".join(lane.name for lane in self._lanes)


class Lane:
    """The way of one model input."""

    def __init__(self, steps: tuple[Performed, ...], fit: Fit, *, finite: bool) -> None:
        self.name = fit.spec.name
        self.steps = steps
        self.fit = fit
        self.finite = finite

    @property
    def is_direct(self) -> bool:
        """Whether a sample of the tensor's own dtype and shape needs no work."""
        return not self.steps and self.fit.passes_own_dtype

    def __call__(self, sample: Array) -> Array | None:
        """Return the tensor, or None while a window is filling.

        Raises:
            InputError: The sample does not fit.
        """
        if self.finite and sample.dtype.kind == "f":
            check_finite(sample, self.name)
        try:
            return self._perform(sample)
        except (ValueError, TypeError, IndexError) as err:
            raise InputError(f"{self.name}: {err}") from err

    def reset(self) -> None:
        """Forget what windows hold."""
        for step in self.steps:
            if isinstance(step, SlidingWindow):
                step.reset()

    def _perform(self, sample: Array) -> Array | None:
        """Apply the steps in order, then the fit."""
        for step in self.steps:
            result = step(sample)
            if result is None:
                return None
            sample = result
        return self.fit(sample)


def build_preprocess(
    steps: Sequence[Step],
    inputs: Sequence[TensorSpec],
    io: Literal["raw", "float"] = "raw",
    *,
    finite: bool = True,
) -> Preprocess:
    """Build the way from a raw sample to the model's inputs.

    Args:
        steps: The manifest's steps, in order; each works on the input it names.
        inputs: The tensors a sample fills, in the model's order, without state.
        io: As in the manifest.
        finite: Refuse float samples with NaN or infinity; off for task ``raw``, and
            for inputs that a ``fill`` step mends.

    Raises:
        TrialFailedError: A step contradicts itself or names no input (``contract``).
        DeviceError: A step needs Pillow, which is not installed (``input``).
    """
    chains: dict[str, list[Performed]] = {spec.name: [] for spec in inputs}
    if not chains:
        raise misfit("no input is left to fill")
    for step in steps:
        name = step.input or inputs[0].name
        if name not in chains:
            raise misfit(f"the model has no input {name!r}")
        chains[name].append(build_step(step))
    filled = {step.input or inputs[0].name for step in steps if isinstance(step, Fill)}
    return Preprocess(
        tuple(
            Lane(
                tuple(chains[spec.name]),
                Fit(spec, io),
                finite=finite and spec.name not in filled,
            )
            for spec in inputs
        )
    )


def build_step(step: Step) -> Performed:
    """Return what performs one step.

    Raises:
        TrialFailedError: It contradicts itself (``contract``).
        DeviceError: It needs Pillow, which is not installed (``input``).
    """
    return _BUILDERS[type(step)](step)


# Any: each builder takes its own step, which a table's type cannot say.
_BUILDERS: dict[type, Callable[[Any], Performed]] = {
    Resize: build_resize,
    Crop: build_crop,
    Colour: build_colour,
    Normalise: build_normalise,
    Scale: build_scale,
    Fill: build_fill,
    Cast: build_cast,
    Window: SlidingWindow,
    LogMel: build_log_mel,
    Mfcc: build_mfcc,
}
