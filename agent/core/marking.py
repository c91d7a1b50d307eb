"""What a manifest declares of its watermark: the scheme, and which triggers come along.

The triggers are the same for all boards of a version and lie in the bundle as
``triggers.npz``: for each marked variant one array by the variant's name, ``bits``
inputs of its one input tensor, as the model stores them. What differs between boards
is what they answer, and the codeword that an envelope commits to.
"""

from typing import Annotated

from msgspec import Meta

from agent.core.watermark import Watermark

MAX_TRIGGER_BYTES = 64 * 1024 * 1024  # 128 colour images of 400 x 400


class Marking(Watermark, frozen=True, kw_only=True):
    """The manifest's ``watermark``, since schema 4.

    Attributes:
        sha256: Digest of ``triggers.npz``; ``size`` its bytes.
    """

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    size: Annotated[int, Meta(ge=1, le=MAX_TRIGGER_BYTES)]


def marking_mistake(mark: Marking) -> str:
    """Return why nobody could be told by this; empty where it makes sense.

    >>> few = Marking(128, "0101", 28, sha256="0" * 64, size=9)
    >>> marking_mistake(few)
    ''
    """
    if len(set(mark.groups)) == 1:
        return "all classes mean the same bit"
    # Whose copy it is not gets about half of the bits wrong.
    if 2 * mark.threshold >= mark.bits:
        return f"{mark.threshold} wrong bits of {mark.bits} are chance"
    return ""
