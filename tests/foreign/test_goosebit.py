"""A real gooseBit orders, a real board obeys, and gooseBit hears of each step.

gooseBit knows no cancellation, confirmation or maintenance window; the simulator and
hawkBit do. What it keeps of an action is its last state and the details; each state
that it merely takes stands in its own log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from tests.conftest import missing
from tests.fakes.static_server import find_nginx
from tests.foreign.following import Follower, following, target
from tests.foreign.gate import closes, everything
from tests.foreign.goosebit import TENANT, GooseBit, path_of
from tests.foreign.swu import make_swu

TOKEN = "0123456789abcdef0123456789ABCDEF"  # noqa: S105 - of boards on loopback
STATES = ("scheduled", "download", "downloaded", "proceeding", "closed")
ATTEMPTS = 3  # what may pass by itself is waited for, and not for long
_images = count(1)  # gooseBit takes each version of an image once


@dataclass(frozen=True, slots=True)
class Ordered:
    """A board that obeys gooseBit."""

    server: GooseBit
    board: Follower

    def upload(self, pointed: str | None, more: bytes = b"") -> int:
        """Upload an image whose pointer names a target; return its id, the action's."""
        version = f"{next(_images)}.0.0"
        image = make_swu(version, target=pointed, more=more)
        return self.server.upload(image, f"{version}.swu")

    def state(self) -> str:
        """Return what gooseBit believes of the board."""
        return str(self.server.device(self.board.name)["last_state"])

    def said(self, action: int) -> list[str]:
        """Return what the board has told of an action, and gooseBit has taken."""
        return self.board.gate.executions(str(action))

    def wait_ended(self, action: int, state: str = "Finished") -> None:
        """Wait until gooseBit has heard of the end, and what it makes of it."""
        self.board.wait(lambda: "closed" in self.said(action), f"{action} ends")
        assert self.state() == state

    def wait_obeyed(self) -> int:
        """Order a version and wait until it runs and is reported; return it."""
        version, action = self.order()
        self.board.wait_version(version)
        self.wait_ended(action)
        return version

    def order(self) -> tuple[int, int]:
        """Publish a version and assign it; return it and the action's id."""
        version = self.board.publish()
        action = self.upload(target(version))
        self.server.assign(action, self.board.name)
        return version, action


@pytest.fixture(scope="module")
def first(
    goosebit: GooseBit, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ordered]:
    """Give a board that gooseBit lets in, and nothing more."""
    if find_nginx() is None:
        missing("the program nginx (apt install nginx-light)")
    name = "board-1"
    goosebit.enlist(name, TOKEN)
    home = tmp_path_factory.mktemp(name)
    where = (goosebit.port, TENANT)
    with following(home, name, where, TOKEN, attempts=ATTEMPTS) as board:
        yield Ordered(goosebit, board)


@pytest.fixture
def ordered(first: Ordered) -> Ordered:
    """Give the board, running, whatever the test before it died of."""
    if not first.board.daemon.runs:
        first.board.daemon.start()
    return first


def test_from_the_registration_to_finished(ordered: Ordered) -> None:
    """Register, be rolled out to, commit: each state is seen on the server."""
    server, board = ordered.server, ordered.board
    board.wait(lambda: ordered.state() == "Registered", "it is registered")
    version = board.publish()
    action = ordered.upload(target(version))
    rollout = server.roll_out(action, feed=board.name)
    board.wait_version(version)
    ordered.wait_ended(action)
    steps = ["scheduled", "download", "downloaded", "proceeding", "closed"]
    assert ordered.said(action) == steps
    words = server.words()
    for step in ("scheduled", "download", "downloaded"):  # what it does not interpret
        assert f"state={step}, device={board.name}" in words
    assert server.rollout(rollout)["success_count"] == 1
    assert server.device(board.name)["sw_version"] == "1.0.0"
    assert server.device(board.name)["progress"] == 100


def test_a_power_cut_between_commit_and_report(ordered: Ordered) -> None:
    """``Finished`` is said after the next start, and nothing is installed twice."""
    board = ordered.board
    with board.gate.closed(closes):
        version, action = ordered.order()
        board.wait_version(version)
        board.daemon.kill()
        assert "closed" not in ordered.said(action)
    board.daemon.start()
    ordered.wait_ended(action)
    board.wait_version(version)
    said = board.gate.executions(str(action))
    # What the cut may have swallowed the answer of is told again, nothing backwards;
    # the end is told once, and after everything else. Where the order is read anew
    # before the end is told, that it goes on is told, too.
    ranks = [STATES.index(it) for it in said if it != "resumed"]
    assert (ranks, set(ranks)) == (sorted(ranks), set(range(len(STATES))))
    assert said.count("closed") == 1
    assert board.daemon.state()["update"]["results"] == []  # of this life
    assert board.fetches(version) == 1


