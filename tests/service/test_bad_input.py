"""What people and disks do to a service: each is said, and none ends the board."""

from collections.abc import Callable

import pytest

from tests.service.board import PROGRAM, SERVICE, SETTINGS, STATE, ServiceBoard
from tests.service.fleet import Owner

LISTEN = """
import socket, time
server = socket.create_server(("127.0.0.1", 9797))
time.sleep(600)
"""
NEWER = """
import sqlite3
with sqlite3.connect("{state}/state.db") as database:
    database.execute("PRAGMA user_version = 9999")
    database.execute("UPDATE seal SET schema = 9999")
"""


def test_a_reload_takes_new_settings_without_a_restart(
    board: ServiceBoard, owner: Owner
) -> None:
    """``systemctl reload`` applies another rate; daemon and counters go on."""
    board.write_settings(owner.settings(rate=20.0))
    board.start_anew()
    board.wait_answers()
    daemon, before = board.daemon_pid, board.samples()
    board.write_settings(owner.settings(rate=50.0))
    board.systemctl("reload", SERVICE)
    board.wait_for(lambda: "settings.applied" in board.said(), "a word about it")
    board.wait_answers()
    assert daemon == board.daemon_pid
    assert before["ok"] <= board.samples()["ok"]
    assert board.shows("ActiveState") == "active"


@pytest.mark.parametrize("broken", ["[[pipeline]\n", "no_such_key = 1\n", ""])
def test_broken_settings_at_a_reload_change_nothing(
    board: ServiceBoard, broken: str
) -> None:
    """The old ones stay in force; the journal says what is wrong and where."""
    daemon = board.daemon_pid
    said = len(board.said())
    board.write_settings(broken)
    board.systemctl("reload", SERVICE, check=False)
    board.wait_for(lambda: "settings" in board.said()[said:], "a word about them")
    board.write_settings(board.settings)
    board.wait_answers()
    assert daemon == board.daemon_pid


def _refused_to_start(board: ServiceBoard, why: Callable[[str], bool]) -> None:
    """Start it where it cannot; it has to say why, and not to count as ready."""
    said = len(board.said())
    board.systemctl("restart", SERVICE, check=False)
    board.wait_for(lambda: why(board.said()[said:].lower()), "the reason")
    assert board.shows("SubState") != "running"
    board.systemctl("stop", SERVICE)


def test_a_port_in_use_is_named(board: ServiceBoard) -> None:
    """Another program has the port: the unit fails with the address in its words."""
    board.systemctl("stop", SERVICE)
    thief = board.machine.spawn("python3", "-c", LISTEN)
    try:
        board.wait_for(lambda: _taken(board), "the port is taken")
        _refused_to_start(board, lambda said: "9797" in said and "in use" in said)
    finally:
        board.machine.run("pkill", "-f", "create_server")
        thief.wait()


def _taken(board: ServiceBoard) -> bool:
    """Whether somebody listens on the port; proc(5): 0A is LISTEN, 9797 is 2645."""
    table = board.machine.run("cat", "/proc/net/tcp").stdout
    return any(":2645 " in line and " 0A " in line for line in table.splitlines())


def test_settings_that_are_broken_at_the_start_are_explained(
    board: ServiceBoard,
) -> None:
    """The journal names the file and what is wrong with it."""
    board.write_settings("no_such_key = 1\n")
    _refused_to_start(board, lambda said: "no_such_key" in said and SETTINGS in said)


def test_a_second_daemon_by_hand_is_told_that_it_is_one(board: ServiceBoard) -> None:
    """As root or as its user it ends with the reason, and the first one goes on."""
    daemon = board.daemon_pid
    done = board.machine.run(PROGRAM, "run", check=False)
    assert (done.returncode, "permission" in done.stderr) == (1, True)
    user = ("--reuid", "tinyward", "--regid", "tinyward", "--clear-groups")
    done = board.machine.run("setpriv", *user, PROGRAM, "run", check=False)
    assert (done.returncode, "locked" in done.stderr) == (1, True)
    board.wait_answers()
    assert daemon == board.daemon_pid


def test_a_state_directory_of_another_user_is_given_back(board: ServiceBoard) -> None:
    """StateDirectory= hands it to the service's user again: nothing else to do."""
    board.systemctl("stop", SERVICE)
    board.machine.run("chown", "-R", "4242:4242", STATE)
    board.start_anew()
    board.wait_answers()


def test_a_file_system_that_turned_read_only_is_named(board: ServiceBoard) -> None:
    """As after errors of an SD card: the reason, and it answers once mended."""
    board.systemctl("stop", SERVICE)
    board.machine.run("mount", "--bind", STATE, STATE)
    board.machine.run("mount", "-o", "remount,ro,bind", STATE)
    try:
        _refused_to_start(
            board, lambda said: "read-only" in said or "read_only" in said
        )
    finally:
        board.machine.run("umount", STATE)
    board.start_anew()
    board.wait_answers()


def test_a_full_disk_is_named(board: ServiceBoard) -> None:
    """Without a byte to write it says so, and it answers once there is room."""
    board.systemctl("stop", SERVICE)
    board.machine.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", STATE)
    board.machine.run("chown", "tinyward:", STATE)
    board.machine.run("dd", "if=/dev/zero", f"of={STATE}/full", check=False)
    try:
        _refused_to_start(board, lambda said: "disk_full" in said or "space" in said)
    finally:
        board.machine.run("umount", STATE)
    board.start_anew()
    board.wait_answers()


def test_the_state_of_a_newer_agent_is_left_alone(
    board: ServiceBoard, owner: Owner
) -> None:
    """An agent that is put back by hand says that it is older, and changes nothing."""
    state = f"{STATE}/later"
    board.write_settings(owner.settings(state=state))
    board.start_anew()
    board.wait_answers()
    board.systemctl("stop", SERVICE)
    board.machine.run("python3", "-c", NEWER.format(state=state))
    database = board.machine.root / state.lstrip("/") / "state.db"
    before = database.read_bytes()
    _refused_to_start(board, lambda said: "newer" in said)
    assert before == database.read_bytes()
