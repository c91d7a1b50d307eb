"""Frames: where one ends in a program's bytes, and how it becomes a sample.

The rules this module keeps:
 * A framing asks for bytes by handing out the memory they go to, so that a frame is
   never copied on its way in; how much it holds is bounded.
 * Decoded pixels and values are views of the frame where the layout allows it.
"""

import io
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from agent.core.flow import BoardSource, CommandSource
from agent.worker.pictures import decode_picture, import_pillow
from agent.worker.samples import Array
from agent.worker.sources.jpeg import JpegSplitter
from agent.worker.sources.media import decode_pcm
from agent.worker.sources.yuv import YuvDecoder

Frame = bytearray | bytes
Decoder = Callable[[Frame], Array]

BOARD_VALUES = 8  # as listed by ``BoardSource``
CHUNK_BYTES = 64 * 1024  # what a pipe holds unless it was enlarged


class Framing(Protocol):
    """Cuts a stream of bytes into frames.

    Attributes:
        partial: Frames that were begun and never completed.
    """

    partial: int

    def space(self) -> memoryview:
        """Return where the next bytes have to be written; never empty."""

    def filled(self, count: int) -> Sequence[Frame]:
        """Take note of ``count`` bytes written there; return the frames completed."""

    def reuse(self, frame: Frame | None) -> None:
        """Take back a frame that nobody needs any more."""

    def abandon(self) -> None:
        """The stream has ended: what was begun stays incomplete."""


class SizedFraming:
    """Frames of a fixed size, in buffers that are used again."""

    def __init__(self, frame_bytes: int) -> None:
        self.partial = 0
        self._frame_bytes = frame_bytes
        self._spare: list[bytearray] = []
        self._held = 0
        self._begin()

    def space(self) -> memoryview:
        """Return the rest of the frame being filled."""
        return self._view[self._held :]

    def filled(self, count: int) -> Sequence[Frame]:
        """Return the frame, once it is full."""
        self._held += count
        if self._held < self._frame_bytes:
            return ()
        done = self._filling
        self._begin()
        return (done,)

    def reuse(self, frame: Frame | None) -> None:
        """Keep a frame's memory for one that comes later."""
        if isinstance(frame, bytearray):
            self._spare.append(frame)

    def abandon(self) -> None:
        """Count half a frame, and begin anew."""
        if self._held:
            self.partial += 1
        self._held = 0

    def _begin(self) -> None:
        """Fill a spare frame, or a new one while there are fewer than are needed."""
        self._filling = (
            self._spare.pop() if self._spare else bytearray(self._frame_bytes)
        )
        self._view = memoryview(self._filling)
        self._held = 0


class JpegFraming:
    """Pictures of an mjpeg stream."""

    def __init__(self) -> None:
        self.partial = 0
        self._splitter = JpegSplitter()
        self._chunk = memoryview(bytearray(CHUNK_BYTES))

    def space(self) -> memoryview:
        """Return the chunk that is searched next."""
        return self._chunk

    def filled(self, count: int) -> Sequence[Frame]:
        """Return the pictures that these bytes complete."""
        pictures = self._splitter.feed(self._chunk[:count])
        self.partial = self._splitter.partial
        return pictures

    def reuse(self, frame: Frame | None) -> None:
        """Pictures are of any size; their memory is not kept."""

    def abandon(self) -> None:
        """Count half a picture, and begin anew."""
        self._splitter.abandon()
        self.partial = self._splitter.partial


def build_framing(settings: CommandSource | BoardSource) -> Framing:
    """Return what cuts the bytes of a source into frames."""
    if isinstance(settings, BoardSource):
        return SizedFraming(BOARD_VALUES * 4)
    if settings.format == "mjpeg":
        return JpegFraming()
    return SizedFraming(frame_bytes(settings))


def frame_bytes(settings: CommandSource) -> int:
    """Return the size of a frame, padding included; 0 where sizes vary."""
    if settings.format == "mjpeg":
        return 0
    if settings.format in ("s16le", "f32le"):
        return settings.values * (2 if settings.format == "s16le" else 4)
    rows = settings.height
    if settings.format in ("yuv420p", "nv12"):
        rows += settings.height // 2  # both chroma planes: half as many bytes
    return rows * _stride(settings)


def build_decoder(settings: CommandSource | BoardSource) -> Decoder:
    """Return what makes samples of frames; see ``CommandSource.format``.

    Pixels become uint8 (height, width, 3) RGB or (height, width, 1), 16 bit sound
    float32 in -1..1, ``f32le`` float32. A sample is valid until the next.

    Raises:
        DeviceError: ``mjpeg`` needs Pillow, which is not installed (``input``).
    """
    if isinstance(settings, BoardSource) or settings.format == "f32le":
        return lambda frame: np.frombuffer(frame, "<f4")
    if settings.format == "s16le":
        return decode_pcm
    if settings.format == "mjpeg":
        import_pillow()
        return lambda frame: decode_picture(io.BytesIO(frame), "a frame")
    size = (settings.height, settings.width)
    if settings.format in ("yuv420p", "nv12"):
        interleaved = settings.format == "nv12"
        return YuvDecoder(size, _stride(settings), interleaved=interleaved)
    return _build_pixels(settings)


def _build_pixels(settings: CommandSource) -> Decoder:
    """Return a view of packed pixels that steps over padding; BGR is read backwards."""
    channels = 1 if settings.format == "gray8" else 3
    shape = (settings.height, settings.width, channels)
    strides = (_stride(settings), channels, 1)
    backwards = settings.format == "bgr24"

    def pixels(frame: Frame) -> Array:
        view: Array = np.ndarray(shape, np.uint8, frame, 0, strides)
        return view[:, :, ::-1] if backwards else view

    return pixels


def _stride(settings: CommandSource) -> int:
    """Return the bytes from one row to the next."""
    return settings.stride or settings.row_bytes
