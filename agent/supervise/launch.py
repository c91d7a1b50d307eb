"""Starts a source's or sink's program so that all of it dies with the daemon.

Run by path, ``python -I -S launch.py PARENT PROGRAM ARGUMENTS``, as the leader of a
process group: it starts the program in that group, waits for it and ends as it ended.
When the daemon dies, the kernel says so by SIGTERM (prctl(2), PR_SET_PDEATHSIG), and
the whole group is killed: the program and whatever it has started. The program itself
dies with this process, whatever ends it, and cannot gain privileges. When memory is
short, the kernel ends these two before the daemon.

It imports nothing but what that takes, and holds none of the program's pipes.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
OOM_SCORE = b"300"  # as a worker's (``agent.supervise.child``): never the daemon first
PIPES = 3  # standard input, output and error, which belong to the program


def main() -> None:
    """Start the program, wait for it, and end with its exit code or signal."""
    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    signal.signal(signal.SIGTERM, _end_group)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    _offer()
    leader = os.getpid()
    program = os.fork()
    if not program:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _become(command, leader)
    os.closerange(0, PIPES)
    _, status = os.waitpid(program, 0)
    _end_like(os.waitstatus_to_exitcode(status))


def _offer() -> None:
    """Offer this process and its program to the kernel (oom_score_adj)."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, OOM_SCORE)
        os.close(descriptor)
    except OSError:
        return  # no /proc here, or a higher score: the program matters more


def _become(command: list[str], leader: int) -> None:
    """Become the program; exit 127 if there is none, as shells do."""
    if os.getppid() != leader:
        os._exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it; exec keeps that
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as err:
        sys.stderr.write(f"{command[0]}: {err.strerror}\n")
        sys.stderr.flush()
        os._exit(127)


def _end_group(_number: int, _frame: object) -> None:
    """Kill every process of the group that this one leads, and itself."""
    os.killpg(os.getpid(), signal.SIGKILL)


def _end_like(code: int) -> None:
    """End with the program's exit code, or of the signal that ended it."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its core is the program's
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
