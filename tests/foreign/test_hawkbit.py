"""The real Eclipse hawkBit orders, a real board obeys, and hawkBit hears of each step.

What hawkBit makes of a board's words: ``scheduled``, ``proceeding`` and ``resumed`` are
``running``; ``closed`` is ``finished`` or ``error``; it adds ``retrieved`` itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import missing
from tests.fakes.static_server import find_nginx
from tests.foreign.following import Follower, following, target
from tests.foreign.gate import closes, everything
from tests.foreign.hawkbit import TENANT, HawkBit

TOKEN = "0123456789abcdef0123456789ABCDEF"  # noqa: S105 - of boards on loopback
ATTEMPTS = 3  # what may pass by itself is waited for, and not for long
STEPS = ["scheduled", "download", "downloaded", "proceeding", "closed"]
ALWAYS = {"schedule": "0 * * * * ?", "duration": "00:01:00", "timezone": "+00:00"}
FAR_AWAY = {
    "schedule": "0 0 0 1 1 ? 2099",
    "duration": "01:00:00",
    "timezone": "+00:00",
}


@dataclass(frozen=True, slots=True)
class Ordered:
    """A board that obeys hawkBit."""

    server: HawkBit
    board: Follower

    def order(self, version: int, why: str = "", **how: object) -> int:
        """Assign a version, in a distribution set of its own; return the action."""
        composed = self.server.compose(f"digits {version} {why}", target(version))
        return self.server.assign(
            composed, self.board.name, **{"type": "forced", **how}
        )

    def status(self, action: int) -> str:
        """Return an action's detailed status."""
        return str(self.server.action(self.board.name, action)["detailStatus"])

    def wait_status(self, action: int, status: str) -> None:
        """Wait until hawkBit believes something of an action."""
        self.board.wait(lambda: self.status(action) == status, f"{action} {status}")

    def told(self, action: int) -> list[str]:
        """Return what the board said of an action."""
        return self.board.gate.executions(str(action))

    def clean(self) -> int:
        """Order the next version, which has to become active; return it."""
        version = self.board.publish()
        action = self.order(version)
        self.wait_status(action, "finished")
        self.board.wait_version(version)
        return version


@pytest.fixture(scope="module")
def first(
    hawkbit: HawkBit, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ordered]:
    """Give a board with a token of its own, and nothing ordered."""
    if find_nginx() is None:
        missing("the program nginx (apt install nginx-light)")
    name = "board-1"
    hawkbit.enlist(name, TOKEN)
    home = tmp_path_factory.mktemp(name)
    where = (hawkbit.port, TENANT)
    with following(home, name, where, TOKEN, attempts=ATTEMPTS) as board:
        yield Ordered(hawkbit, board)


@pytest.fixture
def ordered(first: Ordered) -> Ordered:
    """Give the board, running, whatever the test before it died of."""
    if not first.board.daemon.runs:
        first.board.daemon.start()
    return first


def test_from_the_registration_to_finished(ordered: Ordered) -> None:
    """Register, be assigned, commit: each state is in hawkBit's history."""
    server, board = ordered.server, ordered.board
    board.wait(lambda: server.attributes(board.name), "its attributes")
    version = board.publish()
    action = ordered.order(version)
    ordered.wait_status(action, "finished")
    board.wait_version(version)
    assert ordered.told(action) == STEPS
    history = server.history(board.name, action)
    steps = [it for it in history if it not in {"running", "retrieved"}]
    assert steps == ["download", "downloaded", "finished"]
    assert server.action(board.name, action)["status"] == "finished"
    assert server.target(board.name)["updateStatus"] == "in_sync"


def test_a_power_cut_between_commit_and_report(ordered: Ordered) -> None:
    """``finished`` is said after the next start, and nothing is installed twice."""
    board = ordered.board
    version = board.publish()
    with board.gate.closed(closes):
        action = ordered.order(version)
        board.wait_version(version)
        board.daemon.kill()
    board.daemon.start()
    ordered.wait_status(action, "finished")
    board.wait_version(version)
    assert board.fetches(version) == 1


