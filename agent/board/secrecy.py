"""Memory that gets into no core dump, and that no other process of this user sees.

Called once sealed models are to be opened: their plain bytes lie in memory alone. Root
of this board reads it all the same; swap is the control group's (MemorySwapMax=0).

Source: core(5), proc(5), prctl(2).
"""

import ctypes
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4
_FILTER = Path("/proc/self/coredump_filter")


def keep_memory_private() -> None:
    """Allow no core dump of this process and its children, and nobody to trace it.

    What a kernel does not let us do is logged: the models are opened all the same.
    """
    # Before the last: then this file is root's. Children inherit it; of no mapping is
    # anything written, also where a program takes cores whatever the limit is.
    _try("core dump filter", lambda: _FILTER.write_bytes(b"0"))
    limit = resource.RLIMIT_CORE
    _try("core dump limit", lambda: resource.setrlimit(limit, (0, 0)))
    # Of this process only, an exec ends it: the daemon reads its workers' figures.
    _try("dumpable", _forbid_tracing)


def _forbid_tracing() -> None:
    """Let no other process of this user attach, or read our memory.

    Raises:
        OSError: The kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _try(what: str, call: Callable[[], object]) -> None:
    """Do what can be done here, and log what cannot."""
    try:
        call()
    except (OSError, ValueError) as err:
        facts = {"what": what, "detail": str(err)}
        log.warning("memory.not_private", extra=facts)
