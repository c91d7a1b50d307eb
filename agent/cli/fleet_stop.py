"""Stopping a rollout from another terminal: by its file, or by asking who runs it.

The rules this module keeps:
 * Where a process works on the rollout, it alone writes; it is asked, and its file says
   when it has listened.
 * Where none does, or none does any more, the file is changed here, under its lock.
"""

import getpass
import os
import socket
import time

from msgspec.structs import replace

from agent.cli.fleet_state import Asked, Kept, StateFile
from agent.core.reasons import Reason
from agent.core.waves import Act, Decision, Phase, carry_out
from agent.errors import DeviceError, SettingsError

LISTENS_S = 30.0  # it listens within a second, but for a publication under way
LOOK_S = 0.1
# A board has two minutes to go back, and with large fleets some wait for others.
ENDS_S = 900.0
clock = time.time  # noqa: TID251 - a command is its own composition root


def stop(file: StateFile, asked: Asked) -> tuple[Kept, bool]:
    """Pause or abort a rollout; return it, and whether another process works on it.

    Raises:
        SettingsError: ``rollout``: there is none, or its file cannot be relied on.
        DeviceError: The file cannot be written, or nobody listens.
    """
    until = time.monotonic() + LISTENS_S
    left = False
    while time.monotonic() < until:
        kept = _stop_here(file, asked, ended=left)
        if kept is not None:
            return kept, False
        heard = left and not file.is_asked()  # before the file, which is saved first
        kept = open_rollout(file, asked, ended=left)
        # Asked all the same where boards shall go back: it may not know of that yet.
        listens = heard or not asked.back
        if listens and (kept.course.phase is wanted_phase(asked) or not kept.is_open):
            return kept, True
        if not left:
            file.ask(asked)
            left = True
        time.sleep(LOOK_S)
    raise DeviceError(
        f"{file.path}: the process that works on it did not listen",
        reason=Reason.HANG,
        todo="End it (Ctrl-C there): the order is carried out when it is run again.",
    )


def await_end(file: StateFile) -> Kept | None:
    """Wait until nobody works on a rollout; return it, or None after ``ENDS_S``.

    Raises:
        AgentError: Its file cannot be relied on.
    """
    until = time.monotonic() + ENDS_S
    while file.is_held():
        if time.monotonic() > until:
            return None
        time.sleep(LOOK_S)
    return file.load()


def may_stop(phase: Phase, asked: Asked) -> bool:
    """Return whether an order changes how a rollout stands.

    >>> may_stop(Phase.PAUSED, Asked("abort")), may_stop(Phase.ABORTED, Asked("pause"))
    (True, False)
    """
    if asked.order == "pause":
        return phase is Phase.RUNNING
    if phase is Phase.DONE:
        return asked.back
    return phase is not Phase.ABORTED


def as_decision(asked: Asked) -> Decision:
    """Return what another terminal asks for as a decision."""
    act = Act.ABORT if asked.order == "abort" else Act.PAUSE
    why = f"asked for by {asked.by or 'another terminal'}"
    return Decision(act, reason=Reason.REQUESTED, why=why)


def wanted_phase(asked: Asked) -> Phase:
    """Return what a rollout shall do."""
    return Phase.ABORTED if asked.order == "abort" else Phase.PAUSED


def stopped(kept: Kept, asked: Asked) -> Kept:
    """Return a rollout that was paused or aborted."""
    return replace(kept, course=carry_out(kept.course, as_decision(asked), clock()))


def open_rollout(file: StateFile, asked: Asked, *, ended: bool = False) -> Kept:
    """Return the rollout that can be stopped.

    Args:
        file: Where it is.
        asked: How it shall be stopped.
        ended: One that has ended is returned as well.

    Raises:
        SettingsError: ``rollout``: there is none, or it has ended.
    """
    kept = file.load()
    aborting = asked.order == "abort"
    todo = "Begin another with `tinyward fleet rollout`."
    if kept is None:
        what = f"{file.path}: there is no rollout"
        todo = "Name its inventory with --inventory, or its file with --state."
    elif ended:
        return kept
    elif kept.course.phase is Phase.DONE and not (aborting and asked.back):
        what = f"{file.path}: the rollout of {kept.title()} is done"
        todo = "`tinyward fleet abort --back` takes back what it brought."
    elif kept.course.phase is Phase.ABORTED and not aborting:
        what = f"{file.path}: the rollout of {kept.title()} was aborted"
        todo = "`tinyward fleet rollout --restart` begins it anew."
    else:
        return kept
    raise SettingsError(what, reason=Reason.ROLLOUT, todo=todo)


def who() -> str:
    """Return who asks: user, machine and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.geteuid()}"
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def _stop_here(file: StateFile, asked: Asked, *, ended: bool) -> Kept | None:
    """Stop a rollout in its file; return None where another process works on it.

    Raises:
        AgentError: As for ``stop``.
    """
    try:
        with file.held():
            kept = open_rollout(file, asked, ended=ended)
            if may_stop(kept.course.phase, asked):
                kept = stopped(kept, asked)
                file.save(kept)
            # Ours, or one before it: whoever should have taken it has left.
            file.forget_asked()
            return kept
    except DeviceError as err:
        if err.reason != Reason.LOCKED:
            raise
        return None
