"""What this kernel was started without, and which words of its command line turn it on.

Limits of memory need the control groups' memory controller, and how long a board waits
for memory is told by PSI. Raspberry Pi OS boots without both: its device tree says
``cgroup_disable=memory``, and its kernel has PSI off until it is asked for. Sources:
``Documentation/admin-guide/kernel-parameters.txt`` of the kernel, and
``kernel/cgroup/cgroup.c`` of Raspberry Pi's for ``cgroup_memory``.
"""

from dataclasses import dataclass
from pathlib import Path

from agent.board.sysfs import read_bytes

# The second is for kernels of Raspberry Pi before 4.14.
MEMORY_WORDS = ("cgroup_enable=memory", "cgroup_memory=1")
# Where version 1 is mounted, its limits are not those that a service sets.
VERSION_2_WORDS = ("systemd.unified_cgroup_hierarchy=1",)
PRESSURE_WORDS = ("psi=1",)
CONTROLLERS = "sys/fs/cgroup/cgroup.controllers"


@dataclass(frozen=True, slots=True)
class Bootloader:
    """Where a boot loader keeps the kernel's command line.

    Attributes:
        path: The file, below the root.
        how: What to do with the words, ``{file}`` and ``{words}`` in it.
    """

    path: str
    how: str


# The first that is there holds. A Pi's comes first: it may have grub's files, too.
BOOTLOADERS = (
    *(
        Bootloader(path, "Append to the one line of {file}: {words}; then: sudo reboot")
        for path in ("boot/firmware/cmdline.txt", "boot/cmdline.txt")
    ),
    Bootloader(
        "boot/extlinux/extlinux.conf",
        "Append to the APPEND line of {file}: {words}; then: sudo reboot",
    ),
    Bootloader(
        "boot/armbianEnv.txt",
        "Append to the extraargs= line of {file}: {words}; then: sudo reboot",
    ),
    Bootloader(
        "etc/default/grub",
        "Append to GRUB_CMDLINE_LINUX in {file}: {words}; then: sudo update-grub; "
        "sudo reboot",
    ),
)


def missing_words(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the words for all that this kernel has not turned on."""
    groups: tuple[str, ...] = ()
    if not has_memory_groups(root):
        mounted = (root / CONTROLLERS).exists()
        groups = MEMORY_WORDS if mounted else VERSION_2_WORDS
    return (*groups, *(() if has_pressure(root) else PRESSURE_WORDS))


def has_memory_groups(root: Path = Path("/")) -> bool:
    """Return whether the control groups (version 2) can limit memory."""
    controllers = read_bytes(f"{root}/{CONTROLLERS}")
    return b"memory" in controllers.split()


def has_pressure(root: Path = Path("/")) -> bool:
    """Return whether the kernel tells how long is waited for memory (PSI)."""
    # With PSI built in and off, the file is there and cannot be read.
    return bool(read_bytes(f"{root}/proc/pressure/memory"))


def say_how(missing: tuple[str, ...], root: Path = Path("/")) -> str:
    """Return what to do for these words to hold from the next boot on.

    Args:
        missing: Words for what the kernel has not turned on.
        root: Where ``/proc``, ``/boot`` and ``/etc`` lie.
    """
    said = set(read_bytes(f"{root}/proc/cmdline").decode("utf-8", "replace").split())
    words = tuple(word for word in missing if word not in said)
    if not words:
        return (
            f"The kernel was started with {' '.join(missing)} and did not heed it: "
            "update it, and a Pi's firmware (cgroup_disable= may come after it)."
        )
    for loader in BOOTLOADERS:
        if (root / loader.path).exists():
            return loader.how.format(file=f"/{loader.path}", words=" ".join(words))
    return f"Add to the kernel's command line, and reboot: {' '.join(words)}"
