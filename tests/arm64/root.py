"""An arm64 Debian to install into: a root, wheels beside it, and no network inside.

The rules this module keeps:
 * No host of packages is named here: the mirror is the one this machine's apt uses, and
   the wheels come from where its pip gets them.
 * Everything is mounted in a namespace of its own, which goes with its last process,
   and everything lies in one folder.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.arm64.emulation import PROCESSOR, cpuinfo
from tests.service.debian import apt_source

SUITE, PYTHON = "bookworm", "3.11"  # Raspberry Pi OS is one of two that boards run
PACKAGES = ("python3", "python3-venv", "libseccomp2")
# Debian 12 has glibc 2.36; 17 is the oldest that wheels are still made for.
GLIBC = range(36, 16, -1)
TINYWARD = "/opt/tinyward/bin/tinyward"
# Emulation is 10 to 30 times slower than the machine, and that may be busy.
DEADLINE_S = float(os.environ.get("TINYWARD_ARM64_DEADLINE_S", "1200"))
# In namespaces of its own: what is mounted here, and every process, ends with it.
ENTER = """
set -eu
root=$1; shift
ip link set lo up
mount -t proc proc "$root/proc"
mount --bind "$root/srv/cpuinfo" "$root/proc/cpuinfo"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""
SECOND_STAGE = 'exec chroot "$1" /debootstrap/debootstrap --second-stage'


@dataclass(frozen=True, slots=True)
class ArmRoot:
    """A folder with an arm64 root; wheels lie in it, at ``/srv/wheels``."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where the root lies, seen from this machine."""
        return self.folder / "root"

    @property
    def wheels(self) -> Path:
        """Where the wheels lie, seen from this machine."""
        return self.path / "srv" / "wheels"

    def make(self) -> None:
        """Unpack and configure Debian: half a minute, and three under emulation."""
        mirror = os.environ.get("TINYWARD_ARM64_MIRROR") or apt_source().mirror
        first = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase"]
        first += [f"--include={','.join(PACKAGES)}", SUITE, str(self.path), mirror]
        _call(first)
        # It mounts and forgets to unmount where it fails: not in our namespace.
        _call([*_alone("--mount"), "sh", "-c", SECOND_STAGE, "sh", str(self.path)])
        (self.path / "srv" / "cpuinfo").write_text(cpuinfo(), encoding="ascii")

    def fetch_wheels(self, repository: Path) -> None:
        """Build the agent's wheel here; fetch those of what it needs for arm64."""
        built = self.folder / "built"
        _call(_pip("wheel", "--no-deps", "-w", built, repository))
        (wheel,) = built.iterdir()
        platforms = [f"manylinux_2_{minor}_aarch64" for minor in GLIBC]
        words = [it for name in platforms for it in ("--platform", name)]
        words += ["--platform", "manylinux2014_aarch64", "--implementation", "cp"]
        words += ["--only-binary=:all:", "--python-version", PYTHON]
        _call(_pip("download", *words, "-d", self.wheels, wheel))

    def install(self) -> None:
        """Install offline, as on a board without a network."""
        self.run("/usr/bin/python3", "-m", "venv", "/opt/tinyward")
        words = ("install", "--no-index", "--find-links", "/srv/wheels", "tinyward")
        self.run("/opt/tinyward/bin/pip", *words)

    def run(self, *command: str) -> str:
        """Run a program inside, with no network but its own; return what it printed.

        Raises:
            subprocess.CalledProcessError: It failed; its words were printed.
        """
        alone = _alone("--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child")
        done = subprocess.run(
            [*alone, "sh", "-c", ENTER, "sh", str(self.path), *command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=DEADLINE_S,
            text=True,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LANG": "C.UTF-8",
                "QEMU_CPU": PROCESSOR,
            },
        )
        sys.stdout.write(done.stdout)  # pytest shows it where a test fails
        done.check_returncode()
        return done.stdout


def _alone(*namespaces: str) -> list[str]:
    """Return a command line in front of one that gets namespaces of its own."""
    return ["unshare", *namespaces]


def _pip(*words: object) -> list[str]:
    """Return a command line of this Python's pip."""
    return [sys.executable, "-m", "pip", "-q", *map(str, words)]


def _call(command: list[str]) -> None:
    """Run a program to its end; its words are shown where it fails."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=DEADLINE_S)
