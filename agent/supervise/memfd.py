"""Sealed memfds: bytes that cannot change any more, whoever holds the descriptor.

See memfd_create(2) and the F_SEAL_* section of fcntl(2).
"""

import fcntl
import os

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def sealed_memfd(name: str, content: bytes | memoryview) -> int:
    """Return a descriptor of anonymous memory that holds ``content`` for ever.

    Raises:
        OSError: There is no memory, or no descriptor, left.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def shared_memory(name: str, size_bytes: int) -> int:
    """Return a descriptor of zeroed memory of fixed size that a child may write."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size_bytes)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return descriptor
