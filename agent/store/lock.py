"""The lock on a state directory, and whose directory it is.

The rules this module keeps:
 * ``flock`` belongs to the open file, so the kernel releases it however a daemon ends;
   the process id inside is only there to name the holder.
 * A directory of another user is refused, for root too: what root creates in it, its
   owner's daemon could not write any more.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.store.atomic import device_error, device_errors

LOCK_FILE = "lock"


def take_directory(state_dir: Path) -> int:
    """Create a state directory where it is missing, lock it, and return the lock.

    Returns:
        A descriptor; closing it releases the lock.

    Raises:
        DeviceError: ``permission`` (another user's, or not writable), ``locked`` (the
            message names the process), ``read_only``, ``disk_full`` or ``state``.
    """
    with device_errors(state_dir):
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(state_dir)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(state_dir / LOCK_FILE, flags, 0o600)
    try:
        _lock(descriptor, state_dir)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_owner(state_dir: Path) -> None:
    """This user's directory, and closed to all others."""
    found = state_dir.stat()
    user = os.geteuid()
    if found.st_uid != user:
        owner = _user(found.st_uid)
        # Giving a service's directory to another user would end the service.
        raise DeviceError(
            f"{state_dir} belongs to {owner}, this is {_user(user)}",
            reason=Reason.PERMISSION,
            todo="Run as its owner (the service: `sudo systemctl start tinyward`), or "
            "choose another `state_dir`.",
        )
    if found.st_mode & 0o077:
        state_dir.chmod(0o700)


def _lock(descriptor: int, state_dir: Path) -> None:
    """Take the lock or name its holder."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        holder = _holder(os.pread(descriptor, 32, 0))
        raise device_error(Reason.LOCKED, f"{state_dir} is in use by {holder}") from err
    # The number is a courtesy: where there is no room for it, the lock holds anyway.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _holder(content: bytes) -> str:
    """Return ``process 123 (tinyward)`` from what the lock's file says."""
    if not content.isdigit():
        return "another process"
    number = content.decode()
    try:
        name = Path("/proc", number, "comm").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return f"process {number}"
    return f"process {number} ({name})"


def _user(number: int) -> str:
    """Return ``user NAME (1000)``."""
    import pwd

    try:
        return f"user {pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return f"user {number}"
