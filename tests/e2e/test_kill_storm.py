"""kill -9 of the worker, of the daemon, of both, at random moments during swaps.

After each death of the daemon its state is looked at by the store itself: what is
active is a published version whose bytes are whole, and the floor never fell.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass, field

from agent.core.installed import Installed
from agent.errors import AgentError
from agent.store import Store
from tests.e2e.conftest import MakeBoard
from tests.fakes.daemon_process import NAME, DaemonProcess, alive, wait_until
from tests.fakes.fleet import MODEL, Fleet, bundle, opened_bundle

KILLS = 100
SEED = 2
NEVER_SET_ASIDE = {"crash_limit": 100, "backoff_s": 0.01, "max_backoff_s": 0.02}


@dataclass
class Storm:
    """One board, its fleet, and what has been seen so far."""

    board: DaemonProcess
    fleet: Fleet
    chance: random.Random
    wanted: int = 1
    floor: int = 1
    seen: set[int] = field(default_factory=set)

    def publish_next(self) -> None:
        """Want another model, under a higher version, once the last one is there."""
        running = self.version()
        if running == self.wanted or self.chance.random() < 0.1:
            self.wanted += 1
            self.fleet.publish(self.wanted)

    def version(self) -> int:
        """Return what answers, 0 while nobody can say."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = self.board.version()
            if found:
                assert found >= self.floor
                self.seen.add(found)
            return found
        return 0

    def strike(self) -> None:
        """Kill the worker, the daemon, or both."""
        what = self.chance.choice(["worker", "worker", "worker", "daemon", "both"])
        worker = 0
        with contextlib.suppress(OSError, ValueError, KeyError):
            worker = self.board.worker_pid()
        if what != "daemon" and worker:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if what != "worker" or not worker:
            self.board.kill()  # which waits until all its children are gone
            assert not (worker and alive(worker))
            self.look_at_state()
            self.board.spawn()

    def look_at_state(self) -> None:
        """Open the state of a dead daemon, as the next one will."""
        store = Store.open(self.board.state_dir)
        try:
            active = store.slots(NAME).active
            floor = store.version_floor(MODEL)
            assert floor >= self.floor
            self.floor = floor
            if active is not None:
                self.check_bytes(store, active)
        finally:
            store.close()

    def check_bytes(self, store: Store, active: Installed) -> None:
        """The committed bytes are those that were published, and open."""
        content = store.open_object(active.sha256)
        assert bytes(content) == bundle(active.version)
        opened = opened_bundle(bytes(content))
        assert opened.manifest.version == active.version
        assert active.version <= self.wanted


def test_a_hundred_kills_leave_a_committed_verified_model_every_time(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Whoever dies, and whenever: what comes up again is committed and verified."""
    board = make_board(tables={"supervise": NEVER_SET_ASIDE})
    storm = Storm(board, fleet, random.Random(SEED))  # noqa: S311 - a seeded storm
    fleet.publish(1)
    with board:
        board.wait_version(1)
        for _ in range(KILLS):
            with contextlib.suppress(AgentError):
                storm.publish_next()
            time.sleep(storm.chance.uniform(0.0, 0.6))
            storm.strike()
            if storm.chance.random() < 0.5:
                wait_until(storm.version, f"an answer; {board.words()[-3000:]}")
        wait_until(storm.version, "an answer after the last kill")
        storm.wanted += 1
        fleet.publish(storm.wanted)
        board.wait_version(storm.wanted)
    storm.look_at_state()
    assert storm.floor == storm.wanted
    assert len(storm.seen) > KILLS // 20


def test_a_worker_never_outlives_its_daemon(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """PDEATHSIG ends it even when it is stopped; so with programs of sources."""
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
        worker = board.worker_pid()
        os.kill(worker, signal.SIGSTOP)
        board.signal(signal.SIGKILL)
        board.wait()
        wait_until(lambda: not alive(worker), "the worker ends")


def test_the_state_survives_a_board_that_never_comes_back(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """A state directory copied in the middle of everything boots elsewhere."""
    fleet.publish(1)
    board = make_board()
    with board:
        board.wait_version(1)
        fleet.publish(2)
        board.wait_said("phase=PREFLIGHT")
        board.signal(signal.SIGKILL)
        board.wait()
    other = make_board("other")
    shutil.copytree(board.state_dir, other.state_dir)
    with other:
        other.wait_version(2)
