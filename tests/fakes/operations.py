"""Small real implementations of what listeners need: a desk, an inbox, a key."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.core.reasons import Reason
from agent.core.targets import GroupFile
from agent.core.updates import Report, SetAside
from agent.errors import BundleRefusedError, DeviceError, RequestRefusedError

REPORT = Report(7, "door", "kws", 2, "ab" * 32, "push", 3, "committed", ended_at=9.0)


@dataclass
class MemoryDesk:
    """``Operations`` in memory.

    Attributes:
        phase: Of the update that is under way; IDLE lets everything through.
        asked: What was asked for, and by whom.
    """

    pipelines: tuple[str, ...] = ("door",)
    phase: str = "IDLE"
    orchestrator: str = "push"
    has_previous: bool = True
    watched: bool = True
    pushed: GroupFile | None = None
    done: list[Report] = field(default_factory=lambda: [REPORT])
    aside: list[SetAside] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def reports(self) -> Sequence[Report]:
        """Return the updates that ended."""
        return self.done

    def quarantine(self) -> Sequence[SetAside]:
        """Return what is not tried again."""
        return self.aside

    def desired(self) -> GroupFile | None:
        """Return what was pushed last."""
        return self.pushed

    async def set_desired(self, desired: GroupFile, operator: str) -> None:
        """Take a desired state."""
        if self.orchestrator != "push":
            raise RequestRefusedError(
                f"{self.orchestrator} says what runs", reason=Reason.NOT_ORCHESTRATOR
            )
        last = self.pushed
        newer = last is None or desired.generation > last.generation
        if not newer and desired != last:
            raise RequestRefusedError("an older generation", reason=Reason.REPLAYED)
        self.pushed = desired
        self.asked.append(("desired", operator))

    async def forget_desired(self, operator: str) -> None:
        """Forget the desired state."""
        self.pushed = None
        self.asked.append(("forget", operator))

    async def look(self, operator: str) -> None:
        """Look now."""
        self.asked.append(("look", operator))

    async def roll_back(self, pipeline: str, operator: str) -> str:
        """Go back."""
        name = pipeline or self.pipelines[0]
        if name not in self.pipelines:
            raise RequestRefusedError(
                "no such pipeline", reason=Reason.UNKNOWN_PIPELINE
            )
        if self.phase != "IDLE":
            raise RequestRefusedError(
                f"an update is in {self.phase}", reason=Reason.BUSY
            )
        if not self.has_previous:
            raise RequestRefusedError("nothing before it", reason=Reason.NO_PREVIOUS)
        self.phase = "ROLLING_BACK"
        self.asked.append((f"rollback {name}", operator))
        return name

    async def commission(self, pipeline: str, operator: str) -> str:
        """Begin the baseline anew."""
        name = pipeline or self.pipelines[0]
        if name not in self.pipelines:
            raise RequestRefusedError(
                "no such pipeline", reason=Reason.UNKNOWN_PIPELINE
            )
        if not self.watched:
            raise RequestRefusedError("it is not watched", reason=Reason.UNWATCHED)
        self.asked.append((f"commission {name}", operator))
        return name

    async def forgive(self, sha256: str, operator: str) -> None:
        """Try it again."""
        if all(it.sha256 != sha256 for it in self.aside):
            raise RequestRefusedError("it was not set aside", reason=Reason.REQUEST)
        self.aside = [it for it in self.aside if it.sha256 != sha256]
        self.asked.append(("forgive", operator))


@dataclass
class MemoryInbox:
    """``Uploads`` in memory.

    Attributes:
        quota_bytes: What all uploads together may take.
        placed: Path -> content of what was verified.
        on_append: Called before each append, with how many bytes come.
    """

    quota_bytes: int = 4 * 1024 * 1024
    partial: dict[str, bytearray] = field(default_factory=dict)
    placed: dict[str, bytes] = field(default_factory=dict)
    on_append: Callable[[int], None] | None = None

    def offset(self, sha256: str) -> int:
        """Return how much is here."""
        for content in self.placed.values():
            if hashlib.sha256(content).hexdigest() == sha256:
                return len(content)
        return len(self.partial.get(sha256, b""))

    def append(self, sha256: str, length: int, offset: int, content: bytes) -> int:
        """Add bytes."""
        if self.on_append is not None:
            self.on_append(len(content))
        if offset != self.offset(sha256):
            raise RequestRefusedError("not the next byte", reason=Reason.REQUEST)
        if length > self.quota_bytes:
            raise BundleRefusedError("larger than all", reason=Reason.TOO_LARGE)
        held = sum(map(len, [*self.partial.values(), *self.placed.values()]))
        if held + len(content) > self.quota_bytes:
            raise DeviceError("the inbox is full", reason=Reason.QUOTA)
        if offset + len(content) > length:
            raise BundleRefusedError("longer than it says", reason=Reason.LENGTH)
        self.partial.setdefault(sha256, bytearray()).extend(content)
        return offset + len(content)

    def place(self, sha256: str, length: int, path: str) -> None:
        """Verify and place."""
        content = bytes(self.partial.pop(sha256, b""))
        if not content and length:
            return  # it has its place already
        if len(content) != length or hashlib.sha256(content).hexdigest() != sha256:
            raise BundleRefusedError("other bytes", reason=Reason.DIGEST)
        self.placed[path] = content

    def clear(self) -> None:
        """Remove everything."""
        self.partial.clear()
        self.placed.clear()


@dataclass
class MemoryIdentity:
    """``Identity`` in memory; ``on_install`` is called with what is installed."""

    serial: str = "1"
    on_install: Callable[[bytes], None] | None = None

    def describe(self) -> dict[str, object]:
        """Return the certificate."""
        return {"serial": self.serial, "subject": "board-1"}

    def request(self) -> bytes:
        """Return a signing request."""
        return b"-----BEGIN CERTIFICATE REQUEST-----\n"

    def install(self, certificate: bytes) -> None:
        """Replace the certificate."""
        if not certificate.startswith(b"-----BEGIN CERTIFICATE-----"):
            raise RequestRefusedError("no certificate", reason=Reason.CERTIFICATE)
        if self.on_install is not None:
            self.on_install(certificate)
        self.serial = "2"
