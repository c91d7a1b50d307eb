"""The end of a board's service: conftest.py lets it come last."""

from tests.service.board import SERVICE, SLOT, STATE, ServiceBoard, fill_slot, listing
from tests.service.conftest import Installation

# Parents that systemd's and Debian's tools make for whoever comes first, and never
# remove: an empty directory is not ours. Copies of passwd(5) are those of useradd(8).
LEFT_BY_OTHERS = {
    *("/etc/sysusers.d", "/etc/tmpfiles.d", "/etc/passwd-", "/etc/group-"),
    *("/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"),
}


def test_uninstalling_leaves_settings_and_state_and_purging_nothing(
    board: ServiceBoard, installation: Installation
) -> None:
    """No process, unit, user, link or file of ours is left, compared path by path."""
    machine = board.machine
    worker = board.worker_pid()
    board.tinyward("uninstall", "--yes")
    assert not machine.path(f"/proc/{worker}").exists()
    assert board.shows("LoadState") == "not-found"
    left = listing(machine.root) - installation.untouched - LEFT_BY_OTHERS
    others = {path for path in left if not path.startswith((STATE, "/etc/tinyward"))}
    assert {path for path in others if not path.startswith("/srv/")} == set()
    assert f"{STATE}/state.db" in left
    fill_slot(machine, SLOT)
    machine.run(f"{SLOT}/bin/tinyward", "install")
    board.wait_answers()
    board.tinyward("uninstall", "--purge", "--yes")
    left = listing(machine.root) - installation.untouched - LEFT_BY_OTHERS
    assert {path for path in left if not path.startswith("/srv/")} == set()
    assert machine.run("id", "tinyward", check=False).returncode != 0
    assert SERVICE not in board.systemctl("list-units", "--all")
