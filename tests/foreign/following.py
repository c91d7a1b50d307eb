"""A board whose orders come from a foreign DDI server, and its bundles from nginx.

The rules this module keeps:
 * Nothing is ordered but through the DDI server: versions are published, and assigned
   to no group.
 * A server says when boards poll next, and boards obey no less than half a minute: the
   board's operator rings meanwhile, as ``tinyward update now`` does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.core.targets import bundle_path
from tests.e2e.conftest import POLL_S, watched_daemon
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import MODEL, Fleet, bundle
from tests.fakes.static_server import StaticServer
from tests.fakes.watched_board import WatchedBoard
from tests.foreign.gate import Gate

RING_S = 1.0  # between two rings, while something is waited for


@dataclass(frozen=True, slots=True)
class Follower:
    """A board, its fleet, and the gate before its server.

    Attributes:
        name: Of its controller.
        watched: The daemon and its operator.
        nginx: Where bundles come from.
    """

    name: str
    watched: WatchedBoard
    gate: Gate
    nginx: StaticServer

    @property
    def daemon(self) -> DaemonProcess:
        """The daemon."""
        return self.watched.board

    def publish(self) -> int:
        """Publish the next version, for whoever is told to take it; return it."""
        version, repository = self.watched.next(), self.watched.fleet.spoiled.repository
        repository.add(bundle(version), model=MODEL, version=version)
        self.watched.fleet.sign()
        return version

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds, ringing meanwhile."""
        rung = 0.0

        def looked() -> object:
            nonlocal rung
            if time.monotonic() - rung > RING_S:
                self.watched.ring()
                rung = time.monotonic()
            return condition()

        self.daemon.wait_for(looked, what)

    def wait_version(self, version: int) -> None:
        """Wait until a version is committed and answers."""
        self.wait(lambda: self.daemon.version() == version, f"version {version}")

    def fetches(self, version: int) -> int:
        """Return how often a version's bundle was asked for."""
        name = f".{version}.bundle "
        return sum(name in line for line in self.nginx.log)


def target(version: int) -> str:
    """Return the path of a version's target."""
    return bundle_path(MODEL, version)


@contextmanager
def following(
    home: Path, name: str, server: tuple[int, str], token: str, **ddi: object
) -> Iterator[Follower]:
    """Give a board that runs and follows a server.

    Args:
        home: Where all of it lies.
        name: Of its controller.
        server: Port and tenant.
        token: Its token, kept in a file.
        ddi: Further rows of [fleet.ddi].
    """
    fleet = Fleet(home)
    fleet.sign()
    kept = home / "token"
    kept.write_text(token + "\n")
    kept.chmod(0o600)
    with (
        Gate(server[0]) as gate,
        StaticServer(home / "nginx", fleet.path) as nginx,
    ):
        table = fleet.update_table(POLL_S, orchestrator="ddi", repository=nginx.url)
        orders = {"url": gate.url, "tenant": server[1], "controller": name}
        tables = {"fleet.ddi": {**orders, "token_file": kept, **ddi}}
        with watched_daemon(home / "board", table, tables) as daemon:
            yield Follower(name, WatchedBoard(fleet, daemon), gate, nginx)
