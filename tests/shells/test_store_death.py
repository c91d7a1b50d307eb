"""The store and the end of its process, its disk, its rights: each time for real.

File systems are mounted in a private namespace (``unshare -rm``), so nothing outside
the test sees them and no privilege is needed where user namespaces are allowed.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.disks import fast_directory
from tests.shells.store_driver import KILLS

FULL_TMPFS_KB = 160  # room for state.db, one small model, and no second one
Require = Callable[[str], Path]


def drive(what: str, directory: Path, repository: Path, *before: str) -> object:
    """Run the driver, behind another command if need be, and return what it tells."""
    command = [sys.executable, "-m", "tests.shells.store_driver", what, str(directory)]
    done = subprocess.run(  # fails loudly: stderr is shown by pytest
        [*before, *command], cwd=repository, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def mounted(require_tool: Require) -> Callable[[str], list[str]]:
    """Give the command that mounts something in a namespace of its own first."""
    unshare, mount = require_tool("unshare"), require_tool("mount")
    allowed = subprocess.run(
        [unshare, "-rm", mount, "-t", "tmpfs", "tmpfs", "/mnt"],
        stderr=subprocess.PIPE,
        check=False,
    )
    if allowed.returncode:
        pytest.skip(f"no user namespaces here: {allowed.stderr.decode().strip()}")

    def command(script: str) -> list[str]:
        return [str(unshare), "-rm", "sh", "-ec", f'{script}; exec "$@"', "sh"]

    return command


def test_a_really_full_disk(
    tmp_path: Path, repository: Path, mounted: Callable[[str], list[str]]
) -> None:
    """No block left: disk_full at each change, the old model whole, then it goes on."""
    before = mounted(f"mount -t tmpfs -o size={FULL_TMPFS_KB}k tmpfs {tmp_path}")
    assert drive("full_disk", tmp_path, repository, *before) == {
        "told": dict.fromkeys(
            ("stage", "stage_small", "save", "commit", "first_start"), "disk_full"
        ),
        "active": [1, 1, 4],
        "files": 1,
        "floor": 4,
    }


def test_a_limit_on_file_sizes(tmp_path: Path, repository: Path) -> None:
    """RLIMIT_FSIZE, as a quota does, says disk_full and leaves the old model."""
    expected = {"told": "disk_full", "active": 1}
    assert drive("file_limit", tmp_path, repository) == expected


def test_65_no_file_descriptors(tmp_path: Path, repository: Path) -> None:
    """Too many open files: said so at each change, and over when they are closed."""
    told = dict.fromkeys(
        ("stage", "open", "save", "note", "upload", "second_start"), "descriptors"
    )
    expected = {"told": told, "active": 2}
    assert drive("no_descriptors", tmp_path, repository) == expected


def test_65_no_inodes(
    tmp_path: Path, repository: Path, mounted: Callable[[str], list[str]]
) -> None:
    """No file can be created any more: disk_full at each change, nothing lost."""
    before = mounted(f"mount -t tmpfs -o nr_inodes=60 tmpfs {tmp_path}")
    told = dict.fromkeys(
        ("stage", "save", "note", "upload", "first_start"), "disk_full"
    )
    expected = {"told": told, "active": [1, 2]}
    assert drive("no_inodes", tmp_path, repository, *before) == expected


@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_directory(
    tmp_path: Path,
    repository: Path,
    mounted: Callable[[str], list[str]],
    *,
    exists: bool,
) -> None:
    """On a read-only file system a start says read_only, for a new and an old state."""
    if exists:
        drive("file_limit", tmp_path, repository)
    bind = f"mount --bind {tmp_path} {tmp_path}"
    before = mounted(f"{bind}; mount -o remount,ro,bind {tmp_path}")
    expected = {"told": "read_only"}
    assert drive("read_only", tmp_path, repository, *before) == expected


def test_killed_after_every_step(tmp_path: Path, repository: Path) -> None:
    """kill -9 after each step on files: whole, nothing fell, and it goes on.

    Ten steps bring an object in, six write the copy of the state before it commits;
    the last, after COMMIT, collects the oldest object.
    """
    told = drive("kill_steps", tmp_path, repository)
    assert told == {"outcomes": [3] * 16 + [4]}


# change -> (floor, active version) that may be found after a death in the middle of it
FOUND = {
    "commit": [[2, 2], [3, 3]],
    "fall_back": [[2, 1], [2, 2]],
    "rot": [[2, 1], [2, 2]],
    "notes": [[2, 2]],
    "resume": [[2, 2], [3, 3]],
    "rebuild": [[2, 2]],
    "migrate": [[7, 7]],
    "upload": [[2, 2]],
}


@pytest.mark.parametrize("change", FOUND)
def test_60_killed_before_and_after_every_call(repository: Path, change: str) -> None:
    """kill -9 around each call of a change: the old state or the new one, whole.

    And if state.db is damaged as well, its copy has no lower floor than it had.
    """
    command = [sys.executable, "-m", "tests.shells.store_kill_driver"]
    with fast_directory() as directory:
        done = subprocess.run(
            [*command, change, str(directory)],
            cwd=repository,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    told = json.loads(done.stdout)
    assert told["seen"] == FOUND[change]
    assert told["moments"] > 80


def test_killed_before_every_statement(tmp_path: Path, repository: Path) -> None:
    """kill -9 before each SQL statement: whole, nothing fell, and it goes on."""
    told = drive("kill_statements", tmp_path, repository)
    assert isinstance(told, dict)
    outcomes = told["outcomes"]
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {2, 3}


def test_killed_at_any_moment(tmp_path: Path, repository: Path) -> None:
    """kill -9 at random moments: what was promised is there, and it goes on."""
    told = drive("kill_anywhere", tmp_path, repository)
    assert isinstance(told, dict)
    assert told["lives"] == KILLS
    assert told["version"] > KILLS
