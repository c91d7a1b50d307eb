"""What a log's folder says at first sight: whose it is, and its newest checkpoints."""

import msgspec

from agent.audit.files import Folder
from agent.core.audit_layout import (
    IDENTITY,
    Frame,
    LogIdentity,
    file_of,
    parse_file_name,
    parse_frames,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError


def read_identity(folder: Folder) -> LogIdentity | None:
    """Return whose log a folder is; None where there is none.

    Raises:
        BundleRefusedError: ``log``: it is damaged.
    """
    raw = folder.read(IDENTITY, 0, 4096)
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw, type=LogIdentity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise damaged(f"{IDENTITY}: {err}") from err


def newest_frames(folder: Folder) -> list[Frame]:
    """Return the whole checkpoints of the last segment that has any."""
    found = [parse_file_name(name) for name in folder.names()]
    segments = sorted({it[0] for it in found if it and it[1] == "notes"}, reverse=True)
    for segment in segments:
        frames = parse_frames(folder.read(file_of(segment, "notes")))
        if frames:
            return frames
    return []


def damaged(what: str) -> BundleRefusedError:
    """Return the error for a log that is not what was signed."""
    return BundleRefusedError(what, reason=Reason.LOG)
