"""A Debian root with systemd, and the wheels that go into it: what a board starts from.

The rules this module keeps:
 * No host of packages is named here: the mirror is the one this machine's apt uses, and
   the wheels come from where its pip gets them.
 * Everything lies in one folder under the temporary directory. Its owner holds a lock
   on it, so that the next run can tell what a killed one left, and removes that.
"""

import contextlib
import fcntl
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.service.container import sweep_groups

PREFIX = "tinyward-service-"
# procps has the kill(1) that the unit's reload needs, and every board has it.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps"),
    *("python3", "python3-venv", "libseccomp2"),
)
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter", "setpriv")
# A mirror behind a slow line; what hangs longer than that does not come any more.
MAKING_S = 280.0
SOURCES = Path("/etc/apt")


@dataclass(frozen=True, slots=True)
class AptSource:
    """Where this machine's packages come from, and of which suite they are."""

    mirror: str
    suite: str


def apt_source(folder: Path = SOURCES) -> AptSource:
    """Read the first binary source that apt uses (sources.list(5), both styles).

    Raises:
        LookupError: There is none.
    """
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix not in {".list", ".sources"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        found = _stanza(lines) if path.suffix == ".sources" else _one_line(lines)
        if found is not None:
            return found
    raise LookupError(f"no source of packages in {folder}")


def _stanza(lines: list[str]) -> AptSource | None:
    """Read the first stanza of the newer style."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    if "deb" not in fields.get("types", "").split():
        return None
    return AptSource(fields["uris"].split()[0], fields["suites"].split()[0])


def _one_line(lines: list[str]) -> AptSource | None:
    """Read the first line of the older style."""
    for line in lines:
        words = line.split("]")[-1].split() if "[" in line else line.split()[1:]
        if line.startswith("deb ") and len(words) >= 2:
            return AptSource(words[0], words[1])
    return None


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder with a root to boot, and wheels of the agent and all it needs.

    Attributes:
        root: The Debian root; the wheels lie in it, at ``/srv/wheels``.
    """

    folder: Path
    root: Path

    @property
    def wheels(self) -> Path:
        """Where the wheels lie, seen from this machine."""
        return self.root / "srv" / "wheels"


@contextlib.contextmanager
def workshop(source_tree: Path, made_before: Path | None = None) -> Iterator[Workshop]:
    """Make a root and the wheels; remove all of it in the end.

    Args:
        source_tree: The repository the agent's wheel is built from.
        made_before: A root made by debootstrap with ``PACKAGES``, which is copied.

    Raises:
        subprocess.CalledProcessError: A tool failed; its words were printed.
        LookupError: apt has no source.
    """
    sweep(Path(tempfile.gettempdir()))
    sweep_groups(PREFIX)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            root = folder / "root"
            making = _start_root(root, made_before)
            _call(_pip("wheel", "--no-deps", "-w", folder / "wheels", source_tree))
            if making.wait(MAKING_S) != 0:
                raise subprocess.CalledProcessError(making.returncode, making.args)
            (wheel,) = (folder / "wheels").iterdir()
            made = Workshop(folder, root)
            _call(_pip("download", *_target(root), "-d", made.wheels, wheel))
            (root / "etc" / "hostname").write_text("board\n", encoding="ascii")
            yield made
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(above: Path) -> None:
    """Remove the folders of runs that were killed: nobody holds their locks."""
    for folder in above.glob(f"{PREFIX}*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            continue


def _start_root(root: Path, made_before: Path | None) -> subprocess.Popen[bytes]:
    """Start making the root; it takes a minute, most of it waiting for a disk."""
    if made_before is not None:
        command = ["cp", "-a", "--reflink=auto", str(made_before), str(root)]
    else:
        source = apt_source()
        include = f"--include={','.join(PACKAGES)}"
        command = ["debootstrap", "--variant=minbase", include]
        command += [source.suite, str(root), source.mirror]
    log = (root.parent / "making.log").open("wb")
    with log:
        return subprocess.Popen(
            ["/usr/bin/setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _target(root: Path) -> list[str]:
    """Return pip's words for the root's Python, whichever runs these tests."""
    name = (root / "usr" / "bin" / "python3").readlink().name
    machine = platform.machine()
    # Debian 12 has glibc 2.36; 17 is the oldest that wheels are still made for.
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)]
    platforms.append(f"manylinux2014_{machine}")
    words = ["--only-binary=:all:", "--python-version", name.removeprefix("python")]
    return words + [word for each in platforms for word in ("--platform", each)]


def _pip(*words: object) -> list[str]:
    """Return a command line of this Python's pip."""
    return [sys.executable, "-m", "pip", "-q", *map(str, words)]


def _call(command: list[str]) -> None:
    """Run a program to its end; its words are shown where it fails."""
    subprocess.run(
        ["/usr/bin/setpriv", "--pdeathsig", "KILL", *command],
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=MAKING_S,
    )
