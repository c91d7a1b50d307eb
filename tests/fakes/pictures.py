"""Small JPEG pictures of noise: each kind that a stream of them may hold."""

import io

import numpy as np
from PIL import Image


def make_jpeg(seed: int, width: int = 16, **options: object) -> bytes:
    """Return a JPEG of noise, 24 rows, saved with Pillow's ``options``."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


PLAIN = make_jpeg(1)
PROGRESSIVE = make_jpeg(2, progressive=True, quality=95)
# 20 blocks: every one of the eight restart markers occurs.
RESTARTING = make_jpeg(3, width=160, restart_marker_blocks=1)
# A thumbnail inside a segment: whole JPEG bytes, SOI and EOI included.
_SEGMENT = b"\xff\xe1" + (len(PLAIN) + 2).to_bytes(2, "big") + PLAIN
NESTED = PLAIN[:2] + _SEGMENT + PLAIN[2:]
# Any number of FF may stand before a marker (T.81 B.1.1.2).
_SCAN = PLAIN.index(b"\xff\xda")
FILLED = PLAIN[:_SCAN] + b"\xff\xff\xff" + PLAIN[_SCAN:-2] + b"\xff" + PLAIN[-2:]
