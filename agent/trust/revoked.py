"""What the owner revoked, remembered: it counts at boot, and without any network.

The note is named after the provisioned root, like the floors, and for the same reason.
Only ``TrustedRepository`` writes it, after the ``targets`` role's signature held.
"""

import hashlib
from collections.abc import Sequence

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
    return _parse(notes.load_note(_key(root)), root)


class KnownRevocations:
    """What was revoked, at hand for every request: half a megabyte, parsed once.

    Args:
        notes: The board's durable notes; ``NotesAtHand`` where nobody may wait.
        root: The provisioned root.json of the fleet.
    """

    def __init__(self, notes: Notes, root: bytes) -> None:
        self._notes = notes
        self._root = root
        # One value: whoever reads it in another thread sees both halves of a pair.
        self._known: tuple[bytes | None, Revocations] = (None, Revocations())

    @property
    def bundles(self) -> Sequence[str]:
        """The digests of revoked bundles.

        Raises:
            DeviceError: ``state``: the note is damaged; what was revoked is not known.
        """
        return self._current().bundles

    @property
    def operators(self) -> Sequence[str]:
        """The serial numbers (hex) of revoked client certificates.

        Raises:
            DeviceError: ``state``: the note is damaged; what was revoked is not known.
        """
        return self._current().operators

    def _current(self) -> Revocations:
        """Return what the note says, parsed again only if its bytes are others."""
        raw = self._notes.load_note(_key(self._root))
        parsed, known = self._known
        if raw != parsed:
            known = _parse(raw, self._root)
            self._known = (raw, known)
        return known


def same_as_noted(notes: Notes, root: bytes, sha256: str) -> bool:
    """Tell whether the note holds a file of this digest: no need to fetch it."""
    raw = notes.load_note(_key(root))
    return raw is not None and hashlib.sha256(raw).hexdigest() == sha256


def save_revoked(notes: Notes, root: bytes, raw: bytes) -> None:
    """Keep the bytes of a verified revoked.json; nothing is saved twice."""
    if notes.load_note(_key(root)) != raw:
        notes.save_note(_key(root), raw)


def _parse(raw: bytes | None, root: bytes) -> Revocations:
    """Return what the note's bytes say; without a note nothing is revoked."""
    if raw is None:
        return Revocations()
    try:
        return parse_revocations(raw)
    except BundleRefusedError as err:
        raise DeviceError(f"note {_key(root)}: {err}", reason=Reason.STATE) from err


def _key(root: bytes) -> str:
    """Return the note's name."""
    return f"trust.revoked.{hashlib.sha256(root).hexdigest()[:16]}"
