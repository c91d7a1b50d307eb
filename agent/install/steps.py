"""What an installation is made of: values that can be shown, and performed later."""

from dataclasses import dataclass

from agent.install.places import SERVICE
from agent.install.systemd import Tool


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    Attributes:
        line: What is so afterwards, for people.
    """

    line: str


@dataclass(frozen=True, slots=True)
class WriteFile(Step):
    """A file with this content.

    Attributes:
        grouped: Whether it belongs to the service's group.
    """

    path: str
    content: bytes
    mode: int = 0o644
    grouped: bool = False


@dataclass(frozen=True, slots=True)
class Link(Step):
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Remove(Step):
    """A file, a link or a whole folder that is there no more.

    Attributes:
        if_empty: A folder that stays where something else lies in it.
    """

    path: str
    if_empty: bool = False


@dataclass(frozen=True, slots=True)
class Apply(Step):
    """Users or directories that a fragment names."""

    tool: Tool
    fragment: str


@dataclass(frozen=True, slots=True)
class MakeDemo(Step):
    """The demo's model, signed on the spot by keys that nobody keeps."""


@dataclass(frozen=True, slots=True)
class MakeIdentity(Step):
    """The board's key and a request for its certificate."""

    board: str


@dataclass(frozen=True, slots=True)
class Check(Step):
    """The slot's program and the settings, tried as the service's user."""


@dataclass(frozen=True, slots=True)
class KeepState(Step):
    """A copy of the state as the version before leaves it."""

    state_dir: str


@dataclass(frozen=True, slots=True)
class RestoreState(Step):
    """The state as the version before left it."""

    state_dir: str


@dataclass(frozen=True, slots=True)
class Reload(Step):
    """Unit files, as systemd knows them."""


@dataclass(frozen=True, slots=True)
class Enable(Step):
    """A service that starts at boot."""


@dataclass(frozen=True, slots=True)
class Disable(Step):
    """A service that starts at boot no more."""


@dataclass(frozen=True, slots=True)
class Stop(Step):
    """A unit that does not run."""

    unit: str = SERVICE


@dataclass(frozen=True, slots=True)
class Restart(Step):
    """A service that runs this version and is ready."""


@dataclass(frozen=True, slots=True)
class StartLater(Step):
    """A service whose start is asked for; nobody waits for it here."""


@dataclass(frozen=True, slots=True)
class RemoveUser(Step):
    """A user and a group that are there no more."""


FileStep = WriteFile | Link | Remove | KeepState | RestoreState
UnitStep = Apply | Reload | Enable | Disable
ServiceStep = Stop | Restart | StartLater
WorkStep = MakeDemo | MakeIdentity | Check | RemoveUser
AnyStep = FileStep | UnitStep | ServiceStep | WorkStep


@dataclass(frozen=True, slots=True)
class Planned:
    """A step, and whether it is so already.

    Attributes:
        note: Something to know about it, such as why an own file stays.
        todo: What was asked for and only the operator may do.
    """

    step: AnyStep
    already: bool = False
    note: str = ""
    todo: str = ""


Plan = tuple[Planned, ...]
