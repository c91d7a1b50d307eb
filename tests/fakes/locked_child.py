"""A process that locks itself in, tries what is forbidden, and says what happened.

Run as ``python -I locked_child.py OUTSIDE READABLE``: prints one JSON object with the
layers and, for each attempt, ``allowed`` or the name of the error.
"""

import ctypes
import errno
import functools
import json
import mmap
import os
import platform
import resource
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyseccomp

from agent.worker.locks import FORBIDDEN_CALLS, FORBIDDEN_NUMBERS, lock_in

LIBC = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"
SYS_CLONE, SYS_BPF = (220, 280) if ARM else (56, 321)
SYS_TGKILL, SYS_PRLIMIT64 = (131, 261) if ARM else (234, 302)
SYS_IO_URING_SETUP, SYS_CLONE3 = 425, 435
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PTRACE_TRACEME = 0
OURSELVES = os.getpid()
SIGCHLD = 17


def call(number: int, *arguments: int) -> None:
    """Make a system call; raise OSError where it fails."""
    answer = LIBC.syscall(number, *map(ctypes.c_long, arguments))
    if os.getpid() != OURSELVES:
        os._exit(0)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def forbidden() -> dict[str, int]:
    """Return the forbidden calls that this architecture has, with their numbers."""
    native = pyseccomp.Arch.NATIVE
    known = {call: pyseccomp.resolve_syscall(native, call) for call in FORBIDDEN_CALLS}
    return {call: number for call, number in known.items() if number >= 0}


def fork() -> None:
    """Fork as Python does."""
    if os.fork() == 0:
        os._exit(0)


def libc(name: str, *arguments: int) -> None:
    """Call a function of libc; raise OSError where it fails."""
    if LIBC[name](*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def clone(flags: int) -> None:
    """Clone into a namespace; a child that comes to be ends at once."""
    code = LIBC.syscall(SYS_CLONE, flags | SIGCHLD, 0, 0, 0, 0)
    if code == 0:
        os._exit(0)
    if code < 0:
        raise OSError(ctypes.get_errno(), "clone")


def make_executable() -> None:
    """Write code, then try to run it."""
    LIBC.mmap.restype = ctypes.c_void_p
    page = LIBC.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, 0x22, -1, 0)
    ctypes.memset(page, 0xC3, 16)
    if LIBC.mprotect(ctypes.c_void_p(page), 4096, mmap.PROT_READ | mmap.PROT_EXEC) < 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def limit(pid: int) -> None:
    """Set a limit of a process, itself if 0, to what it is."""
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    new = (ctypes.c_uint64 * 2)(*limits)
    call(SYS_PRLIMIT64, pid, resource.RLIMIT_CORE, ctypes.addressof(new), 0)


def start_thread() -> None:
    """Do what every runtime does."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def attempts(outside: Path, readable: Path) -> dict[str, Callable[[], object]]:
    """Return what is tried."""
    everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    return {
        "exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - it must fail
        "inet": lambda: socket.socket(socket.AF_INET),
        "inet6": lambda: socket.socket(socket.AF_INET6),
        "connect": lambda: socket.socket(socket.AF_UNIX).connect("/run/any.sock"),
        "bind": lambda: socket.socket(socket.AF_UNIX).bind("\0tinyward-test"),
        "netlink": lambda: socket.socket(socket.AF_NETLINK),
        "ptrace": lambda: libc("ptrace", PTRACE_TRACEME, 0, 0, 0),
        "unshare": lambda: libc("unshare", CLONE_NEWUSER),
        "clone_user": lambda: clone(CLONE_NEWUSER),
        "clone_net": lambda: clone(CLONE_NEWNET),
        "clone3": lambda: call(SYS_CLONE3, 0, 0),
        "bpf": lambda: call(SYS_BPF, 0, 0, 0),
        "io_uring": lambda: call(SYS_IO_URING_SETUP, 1, 0),
        "mount": lambda: libc("umount2", 0, 0),
        "read": (outside / "secret").read_bytes,
        "list": lambda: list(outside.iterdir()),
        "parents_environment": Path(f"/proc/{os.getppid()}/environ").read_bytes,
        "write": lambda: (outside / "new").write_bytes(b""),
        "remove": (outside / "secret").unlink,
        "make_folder": (outside / "folder").mkdir,
        "write_readable": lambda: (readable / "new").write_bytes(b""),
        "map_executable": lambda: mmap.mmap(-1, 4096, prot=everything),
        "make_executable": make_executable,
        "fork": fork,
        "clone_process": lambda: clone(0),
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "limit_itself": lambda: limit(0),
        "limit_parent": lambda: limit(os.getppid()),
        "signal_parent": lambda: call(SYS_TGKILL, os.getppid(), os.getppid(), 0),
        "thread": start_thread,
        "read_limit": lambda: resource.getrlimit(resource.RLIMIT_DATA),
        "signal_thread": lambda: call(
            SYS_TGKILL, os.getpid(), threading.get_native_id(), 0
        ),
        "pair": socket.socketpair,
        "read_readable": (readable / "sample").read_bytes,
        "read_cpuinfo": lambda: Path("/proc/cpuinfo").read_bytes(),
        "read_own_status": lambda: Path("/proc/self/status").read_bytes(),
        "import": lambda: __import__("sqlite3"),
    }


def tried(attempt: Callable[[], object]) -> str:
    """Make one attempt; say how it went."""
    try:
        attempt()
    except OSError as err:
        return errno.errorcode.get(err.errno or 0, str(err))
    return "allowed"


def main() -> None:
    """Lock in, try, report."""
    outside, readable = map(Path, sys.argv[1:])
    too_long = Path("/" + "x" * 300)  # it cannot even be looked for
    numbers = forbidden()
    layers = lock_in(os.getppid(), [readable, too_long])
    report = {
        "layers": layers,
        "tried": {k: tried(it) for k, it in attempts(outside, readable).items()},
        "calls": {
            name: tried(functools.partial(call, number, 0, 0, 0, 0, 0, 0))
            for name, number in (numbers | FORBIDDEN_NUMBERS).items()
        },
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "status": Path("/proc/self/status").read_text(encoding="ascii"),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
