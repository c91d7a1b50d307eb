"""Arm programs on another machine: qemu's user mode, and the kernel's word for it.

The rules this module keeps:
 * What the machine does with Arm programs is as before in the end: an entry that was
   there is used and stays, one that was made is taken away, and so is the mount.
 * The processor is a Raspberry Pi 4's: the oldest core that is still widely sold has
   none of the newer instructions, and a wheel that needs one of them dies here.
"""

import contextlib
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Debian 12 calls it qemu-aarch64-static (qemu-user-static); from 13 on, qemu-aarch64.
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
PROCESSOR = "cortex-a72"
# /proc/cpuinfo as a Raspberry Pi 4 has it (arch/arm64/kernel/cpuinfo.c). qemu before 8
# shows the host's own, in which LiteRT finds no core, and dies by SIGSEGV.
CORE = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
CORES = 4
BINFMT = Path("/proc/sys/fs/binfmt_misc")
ENTRY = "tinyward-test-aarch64"
# Linux' Documentation/admin-guide/binfmt-misc.rst: the head of a 64-bit little-endian
# ELF file for machine 183, executable or shared; F opens the emulator now, so that a
# chroot needs no copy of it.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = (
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff"
    r"\xfe\xff\xff\xff"
)


def cpuinfo() -> str:
    """Return what a Raspberry Pi 4's kernel says of its processor."""
    return "".join(CORE.format(number=number) for number in range(CORES))


def find_emulator() -> Path | None:
    """Return the emulator of this machine, or None."""
    found = (shutil.which(name) for name in EMULATORS)
    return next((Path(path) for path in found if path), None)


@contextlib.contextmanager
def arm_programs(emulator: Path) -> Iterator[None]:
    """Let the kernel start Arm programs.

    Raises:
        OSError: This kernel has no ``binfmt_misc``, or may not be told.
    """
    if platform.machine() == "aarch64":
        yield
        return
    with _mounted():
        if _can_already():
            yield
            return
        rule = f":{ENTRY}:M::{MAGIC}:{MASK}:{emulator}:F"
        (BINFMT / "register").write_text(rule, encoding="ascii")
        try:
            yield
        finally:
            (BINFMT / ENTRY).write_text("-1", encoding="ascii")


@contextlib.contextmanager
def _mounted() -> Iterator[None]:
    """Mount ``binfmt_misc`` where it is not."""
    if (BINFMT / "register").exists():
        yield
        return
    # Its module is loaded by the first mount, if it is one.
    words = ["-t", "binfmt_misc", "binfmt_misc", str(BINFMT)]
    subprocess.run(["/usr/bin/mount", *words], check=True)
    try:
        yield
    finally:
        subprocess.run(["/usr/bin/umount", str(BINFMT)], check=True)


def _can_already() -> bool:
    """Whether an entry of this machine's starts Arm programs, from inside a chroot."""
    if (BINFMT / ENTRY).exists():  # one of a run that was killed
        (BINFMT / ENTRY).write_text("-1", encoding="ascii")
    entries = (it for it in BINFMT.iterdir() if it.name not in ("register", "status"))
    return any(serves(it.name, it.read_text(encoding="ascii")) for it in entries)


def serves(name: str, text: str) -> bool:
    """Whether an entry is for Arm programs, is on, and needs no copy in a chroot."""
    flags = text.partition("flags: ")[2].split("\n")[0]
    return "aarch64" in name and text.startswith("enabled") and "F" in flags