def test_a_power_cut_while_the_server_is_away(ordered: Ordered) -> None:
    """The report gets lost, both go dark; later the server hears how it ended."""
    board, server = ordered.board, ordered.server
    begun = len(board.gate.passed)

    def lost() -> bool:
        since = board.gate.passed[begun:]
        return any(closes(it.method, it.path, it.sent) for it in since)

    with board.gate.closed(closes):
        version, action = ordered.order()
        board.wait_version(version)
        board.wait(lost, "its report gets lost")
        server.stop()
    board.daemon.kill()
    board.daemon.start()
    board.daemon.wait_version(version)
    server.start()
    ordered.wait_ended(action)
    assert board.fetches(version) == 1


def test_an_order_that_is_given_again(ordered: Ordered) -> None:
    """gooseBit forgets what runs when a board registers anew: it is told, once more."""
    board, server = ordered.board, ordered.server
    version, action = ordered.order()
    board.wait_version(version)
    ordered.wait_ended(action)
    begun = len(board.gate.passed)
    told = {"mode": "merge", "data": {"hw_revision": "default"}}
    server.as_board("PUT", path_of(board.name, "/configData"), TOKEN, told)
    assert server.device(board.name)["sw_version"] is None
    board.wait(lambda: server.device(board.name)["sw_version"], "it is told again")

    def said() -> list[str]:
        return board.gate.executions(str(action), since=begun)

    # The gate notes an answer once it has passed it on.
    board.wait(lambda: said()[-1:] == ["closed"], "the end is told again")
    assert "download" not in said()
    assert (board.daemon.version(), board.fetches(version)) == (version, 1)


@pytest.mark.parametrize(
    "pointed",
    ["models/digits/1.bundle", "models/digits/999.bundle", "../../etc/passwd", None],
    ids=["older", "never_signed", "no_target", "no_pointer"],
)
def test_what_is_not_admissible_is_refused(
    ordered: Ordered, pointed: str | None
) -> None:
    """gooseBit hears ``failure`` and why; what runs goes on."""
    board, server = ordered.board, ordered.server
    version = ordered.wait_obeyed()
    action = ordered.upload(pointed)
    with board.watched.undisturbed():
        server.assign(action, board.name)
        ordered.wait_ended(action, "Error")
    assert board.daemon.version() == version
    assert server.device_log(board.name).strip()  # why, for people


def test_an_image_with_a_whole_model_is_no_pointer(ordered: Ordered) -> None:
    """Content is never taken from the server, not even fetched."""
    board, server = ordered.board, ordered.server
    action = ordered.upload(target(board.publish()), more=bytes(1_000_000))
    begun = len(board.gate.passed)
    with board.watched.undisturbed():
        server.assign(action, board.name)
        ordered.wait_ended(action, "Error")
    asked = {it.path.rpartition("/")[2] for it in board.gate.passed[begun:]}
    assert "download" not in asked


def test_a_token_that_is_taken_away(ordered: Ordered) -> None:
    """The board is a stranger, and works; with its token back it obeys again."""
    board, server = ordered.board, ordered.server
    begun = len(board.gate.passed)
    server.change_token(board.name, TOKEN[::-1])

    def shut_out() -> bool:
        return any(it.status == 401 for it in board.gate.passed[begun:])

    with board.watched.undisturbed():
        version, action = ordered.order()
        board.wait(shut_out, "it is shut out")
    server.change_token(board.name, TOKEN)
    board.wait_version(version)
    ordered.wait_ended(action)


def test_a_server_that_is_away_stops_nothing(ordered: Ordered) -> None:
    """Orders wait in the server; the board goes on with what it has."""
    board = ordered.board
    begun = len(board.gate.passed)
    with board.watched.undisturbed(), board.gate.closed(everything):
        version, action = ordered.order()
        board.wait(lambda: board.gate.passed[begun:], "it knocks in vain")
    board.wait_version(version)
    ordered.wait_ended(action)
