"""Performs a plan, step by step, and says what became of each.

The rules this module keeps:
 * A step that is so already is not performed; a plan that is so in all steps touches
   nothing.
 * What needs the rest of the agent (a signed model, a key, a try as the service's user)
   is done by a ``Workshop``, which the command line brings along.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.install.facts import group_id
from agent.install.places import BEFORE, DEMO, FALLBACK, SERVICE, Places
from agent.install.state_copy import keep_state, restore_state
from agent.install.steps import (
    AnyStep,
    Apply,
    Check,
    Disable,
    Enable,
    FileStep,
    KeepState,
    Link,
    MakeDemo,
    MakeIdentity,
    Plan,
    Planned,
    Reload,
    Remove,
    RemoveUser,
    Restart,
    RestoreState,
    ServiceStep,
    StartLater,
    Stop,
    UnitStep,
    WorkStep,
    WriteFile,
)
from agent.install.systemd import Systemd
from agent.install.tree import Tree, machine_errors


class Workshop(Protocol):
    """What an installation needs of the rest of the agent."""

    def make_demo(self, folder: Path) -> None:
        """Fill a new folder with the demo's samples, its root and its repository.

        Raises:
            AgentError: The model does not run here, or the disk does not let it.
        """
        ...

    def make_identity(self, board: str) -> None:
        """Make the board's key and request, as the service's user.

        Raises:
            AgentError: It cannot be made.
        """
        ...

    def check(self) -> None:
        """Try the slot's program and the settings, as the service's user.

        Raises:
            AgentError: They do not work, and why.
        """
        ...

    def remove_user(self) -> None:
        """Remove the service's user and group.

        Raises:
            AgentError: It cannot be done.
        """
        ...


Told = Callable[[Planned], None]


@dataclass(frozen=True, slots=True)
class Performer:
    """Performs plans on one tree."""

    places: Places
    tree: Tree
    systemd: Systemd
    workshop: Workshop

    def perform(self, plan: Plan, told: Told) -> bool:
        """Perform all steps in order; each is told once it is so.

        Returns:
            Whether anything was done.

        Raises:
            StartFailedError: The service did not get ready.
            DeviceError: A step cannot be done; those before it are.
        """
        changed = False
        for planned in plan:
            if not planned.already:
                self._perform(planned.step)
                changed = changed or not isinstance(planned.step, Check)
            told(planned)
        return changed

    def _perform(self, step: AnyStep) -> None:
        """Perform one step."""
        if isinstance(step, FileStep):
            self._change_files(step)
        elif isinstance(step, UnitStep):
            self._change_units(step)
        elif isinstance(step, ServiceStep):
            self._change_service(step)
        else:
            self._work(step)

    def _change_files(self, step: FileStep) -> None:
        """Perform a step on files."""
        match step:
            case WriteFile(path=path, content=content, mode=mode, grouped=grouped):
                # Looked up now: the group was made by a step before this one.
                group = max(group_id(self.places), 0) if grouped else 0
                self.tree.write(self.places.at(path), content, mode, group)
            case Link(path=path, target=target):
                self.tree.link(self.places.at(path), target)
            case Remove(path=path, if_empty=True):
                self.tree.remove_if_empty(self.places.at(path))
            case Remove(path=path):
                self.tree.remove(self.places.at(path))
            case KeepState(state_dir=folder):
                keep_state(self.tree, self.places.at(folder), self.places.at(BEFORE))
            case RestoreState(state_dir=folder):
                restore_state(self.tree, self.places.at(BEFORE), self.places.at(folder))

    def _change_units(self, step: UnitStep) -> None:
        """Perform a step on what systemd knows."""
        match step:
            case Apply(tool=tool, fragment=fragment):
                self.systemd.apply(tool, fragment)
            case Reload():
                self.systemd.reload()
            case Enable():
                self.systemd.enable(SERVICE)
            case Disable():
                self.systemd.disable(SERVICE)

    def _change_service(self, step: ServiceStep) -> None:
        """Perform a step on what runs."""
        match step:
            case Stop(unit=unit):
                self.systemd.stop(unit)
                self.systemd.forget(unit)  # or `systemctl --failed` shows it for ever
            case Restart():
                # It may be in the middle of a pause after failures. A restart would
                # let it begin again, see a version on trial, and go back from it.
                self.systemd.stop(FALLBACK)
                self.systemd.restart(SERVICE)
            case StartLater():
                self.systemd.start_later(SERVICE)

    def _work(self, step: WorkStep) -> None:
        """Perform a step that the rest of the agent does."""
        match step:
            case MakeDemo():
                self._make_demo()
            case MakeIdentity(board=board):
                self.workshop.make_identity(board)
            case Check():
                self.workshop.check()
            case RemoveUser():
                self.workshop.remove_user()

    def _make_demo(self) -> None:
        """Make the demo aside, and put it in its place whole."""
        place = self.places.at(DEMO)
        aside = place.with_name(f".{place.name}.tmp")
        self.tree.remove(aside)
        with machine_errors():
            aside.mkdir(mode=0o755)
            aside.chmod(0o755)  # the service reads it, whatever the umask says
        self.workshop.make_demo(aside)
        # A half demo after a power cut would be believed to be whole.
        self.tree.sync(aside)
        self.tree.remove(place)
        self.tree.rename(aside, place)
