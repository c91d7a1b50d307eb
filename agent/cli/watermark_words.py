"""What ``tinyward watermark trace`` and the child that runs a suspect say."""

from msgspec import Struct


class RunThis(Struct, frozen=True):
    """Run a .tflite.

    Attributes:
        inputs: float32, real units, (count, ...).
    """

    content: bytes
    inputs: bytes
    count: int


class Answered(Struct, frozen=True):
    """What it answered.

    Attributes:
        outputs: float32, real units, (count, classes).
        error: Why there are none; empty means nothing.
    """

    outputs: bytes = b""
    error: str = ""
