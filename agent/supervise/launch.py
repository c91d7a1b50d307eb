"""Starts a source's or sink's program so that it dies with the daemon.

Run by path, ``python -I -S launch.py PARENT PROGRAM ARGUMENTS``: it asks for SIGKILL
when the daemon dies (the request survives exec), gives up new privileges, and becomes
the program. It imports nothing but what that takes.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Become the program; exit 127 if there is none, as shells do."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as err:
        sys.stderr.write(f"{command[0]}: {err.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
