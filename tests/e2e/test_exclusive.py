"""What an operator can get wrong: state directory, settings, address, disk."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import find_tool
from tests.e2e.conftest import FULL_LOAD, MakeBoard
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import Fleet, bundle

NOBODY = 65534
MB = 1024 * 1024


def refused(board: DaemonProcess, code: int, reason: str) -> str:
    """Start a daemon that has to end; return the line that says why."""
    assert board.run_out() == code
    assert "Traceback" not in board.words()
    errors = [line for line in board.words().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, board.words()
    assert errors[0].endswith(f"[{reason}]")
    return errors[0]


def own_mounts(mount: str, place: Path) -> tuple[str, ...]:
    """Return a wrapper that mounts something at a place, for one process alone."""
    unshare = str(find_tool("unshare"))
    probe = subprocess.run(
        [unshare, "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
        check=False,
        capture_output=True,
    )
    if probe.returncode:
        pytest.skip(f"no mounts of one's own here: {probe.stderr.decode().strip()}")
    script = f'{mount} && shift && exec "$@"'
    return (unshare, "-m", "sh", "-c", script, "sh", str(place))


def test_68_the_second_daemon_names_the_first(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Two on one state directory: the second ends with `locked`, the first goes on."""
    fleet.publish(1)
    first = make_board()
    second = make_board("second", state_dir=first.state_dir)
    with first:
        first.wait_version(1)
        line = refused(second, 1, "locked")
        assert str(first.pid) in line
        assert first.version() == 1
        first.signal(signal.SIGKILL)
        first.wait()
        with second:
            second.wait_version(1)


def test_a_state_directory_of_another_user_is_refused(
    make_board: MakeBoard, tmp_path: Path
) -> None:
    """For root too: what root leaves behind, its owner could not write any more."""
    place = tmp_path / "theirs"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, NOBODY, NOBODY)
    else:
        place = Path("/usr")
    board = make_board(state_dir=place)
    assert "belongs to" in refused(board, 1, "permission")
    assert list(tmp_path.glob("theirs/*")) == []


def test_another_user_cannot_use_our_state_directory(
    make_board: MakeBoard, fleet: Fleet, open_folder: Path
) -> None:
    """A daemon without rights ends with `permission`, and changes nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
    other = DaemonProcess(
        open_folder / "board", FULL_LOAD, state_dir=open_folder / "state"
    )
    shutil.copytree(board.state_dir, other.state_dir)
    for path in (other.directory, other.log, other.out):
        path.touch()
        path.chmod(0o777)
    other.state_dir.chmod(0o755)
    setpriv = str(find_tool("setpriv"))
    other.wrapper = (setpriv, "--reuid", str(NOBODY))
    probe = [*other.wrapper, sys.executable, "-c", "import agent, click"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this interpreter cannot be started by another user")
    assert "belongs to" in refused(other, 1, "permission")


def test_65_a_read_only_state_directory_is_refused(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """The card was mounted read-only, as kernels do after errors."""
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    board.wrapper = own_mounts(mount, board.state_dir)
    refused(board, 1, "read_only")
    board.wrapper = ()
    with board:
        board.wait_version(1)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("colour = 'red'", "colour"),
        ("log_level = 3", "log_level"),
        ("[update]\npoll_s = -1", "update.poll_s"),
        ("[local]\nlisten = 'nowhere'", "local.listen"),
        ("[[pipeline]]\nname = 'a'", "pipeline[0]"),
        ("= 1", "TOML"),
    ],
)
def test_wrong_settings_end_with_code_2(
    make_board: MakeBoard, line: str, named: str
) -> None:
    """The message names the key, and nothing was started or written."""
    board = make_board()
    board.settings.write_text(line + "\n", encoding="utf-8")
    assert named in refused(board, 2, "settings")
    assert not board.state_dir.exists()


def test_settings_that_are_not_there_end_with_code_2(make_board: MakeBoard) -> None:
    """A missing file is named."""
    board = make_board()
    board.settings.unlink()
    assert str(board.settings) in refused(board, 2, "settings")


def test_two_pipelines_of_one_name_end_with_code_2(make_board: MakeBoard) -> None:
    """Their metrics and their state would be one."""
    board = make_board()
    text = board.settings.read_text(encoding="utf-8")
    (table,) = re.findall(r"\[\[pipeline\]\].*?(?=\n\[)", text, re.DOTALL)
    board.settings.write_text(f"{text}\n{table}\n", encoding="utf-8")
    assert "digits" in refused(board, 2, "settings")


def test_an_address_in_use_ends_with_code_1(make_board: MakeBoard) -> None:
    """The message names the address, and no worker is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        board = make_board()
        board.write_settings(
            local={"listen": f"127.0.0.1:{port}", "socket": board.socket}
        )
        assert str(port) in refused(board, 1, "address")


def test_61_a_full_disk_stops_updates_only(make_board: MakeBoard, fleet: Fleet) -> None:
    """The active model answers on; once there is room again the update happens."""
    fleet.publish(1)
    board = make_board()
    board.state_dir.mkdir()
    mount = 'mount -t tmpfs -o size=6m,mode=700 none "$1"'
    board.wrapper = own_mounts(mount, board.state_dir)
    with board:
        board.wait_version(1)
        seen = Path(f"/proc/{board.pid}/root") / board.state_dir.relative_to("/")
        ballast = seen / "ballast"
        for left in (200_000, 0):
            fill(ballast, left)
            fleet.publish(board.version() + 1)
            board.wait_for(partial(says, board, len(board.words())), "disk_full")
            answered = board.samples()["ok"]
            board.wait_for(partial(answers, board, answered), "answers")
            assert board.readiness() == (200, "")
            wanted = board.version() + 1
            ballast.unlink()
            board.wait_version(wanted)
        sums = board.samples()
        assert (sums["failed"], sums["dropped"]) == (0, 0)
        assert list((seen / "part").iterdir()) == []
        committed = (seen / "obj" / board.pipeline()["active"]["sha256"]).read_bytes()
        assert committed == bundle(3)


def says(board: DaemonProcess, offset: int) -> bool:
    """Whether the log names a full disk after an offset."""
    return "disk_full" in board.words()[offset:]


def answers(board: DaemonProcess, answered: int) -> bool:
    """Whether more samples were answered than before."""
    return bool(board.samples()["ok"] > answered)


def fill(ballast: Path, left: int) -> None:
    """Write zeros until only so many bytes are free."""
    found = os.statvfs(ballast.parent)
    size = found.f_bavail * found.f_frsize - left
    with ballast.open("wb") as file:
        file.write(bytes(max(0, size)))
    if not left:
        with pytest.raises(OSError, match="No space"), ballast.open("ab") as file:
            file.write(bytes(MB))
