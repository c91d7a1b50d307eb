"""What a manifest declares of its watermark: the scheme, and which triggers come along.

The triggers are the same for all boards of a version and lie in the bundle as
``triggers.npz``: for each marked variant one array by the variant's name, ``bits``
inputs of its one input tensor, as the model stores them. What differs between boards
is what they answer, and the codeword that an envelope commits to.

``heads`` bounds what the signer of marks may do: ``targets`` signs the digest of the
bundle and with it these places, so a mark alters bytes of a head or is refused.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from msgspec import Meta, Struct

from agent.core.watermark import CHANCE, Watermark, false_match

MAX_TRIGGER_BYTES = 64 * 1024 * 1024  # 128 colour images of 400 x 400
# All heads of a version: what fits an envelope (``agent.core.sealing``).
MAX_HEAD_BYTES = 8 * 1024 * 1024
MAX_PLACES = 64  # weights, bias and the scales of both, of 16 variants


class HeadPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of one variant that may differ between boards.

    Attributes:
        variant: Its name.
        offset: Where they begin in its .tflite.
        length: How many there are.
    """

    variant: Annotated[str, Meta(max_length=64)]
    offset: Annotated[int, Meta(ge=0, le=2**40)]
    length: Annotated[int, Meta(ge=1, le=MAX_HEAD_BYTES)]

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length


class Marking(Watermark, frozen=True, kw_only=True):
    """The manifest's ``watermark``, since schema 4.

    Attributes:
        sha256: Digest of ``triggers.npz``; ``size`` its bytes.
        heads: Where marks may stand; whatever else they touch refuses them. Without
            any no copy can be marked.
    """

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    size: Annotated[int, Meta(ge=1, le=MAX_TRIGGER_BYTES)]
    heads: Annotated[tuple[HeadPlace, ...], Meta(max_length=MAX_PLACES)] = ()


def marking_mistake(mark: Marking) -> str:
    """Return why nobody could be told by this; empty where it makes sense.

    >>> few = Marking(128, "0101", 28, sha256="0" * 64, size=9)
    >>> marking_mistake(few)
    ''
    """
    if len(set(mark.groups)) == 1:
        return "all classes mean the same bit"
    # Whose copy it is not gets about half of the bits wrong, and now and then fewer:
    # 128 bits allow 36 wrong ones, and fewer than 24 bits tell nobody.
    chance = false_match(mark.bits, mark.threshold)
    if chance >= CHANCE:
        wrong = f"{mark.threshold} wrong bits of {mark.bits}"
        return f"{wrong} are chance: {chance:.0e}, at most {CHANCE:.0e} allowed"
    return ""


def heads_mistake(mark: Marking, sizes: Mapping[str, int]) -> str:
    """Return why the declared heads are none; empty where they make sense.

    Args:
        mark: What the manifest says.
        sizes: Variant -> bytes of its .tflite.

    >>> few = Marking(128, "0101", 28, sha256="0" * 64, size=9)
    >>> from msgspec.structs import replace
    >>> heads_mistake(replace(few, heads=(HeadPlace("int8", 90, 20),)), {"int8": 100})
    "a head lies outside of variant 'int8'"
    """
    if sum(place.length for place in mark.heads) > MAX_HEAD_BYTES:
        return f"heads of more than {MAX_HEAD_BYTES} bytes fit no envelope"
    ordered = sorted(mark.heads, key=lambda it: (it.variant, it.offset))
    for place in ordered:
        if place.end > sizes.get(place.variant, 0):
            return f"a head lies outside of variant {place.variant!r}"
    for before, place in pairwise(ordered):
        # Of two that overlap nobody could say how much they allow.
        if before.variant == place.variant and place.offset < before.end:
            return f"two heads of variant {place.variant!r} overlap"
    return ""
