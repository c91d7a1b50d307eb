"""What may happen to a camera or to the world before it: shifts, known and held out.

The rules this module keeps:
 * ``KNOWN`` are the eighteen that the design was chosen on. ``HELD_OUT`` are as many of
   other kinds and sizes: nothing may be tuned on them.
 * Which shifts count as harmful is written down, so that a run cannot choose. All of
   them cost accuracy; so do some of the others, a little (gain.6 about 3 points).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Frames: TypeAlias = NDArray[np.float32]
Optics = Callable[[Frames], Frames]
Camera = Callable[[Frames, np.random.Generator], Frames]


def _same(frames: Frames) -> Frames:
    """Leave frames as they are."""
    return frames


def _plain(frames: Frames, _random: np.random.Generator) -> Frames:
    """Leave frames as they are."""
    return frames


@dataclass(frozen=True, slots=True)
class Shift:
    """One thing that happens.

    Attributes:
        optics: Before the camera's noise, on grey levels; ``camera`` after it.
        prior: Share of ``digit`` among what is seen, 0 as in the pool.
        novel: Share of a digit that the network never saw.
        harmful: It counts for the confidence tier, which is about harm.
    """

    name: str
    optics: Optics = _same
    camera: Camera = _plain
    prior: float = 0.0
    digit: int = 1
    novel: float = 0.0
    harmful: bool = False


NONE = Shift("none")


def add(level: float) -> Camera:
    """Return a shift of brightness by grey levels."""
    return lambda frames, _random: frames + np.float32(level)


def gain(factor: float) -> Camera:
    """Return a shift of exposure."""
    return lambda frames, _random: frames * np.float32(factor)


def gamma(power: float) -> Camera:
    """Return another tone curve."""
    return lambda frames, _random: (
        np.float32(255)
        * (np.clip(frames, 0, 255) / np.float32(255)) ** np.float32(power)
    )


def blur(sigma: float) -> Camera:
    """Return a softer image; of the noise, too, as by a video codec."""
    return lambda frames, _random: _filtered(frames, sigma)


def noise(sd: float) -> Camera:
    """Return more noise."""
    return lambda frames, random: (
        frames + np.float32(sd) * random.standard_normal(frames.shape, np.float32)
    )


def salt(share: float) -> Camera:
    """Return pixels that are white or black by chance."""

    def sprinkle(frames: Frames, random: np.random.Generator) -> Frames:
        chance = random.random(frames.shape, np.float32)
        white = np.where(chance < share / 2, np.float32(255), frames)
        return np.where(chance > 1 - share / 2, np.float32(0), white)

    return sprinkle


def rotate(degrees: float) -> Optics:
    """Return a camera that was turned."""
    return lambda frames: ndimage.rotate(
        frames, degrees, (1, 2), reshape=False, order=1, mode="nearest"
    )


def zoom(factor: float) -> Optics:
    """Return a lens of another focal length."""
    middle = 15.5  # of 32 pixels
    offset = (0.0, middle - middle / factor, middle - middle / factor)
    return lambda frames: ndimage.affine_transform(
        frames, (1.0, 1 / factor, 1 / factor), offset, order=1, mode="nearest"
    )


def moved(rows: int, columns: int) -> Optics:
    """Return a camera that looks elsewhere."""
    return lambda frames: np.roll(frames, (rows, columns), (1, 2))


def mirror(frames: Frames) -> Frames:
    """Return a camera mounted the other way round."""
    return frames[:, :, ::-1]


def patch(top: int, left: int, side: int, level: float) -> Camera:
    """Return something before the lens: a square of one grey level."""

    def cover(frames: Frames, _random: np.random.Generator) -> Frames:
        covered = frames.copy()
        covered[:, top : top + side, left : left + side] = level
        return covered

    return cover


def dead_rows(*rows: int) -> Camera:
    """Return a sensor some of whose rows are black."""

    def blacken(frames: Frames, _random: np.random.Generator) -> Frames:
        covered = frames.copy()
        covered[:, list(rows)] = 0
        return covered

    return blacken


def vignette(depth: float) -> Camera:
    """Return darker corners."""
    at = np.linspace(-1, 1, 32)
    shade = 1 - depth * (at[:, None] ** 2 + at[None, :] ** 2) / 2
    factor = shade.astype(np.float32)
    return lambda frames, _random: frames * factor


def _filtered(frames: Frames, sigma: float) -> Frames:
    """Blur each frame."""
    soft: Frames = ndimage.gaussian_filter(frames, (0, sigma, sigma), mode="nearest")
    return soft


KNOWN: tuple[Shift, ...] = (
    Shift("bright+10", camera=add(10)),
    Shift("bright+40", camera=add(40)),
    Shift("gain.9", camera=gain(0.9)),
    Shift("gain.6", camera=gain(0.6)),
    Shift("blur.6", camera=blur(0.6)),
    Shift("blur1.5", camera=blur(1.5)),
    Shift("noise+3", camera=noise(6.7)),  # sd 6 becomes 9: variances add up
    Shift("noise+20", camera=noise(25)),
    Shift("dead1", camera=dead_rows(10)),
    Shift("prior.25", prior=0.25),
    Shift("prior.6", prior=0.6),
    Shift("rot10", rotate(10), harmful=True),
    Shift("rot25", rotate(25), harmful=True),
    Shift("occl6", camera=patch(11, 14, 6, 200), harmful=True),
    Shift("occl12", camera=patch(10, 10, 12, 128), harmful=True),
    Shift("dead4", camera=dead_rows(10, 14, 18, 22), harmful=True),
    Shift("novel10", novel=0.1, harmful=True),
    Shift("novel40", novel=0.4, harmful=True),
)
HELD_OUT: tuple[Shift, ...] = (
    Shift("bright-15", camera=add(-15)),
    Shift("gain1.2", camera=gain(1.2)),
    Shift("gamma.8", camera=gamma(0.8)),
    Shift("gamma1.4", camera=gamma(1.4)),
    Shift("blur1", camera=blur(1)),
    Shift("noise+8", camera=noise(12.6)),
    Shift("salt1%", camera=salt(0.01)),
    Shift("vignette.3", camera=vignette(0.3)),
    Shift("dead_edge", camera=dead_rows(31)),
    Shift("prior.4", prior=0.4, digit=7),
    Shift("rot-15", rotate(-15), harmful=True),
    Shift("zoom.75", zoom(0.75), harmful=True),
    Shift("zoom1.3", zoom(1.3), harmful=True),
    Shift("moved5", moved(5, 3), harmful=True),
    Shift("mirror", mirror, harmful=True),
    Shift("occl8_dark", camera=patch(8, 14, 8, 20), harmful=True),
    Shift("salt8%", camera=salt(0.08), harmful=True),
    Shift("novel25", novel=0.25, harmful=True),
)
COLD_START = ("bright+40", "rot10", "occl6", "gain.6")  # there from the first sample on


def ramp(name: str, share: float) -> Shift:
    """Return how a slow shift looks after ``share`` of its way."""
    ends: dict[str, Callable[[float], Shift]] = {
        "bright": lambda s: Shift(name, camera=add(40 * s)),
        "gain": lambda s: Shift(name, camera=gain(1 - 0.4 * s)),
        "noise": lambda s: Shift(name, camera=noise(25 * s)),
        "blur": lambda s: Shift(name, camera=blur(max(1.5 * s, 0.05))),
    }
    return ends[name](share)


RAMPS = ("bright", "gain", "noise", "blur")
