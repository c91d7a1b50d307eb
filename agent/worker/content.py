"""Model bytes in memory: sealed, hashed by whoever loads them, never on a disk.

The rules this module keeps:
 * What was hashed is what is loaded: a memfd that can still change is refused.
 * Hashing reads through a buffer, so a model's bytes are resident only where the
   runtime maps them.
"""

import fcntl
import hashlib
import os

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def seal_content(content: bytes | memoryview, name: str) -> int:
    """Return the descriptor of a sealed memfd with a copy of ``content``."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(content).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL)
    return descriptor


def check_content(descriptor: int, sha256: str, what: str) -> None:
    """Check that a descriptor holds exactly the expected bytes, for good.

    Raises:
        BundleRefusedError: ``digest``: other bytes, or bytes that could still change.
    """
    try:
        sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:  # no memfd at all
        sealed = False
    if not sealed:
        raise BundleRefusedError(
            f"{what}: its bytes are not sealed", reason=Reason.DIGEST
        )
    with open(content_path(descriptor), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor's own path
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BundleRefusedError(
            f"{what}: its sha256 is {found}, not {sha256}", reason=Reason.DIGEST
        )


def content_path(descriptor: int) -> str:
    """Return a path under which a runtime can map what a descriptor holds."""
    return f"/proc/self/fd/{descriptor}"
