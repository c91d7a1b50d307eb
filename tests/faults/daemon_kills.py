"""The real daemon, killed for real in the middle of one update after the other.

A cross-check of the traced lives: here the trial is real, too, with its children. The
moments are random, recorded, and spread over the phases: the storm waits for a phase
to begin, then a little longer.

The rules this module keeps:
 * The daemon was alive when it was killed, in or soon after the phase that was chosen.
 * After each death the store itself says what is durable; then the daemon starts
   again, and must get to the version that it was killed for.
"""

import random
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from msgspec.structs import replace

from agent.core.installed import Installed
from agent.errors import AgentError
from agent.publish.pack import render_bundle
from agent.store import Store
from agent.trust.board_unsealer import BoardUnsealer
from tests.fakes.daemon_process import NAME, DaemonProcess
from tests.fakes.fleet import MODEL, STREAM, Fleet, bundle, opened_bundle, variants
from tests.fakes.sealed import SealedFleet
from tests.faults.oracle import Verdict
from tests.faults.parallel import Case
from tests.faults.scenes import Scene

KILLS = 20
BOARD = "pi-7"
SEED = 60
PHASES = ("FETCHING", "STAGING", "PREFLIGHT", "SHADOWING", "PROBATION", "COMMITTING")
LONGER_S = 0.15  # less than preflight, shadowing or probation last here
SHORT = frozenset({"FETCHING", "STAGING", "COMMITTING"})  # some milliseconds
SHADOWED, PROBATION_S = 200, 0.2
SOURCE = {
    "kind": "files",
    "path": STREAM,
    "array": "images",
    "loop": True,
    "memory": True,
}
SUPERVISE = {"crash_limit": 100, "backoff_s": 0.01, "max_backoff_s": 0.02}


def daemon_kills(
    scene: Scene, kills: int, number: int = signal.SIGKILL
) -> Iterator[Case]:
    """Yield one case, which is a whole storm; of sealed models in a scene of those."""
    folder = Path(mkdtemp(dir=scene.path))
    yield lambda: storm(folder, kills, number, sealed=scene.name == "sealed")


def make_board(folder: Path, *, sealed: bool = False) -> tuple[Fleet, DaemonProcess]:
    """Return a fleet that wants version 1, and a board that follows it."""
    fleet = SealedFleet(folder, BOARD) if sealed else Fleet(folder)
    fleet.publish(1, tried(1))
    own = fleet.tables(BOARD) if isinstance(fleet, SealedFleet) else {}
    board = DaemonProcess(
        folder / "board",
        SOURCE,
        tables={"update": fleet.update_table(), **own, "supervise": SUPERVISE},
        pipeline={"kernels": "plain"},
    )
    return fleet, board


def storm(
    folder: Path, kills: int, number: int, *, sealed: bool = False
) -> list[Verdict]:
    """End a daemon by a signal so many times; return what each end left."""
    # The daemon has a session of its own: it ends with this process only if told to.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("stopped"))
    chance = random.Random(SEED)  # noqa: S311 - a storm that can be repeated
    fleet, board = make_board(folder, sealed=sealed)
    verdicts = []
    with board:
        board.wait_version(1)
        for wanted in range(2, kills + 2):
            before = len(board.words())  # this life logged an update already
            fleet.publish(wanted, tried(wanted))
            phase = PHASES[wanted % len(PHASES)]
            longer_s = chance.uniform(0, LONGER_S / 10 if phase in SHORT else LONGER_S)
            board.wait_for(
                partial(_began, board, before, phase), f"{phase} of version {wanted}"
            )
            time.sleep(longer_s)
            moment = f"{phase} + {longer_s:.3f} s"
            unsealer = (
                fleet.owner.unsealer(BOARD) if isinstance(fleet, SealedFleet) else None
            )
            verdicts.append(_end(board, wanted, moment, number, unsealer))
            board.start()
            board.wait_version(wanted)
    return verdicts


def tried(version: int) -> bytes:
    """Return a version that is shadowed and watched for a while."""
    opened = opened_bundle(bundle(version))
    rules = replace(
        opened.manifest.trial, shadow_samples=SHADOWED, probation_s=PROBATION_S
    )
    manifest = replace(opened.manifest, trial=rules)
    return render_bundle(manifest, variants(opened), bytes(opened.golden))


def _began(board: DaemonProcess, before: int, phase: str) -> bool:
    """Return whether a phase began after so many words."""
    return f"phase={phase}" in board.words()[before:]


def _end(
    board: DaemonProcess,
    wanted: int,
    moment: str,
    number: int,
    unsealer: BoardUnsealer | None = None,
) -> Verdict:
    """Send the daemon a signal and look at what it left."""
    last = board.words().rpartition("phase=")[2].partition(" ")[0].strip()
    name = signal.Signals(number).name
    verdict = Verdict(f"daemon got {name} at {moment}, in {last}")
    board.signal(number)
    status = board.wait()
    if status != (-number if number == signal.SIGKILL else 0):
        verdict.wrong.append(f"it ended with {status}")
    board.kill()  # whatever it left running fails here
    try:
        _look(board, wanted, verdict, unsealer)
    except AgentError as err:
        verdict.wrong.append(f"O1 {err}")
    return verdict


def _look(
    board: DaemonProcess, wanted: int, verdict: Verdict, unsealer: BoardUnsealer | None
) -> None:
    """O1 and O2: what is durable is what was published, whole; floors did not fall."""
    store = Store.open(board.state_dir)
    try:
        slots, floor = store.slots(NAME), store.version_floor(MODEL)
        for kept in (slots.active, slots.previous):
            if kept is None:
                continue
            if not _is_whole(store, kept, unsealer):
                verdict.wrong.append(f"O1 version {kept.version} has other bytes")
        verdict.found = slots.active.version if slots.active else 0
        if verdict.found not in {wanted - 1, wanted}:
            verdict.wrong.append(f"O1 {verdict.found} is active, {wanted} was wanted")
        if floor < verdict.found:
            verdict.wrong.append(f"O2 the floor is {floor}")
    finally:
        store.close()


def _is_whole(store: Store, kept: Installed, unsealer: BoardUnsealer | None) -> bool:
    """Whether a durable model is what was published, unsealed if need be."""
    content, published = store.open_object(kept.sha256), tried(kept.version)
    if unsealer is None or kept.sealed is None:
        return bytes(content) == published and unsealer is None
    envelope = store.load_envelope(kept.sha256) or b""
    opened = unsealer.open(content, kept.sha256, kept.sealed, envelope)
    return opened.raw_manifest == opened_bundle(published).raw_manifest
