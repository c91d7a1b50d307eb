"""Opening an envelope: the content key of a sealed bundle, and the board's own marks.

The rules this module keeps:
 * An envelope opens for one board, one target and one version (HPKE's ``info``).
 * It is untrusted until it has opened; after that it is known to come from somebody
   who knows the board's public key, which is anybody: a content key is believed because
   the content then has the signed digest, marks because they are signed themselves.
 * Raises ``BundleRefusedError`` (``envelope``) only, for any bytes.
"""

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag

from agent.core.reasons import Reason
from agent.core.sealing import (
    KEY_BYTES,
    Marks,
    Sealed,
    hpke_context,
    most_envelope_bytes,
)
from agent.core.targets import bundle_path
from agent.errors import BundleRefusedError
from agent.trust.marks import check_marks, parse_signed_marks
from agent.trust.seal_key import SealKey


@dataclass(frozen=True, slots=True)
class Contents:
    """What an envelope held.

    Attributes:
        key: The content key.
        marks: Signed for this board and version; None where all run the same bytes.
    """

    key: bytes = field(repr=False)
    marks: Marks | None = field(default=None, repr=False)


def open_envelope(
    envelope: bytes, key: SealKey, board: str, sealed: Sealed
) -> Contents:
    """Open a board's envelope.

    Raises:
        BundleRefusedError: ``envelope``: it is another board's or version's, for
            another key, or holds marks where there are to be none, or the reverse.
    """
    target = bundle_path(sealed.model, sealed.version)
    # Again, as it may come from the board's own disk and not from a repository.
    if len(envelope) > most_envelope_bytes(sealed.sealing):
        raise _refused(f"it has {len(envelope)} bytes", sealed)
    try:
        held = key.unwrap(envelope, hpke_context(board, target, sealed.version))
    except (InvalidTag, ValueError) as err:
        what = f"it does not open with the key of {board}"
        raise _refused(what, sealed) from err
    except ImportError as err:
        raise BundleRefusedError(
            f"{target} is sealed, and this board's cryptography has no HPKE",
            reason=Reason.ENVELOPE,
            todo="`pip install 'cryptography>=50'` beside the agent.",
        ) from err
    if len(held) < KEY_BYTES:
        raise _refused("it holds no content key", sealed)
    # Strict both ways: a marked version without marks would run as nobody's copy.
    public = sealed.sealing.marks
    if bool(public) != (len(held) > KEY_BYTES):
        what = "it lacks the board's marks" if public else "it holds unannounced marks"
        raise _refused(what, sealed)
    if not public:
        return Contents(held)
    marks = parse_signed_marks(held[KEY_BYTES:], public)
    check_marks(marks, board, target, sealed.plain_sha256)
    return Contents(held[:KEY_BYTES], marks)


def _refused(what: str, sealed: Sealed) -> BundleRefusedError:
    """Return the error for an envelope that is not for this board and version."""
    return BundleRefusedError(
        f"envelope of {sealed.model} {sealed.version}: {what}",
        reason=Reason.ENVELOPE,
        todo="Seal it for the key that `tinyward identity show` prints, and publish.",
    )
