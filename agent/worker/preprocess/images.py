"""Steps on images (height, width, channels): resize, crop, colour.

Images of two axes are taken as one channel. Pillow is imported when a resize is built,
and only then: models that need none do not pay for it.

The rules this module keeps: those of ``agent.worker.preprocess.arrays``.
"""

from collections.abc import Callable

import numpy as np

from agent.core.steps import Colour, Crop, Resize
from agent.worker.pictures import import_pillow
from agent.worker.preprocess.arrays import Transform
from agent.worker.samples import Array, InputError

# ITU-R BT.601 luma in 16 bit fixed point, rounded: the very arithmetic of Pillow and
# libjpeg, so that a gray picture is the same wherever it was converted.
_LUMA = np.array([19595, 38470, 7471], np.uint32)
_HALF = np.uint32(0x8000)
_LUMA_FLOAT = np.array([0.299, 0.587, 0.114], np.float32)


def as_image(x: Array) -> Array:
    """Return an array as (height, width, channels).

    Raises:
        InputError: It is no image.
    """
    if x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3 or x.size == 0:
        raise InputError(f"an array of shape {x.shape} is no image (H, W, C)")
    return x


def build_crop(step: Crop) -> Transform:
    """Return the cut of the centre; an odd margin leaves its pixel at the end."""
    height, width = step.height, step.width

    def crop(x: Array) -> Array:
        image = as_image(x)
        top, left = image.shape[0] - height, image.shape[1] - width
        if top < 0 or left < 0:
            raise InputError(
                f"crop: {width} x {height} pixels do not fit into "
                f"{image.shape[1]} x {image.shape[0]}"
            )
        top, left = top // 2, left // 2
        return image[top : top + height, left : left + width]

    return crop


def build_colour(step: Colour) -> Transform:
    """Return the conversion between channel orders, or to and from gray."""
    channels = 1 if step.source == "gray" else 3
    convert = _conversion(step)

    def colour(x: Array) -> Array:
        image = as_image(x)
        if image.shape[2] != channels:
            raise InputError(
                f"colour: {step.source} has {channels} channel(s), "
                f"this image has {image.shape[2]}"
            )
        return convert(image)

    return colour


def _conversion(step: Colour) -> Transform:
    """Choose the conversion once, so that a sample does not ask again."""
    if step.source == step.to:
        return lambda image: image
    if step.source == "gray":
        return lambda image: np.repeat(image, 3, axis=2)
    if step.to != "gray":
        return lambda image: np.ascontiguousarray(image[:, :, ::-1])
    if step.source == "bgr":
        return lambda image: _luma(image[:, :, ::-1])
    return _luma


def _luma(image: Array) -> Array:
    """Return the gray of an RGB image in its own dtype, (H, W, 1)."""
    if image.dtype == np.uint8:
        total = image.astype(np.uint32) @ _LUMA
        return ((total + _HALF) >> 16).astype(np.uint8)[:, :, None]
    if image.dtype.kind != "f":
        raise InputError(f"colour: no luma of {image.dtype}; cast to uint8 or float32")
    return (image.astype(np.float32, copy=False) @ _LUMA_FLOAT)[:, :, None]


def build_resize(step: Resize) -> Transform:
    """Return the scaling by Pillow; uint8 images stay uint8, others become float32.

    Raises:
        DeviceError: Pillow is not installed (``input``).
    """
    pillow = import_pillow()
    method = {
        "nearest": pillow.Resampling.NEAREST,
        "bilinear": pillow.Resampling.BILINEAR,
        "bicubic": pillow.Resampling.BICUBIC,
        "area": pillow.Resampling.BOX,
    }[step.method]
    size = (step.width, step.height)
    wanted = (step.height, step.width)

    def one(plane: Array) -> Array:
        return np.asarray(pillow.fromarray(plane).resize(size, method))

    def resize(x: Array) -> Array:
        image = as_image(x)
        if image.shape[:2] == wanted:
            return image
        return _resized(image, one)

    return resize


def _resized(image: Array, one: Callable[[Array], Array]) -> Array:
    """Apply a resize to what Pillow can hold: bytes of 1 or 3 channels, or a plane."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return one(np.ascontiguousarray(image))
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
    planes = [
        one(np.ascontiguousarray(image[:, :, channel]))
        for channel in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)
