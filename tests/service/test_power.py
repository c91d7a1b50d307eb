"""A board without a network is switched off, on, and cut from power."""

from tests.service.board import SERVICE, ServiceBoard


def test_the_model_answers_after_a_reboot(board: ServiceBoard) -> None:
    """The committed model needs nobody: it answers after a clean shutdown and boot."""
    version = board.version()
    board.machine.power_off()
    board.machine.boot()
    board.wait_answers()
    assert version == board.version()


def test_stopping_is_clean_and_quick(board: ServiceBoard) -> None:
    """``systemctl stop`` ends in success, kills nobody, and leaves no process."""
    daemon, worker = board.daemon_pid, board.worker_pid()
    board.systemctl("stop", SERVICE)
    assert board.shows("Result") == "success"
    assert "SIGKILL" not in board.said().rpartition("Stopping")[2]
    for pid in (daemon, worker):
        assert not board.machine.path(f"/proc/{pid}").exists()
    assert not board.machine.path("/run/tinyward").exists()


def test_the_model_answers_after_a_power_cut(board: ServiceBoard) -> None:
    """Every process ends at once, in the middle of its work; it boots and answers."""
    version = board.version()
    board.machine.cut_power()
    board.machine.boot()
    board.wait_answers()
    assert version == board.version()


def test_power_that_fails_while_it_boots(board: ServiceBoard) -> None:
    """Cut again and again at moments of the start: the last boot answers as ever."""
    version = board.version()
    for _ in range(3):
        board.machine.cut_power()
        board.machine.power_on()
        board.wait_for(lambda: board.machine.path("/run/systemd").exists(), "systemd")
    board.machine.cut_power()
    board.machine.boot()
    board.wait_answers()
    assert version == board.version()
