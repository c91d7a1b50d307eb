"""Performs an installation, and goes back from a version that does not get ready.

The rules this module keeps:
 * One installation at a time, by a lock on the folder of the slots, which the kernel
   releases however its holder ends.
 * It is the version before that puts back what was: its own program, with its own unit
   files. The same command does it where this process is not there any more
   (``tinyward-fallback.service``).
"""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.install.facts import Facts
from agent.install.perform import Performer, Told
from agent.install.places import SERVICE, SLOT_FOLDER, Places
from agent.install.plan import plan_fall_back, plan_install
from agent.install.systemd import StartFailedError
from agent.install.tree import machine_errors
from agent.install.wanted import Wanted

GO_BACK_S = 240.0  # a slow card starts Python for 20 s, and copies a state


@dataclass(frozen=True, slots=True)
class Upgrade:
    """One run of ``tinyward install``.

    Attributes:
        performer: Performs plans.
        look: Reads what there is; called once nobody else changes it.
        wanted: What is to be there.
    """

    performer: Performer
    look: Callable[[], Facts]
    wanted: Wanted

    def run(self, told: Told) -> bool:
        """Perform the plan; a version that does not get ready makes way again.

        Returns:
            Whether anything was done.

        Raises:
            SettingsError: Something is in the way.
            DeviceError: ``upgrade``: the one before runs again; ``not_installed``:
                there is none before; or what a step said.
        """
        with locked(self.performer.places):
            facts = self.look()
            plan = plan_install(facts, self.wanted)
            try:
                return self.performer.perform(plan, told)
            except StartFailedError as err:
                failed = err
        # Not under the lock: the version before takes it to go back.
        raise self._go_back(facts, failed) from failed

    def fall_back(self, told: Told) -> None:
        """Let this slot, the one before, take its place again.

        Where no version is on trial (any more) there is nothing to go back from.

        Raises:
            SettingsError: ``not_installed``: this is not the slot before.
            DeviceError: A step cannot be done; it may be repeated.
        """
        with locked(self.performer.places, wait=True):
            facts = self.look()
            if facts.on_trial:
                plan = plan_fall_back(facts, self.wanted)
                self.performer.perform(plan, told)

    def _go_back(self, facts: Facts, failed: StartFailedError) -> DeviceError:
        """Let the version before run again; return what to report."""
        systemd, wanted = self.performer.systemd, self.wanted
        words = systemd.last_words(SERVICE, facts.service.invocation)
        what = f"tinyward {wanted.version} in slot {wanted.slot} did not get ready"
        said = f" {last_word(words) or failed}"
        before = self._slot_before(facts)
        if not before:
            return DeviceError(
                f"{what}; its last words:{said}",
                reason=Reason.NOT_INSTALLED,
                todo="Mend what they say, then run this again. What came before: "
                "`journalctl -u tinyward`.",
            )
        # systemd tries it again every two seconds, and each try may migrate.
        systemd.stop(SERVICE)
        run_fall_back(self.performer.places.at(f"{SLOT_FOLDER}/{before}"))
        # Joins the start that the old program asked for, and waits for its READY.
        systemd.start(SERVICE)
        return DeviceError(
            f"{what}; slot {before} runs again. Its last words:{said}",
            reason=Reason.UPGRADE,
        )

    def _slot_before(self, facts: Facts) -> str:
        """Return the slot to go back to, "" where there is none."""
        slot = self.wanted.slot
        if facts.current not in ("", slot):
            return facts.current
        # An earlier run was killed after it had switched.
        return facts.previous if facts.on_trial and facts.previous != slot else ""


def last_word(lines: Sequence[str]) -> str:
    """Return what a program says last of why it ended, without its traceback.

    >>> last_word(["Traceback:", "  File x", "ValueError: no good"])
    'ValueError: no good'
    >>> last_word(["ready", "error: no key `x` [settings]", "to do: Mend it."])
    'error: no key `x` [settings] to do: Mend it.'
    """
    # Groups of exceptions are drawn with lines around them.
    said = [words for line in lines if (words := line.strip(" |+-"))]
    last = 2 if said and said[-1].startswith("to do: ") else 1
    return " ".join(said[-last:])


def run_fall_back(slot: Path) -> None:
    """Let the program of a slot go back to itself.

    Raises:
        DeviceError: ``upgrade``: it could not.
    """
    words = [str(slot / "bin/tinyward"), "install", "--fall-back"]
    try:
        ended = subprocess.run(
            words, capture_output=True, text=True, timeout=GO_BACK_S, check=False
        )
        said = ended.stderr.strip() if ended.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as err:
        said = str(err)
    if said:
        raise DeviceError(
            f"the new version did not get ready, and {' '.join(words)}: {said}",
            reason=Reason.UPGRADE,
            todo=f"Run `{' '.join(words)}` by hand, then `systemctl restart tinyward`.",
        )


@contextmanager
def locked(places: Places, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder of the slots for one command at a time.

    Raises:
        DeviceError: ``locked``: another one is at work (without ``wait``).
    """
    folder = places.at(SLOT_FOLDER)
    with machine_errors():
        # The folder itself: /run is read-only for the fall-back, and no file is left.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as err:
            raise DeviceError(
                f"another installation is at work in {folder}",
                reason=Reason.LOCKED,
                todo="Wait until it has ended, then run this one again.",
            ) from err
        yield
    finally:
        os.close(descriptor)
