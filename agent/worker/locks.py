"""The worker locks itself in, before it imports numpy or parses a model.

The rules this module keeps:
 * A layer the kernel does not have is reported, never fatal: ``doctor`` shows it.
 * Order: die with the parent, no new privileges, no core file, nobody looks in, seccomp
   (its library is looked up by a program), Landlock, memory-deny-write-execute.
 * Nobody looks in, whether a model is sealed or not: another process of this user may
   neither trace it nor open its memory and descriptors, where plain models are. One way
   for all is the way that every test takes; root's debugger still attaches.
 * XNNPACK needs /proc/cpuinfo and /sys/devices/system/cpu: both stay readable.
"""

import contextlib
import ctypes
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
PR_MDWE_REFUSE_EXEC_GAIN = 1

READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",  # not /proc: other processes' environments are not its business
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm",
    "/sys/devices/system",
    "/dev/urandom",
    "/dev/null",
)
# What a data plane never does. Sockets beyond AF_UNIX are refused separately, and so
# are limits that change, signals to others, and clone() of anything but a thread;
# clone3 hides its flags behind a pointer, so it "does not exist" and libc falls back
# to clone. The memory limit is the daemon's: it is set from outside.
FORBIDDEN_CALLS = (
    *("execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("bpf", "keyctl", "add_key", "request_key", "userfaultfd", "perf_event_open"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot"),
    *("move_mount", "open_tree", "fsopen", "fsmount", "open_by_handle_at"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module"),
    *("delete_module", "reboot", "swapon", "swapoff", "settimeofday"),
    *("clock_settime", "adjtimex", "personality", "acct", "quotactl"),
    # Other processes
    *("fork", "vfork", "kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "process_madvise"),
    # Sockets are inherited: the daemon's own takes orders of whoever reaches it
    *("connect", "bind", "listen", "accept", "accept4"),
    # Priorities and limits
    *("setrlimit", "setpriority", "ioprio_set", "sched_setaffinity"),
    *("sched_setscheduler", "sched_setparam", "sched_setattr"),
    # What Landlock does not know of files: modes, owners, times, attributes
    *("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat"),
    *("setxattr", "lsetxattr", "fsetxattr"),
    *("removexattr", "lremovexattr", "fremovexattr"),
    # Memory and queues that outlive a process
    *("shmget", "shmat", "semget", "msgget", "mq_open"),
)
# Newer than the libseccomp of some boards, which does not know their names; numbers
# from 424 on are the same on every architecture (include/uapi/asm-generic/unistd.h).
FORBIDDEN_NUMBERS = {"fchmodat2": 452, "setxattrat": 463, "removexattrat": 466}
CLONE_THREAD = 0x00010000
UNKNOWN = -1  # what libseccomp answers for a name it does not know
NAMESPACE_FLAGS = (
    0x00000080,  # CLONE_NEWTIME
    0x00020000,  # CLONE_NEWNS
    0x02000000,  # CLONE_NEWCGROUP
    0x04000000,  # CLONE_NEWUTS
    0x08000000,  # CLONE_NEWIPC
    0x10000000,  # CLONE_NEWUSER
    0x20000000,  # CLONE_NEWPID
    0x40000000,  # CLONE_NEWNET
)
AF_UNIX = 1


def lock_in(parent: int, readable: Iterable[Path]) -> dict[str, str]:
    """Confine this process for good.

    Args:
        parent: Process id of the daemon; this process ends with it.
        readable: Paths the source needs beside Python's own.

    Returns:
        Layer -> "" if it holds, else why it does not.
    """
    layers: dict[str, Callable[[], None]] = {
        "parent": lambda: _die_with(parent),
        "no_new_privs": lambda: _prctl(PR_SET_NO_NEW_PRIVS, 1),
        "no_core": _no_core,
        "no_trace": lambda: _prctl(PR_SET_DUMPABLE, 0),
        "seccomp": _seccomp,
        "landlock": lambda: _landlock([*_python_paths(), *readable]),
        "mdwe": lambda: _prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN),
    }
    return {name: _held(apply) for name, apply in layers.items()}


def _held(apply: Callable[[], None]) -> str:
    """Apply one layer; "" if it holds, else the reason, in a few words."""
    try:
        apply()
    except (OSError, ImportError, ValueError, RuntimeError) as err:
        return str(err) or type(err).__name__
    return ""


def _prctl(option: int, argument: int) -> None:
    """Call prctl(2), raising OSError like the os module does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _die_with(parent: int) -> None:
    """Ask for SIGKILL when the parent dies, then see whether it already has."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the daemon died before its worker was ready")


def _no_core() -> None:
    """No core file: a model is in this memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _python_paths() -> list[Path]:
    """Return where Python imports from: its prefixes and every entry of sys.path."""
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    return [Path(entry) for entry in prefixes if entry]


def _landlock(readable: list[Path]) -> None:
    """Allow reading what Python, the runtime and the source need, and no writing."""
    from landlockpy import AccessFS, Ruleset, Scope, fs_for_abi, supported

    if not supported():
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    read = AccessFS.READ_FILE | AccessFS.READ_DIR
    handled = fs_for_abi(5)  # 6.10: files, directories, devices; not sockets
    with Ruleset(handled_fs=handled, scoped=Scope.SIGNAL) as ruleset:
        for path in {Path(entry) for entry in READABLE} | set(readable):
            # What cannot be looked at stays closed; the others, and the lock, hold.
            with contextlib.suppress(OSError):
                if path.is_dir():
                    ruleset.allow_path(path, read)
                elif path.exists():
                    ruleset.allow_path(path, AccessFS.READ_FILE)
        ruleset.restrict()


def _seccomp() -> None:
    """Refuse what a data plane never does with EPERM."""
    import pyseccomp

    refuse = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.set_attr(pyseccomp.Attr.CTL_NNP, 1)
    native = pyseccomp.Arch.NATIVE
    named = (pyseccomp.resolve_syscall(native, call) for call in FORBIDDEN_CALLS)
    for number in (*named, *FORBIDDEN_NUMBERS.values()):
        if number != UNKNOWN:  # below it are those of other architectures: no rule
            rules.add_rule(refuse, number)
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    other = pyseccomp.Arg(0, pyseccomp.NE, AF_UNIX)
    rules.add_rule(refuse, "socket", other)
    for flag in NAMESPACE_FLAGS:
        made = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag)
        rules.add_rule(refuse, "clone", made)
    no_thread = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0)
    rules.add_rule(refuse, "clone", no_thread)
    rules.add_rule(refuse, "prlimit64", pyseccomp.Arg(2, pyseccomp.NE, 0))
    # abort() and the like send a signal to the thread they run in.
    rules.add_rule(refuse, "tgkill", pyseccomp.Arg(0, pyseccomp.NE, os.getpid()))
    rules.load()
