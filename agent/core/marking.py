"""What a manifest says of its watermark: how answers to triggers are read as bits.

The triggers are the same for all boards of a version and lie in the bundle as
``triggers.npz``: for each marked variant one array by the variant's name, ``bits``
inputs of its one input tensor, as the model stores them. What differs between boards
is what they answer, and the codeword that an envelope commits to.

Scheme: ``class-parity-v1``, after BlackMarks (arXiv 1904.00344): a class means a bit.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_BITS = 256
MAX_TRIGGER_BYTES = 64 * 1024 * 1024  # 128 colour images of 400 x 400
TRIGGERS_ENTRY = "triggers.npz"

DigestHex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class Watermark(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The manifest's ``watermark``, since schema 4.

    Attributes:
        bits: Triggers, and bits of a codeword.
        groups: The bit that each class means, in the model's order of classes.
        max_errors: Bits that a board's own copy may answer otherwise.
        sha256: Digest of ``triggers.npz``; ``size`` its bytes.
    """

    scheme: Literal["class-parity-v1"]
    bits: Annotated[int, Meta(ge=8, le=MAX_BITS)]
    groups: Annotated[str, Meta(pattern=r"^[01]{2,5000}$(?!\n)")]
    max_errors: Annotated[int, Meta(ge=0, lt=MAX_BITS // 2)]
    sha256: DigestHex
    size: Annotated[int, Meta(ge=1, le=MAX_TRIGGER_BYTES)]

    def mistake(self) -> str:
        """Return why nobody could be told by this; empty where it makes sense.

        >>> mark = Watermark("class-parity-v1", 128, "0101", 25, "0" * 64, 9)
        >>> mark.mistake()
        ''
        """
        if len(set(self.groups)) < 2:
            return "all classes mean the same bit"
        # A coin that is thrown for each bit is wrong half the time.
        if 2 * self.max_errors >= self.bits:
            return f"{self.max_errors} errors of {self.bits} bits are chance"
        return ""
