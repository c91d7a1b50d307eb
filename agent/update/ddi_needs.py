"""What the DDI client and the update machine need of each other.

The client talks to the server and decides what to tell it; everything that changes this
board goes through ``Errands``, which the poller's side provides. ``Wire`` is how bytes
get to the server; ``Kept`` is the client's durable memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.core.ddi import Record
from agent.core.targets import Wanted
from agent.core.updates import Decision, Progress, Report


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        headers: Names in lower case.
        body: At most as many bytes as were asked for.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire(Protocol):
    """Speaks HTTP with the one server that the settings name."""

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int = 65_536,
    ) -> Answer:
        """Send a request and return its answer, whatever its status.

        Credentials are added here, and never leave for another origin than that of
        the settings; redirects are answers, not followed.

        Raises:
            BundleRefusedError: ``unreachable``, ``too_slow``, ``tls``, ``too_large``,
                ``foreign_url``.
            DeviceError: ``certificate``, ``permission``: our own papers are unusable.
        """

    async def close(self) -> None:
        """Let go of the connection."""


class Kept(Protocol):
    """The client's memory; durable when ``save`` returns."""

    def load(self) -> Record:
        """Return what was saved last; an empty one where there is none.

        Raises:
            DeviceError: The store cannot be read.
        """

    def save(self, record: Record) -> None:
        """Keep a record.

        Raises:
            DeviceError: The store cannot be written.
        """


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine says about orders of source ``ddi``, all of one moment.

    Attributes:
        models: Pipeline -> the model that the settings want in it.
        decisions: One for each pipeline.
        progress: What is under way now.
        reports: Of updates that ended, newest first.
        fetched: Pipelines whose wanted bundle lies here, verified, and is not yet tried
            because the server's ``update`` is ``skip`` or its window is closed.
        battery_or_heat: Why ``attempt`` had better wait, else empty.
    """

    models: Mapping[str, str]
    decisions: Sequence[Decision]
    progress: Progress | None
    reports: Sequence[Report]
    fetched: frozenset[str] = frozenset()
    battery_or_heat: str = ""


class Errands(Protocol):
    """The machine's side: what is wanted has been saved before each call."""

    def facts(self) -> Facts:
        """Return what is known about the orders of source ``ddi``.

        Raises:
            DeviceError: The store cannot be read.
        """

    def look(self) -> None:
        """Plan again with what is saved now; fetch and try what may be.

        What failed and may pass by itself is tried again at once: the client paces
        these attempts, and counts them.
        """

    async def withdraw(self, generation: int) -> bool:
        """End what is under way of a generation, at whatever stage.

        Returns when it has ended: whether nothing of it was committed.
        """

    async def admissible(self, wanted: Wanted) -> None:
        """Check that a model's version is signed and admissible here, fetching none.

        Raises:
            BundleRefusedError: Why it is not.
            DeviceError: Why this cannot be said now.
        """

    def identify(self) -> Mapping[str, str]:
        """Return the attributes that the server may know: hardware, agent, versions.

        Names that begin with ``model.`` change with each update. They are told when
        the server asks (hawkBit does after each); the others also when they change.
        """
