"""Preprocess steps a manifest may name: what they are called and what they take.

The steps are performed by ``agent.worker.preprocess``; here they are only described,
so that the daemon can read a manifest without numpy. Each is applied to the sample,
in order; ``input`` names the model input it works on (empty: the only or first one).
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Size = Annotated[int, Meta(ge=1, le=16_384)]
Factor = Annotated[float, Meta(ge=-1e9, le=1e9)]


class StepBase(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="step",
):
    """What every step shares: the model input it works on."""

    input: str = ""


class Resize(StepBase, frozen=True, tag="resize"):
    """Scale an image (H, W, C) to ``height`` x ``width`` pixels (Pillow)."""

    width: Size = 1
    height: Size = 1
    method: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"


class Crop(StepBase, frozen=True, tag="crop"):
    """Cut the centre ``height`` x ``width`` pixels out of an image (H, W, C)."""

    width: Size = 1
    height: Size = 1


class Colour(StepBase, frozen=True, tag="colour"):
    """Convert an image between ``rgb``, ``bgr`` and ``gray`` (ITU-R BT.601 luma)."""

    source: Literal["rgb", "bgr", "gray"] = "rgb"
    to: Literal["rgb", "bgr", "gray"] = "rgb"


class Normalise(StepBase, frozen=True, tag="normalise"):
    """Per channel ``(x - mean) / std`` as float32; one value serves all channels."""

    mean: Annotated[tuple[Factor, ...], Meta(min_length=1, max_length=4096)] = (0.0,)
    std: Annotated[tuple[Factor, ...], Meta(min_length=1, max_length=4096)] = (1.0,)


class Scale(StepBase, frozen=True, tag="scale"):
    """``(x - offset) * factor`` as float32."""

    factor: Factor = 1.0
    offset: Factor = 0.0


class Fill(StepBase, frozen=True, tag="fill"):
    """Put ``value`` where a float sample has NaN or infinity: a sensor that is absent.

    Without it such a sample is refused (``input``).
    """

    value: Factor = 0.0


class Cast(StepBase, frozen=True, tag="cast"):
    """Convert to ``dtype``, rounding half to even and clipping to its range."""

    dtype: Literal["float32", "int8", "uint8", "int16"] = "float32"


class Window(StepBase, frozen=True, tag="window"):
    """Keep the last ``length`` rows and answer every ``hop`` rows once full.

    A sample is one ``row`` (a sensor's readings), or several ``rows`` along its first
    axis (a chunk of audio); it is answered at most once.
    """

    length: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
    hop: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
    sample_is: Literal["row", "rows"] = "row"


class LogMel(StepBase, frozen=True, tag="log_mel"):
    """Log-mel spectrogram of mono audio (samples,) -> (frames, mels), float32.

    Hann window (periodic), power spectrum, triangles on the Slaney or HTK mel scale
    (straight in Hz, peak 1, not normalised), natural log of ``max(power, floor)``;
    frames do not reach beyond the samples (no padding). int16 audio becomes -1..1.
    """

    sample_rate: Annotated[int, Meta(ge=1000, le=384_000)] = 16_000
    frame: Annotated[int, Meta(ge=16, le=65_536)] = 480
    hop: Annotated[int, Meta(ge=1, le=65_536)] = 320
    fft: Annotated[int, Meta(ge=16, le=65_536)] = 512
    mels: Annotated[int, Meta(ge=1, le=512)] = 40
    low_hz: Annotated[float, Meta(ge=0, le=192_000)] = 20.0
    high_hz: Annotated[float, Meta(gt=0, le=192_000)] = 4000.0
    scale: Literal["htk", "slaney"] = "htk"
    floor: Annotated[float, Meta(gt=0, le=1)] = 1e-6


class Mfcc(StepBase, frozen=True, tag="mfcc"):
    """Orthonormal DCT-II of the log-mel frames (frames, mels) -> (frames, count)."""

    count: Annotated[int, Meta(ge=1, le=512)] = 10


Step = Resize | Crop | Colour | Normalise | Scale | Fill | Cast | Window | LogMel | Mfcc
