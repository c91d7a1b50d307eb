"""What this board is: its names, its processor, and what a model could get of it."""

import platform
import shutil
from collections.abc import Sequence
from math import isnan
from pathlib import Path

from agent import __version__
from agent.board.kernel import read_memory
from agent.board.limits import memory_left
from agent.core.installed import Board

# What XNNPACK picks its kernels by, best last; elsewhere nothing is known.
KERNEL_FEATURES = {
    "x86_64": (
        "ssse3", "sse4_1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw",
        "avx512_vnni", "avx_vnni", "amx_int8",
    ),
    "aarch64": ("asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
    "armv7l": ("neon", "vfpv4", "asimddp"),
}  # fmt: skip


def hardware_names(root: Path = Path("/")) -> tuple[str, ...]:
    """Return what bundles may call this board, most specific first.

    The device tree's ``compatible`` list (``raspberrypi,4-model-b``, ``brcm,bcm2711``)
    and the machine (``aarch64``).
    """
    try:
        raw = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        raw = b""
    names = [name for name in raw.decode("ascii", "replace").split("\0") if name]
    return (*names, platform.machine())


def cpu_features(root: Path = Path("/")) -> tuple[str, ...] | None:
    """Return the features that fast kernels need and this processor has.

    None if ``/proc/cpuinfo`` cannot be read: XNNPACK then finds no features either and
    the same models run 50 times slower.
    """
    flags = cpu_flags(root)
    if flags is None:
        return None
    wanted = KERNEL_FEATURES.get(platform.machine(), ())
    return tuple(feature for feature in wanted if feature in flags)


def cpu_flags(root: Path = Path("/")) -> frozenset[str] | None:
    """Return everything this processor says of itself: ``aes``, ``sha2``, ``sha_ni``.

    None if ``/proc/cpuinfo`` cannot be read.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    flags: set[str] = set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            flags.update(value.split())
    return frozenset(flags)


def board_now(
    board_id: str,
    hardware: Sequence[str],
    state_dir: Path,
    root: Path = Path("/"),
) -> Board:
    """Return what admission asks about this board, as of now.

    Without control groups that limit memory (Raspberry Pi OS boots so) a model may have
    what the kernel says is available, and ``RLIMIT_DATA`` alone holds its worker.

    Args:
        board_id: Its name in staged rollouts.
        hardware: Names from the settings; empty means what the board reports.
        state_dir: The directory whose file system receives bundles.
        root: Where ``/proc`` and ``/sys`` lie.
    """
    available = read_memory(str(root).rstrip("/")).available
    left = memory_left(root)
    return Board(
        id=board_id,
        hardware=tuple(hardware) or hardware_names(root),
        agent=__version__,
        free_bytes=shutil.disk_usage(state_dir).free,
        ram_bytes=left if isnan(available) else min(int(available), left),
    )
