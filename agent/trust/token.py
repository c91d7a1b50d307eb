"""The token by which a fleet's server knows this board.

The rules this module keeps:
 * It is read anew for each request: a rotated one works at once, and none is kept in
   memory longer than a request takes.
 * A file that others of this machine may read is refused: it is no secret any more.
 * It is in no message, whatever is wrong with it.
"""

import os
import stat
from pathlib import Path

from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.errors import DeviceError

MAX_TOKEN_BYTES = 4096  # hawkBit's have 32 to 128 characters; a JWT some more
# What the service's drop-in gives where root has put no token there.
MISSING = "missing"
# A FIFO without a writer is not waited for.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def token_place(credential: str, file: str, credentials: str) -> Path | None:
    """Return where the token is; None where none is named.

    Args:
        credential: ``fleet.ddi.token_credential``.
        file: ``fleet.ddi.token_file``.
        credentials: ``$CREDENTIALS_DIRECTORY``, empty outside of a service.

    Raises:
        DeviceError: ``permission``: there is a credential, and no directory of them;
            or the file's path is none.
    """
    if credential and not credentials:
        raise _unusable(
            f"credential {credential!r}: this is no service that was given any",
            "`tinyward install --with credentials`, or set fleet.ddi.token_file.",
        )
    if credential:
        return Path(credentials) / credential
    return _place(file) if file else None


def read_token(path: Path) -> str:
    """Return the token in a file: its first line.

    Raises:
        DeviceError: ``permission``: it cannot be read, others may read it, or it is no
            token.
    """
    try:
        mode, raw = _content(path)
    except FileNotFoundError as err:
        what = f"{path} does not exist"
        raise _unusable(what, "Write the board's token to it.") from err
    except OSError as err:
        reason = disk_reason(err.errno)
        raise DeviceError(f"fleet.ddi: {path}: {err.strerror}", reason=reason) from err
    if not stat.S_ISREG(mode):
        raise _unusable(f"{path} is no file", "Write the board's token to a file.")
    if mode & stat.S_IRWXO:
        what = f"{path} may be read by everybody on this board"
        raise _unusable(what, f"`chmod 600 {path}`, and give the board a new token.")
    return _parsed(path, raw)


def _place(file: str) -> Path:
    """Return where a file is whose path a person wrote.

    Raises:
        DeviceError: ``permission``: no file can be there.
    """
    try:
        place = Path(file).expanduser()
        os.fsencode(place)
    except (RuntimeError, ValueError) as err:  # ~ of nobody; a lone surrogate
        raise _unusable(f"{file!r}: {err}", "Correct fleet.ddi.token_file.") from err
    if "\0" in file:
        raise _unusable(f"{file!r} is no path", "Correct fleet.ddi.token_file.")
    return place


def _content(path: Path) -> tuple[int, bytes]:
    """Return a file's mode, and its content where it is a regular one.

    Raises:
        OSError: It cannot be opened or read.
    """
    descriptor = os.open(path, _READ)
    try:
        # A directory can be opened: only then it is known to be one.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            return mode, b""
        # One byte more than a token may have tells of a longer file.
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return mode, file.read(MAX_TOKEN_BYTES + 1)
    finally:
        os.close(descriptor)


def _parsed(path: Path, raw: bytes) -> str:
    """Return what a file says, if it can be a token."""
    token = raw.decode("ascii", "replace").strip()
    if token in {"", MISSING}:
        raise _unusable(f"{path} holds no token", "Write the board's token to it.")
    plain = token.isascii() and token.isprintable() and " " not in token
    if not plain or len(raw) > MAX_TOKEN_BYTES:
        what = f"{path} holds something else than a token"
        raise _unusable(what, "Write the token as the server shows it, on one line.")
    return token


def _unusable(what: str, todo: str) -> DeviceError:
    """Return the error for a token that cannot be used."""
    return DeviceError(f"fleet.ddi: {what}", reason=Reason.PERMISSION, todo=todo)
