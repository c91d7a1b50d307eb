"""Pictures: the one door to Pillow, which is imported only where pictures appear."""

import struct
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.samples import MAX_SAMPLE_BYTES, Array, InputError

if TYPE_CHECKING:
    from types import ModuleType

# What Pillow's decoders let out when a file is damaged, beside its own errors.
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error)


def import_pillow() -> "ModuleType":
    """Return ``PIL.Image``.

    Raises:
        DeviceError: Pillow is not installed (``input``).
    """
    try:
        from PIL import Image
    except ImportError as err:
        raise DeviceError(
            "images need Pillow, which is not installed; "
            "run: pip install 'tinyward[image]'",
            reason=Reason.INPUT,
            todo="Run: pip install 'tinyward[image]'",
        ) from err
    return Image


def decode_picture(file: Path | IO[bytes], name: str) -> Array:
    """Return a picture as uint8 (height, width, 3) RGB, or (height, width, 1) gray.

    Transparency and palettes are resolved; EXIF orientation is not applied.

    Raises:
        InputError: ``name`` is no picture, is damaged, or is too large.
        DeviceError: Pillow is not installed (``input``).
    """
    pillow = import_pillow()
    try:
        with pillow.open(file) as picture:
            if picture.width * picture.height * 3 > MAX_SAMPLE_BYTES:
                raise InputError(f"{name}: {picture.size} pixels are too many")
            mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
            pixels = np.asarray(picture.convert(mode))
    except (*_DAMAGED, pillow.DecompressionBombError) as err:
        raise InputError(
            f"{name}: no picture that Pillow can read: {err}",
            todo="Check the file, or the source's format.",
        ) from err
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
