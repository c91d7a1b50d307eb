"""What an auditor asks of the child that computes inferences anew, and what it says."""

import struct

import msgspec
from msgspec import Struct

from agent.cli.profile_words import Failed
from agent.core.rerun import Recomputed

HEAD = struct.Struct("<I")  # bytes of the message that follows


class Inference(Struct, frozen=True, array_like=True):
    """One kept sample; see ``agent.core.kept.KeptSample``."""

    seq: int
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    executor: str
    cpu: str


class Question(Struct, frozen=True):
    """Inferences of one model.

    Attributes:
        manifest: Bytes of manifest.json; ``variant`` which of its variants.
        content: The .tflite; ``sha256`` its digest, which may be a marked copy's.
        golden: The bundle's golden samples: the tolerance is learnt from them.
    """

    manifest: bytes
    variant: str
    content: bytes
    sha256: str
    golden: bytes
    inferences: tuple[Inference, ...]


class Told(Struct, frozen=True, tag="told"):
    """One inference was computed."""

    found: Recomputed


Said = Told | Failed
decoder: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)
