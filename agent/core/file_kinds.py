"""What a path is that should be a file, in words.

Opening a FIFO waits for whoever opens its other end, maybe for ever: whoever opens
what somebody has named says instead what it is.
"""

import stat
from collections.abc import Callable, Mapping

_KINDS: Mapping[str, Callable[[int], bool]] = {
    "a file": stat.S_ISREG,
    "a directory": stat.S_ISDIR,
    "a FIFO": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a character device": stat.S_ISCHR,
    "a block device": stat.S_ISBLK,
}


def kind_of(mode: int) -> str:
    """Return what an ``st_mode`` of inode(7) stands for.

    >>> kind_of(0o010644)
    'a FIFO'
    """
    return next((kind for kind, fits in _KINDS.items() if fits(mode)), "something else")


def no_file(mode: int) -> str:
    """Return what is wrong with a path that has to be a file; empty where it is one.

    >>> no_file(0o010644), no_file(0o100644)
    ('it is a FIFO, not a file', '')
    """
    return "" if stat.S_ISREG(mode) else f"it is {kind_of(mode)}, not a file"
