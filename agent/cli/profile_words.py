"""What ``tinyward profile`` and the child that runs the model say to each other.

One question goes to the child; words come back, each behind its length (``HEAD``).
"""

import struct

import msgspec
from msgspec import Struct

from agent.core.profile import Kind, Projection
from agent.core.reasons import Reason

HEAD = struct.Struct("<I")  # length of the message that follows
MAX_SAMPLES = 200_000  # thresholds are no better for more, and 40 features fill 32 MB


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """What the child is asked to run, once.

    Attributes:
        manifest: As in the bundle.
        variant: Which variant; ``content`` its .tflite bytes.
        parts: Files and folders of samples, each a recording of its own.
        array: Which array of an .npz.
        boundaries: Samples (by number, over all parts) at which another recording
            begins: windows and state are reset there.
        limit: Read at most so many.
        tensor: Output to be seen along principal axes; empty means none.
        kind: How the input is looked at; None means as its shape suggests.
        shifts: Also read samples that are changed on purpose, for the report.
        seed: Of the noise that such changes add.
    """

    manifest: bytes
    variant: str
    content: bytes
    parts: tuple[str, ...]
    array: str = ""
    boundaries: tuple[int, ...] = ()
    limit: int = MAX_SAMPLES
    tensor: str = ""
    kind: Kind | None = None
    shifts: bool = False
    seed: int = 0


class Word(Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of what the child says."""


class Done(Word, frozen=True):
    """So many samples were read."""

    samples: int


class ShiftedRows(Struct, frozen=True, forbid_unknown_fields=True):
    """Features (float32) of samples that were changed on purpose."""

    name: str
    meaning: str
    values: bytes


class Features(Word, frozen=True):
    """Everything that was read; the last word.

    Attributes:
        names: Of the ``d`` features; ``inputs`` and ``outputs`` their columns.
        kind: How the input was looked at; ``classes``, ``logits`` and ``notes`` as the
            reader says.
        values: (n, d) float32; ``index`` (n) int32 and ``score`` (n) float32 are the
            answers, ``confidence`` (n) float32 with -1 for none.
        number: (n) int64: which sample each row is; a window answers fewer.
        part: (n) int32: which part each came from.
        samples: How many there were, bad ones and those without an answer included.
        failed: How many were bad, ``failure`` what was wrong with the first.
        invalid: How many rows had NaN or infinity in them, which are left out.
        more: There were more than ``limit``.
        projection: How the tensor was looked at.
        centre, precision: float32, see ``Reference``.
        shifts: The same samples, changed.
    """

    names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: Kind
    values: bytes
    index: bytes
    score: bytes
    confidence: bytes
    number: bytes
    part: bytes
    samples: int
    classes: int = 0
    logits: bool = False
    notes: tuple[str, ...] = ()
    failed: int = 0
    failure: str = ""
    invalid: int = 0
    more: bool = False
    projection: Projection | None = None
    centre: bytes = b""
    precision: bytes = b""
    shifts: tuple[ShiftedRows, ...] = ()


class Failed(Word, frozen=True):
    """An error of ours that ended the child."""

    branch: str
    message: str
    reason: Reason = Reason.NONE
    todo: str = ""


Said = Done | Features | Failed
decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
