"""The few requests of ptrace(2) that stopping another process needs.

The rules this module keeps:
 * Nothing is left behind: a tracee dies with its tracer (``EXITKILL``).
 * Calls are read through ``PTRACE_GET_SYSCALL_INFO``, the same on every machine; only
   answering in the kernel's place needs registers, which are known for two.
"""

import ctypes
import errno
import os
import platform
import signal
from typing import ClassVar

SEIZE, INTERRUPT, SYSCALL, LISTEN = 0x4206, 0x4207, 24, 0x4208
GET_SYSCALL_INFO, GETREGSET, SETREGSET = 0x420E, 0x4204, 0x4205
# Mark stops at calls, follow threads, and kill the tracee should the tracer end.
OPTIONS = 0x1 | 0x8 | 0x100000
EVENT_STOP = 128
WALL = 0x40000000  # wait for threads, too
NT_PRSTATUS, NT_ARM_SYSTEM_CALL = 1, 0x404
AT_CALL = signal.SIGTRAP | 0x80
ENTRY, EXIT = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Info(ctypes.Structure):
    """``struct ptrace_syscall_info``, as far as entries and exits go."""

    _fields_: ClassVar = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("words", ctypes.c_uint64 * 7),
    ]


class _Iovec(ctypes.Structure):
    """``struct iovec``."""

    _fields_: ClassVar = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def request(what: int, thread: int, address: int = 0, data: int = 0) -> None:
    """Make one request.

    Raises:
        OSError: The kernel refused: ``EPERM`` where containers forbid tracing,
            ``ESRCH`` where the thread is gone.
    """
    if _libc.ptrace(what, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def seize(process: int) -> None:
    """Trace a process, and stop it.

    Raises:
        OSError: Tracing is forbidden here.
    """
    request(SEIZE, process, 0, OPTIONS)
    request(INTERRUPT, process)


def resume(thread: int, number: int = 0) -> None:
    """Let a stopped thread go on to its next call, with a signal if there is one."""
    try:
        request(SYSCALL, thread, 0, number)
    except OSError as err:
        if err.errno != errno.ESRCH:  # killed meanwhile
            raise


def listen(thread: int) -> None:
    """Leave a thread stopped that somebody else stopped, as it would be untraced."""
    request(LISTEN, thread)


def send_to_thread(process: int, thread: int, number: int) -> None:
    """Send a signal to one thread."""
    _libc.tgkill(process, thread, number)


def call_info(thread: int) -> tuple[int, int, tuple[int, ...]]:
    """Return entry or exit, and at an entry the call's number and arguments."""
    info = _Info()
    size = ctypes.sizeof(info)
    request(GET_SYSCALL_INFO, thread, size, ctypes.addressof(info))
    words = tuple(info.words)
    return info.op, words[0], words[1:]


def skip_call(thread: int) -> None:
    """Let the kernel perform nothing at this entry."""
    if platform.machine() == "aarch64":
        nothing = ctypes.c_int(-1)
        _set(thread, NT_ARM_SYSTEM_CALL, nothing, ctypes.sizeof(nothing))
        return
    registers, size = _registers(thread)
    registers[15] = 2**64 - 1  # orig_rax
    _set(thread, NT_PRSTATUS, registers, size)


def answer(thread: int, error: int) -> None:
    """Let the call that is left return an error."""
    registers, size = _registers(thread)
    index = 0 if platform.machine() == "aarch64" else 10  # x0 or rax
    registers[index] = 2**64 - error
    _set(thread, NT_PRSTATUS, registers, size)


def _registers(thread: int) -> tuple[ctypes.Array[ctypes.c_uint64], int]:
    """Return the registers of a stopped thread, and how many bytes they have."""
    registers = (ctypes.c_uint64 * 64)()
    part = _Iovec(ctypes.addressof(registers), ctypes.sizeof(registers))
    request(GETREGSET, thread, NT_PRSTATUS, ctypes.addressof(part))
    return registers, part.len


def _set(
    thread: int,
    which: int,
    value: ctypes.Array[ctypes.c_uint64] | ctypes.c_int,
    size: int,
) -> None:
    """Write one set of registers."""
    part = _Iovec(ctypes.addressof(value), size)
    request(SETREGSET, thread, which, ctypes.addressof(part))
