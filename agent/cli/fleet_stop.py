"""Stopping a rollout from another terminal: by its file, or by asking who runs it.

The rules this module keeps:
 * Where a process works on the rollout, it alone writes; it is asked, and its file says
   when it has listened.
 * Where none does, the file is changed here, under the same lock.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable

from msgspec.structs import replace

from agent.cli.fleet_state import Asked, Kept, StateFile
from agent.core.reasons import Reason
from agent.core.waves import Act, Decision, Phase, carry_out
from agent.errors import DeviceError, SettingsError

LISTENS_S = 30.0  # it listens within a second, but for a publication under way
LOOK_S = 0.1
clock = time.time  # noqa: TID251 - a command is its own composition root


def stop(file: StateFile, asked: Asked) -> tuple[Kept, bool]:
    """Pause or abort a rollout; return it, and whether another process works on it.

    Raises:
        SettingsError: ``rollout``: there is none, or its file cannot be relied on.
        DeviceError: The file cannot be written, or nobody listens.
    """
    kept = open_rollout(file, asked)
    if kept.course.phase is wanted_phase(asked):
        return kept, file.is_held()
    try:
        with file.held():
            kept = stopped(open_rollout(file, asked), asked)
            file.save(kept)
            return kept, False
    except DeviceError as err:
        if err.reason != Reason.LOCKED:
            raise
    file.ask(asked)
    return _wait(file, asked, time.monotonic, time.sleep), True


def wanted_phase(asked: Asked) -> Phase:
    """Return what a rollout shall do."""
    return Phase.ABORTED if asked.order == "abort" else Phase.PAUSED


def stopped(kept: Kept, asked: Asked) -> Kept:
    """Return a rollout that was paused or aborted."""
    act = Act.ABORT if asked.order == "abort" else Act.PAUSE
    why = f"asked for by {asked.by or 'another terminal'}"
    decision = Decision(act, reason=Reason.REQUESTED, why=why)
    return replace(kept, course=carry_out(kept.course, decision, clock()))


def open_rollout(file: StateFile, asked: Asked) -> Kept:
    """Return the rollout that can be stopped.

    Raises:
        SettingsError: ``rollout``: there is none, or it has ended.
    """
    kept = file.load()
    aborting = asked.order == "abort"
    if kept is None:
        what = f"{file.path}: there is no rollout"
    elif kept.course.phase is Phase.DONE and not (aborting and asked.back):
        what = f"{file.path}: the rollout of {kept.title()} is done"
    elif kept.course.phase is Phase.ABORTED and not aborting:
        what = f"{file.path}: the rollout of {kept.title()} was aborted"
    else:
        return kept
    raise SettingsError(
        what,
        reason=Reason.ROLLOUT,
        todo="Name its inventory with --inventory, or its file with --state.",
    )


def who() -> str:
    """Return who asks: user, machine and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.geteuid()}"
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def _wait(
    file: StateFile,
    asked: Asked,
    monotonic: Callable[[], float],
    pause: Callable[[float], None],
) -> Kept:
    """Wait until the process that works on a rollout has listened.

    Raises:
        DeviceError: ``hang``: it has not.
    """
    until = monotonic() + LISTENS_S
    while monotonic() < until:
        kept = file.load()
        if kept is not None and kept.course.phase is wanted_phase(asked):
            return kept
        if kept is not None and not kept.is_open:
            return kept
        pause(LOOK_S)
    raise DeviceError(
        f"{file.path}: the process that works on it did not listen",
        reason=Reason.HANG,
        todo="End it (Ctrl-C there): the order is carried out when it is run again.",
    )
