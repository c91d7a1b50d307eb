"""What listeners need from the rest of the agent, as they see it.

``Facts`` is satisfied by the daemon, ``Operations`` by ``agent.update.desk``,
``Uploads`` by ``agent.store.inbox``, ``Identity`` by ``agent.trust.identity``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agent.core.events import Event
from agent.core.meter_status import MeterStatus
from agent.core.readings import BoardReadings
from agent.core.snapshot import AgentSnapshot
from agent.core.targets import GroupFile
from agent.core.trend import TrendPoint
from agent.core.updates import Report, SetAside
from agent.core.voucher import Voucher


class Facts(Protocol):
    """What the daemon lets a listener see; both are cheap and never wait."""

    def snapshot(self) -> AgentSnapshot:
        """Return the agent as of now."""
        ...

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body of a scrape with this ``Accept`` header."""
        ...

    def events(self, after: int) -> Sequence[Event]:
        """Return the events that are kept with an id above ``after``, oldest first."""
        ...

    def trends(self) -> Mapping[str, Sequence[TrendPoint]]:
        """Return the last minutes of every pipeline, oldest first."""
        ...

    def readings(self) -> BoardReadings:
        """Return the board's newest readings."""
        ...


class Operations(Protocol):
    """What operators may ask for.

    All raise ``RequestRefusedError`` (``busy`` with the phase in its message,
    ``not_orchestrator``, ``replayed``, ``unknown_pipeline``, ``no_previous``) or
    ``DeviceError``. ``operator`` is who asks, for the log.
    """

    def reports(self) -> Sequence[Report]:
        """Return the updates that ended, newest first."""
        ...

    def quarantine(self) -> Sequence[SetAside]:
        """Return the bundles that are not tried again."""
        ...

    def desired(self) -> GroupFile | None:
        """Return the desired state that was pushed last."""
        ...

    async def set_desired(self, desired: GroupFile, operator: str) -> None:
        """Take a desired state, durably, and look at once.

        The same generation with the same content is taken twice; a lower one, or other
        content under the same one, is ``replayed``.
        """
        ...

    async def forget_desired(self, operator: str) -> None:
        """Forget the desired state that was pushed, and its generation, durably.

        The next one may have any generation: that is the way back from one that was
        pushed too high, by mistake or by whoever stole an operator's key. What runs
        goes on. Where nothing was pushed, nothing is to be done.
        """
        ...

    async def look(self, operator: str) -> None:
        """Look at the repository and the inbox now."""
        ...

    async def roll_back(self, pipeline: str, operator: str) -> str:
        """Go back to the previous model, or end the trial that is under way.

        Args:
            pipeline: Its name; empty means the only one there is.
            operator: Who asks.

        Returns:
            The pipeline's name.
        """
        ...

    async def commission(self, pipeline: str, operator: str) -> str:
        """Forget this board's own baseline and collect another; return the pipeline.

        Args:
            pipeline: Its name; empty means the only one there is.
            operator: Who asks.
        """
        ...

    async def forgive(self, sha256: str, operator: str) -> None:
        """Let a bundle that was set aside be tried again."""
        ...


class Uploads(Protocol):
    """The inbox: files of a repository slice on their way in.

    All raise ``RequestRefusedError`` (``request``: a path that no slice has, an offset
    that is not the next), ``BundleRefusedError`` (``digest``, ``length``,
    ``too_large``) or ``DeviceError`` (``quota``, ``disk_full``...). They block, and
    are called in a thread.
    """

    def offset(self, sha256: str) -> int:
        """Return how many bytes of an upload are here; its length once it is whole."""
        ...

    def append(self, sha256: str, length: int, offset: int, content: bytes) -> int:
        """Add bytes at ``offset``, which must be the next; return the next offset."""
        ...

    def place(self, sha256: str, length: int, path: str) -> None:
        """Verify an upload that is whole and give it its place in the slice."""
        ...

    def clear(self) -> None:
        """Remove everything that was uploaded."""
        ...


class Revoked(Protocol):
    """Which client certificates the fleet's owner revoked."""

    def __call__(self) -> Sequence[str]:
        """Return their serial numbers, lower case hex."""
        ...


class Statements(Protocol):
    """What the board says of the copies it runs; satisfied by ``agent.statements``."""

    async def provenance(self, nonce: str) -> dict[str, object]:
        """Return pipeline -> a signed envelope about what it runs.

        Raises ``DeviceError`` where the board's key cannot be used.
        """
        ...

    async def challenge(self, raw: bytes, operator: str) -> dict[str, object]:
        """Return the signed answers to a challenge of the owner of a model's marks.

        Raises ``BundleRefusedError`` (``signature``, ``request``...),
        ``RequestRefusedError`` (``busy``, ``rate_limited``, ``replayed``,
        ``other_board``, ``unknown_pipeline``, ``no_model``, ``watermark``),
        ``TrialFailedError`` or ``DeviceError``.
        """
        ...


class Identity(Protocol):
    """This board's own certificate; satisfied by ``agent.trust.identity``.

    All raise ``RequestRefusedError`` (``certificate``) or ``DeviceError``, block, and
    are called in a thread.
    """

    def describe(self) -> dict[str, object]:
        """Return subject, issuer, serial, names, begin and end of the certificate."""
        ...

    def request(self) -> bytes:
        """Return a certificate signing request (PEM) for the key the board has."""
        ...

    def install(self, certificate: bytes) -> None:
        """Replace the certificate (PEM) by a renewed one: same key, same CA, longer."""
        ...


class Ledger(Protocol):
    """What proves the log; satisfied by ``agent.audit.ledger``.

    All block, and are called in a thread. They raise ``RequestRefusedError`` for what
    is not there, ``DeviceError`` (``starting``) and ``BundleRefusedError`` (``log``).
    """

    def checkpoint(self) -> str:
        """Return the newest signed checkpoint."""
        ...

    def prove(self, index: int) -> str:
        """Return the proof of one record as a text."""
        ...

    def grow(self, old: int, new: int) -> Mapping[str, Any]:
        """Return the proof that ``new`` records begin with ``old``; 0 is the newest."""
        ...

    def records(self, start: int, count: int) -> Mapping[str, Any]:
        """Return some records."""
        ...


class KeptInputs(Protocol):
    """Inputs that are kept for audits, sealed; satisfied by ``agent.audit.kept``.

    Both block, and are called in a thread.
    """

    def seqs(self, first: int, end: int) -> Sequence[int]:
        """Return whose are here, of receipts from ``first`` to before ``end``."""
        ...

    def read(self, seq: int) -> bytes | None:
        """Return one as it lies there; None where it does not."""
        ...


class Meter(Protocol):
    """What is paid for; satisfied by ``agent.audit.metering``.

    All raise ``DeviceError``; the last two block, and are called in a thread.
    """

    def status(self) -> MeterStatus:
        """Return the meter at this moment."""
        ...

    def redeem(self, raw: bytes) -> Voucher:
        """Redeem a voucher durably; a ``RequestRefusedError`` says why not."""
        ...

    def report(self, from_s: float) -> str:
        """Return the signed usage report since a time, Unix seconds."""
        ...
