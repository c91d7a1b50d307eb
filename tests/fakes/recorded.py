"""A recorder and a keeper in memory: what was handed over, and what is allowed."""

from dataclasses import dataclass, field

from agent.core.reasons import Reason
from agent.core.receipts import RECORD_BYTES, Receipt, parse_receipt
from agent.errors import DeviceError

PLENTY = 1 << 40


@dataclass
class ListRecorder:
    """Keeps receipts in a list, which is one log for all pipelines.

    Attributes:
        units: How many receipts it takes in all; ``reason`` why there are no more.
        broken: It takes none now.
        lost: Receipts that it was told of, and never given.
    """

    units: int = PLENTY
    reason: Reason = Reason.UNPAID
    broken: bool = False
    lost: int = 0
    log: list[tuple[str, Receipt]] = field(default_factory=list)

    def take(self, pipeline: str, records: memoryview) -> int:
        """Keep some records; refuse them while broken."""
        if self.broken:
            raise DeviceError("the disk is full", reason=Reason.LOG)
        assert len(records) % RECORD_BYTES == 0
        first = len(self.log)
        for at in range(0, len(records), RECORD_BYTES):
            receipt = parse_receipt(records[at : at + RECORD_BYTES])
            self.log.append((pipeline, receipt))
        return first

    def lose(self, pipeline: str, count: int) -> None:
        """Count what is lost."""
        del pipeline
        self.lost += count

    def allowance(self, pipeline: str) -> tuple[int, Reason]:
        """Return what is left of the units."""
        del pipeline
        left = self.units - len(self.log)
        return max(0, left), Reason.NONE if left > 0 else self.reason


@dataclass
class ListKeeper:
    """Keeps kept samples by pipeline and number."""

    kept: dict[tuple[str, int], bytes] = field(default_factory=dict)
    missed: int = 0

    def keep(self, pipeline: str, seq: int, content: bytes) -> None:
        """Keep one."""
        assert (pipeline, seq) not in self.kept
        self.kept[pipeline, seq] = content

    def miss(self, count: int) -> None:
        """Count some."""
        self.missed += count
