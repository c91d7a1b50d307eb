"""An update while it works: by the unit, inside the sandbox, and nothing is lost."""

from tests.service.board import ServiceBoard
from tests.service.fleet import Owner


def test_a_second_version_is_swapped_in_and_no_sample_is_lost(
    board: ServiceBoard, owner: Owner
) -> None:
    """``tinyward repo`` publishes 2: daemon and worker go on, all accounted."""
    board.write_settings(owner.settings())
    board.start_anew()
    board.wait_for(lambda: board.version() == 1, "version 1")
    daemon, worker = board.daemon_pid, board.worker_pid()
    owner.publish(2)
    board.wait_for(lambda: board.version() == 2, "version 2")
    board.wait_answers()
    assert (daemon, worker) == (board.daemon_pid, board.worker_pid())
    pipeline, counts = board.pipeline(), board.samples()
    ended = counts["ok"] + counts["failed"] + counts["dropped"]
    # One may be in the model's hands; and state and samples are two looks.
    assert counts["in"] - ended <= 1
    assert (counts["failed"], counts["dropped"]) == (0, 0)
    assert {1, 2} == {model["version"] for model in pipeline["models"]}


def test_a_committed_update_needs_no_repository_after_a_reboot(
    board: ServiceBoard, owner: Owner
) -> None:
    """The repository is gone, the power too: version 2 answers all the same."""
    board.write_settings(owner.settings())
    owner.publish(2)
    board.start_anew()
    board.wait_for(lambda: board.version() == 2, "version 2")
    board.machine.cut_power()
    repository = board.machine.root / "srv/fleet/repository"
    away = repository.rename(repository.with_name("away"))
    try:
        board.machine.boot()
        board.wait_answers()
        assert board.version() == 2
    finally:
        away.rename(repository)
