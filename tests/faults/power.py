"""Power cuts: what an ext4 image holds at every moment of an update.

kill -9 keeps the page cache, so it cannot reveal a missing fsync. Here the state lies
on an image behind a loop device, and what its file holds is what a card would hold;
it is copied after every call, the journal is replayed by mounting the copy, and the
oracle judges what came back.

The rules this module keeps:
 * A copy is taken only of an image that stands still: two readings are the same.
 * The weather decides what the kernel happened to write by itself until then, for it
   may write any of it at any time: nothing (``calm``), all names and sizes but no
   content (``journal``: a neighbour's fsync commits the shared journal), or all
   content but no names (``data``).
 * Mounts happen in a namespace of this process's own, so none can be left behind.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

from tests.faults.cases import describe
from tests.faults.driver import Variant, live
from tests.faults.oracle import Verdict, judge
from tests.faults.parallel import Case
from tests.faults.scenes import Scene
from tests.faults.syscalls import Call
from tests.faults.tracer import trace
from tests.faults.watchers import Looks

Weather = Literal["calm", "journal", "data"]
WEATHERS: tuple[Weather, ...] = ("calm", "journal", "data")
# As Debian mounts it; a commit each second; and nothing that saves careless programs.
OPTIONS = ("defaults", "commit=1", "noauto_da_alloc,data=writeback")
IMAGE_BYTES = 12 << 20  # the smallest journal of 4 KB blocks takes 4 MB of it
BLOCK = 4096
WRITE_AND_WAIT = 7  # SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER
MKFS = ("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-J", "size=4", "-N", "256")
TOOLS = ("mkfs.ext4", "mount", "umount", "unshare", "losetup")

Blocks = dict[int, bytes]


@dataclass(slots=True)
class Film:
    """The distinct images of one life.

    Attributes:
        image: The file behind the loop device.
        mounted: Where it is mounted; ``weather`` what the kernel does by itself.
        first: The whole image at the beginning; ``frames`` what differs from it, and
            after which call.
    """

    image: Path
    mounted: Path
    weather: Weather
    first: bytes = b""
    frames: list[tuple[str, Blocks]] = field(default_factory=list)
    _last: bytes = b""
    _numbers: Iterator[int] = field(default_factory=count)

    def begin(self) -> None:
        """Take the first picture, of what is there for certain."""
        os.sync()
        self.first = self._last = self._still()

    def look(self, call: Call) -> None:
        """Take a picture after a call."""
        self.picture(describe(call))

    def picture(self, after: str) -> None:
        """Take a picture, and keep it if anything changed."""
        if self.weather == "journal":
            self._commit_journal()
        elif self.weather == "data":
            self._write_content()
        now = self._still()
        if now != self._last:
            self._last = now
            self.frames.append((after, _difference(self.first, now)))

    def _still(self) -> bytes:
        """Read the image until two readings are the same."""
        found, again = b"", self.image.read_bytes()
        while found != again:
            found, again = again, self.image.read_bytes()
        return found

    def _commit_journal(self) -> None:
        """Sync a file that nobody cares about."""
        with (self.mounted / "neighbour").open("wb") as file:
            file.write(str(next(self._numbers)).encode())
            file.flush()
            os.fsync(file.fileno())

    def _write_content(self) -> None:
        """Write what every file holds to its blocks, and nothing about the files."""
        for path in (self.mounted / "state").rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                _libc.sync_file_range(descriptor, 0, 0, WRITE_AND_WAIT)
                os.close(descriptor)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (
    *(ctypes.c_int, ctypes.c_int64),
    *(ctypes.c_int64, ctypes.c_uint),
)


def may_cut_power() -> str:
    """Return what is missing for power cuts here, or an empty string."""
    if os.geteuid() != 0:
        return "root, who may set up loop devices"
    for tool in TOOLS:
        if shutil.which(tool, path=SEARCH) is None:
            return f"the program {tool}"
    script = 'truncate -s 12M "$0" && mkfs.ext4 -q -F "$0" && mount -o loop "$0" /mnt'
    image = Path(mkdtemp()) / "image"
    command = ["unshare", "-m", "sh", "-c", script, str(image)]
    done = _run(command, check=False)
    shutil.rmtree(image.parent)
    if done.returncode:
        return f"a loop device with ext4 ({done.stderr.decode().strip()})"
    return ""


SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _run(
    command: list[str], *, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a program of the system."""
    environment = {**os.environ, "PATH": SEARCH}
    return subprocess.run(command, env=environment, check=check, stderr=subprocess.PIPE)


def _mounted(image: Path, options: str, use: Callable[[Path], None]) -> None:
    """Mount an image, use it, and unmount it."""
    where = image.with_suffix(".mounted")
    where.mkdir()
    _run(["mount", "-o", f"loop,{options}", str(image), str(where)])
    try:
        use(where)
    finally:
        _run(["umount", str(where)])
        where.rmdir()


def cut_power(
    scene: Scene, options: str, weather: Weather, variant: Variant = "right"
) -> Iterator[Case]:
    """Film one life and yield a case for each distinct image."""
    image = Path(mkdtemp(dir=scene.path)) / "image"
    image.write_bytes(bytes(IMAGE_BYTES))
    _run([*MKFS, str(image)])
    film = Film(image, image.with_suffix(".mounted"), weather)
    _mounted(image, options, partial(_record, scene, film, variant))
    image.unlink()
    for number, (after, blocks) in enumerate(film.frames, start=1):
        case = f"power cut after {after} ({options}, {weather})"
        path = image.with_name(f"{number}.image")
        yield partial(_replay, scene, options, case, (path, film.first, blocks))


def _record(scene: Scene, film: Film, variant: Variant, mounted: Path) -> None:
    """Live on the mounted image while it is filmed."""
    state = scene.fresh(mounted)
    film.begin()
    told = os.memfd_create("told")
    watcher = Looks(film.look)
    traced = trace(lambda: live(scene, state, told, variant), mounted, watcher)
    assert traced.status == 0, traced.status
    film.picture("the end")
    os.close(told)


def _replay(
    scene: Scene, options: str, case: str, picture: tuple[Path, bytes, Blocks]
) -> list[Verdict]:
    """Write an image, mount it (its journal is replayed), judge what is there."""
    path, first, blocks = picture
    whole = bytearray(first)
    for number, content in blocks.items():
        whole[number * BLOCK : (number + 1) * BLOCK] = content
    path.write_bytes(whole)
    verdicts: list[Verdict] = []

    def look(mounted: Path) -> None:
        state = mounted / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        verdicts.append(judge(scene, state, case))

    try:
        _mounted(path, options, look)
    finally:
        path.unlink()
    return verdicts


def _difference(first: bytes, now: bytes) -> Blocks:
    """Return the blocks of an image that differ from the first one's."""
    return {
        number: now[at : at + BLOCK]
        for number, at in enumerate(range(0, len(first), BLOCK))
        if now[at : at + BLOCK] != first[at : at + BLOCK]
    }
