"""Which sandbox layers this kernel and these libraries offer to a worker.

Each probe returns "" where the layer is there, else why it is not.
"""

import ctypes
import os
from collections.abc import Callable, Mapping

PR_GET_SECCOMP = 21
PR_GET_NO_NEW_PRIVS = 39
PR_GET_MDWE = 66  # Linux 6.3: memory that was writable never becomes executable


def sandbox_layers() -> dict[str, str]:
    """Return layer -> "" if it is available, else the reason why not."""
    return {name: probe() for name, probe in LAYERS.items()}


def probe_seccomp() -> str:
    """The system call filter needs the kernel's and the library libseccomp."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as err:
        return f"libseccomp does not load: {err}"
    try:
        pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    except (OSError, RuntimeError) as err:
        return f"libseccomp does not work: {err}"
    # Emulated processors and some vendors' kernels have the library and no filter.
    return _probe_prctl(PR_GET_SECCOMP, f"not in this kernel ({os.uname().release})")


def probe_landlock() -> str:
    """Landlock needs Linux 5.13 and the boot parameter ``lsm`` to name it."""
    try:
        import landlockpy
    except ImportError as err:
        return f"landlockpy does not load: {err}"
    if landlockpy.abi_version() == 0:
        return f"not in this kernel ({os.uname().release}) or not enabled at boot"
    return ""


def probe_mdwe() -> str:
    """Memory-deny-write-execute needs Linux 6.3."""
    return _probe_prctl(PR_GET_MDWE, "needs Linux 6.3")


def probe_no_new_privs() -> str:
    """``no_new_privs`` is in every kernel since 3.5."""
    return _probe_prctl(PR_GET_NO_NEW_PRIVS, "needs Linux 3.5")


def _probe_prctl(option: int, needs: str) -> str:
    """Ask for a process attribute: an old kernel does not know the question."""
    libc = ctypes.CDLL(None, use_errno=True)
    return "" if libc.prctl(option, 0, 0, 0, 0) >= 0 else needs


LAYERS: Mapping[str, Callable[[], str]] = {
    "no_new_privs": probe_no_new_privs,
    "seccomp": probe_seccomp,
    "landlock": probe_landlock,
    "mdwe": probe_mdwe,
}
