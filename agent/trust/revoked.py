"""What the owner revoked, remembered: it counts at boot, and without any network.

The note is named after the provisioned root, like the floors, and for the same reason.
Only ``TrustedRepository`` writes it, after the ``targets`` role's signature held.
"""

import hashlib

from agent.core.reasons import Reason
from agent.core.targets import Revocations, parse_revocations
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.notes import Notes


def load_revoked(notes: Notes, root: bytes) -> Revocations:
    """Return what was revoked, as far as this board has heard of it.

    Args:
        notes: The board's durable notes.
        root: The provisioned root.json of the fleet.

    Raises:
        DeviceError: ``state``: the note is damaged; what was revoked is not known.
    """
    raw = notes.load_note(_key(root))
    if raw is None:
        return Revocations()
    try:
        return parse_revocations(raw)
    except BundleRefusedError as err:
        raise DeviceError(f"note {_key(root)}: {err}", reason=Reason.STATE) from err


def same_as_noted(notes: Notes, root: bytes, sha256: str) -> bool:
    """Tell whether the note holds a file of this digest: no need to fetch it."""
    raw = notes.load_note(_key(root))
    return raw is not None and hashlib.sha256(raw).hexdigest() == sha256


def save_revoked(notes: Notes, root: bytes, raw: bytes) -> None:
    """Keep the bytes of a verified revoked.json; nothing is saved twice."""
    if notes.load_note(_key(root)) != raw:
        notes.save_note(_key(root), raw)


def _key(root: bytes) -> str:
    """Return the note's name."""
    return f"trust.revoked.{hashlib.sha256(root).hexdigest()[:16]}"
