"""Which reason an errno of the disk has, told once for everyone who writes files.

>>> str(disk_reason(28)), str(disk_reason(None))
('disk_full', 'state')
"""

import errno
from collections.abc import Mapping
from types import MappingProxyType

from agent.core.reasons import Reason
from agent.errors import DeviceError

_REASONS: Mapping[int, Reason] = MappingProxyType(
    {
        errno.ENOSPC: Reason.DISK_FULL,
        errno.EDQUOT: Reason.DISK_FULL,
        errno.EFBIG: Reason.DISK_FULL,  # a limit on file sizes is a quota, too
        errno.EROFS: Reason.READ_ONLY,
        errno.EACCES: Reason.PERMISSION,
        errno.EPERM: Reason.PERMISSION,
        errno.EMFILE: Reason.DESCRIPTORS,
        errno.ENFILE: Reason.DESCRIPTORS,
    }
)


def disk_reason(number: int | None) -> Reason:
    """Return the reason for an errno: ``state`` where nothing better is known."""
    return _REASONS.get(number or 0, Reason.STATE)


def disk_error(err: OSError, todos: Mapping[Reason, str]) -> DeviceError:
    """Return what the operating system says as the operator's or owner's to mend.

    Args:
        err: What it says.
        todos: What helps where this is about, by reason; without one the reason's own
            advice is given.
    """
    reason = disk_reason(err.errno)
    what = f"{err.filename}: {err.strerror}" if err.filename else str(err)
    return DeviceError(what, reason=reason, todo=todos.get(reason, ""))
