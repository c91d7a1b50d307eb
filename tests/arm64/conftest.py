"""Fixtures: one arm64 root with the agent installed, for all tests of this folder.

The rules this folder keeps:
 * It fetches a Debian and emulates a processor for minutes, as root: it runs where
   ``TINYWARD_ARM64=1`` asks for it.
 * Nothing is left: no mount, no word in the kernel's list of emulators, no folder.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm64.emulation import arm_programs, find_emulator
from tests.arm64.root import ArmRoot
from tests.conftest import REPOSITORY, missing

TOOLS = ("debootstrap", "unshare", "ip", "chroot")


@pytest.fixture(scope="session")
def board() -> Iterator[ArmRoot]:
    """Give a board with the agent installed, offline."""
    if os.environ.get("TINYWARD_ARM64") != "1":
        pytest.skip("emulates an arm64 Debian: set TINYWARD_ARM64=1, as root (10 min)")
    if os.geteuid() != 0:
        missing("the right to make roots (root)")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            missing(f"the program {tool} (apt install debootstrap iproute2)")
    emulator = find_emulator()
    if emulator is None and platform.machine() != "aarch64":
        missing("the program qemu-aarch64-static (apt install qemu-user-static)")
    folder = Path(tempfile.mkdtemp(prefix="tinyward-arm64-"))
    try:
        with arm_programs(emulator or Path()):
            root = ArmRoot(folder)
            root.make()
            root.fetch_wheels(REPOSITORY)
            root.install()
            yield root
    finally:
        shutil.rmtree(folder)
