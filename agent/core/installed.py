"""What is on the board: models that were committed, and what the board is."""

from msgspec import Struct

from agent.core.executors import Executor
from agent.core.sealing import Sealed


class PassedOver(Struct, frozen=True):
    """A variant on an executor that preflight tried and did not choose.

    Attributes:
        reason: Why it may not run here; empty where it may.
        detail: Why it was not chosen, for people: ``1.4 ms, 0.6 ms slower``.
        p50_ms: Median of a whole inference here, 0 where it was not measured.
        ram_bytes: Memory it took.
    """

    variant: str
    executor: Executor
    reason: str = ""
    detail: str = ""
    p50_ms: float = 0.0
    ram_bytes: int = 0


class Installed(Struct, frozen=True):
    """A model that was verified, tried and chosen for one pipeline.

    Attributes:
        sha256: Digest of the whole bundle, which names its object in the store.
        size: Bytes of the bundle.
        variant: Which variant runs; ``executor`` what computes it.
        verified_at: Unix seconds (UTC) of the last full verification.
        why: Why this variant on this executor, for people.
        p50_ms: Median of a whole inference here, 0 where it was not measured;
            ``ram_bytes`` the memory it took.
        passed_over: What preflight tried beside it, the most telling first.
        sealed: How to open it, where its object is a ciphertext.
    """

    model: str
    version: int
    sha256: str
    size: int
    variant: str
    executor: Executor
    verified_at: float = 0.0
    why: str = ""
    passed_over: tuple[PassedOver, ...] = ()
    p50_ms: float = 0.0
    ram_bytes: int = 0
    sealed: Sealed | None = None


class Slots(Struct, frozen=True):
    """One pipeline's durable models.

    Attributes:
        active: The one that answers.
        previous: The one before it: what a rollback goes back to.
        factory: The one that came with the system, once it was committed: what is
            left where there is no previous one.
    """

    active: Installed | None = None
    previous: Installed | None = None
    factory: Installed | None = None


class Board(Struct, frozen=True):
    """What this board is, as far as admission asks.

    Attributes:
        id: Its name in staged rollouts.
        hardware: Names that a bundle's ``hardware`` may match.
        agent: Version of this agent, ``1.2.3``.
        free_bytes: Free space below the state directory.
        ram_bytes: Memory that a model could get.
    """

    id: str
    hardware: tuple[str, ...]
    agent: str
    free_bytes: int
    ram_bytes: int
