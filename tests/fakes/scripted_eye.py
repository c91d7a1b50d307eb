"""Eyes, clocks and reporters that do what a script says: for watchers."""

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.core.messages import Anchored, Watch, Watched
from agent.core.watching import AnchorState, Monitored
from agent.worker.model import LoadedModel
from agent.worker.samples import Arrays
from agent.worker.watch import Clocks, Eye, Rules, Watcher
from agent.worker.watch_pace import Pace

MS_NS = 1_000_000
S_NS = 1_000 * MS_NS
SAID = Monitored(anchors=(AnchorState("shipped", valid=True),))


@dataclass
class Times:
    """Two clocks that only move when told to."""

    now_ns: int = 0
    spent_ns: int = 0

    def clocks(self) -> Clocks:
        """Return them as a watcher reads them."""
        return Clocks(lambda: self.now_ns, lambda: self.spent_ns)


@dataclass
class ScriptedEye:
    """Notes what it is shown.

    Attributes:
        interval: What it asks for.
        transitions: Numbers of the samples at which an alarm changes.
        broken: Numbers of the samples that it cannot bear.
        cost: Called while it looks.
        completed: A baseline that is complete.
        said: What it says.
    """

    interval: int = 1
    transitions: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    cost: Callable[[], object] = lambda: None
    completed: bytes | None = None
    said: Monitored = SAID
    looked: list[int] = field(default_factory=list)
    shown: list[tuple[Arrays, Arrays, int, float]] = field(default_factory=list)
    commissioned: list[int] = field(default_factory=list)
    dumb: bool = False

    def look(
        self, seq: int, inputs: Arrays, outputs: Arrays, index: int, score: float
    ) -> bool:
        """Note a sample, or fail."""
        self.cost()
        if seq in self.broken:
            raise FloatingPointError("a singular matrix")
        self.looked.append(seq)
        self.shown.append((inputs, outputs, index, score))
        return seq in self.transitions

    def say(self) -> Monitored:
        """Say what the script says."""
        if self.dumb:
            raise ValueError("no words")
        return self.said

    def baseline(self) -> bytes | None:
        """Return the completed baseline once."""
        completed, self.completed = self.completed, None
        return completed

    def commission(self) -> None:
        """Note after which sample."""
        self.commissioned.append(self.looked[-1] if self.looked else 0)

    def close_window(self, **changes: object) -> None:
        """Close a window, and say something else."""
        windows = self.said.windows + 1
        self.said = replace(self.said, windows=windows, **changes)


@dataclass
class ListReporter:
    """Keeps what it is told."""

    reports: list[Watched | Anchored] = field(default_factory=list)
    started: int = 0

    def start(self) -> None:
        """Note that there is something to watch."""
        self.started += 1

    def say(self, report: Watched | Anchored) -> None:
        """Keep a report."""
        self.reports.append(report)

    @property
    def monitored(self) -> list[Monitored]:
        """What monitors said, in order."""
        return [it.monitored for it in self.reports if isinstance(it, Watched)]


def scripted_watcher(
    eye: Eye,
    reporter: ListReporter,
    times: Times,
    *,
    share: float = 0.5,
    privacy: bool = False,
) -> Watcher:
    """Return a watcher of generation 7, with credit for its first look."""
    pace = Pace(share, times.now_ns)
    times.now_ns += S_NS
    return Watcher(Rules(7, privacy), eye, pace, reporter.say, times.clocks())


def scripted_eyes(eye: Eye) -> Callable[[Watch, LoadedModel], Eye]:
    """Return what gives this eye to whoever builds one."""

    def build(order: Watch, model: LoadedModel) -> Eye:
        del order, model
        return eye

    return build
