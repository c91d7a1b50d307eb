"""A worker whose model file is mapped privately, so that its bits can be flipped.

The file is mapped shared and sealed: nobody can write to it, not even a debugger, and
only a fault of the memory itself can change it. Here the mapping is replaced in place
(mremap(2), MREMAP_FIXED) by a private copy at the same address: everything that reads
it goes on as before, and /proc/PID/mem can flip a bit of what it reads.
"""

import ctypes
import mmap
import sys
import threading
import time
from pathlib import Path

from agent.worker.__main__ import main

# linux/mman.h
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
LOOK_S = 0.02
LOADED_S = 1.0  # from the mapping on: by then the worker has noted what it checks


def _replace(address: int, size: int) -> None:
    """Put a private copy where a mapping was, in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mremap.restype = ctypes.c_void_p
    size_t = ctypes.c_size_t
    libc.mremap.argtypes = (
        *(ctypes.c_void_p, size_t, size_t),
        *(ctypes.c_int, ctypes.c_void_p),
    )
    copy = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    copy[:] = ctypes.string_at(address, size)
    own = (ctypes.c_char * size).from_buffer(copy)
    flags = MREMAP_MAYMOVE | MREMAP_FIXED
    libc.mremap(ctypes.addressof(own), size, size, flags, address)
    _KEPT.append((copy, own))  # its old place is no memory any more: never let go


_KEPT: list[object] = []


def _watch() -> None:
    """Replace the first mapping of a model that comes."""
    while True:
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            if "/memfd:model" in line:
                first, last = (int(it, 16) for it in line.split()[0].split("-"))
                time.sleep(LOADED_S)
                _replace(first, last - first)
                return
        time.sleep(LOOK_S)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        threading.Thread(target=_watch, daemon=True).start()
    main(sys.argv[1:])
