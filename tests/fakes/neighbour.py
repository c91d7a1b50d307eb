"""Another process of the same user, without any capability: what may it look into?

Run as ``python -I neighbour.py MODE...`` it becomes a child of ``agent.worker`` without
capabilities: nobody, not even root's processes, may look into one that has more.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Descriptor 2 is a pipe of each child: to name it is to look into the process, too.
LOOK = """
import errno, os, sys
for name in ("mem", "environ", "maps", "fd/2"):
    try:
        os.close(os.open(f"/proc/{sys.argv[1]}/{name}", os.O_RDONLY))
        print(name, "allowed")
    except OSError as err:
        print(name, errno.errorcode[err.errno])
"""
LOOKED_AT = ("mem", "environ", "maps", "fd/2")
CHILD = (sys.executable, "-I", str(Path(__file__)))
_PR_CAPBSET_DROP, _CAPABILITIES = 24, 64


def look_into(pid: int) -> dict[str, str]:
    """Return what a neighbour gets of a process: ``allowed``, or an error's name."""
    done = subprocess.run(
        [*CHILD, "-c", LOOK, str(pid)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return dict(line.split() for line in done.stdout.splitlines())


def main(arguments: Sequence[str]) -> None:
    """Drop all capabilities, then become what is asked for."""
    libc = ctypes.CDLL(None)
    for number in range(_CAPABILITIES):  # who has none may not drop them either
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    what = arguments if arguments[0] == "-c" else ["-m", "agent.worker", *arguments]
    os.execv(sys.executable, [sys.executable, "-I", *what])  # noqa: S606 - no shell


if __name__ == "__main__":
    main(sys.argv[1:])
