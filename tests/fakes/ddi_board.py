"""A real board that takes its orders from a DDI server, held to the same oracle.

The rules this module keeps:
 * Content comes from a repository on another server, which a test can make slow.
 * Polls are half a minute apart at least: a test rings for the next one, again and
   again, until what it waits for has come.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from agent.core.targets import bundle_path
from tests.fakes.daemon_process import DaemonProcess, Json
from tests.fakes.ddi_access import TOKEN
from tests.fakes.ddi_actions import Action
from tests.fakes.ddi_server import DdiServer
from tests.fakes.fleet import MODEL, Fleet, bundle
from tests.fakes.toxic_server import ToxicServer
from tests.fakes.watched_board import WatchedBoard

POLL_S = 0.2  # of the repository; the server says itself how often
RING_S = 0.5  # the board asks its server once a second at most


class MakeDaemon(Protocol):
    """Makes a board of a folder, its table [update], and the other tables."""

    def __call__(
        self,
        home: Path,
        update: Mapping[str, object],
        tables: Mapping[str, Mapping[str, object]],
    ) -> DaemonProcess:
        """Return the board, not started yet."""


class DdiBoard(WatchedBoard):
    """A fleet of one board and its DDI server.

    Attributes:
        server: Who gives orders; ``mirror`` serves the signed repository.
    """

    def __init__(
        self,
        fleet: Fleet,
        board: DaemonProcess,
        server: DdiServer,
        mirror: ToxicServer,
    ) -> None:
        super().__init__(fleet, board)
        self.server = server
        self.mirror = mirror

    # --- the owner and the operator

    def publish(
        self, content: Callable[[int], bytes] = bundle, **fields: object
    ) -> int:
        """Sign the next version; nobody wants it yet."""
        version = self.next()
        repository = self.fleet.spoiled.repository
        repository.add(content(version), model=MODEL, version=version, **fields)  # type: ignore[arg-type]  # fields, by name
        self.fleet.sign()
        return version

    def deploy(self, version: int, *, confirm: bool = False, **fields: str) -> Action:
        """Order a version, and ring; fields as in ``Action``."""
        target = bundle_path(MODEL, version)
        action = self.server.deploy(target, (), confirm=confirm, **fields)
        self.ring()
        return action

    def reset(self) -> None:
        """Let everybody be honest and quick again."""
        self.server.tell_the_truth()
        self.server.revoke_token(revoked=False)
        self.mirror.scripts.clear()

    def clean(self) -> None:
        """O4: an honest order ends as it should; O2: it is above all floors."""
        self.good = self.publish()
        action = self.deploy(self.good)
        self.wait_status(action, "FINISHED")
        self.board.wait_version(self.good)
        self.refusals_forgotten()

    # --- waiting

    def hear(self, condition: Callable[[], object], what: str) -> None:
        """Ring until something holds."""
        rung = time.monotonic()

        def held() -> object:
            nonlocal rung
            found = condition()
            if not found and time.monotonic() > rung + RING_S:
                self.ring()
                rung = time.monotonic()
            return found

        self.board.wait_for(held, what)

    def wait_status(self, action: Action, status: str) -> None:
        """Ring until the server thinks so of an action."""
        what = f"action {action.id} {status}"
        self.hear(lambda: action.status == status, what)

    def wait_said(self, action: Action, word: str) -> None:
        """Ring until the board has said a word about an action."""
        self.hear(lambda: word in action.said, f"action {action.id}: {word}")

    def wait_asked(self, kind: str, times: int = 1) -> None:
        """Ring until a kind of resource was asked for so many times more."""
        enough = self.server.count(kind) + times
        self.hear(lambda: self.server.count(kind) >= enough, f"{kind} is asked for")

    # --- the mirror

    def place(self, version: int) -> str:
        """Return the path of a version's bundle on the mirror."""
        folder = self.fleet.path / "targets" / "models" / MODEL
        (found,) = folder.glob(f"*.{version}.bundle")
        return f"/{found.relative_to(self.fleet.path)}"

    def fetches(self, version: int) -> int:
        """Return how often a version's bundle was asked for."""
        return self.mirror.paths().count(self.place(version))

    # --- looking

    def posted(self, execution: str) -> int:
        """Return how often an execution state was told, taken or not."""
        told = [it for it in list(self.server.asked) if it.kind == "feedback"]
        return sum(it.json["status"]["execution"] == execution for it in told)

    def wait_all_told(self) -> None:
        """Ring until the board polls and has nothing more to tell."""
        since = len(self.server.asked)

        def silent() -> bool:
            kinds = self.server.kinds()[since:]
            polls = [at for at, kind in enumerate(kinds) if kind == "poll"]
            return len(polls) > 1 and not any(
                kind.lower().endswith("feedback") for kind in kinds[polls[-2] :]
            )

        self.hear(silent, "nothing more to tell")

    def reports(self, version: int) -> list[Json]:
        """Return how updates to a version ended, newest first."""
        reports = self.board.ask("/v1/updates")["reports"]
        return [it for it in reports if it["version"] == version]

    def peak_bytes(self) -> int:
        """Return the most memory that the daemon ever had."""
        text = Path(f"/proc/{self.board.pid}/status").read_text(encoding="ascii")
        (row,) = [it for it in text.splitlines() if it.startswith("VmHWM:")]
        return int(row.split()[1]) * 1024

    def leaks(self) -> list[str]:
        """Return what was asked of the mirror with the DDI server's credentials."""
        asked = list(self.mirror.asked)
        return [path for path, headers in asked if "authorization" in headers]


@contextmanager
def ddi_board(
    home: Path,
    make: MakeDaemon,
    **settings: object,
) -> Iterator[DdiBoard]:
    """Give a board that runs version 1, ordered by its DDI server.

    Args:
        home: Where everything lies.
        make: Makes the board.
        settings: Of [fleet.ddi].
    """
    fleet = Fleet(home)
    token = home / "ddi-token"
    token.write_text(TOKEN, encoding="ascii")
    token.chmod(0o600)
    with ToxicServer(fleet.path) as mirror, DdiServer() as server:
        table: dict[str, object] = {
            "url": server.url,
            "controller": server.shown.access.controller,
            "token_file": token,
            **settings,
        }
        update = fleet.update_table(POLL_S, orchestrator="ddi", repository=mirror.url)
        board = make(home / "board", update, {"fleet.ddi": table})
        with board:
            watched = DdiBoard(fleet, board, server, mirror)
            watched.clean()
            yield watched
