"""Video pictures of 4:2:0 subsampled YCbCr as RGB.

ITU-R BT.601, limited range (luma 16..235, chroma 16..240): what cameras, V4L2 and
ffmpeg mean by yuv420p and nv12 unless told otherwise. Chroma is repeated, not
interpolated: what ``swscale`` does by default.

The rules this module keeps: all buffers are made once; the picture that is returned is
written again by the next.
"""

import numpy as np

from agent.worker.samples import Array

_LUMA_GAIN = np.float32(255.0 / 219.0)
# Black is 16; the half rounds when the fraction is cut off at the end.
_LUMA_SHIFT = np.float32(0.5 - 16.0 * 255.0 / 219.0)
_CHROMA_GAIN = 255.0 / 224.0
_KR, _KB = 0.299, 0.114  # BT.601's shares of red and blue in luma
_KG = 1.0 - _KR - _KB
_CR_TO_RED = 2.0 * (1.0 - _KR) * _CHROMA_GAIN
_CB_TO_BLUE = 2.0 * (1.0 - _KB) * _CHROMA_GAIN
# What one step of (Cb, Cr) adds to red, green and blue.
_TINTS = (
    (0.0, _CR_TO_RED),
    (-_CB_TO_BLUE * _KB / _KG, -_CR_TO_RED * _KR / _KG),
    (_CB_TO_BLUE, 0.0),
)


class YuvDecoder:
    """Turns frames of one geometry into (height, width, 3) uint8 RGB.

    Args:
        size: (height, width), both even.
        stride: Bytes from one row of luma to the next.
        interleaved: Cb and Cr alternate in one plane (nv12), otherwise each has its
            own, with half the stride (yuv420p).
    """

    def __init__(
        self, size: tuple[int, int], stride: int, *, interleaved: bool
    ) -> None:
        self._size, self._stride = size, stride
        self._interleaved = interleaved
        height, width = size
        # Rows in pairs, because a row of chroma serves two rows of luma.
        self._luma = np.zeros((height // 2, 2, width), np.float32)
        self._mixed = np.zeros((height // 2, 2, width), np.float32)
        self._chroma = np.zeros((2, height // 2, width // 2), np.float32)
        self._tint = np.zeros((height // 2, width), np.float32)
        self._rgb = np.zeros((height // 2, 2, width, 3), np.uint8)

    def __call__(self, frame: bytearray | bytes) -> Array:
        """Return a frame's picture, valid until the next call."""
        pixels = np.frombuffer(frame, np.uint8)
        self._read_luma(pixels)
        self._read_chroma(pixels)
        for channel, (from_cb, from_cr) in enumerate(_TINTS):
            self._paint(channel, np.float32(from_cb), np.float32(from_cr))
        height, width = self._size
        return self._rgb.reshape(height, width, 3)

    def _read_luma(self, pixels: Array) -> None:
        """Spread luma to 0..255 as float32."""
        (height, width), stride = self._size, self._stride
        rows = pixels[: height * stride].reshape(height // 2, 2, stride)
        np.multiply(rows[:, :, :width], _LUMA_GAIN, out=self._luma)
        np.add(self._luma, _LUMA_SHIFT, out=self._luma)

    def _read_chroma(self, pixels: Array) -> None:
        """Take Cb and Cr apart, as float32 around 0."""
        (height, width), stride = self._size, self._stride
        planes = pixels[height * stride :]
        rows, columns = height // 2, width // 2
        if self._interleaved:
            pairs = planes.reshape(rows, stride)[:, :width].reshape(rows, columns, 2)
            both = pairs.transpose(2, 0, 1)
        else:
            both = planes.reshape(2, rows, stride // 2)[:, :, :columns]
        np.subtract(both, np.float32(128.0), out=self._chroma)

    def _paint(self, channel: int, from_cb: np.float32, from_cr: np.float32) -> None:
        """Fill one channel of the picture: luma plus what chroma adds."""
        cb, cr = self._chroma
        narrow = cb * from_cb + cr * from_cr
        self._tint[:, 0::2] = narrow
        self._tint[:, 1::2] = narrow
        mixed = self._mixed
        np.add(self._luma, self._tint[:, None, :], out=mixed)
        np.maximum(mixed, 0.0, out=mixed)
        np.minimum(mixed, 255.0, out=mixed)
        np.copyto(self._rgb[..., channel], mixed, casting="unsafe")