def test_a_cancellation_before_the_board_has_heard(ordered: Ordered) -> None:
    """It hears of an end only, accepts it, and fetches nothing."""
    board, before = ordered.board, ordered.clean()
    version = board.publish()
    with board.watched.undisturbed():
        with board.gate.closed(everything):
            action = ordered.order(version)
            ordered.server.cancel(board.name, action)
        ordered.wait_status(action, "canceled")
    assert (board.daemon.version(), board.fetches(version)) == (before, 0)


def test_a_maintenance_window_and_a_cancellation_in_it(ordered: Ordered) -> None:
    """What must wait is fetched before; a cancellation then ends it."""
    board, before = ordered.board, ordered.clean()
    version = board.publish()
    with board.watched.undisturbed():
        action = ordered.order(version, maintenanceWindow=FAR_AWAY)
        board.wait(lambda: "downloaded" in ordered.told(action), "it is here")
        ordered.server.cancel(board.name, action)
        ordered.wait_status(action, "canceled")
    assert (board.daemon.version(), board.fetches(version)) == (before, 1)
    again = ordered.order(version, "in a window", maintenanceWindow=ALWAYS)
    ordered.wait_status(again, "finished")
    board.wait_version(version)


def test_a_user_who_is_asked(ordered: Ordered) -> None:
    """``fleet.ddi.confirm`` answers for the user, and the order goes its way."""
    server, board = ordered.server, ordered.board
    version = board.publish()
    server.configure("user.confirmation.flow.enabled", value=True)
    try:
        action = ordered.order(version, confirmationRequired=True)
        assert ordered.status(action) == "wait_for_confirmation"
        ordered.wait_status(action, "finished")
    finally:
        server.configure("user.confirmation.flow.enabled", value=False)
    board.wait_version(version)


def test_an_action_that_is_only_to_be_fetched(ordered: Ordered) -> None:
    """It ends when the bundle is here; what runs goes on."""
    board, before = ordered.board, ordered.clean()
    version = board.publish()
    with board.watched.undisturbed():
        action = ordered.order(version, type="downloadonly")
        ordered.wait_status(action, "downloaded")
    assert (board.daemon.version(), board.fetches(version)) == (before, 1)


def test_what_runs_already(ordered: Ordered) -> None:
    """The same version in another distribution set: done, and nothing is fetched."""
    version = ordered.clean()
    action = ordered.order(version, "once more")
    ordered.wait_status(action, "finished")
    assert ordered.board.fetches(version) == 1


def test_an_order_without_haste(ordered: Ordered) -> None:
    """``soft`` is ``attempt``: obeyed at any time where the board has no window."""
    version = ordered.board.publish()
    action = ordered.order(version, type="soft")
    ordered.wait_status(action, "finished")
    ordered.board.wait_version(version)


def test_what_is_not_admissible(ordered: Ordered) -> None:
    """hawkBit hears ``error``; what runs goes on."""
    version = ordered.clean()
    with ordered.board.watched.undisturbed():
        action = ordered.order(1, "which is older")
        ordered.wait_status(action, "error")
    assert ordered.board.daemon.version() == version


def test_a_poll_without_news_has_no_body(ordered: Ordered) -> None:
    """hawkBit marks its answers, and the board shows it the mark."""
    board = ordered.board
    ordered.clean()
    begun = len(board.gate.passed)

    def unchanged() -> bool:
        return any(it.status == 304 for it in board.gate.passed[begun:])

    board.wait(unchanged, "a poll is answered by 304")


def test_a_token_of_the_whole_tenant(
    hawkbit: HawkBit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A gateway's token lets a board in that nobody enlisted."""
    hawkbit.configure("authentication.gatewaytoken.enabled", value=True)
    hawkbit.configure("authentication.gatewaytoken.key", TOKEN[::-1])
    home, where = tmp_path_factory.mktemp("board-2"), (hawkbit.port, TENANT)
    token = TOKEN[::-1]
    with following(home, "board-2", where, token, gateway_token=True) as board:
        board.wait(lambda: hawkbit.attributes("board-2"), "its attributes")
