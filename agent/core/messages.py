"""Messages between the daemon and its children, as msgpack on a socketpair.

One message is one SOCK_SEQPACKET record, so none is ever seen in part; file
descriptors travel beside it (SCM_RIGHTS) in the order that the message's docstring
names. Model bytes never travel in a message: they are a sealed memfd, and the process
that loads them hashes them again.

Law: ``parse_to_child(render_message(m)) == m``, and likewise for ``parse_from_child``.

What a child sends is bounded: a number that no board can reach, or a text longer than
one record needs, is no message.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from agent.core.degradation import SafeOutput
from agent.core.executors import Executor
from agent.core.flow import SinkSettings, SourceSettings
from agent.core.integrity import Checked, Evidence
from agent.core.profile import MAX_PROFILE_BYTES
from agent.core.reasons import Reason
from agent.core.receipts import ReceiptOrder
from agent.core.watching import Anchor, Monitored, Scope
from agent.errors import DeviceError

MAX_MESSAGE_BYTES = 192 * 1024  # below the default socket buffer of 208 KiB
MAX_DESCRIPTORS = 32
MAX_ANSWERS = 1024  # the most bits of a codeword

Count = Annotated[int, Meta(ge=0, lt=2**62)]  # also ns: 146 years
Bytes = Annotated[int, Meta(ge=0, le=2**48)]  # the largest address space there is
Pid = Annotated[int, Meta(ge=0, le=2**22)]  # PID_MAX_LIMIT of linux/threads.h
Class = Annotated[int, Meta(ge=0, lt=65_536)]
Imports = Annotated[int, Meta(ge=0, le=2**32)]  # bytes; a runtime takes some 2**28
Word = Annotated[str, Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=20_000)]  # in characters, of 4 bytes at most
Table = Annotated[dict[Word, Word], Meta(max_length=64)]


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of every message: immutable, told apart by its class name."""


class Configure(Message, frozen=True):
    """First message to a worker. Descriptors: source pipe (if any), then sink pipes.

    With ``receipts`` the last descriptor is their ring.

    Attributes:
        source: What to read. For ``command`` and ``board`` the first descriptor is
            the pipe of frames.
        sinks: Where predictions go; each one but ``count`` has a descriptor.
        first_seq: Number of the first sample, so that a new worker counts on.
        receipts: How receipts are given; None for none.
    """

    pipeline: str
    source: SourceSettings
    sinks: tuple[SinkSettings, ...]
    first_seq: int = 1
    receipts: ReceiptOrder | None = None


class Load(Message, frozen=True):
    """Build a candidate beside the model that answers. Descriptor: the model's memfd.

    Attributes:
        generation: The daemon's number of this load, unique for the worker.
        manifest: Bytes of manifest.json.
        variant: Which variant the descriptor holds.
        sha256: Digest of what it holds where it is this board's marked copy; empty:
            the manifest's.
    """

    generation: int
    manifest: bytes
    variant: str
    executor: Executor
    sha256: str = ""


class Activate(Message, frozen=True):
    """Let the loaded candidate answer from the next sample on."""

    generation: int


class Discard(Message, frozen=True):
    """Forget the loaded candidate."""

    generation: int


class Tap(Message, frozen=True):
    """Copy live samples, and what is answered, into a ring. Descriptor: the ring.

    Attributes:
        every: One in so many samples.
    """

    generation: int
    every: int = 1


class Untap(Message, frozen=True):
    """Copy no more samples; the ring is let go."""

    generation: int


class Watch(Message, frozen=True):
    """How to watch the model of the Load that follows with the same generation.

    Attributes:
        profile: Bytes of the bundle's profile.json, empty without one.
        site: This board's own baseline of the model, empty before it has one.
        latched: (anchor, scope) of alarms that were active when its last worker ended.
        cpu_share: What watching may cost; 0 for nothing, and then it is not watched.
        site_samples: Samples of a new baseline.
        privacy: Report counts of answers only when a window closes.
        number: Of the collection that goes on, see ``Commission``.
        confirmed: Those of ``latched`` that a second detector had confirmed.
    """

    generation: int
    profile: bytes = b""
    site: bytes = b""
    latched: tuple[tuple[Anchor, Scope], ...] = ()
    cpu_share: float = 0.02
    site_samples: int = 2000
    privacy: bool = False
    number: int = 0
    confirmed: tuple[tuple[Anchor, Scope], ...] = ()


class Commission(Message, frozen=True):
    """Forget this board's baseline and collect another: an operator's order.

    Attributes:
        number: Of the collection that begins: a baseline of an earlier one may be
            under way to the daemon while the operator has it removed.
    """

    generation: int
    number: int = 0


class Shed(Message, frozen=True):
    """Do less than answer every sample, from the next one on; it outlives swaps.

    Attributes:
        every: One in so many samples is answered; the others end as dropped.
        answer: Who answers it: the ``model``, nobody (``abstain``), or ``safe_output``.
        safe_output: What the last of those says.
    """

    every: Annotated[int, Meta(ge=1, le=1000)] = 1
    answer: Literal["model", "abstain", "safe_output"] = "model"
    safe_output: SafeOutput = SafeOutput()


class Inspect(Message, frozen=True):
    """How the integrity of the Loads that follow is checked; see ``[integrity]``.

    Attributes:
        rehash_mbps: Megabytes of memory that are hashed each second; 0 for none.
        known_answers: Ask for known answers while no sample waits.
        audit_one_in: One in so many samples is answered again on other kernels; 0 for
            none.
    """

    rehash_mbps: float = 0.0
    known_answers: bool = False
    audit_one_in: int = 0


class NewSource(Message, frozen=True):
    """The source's program was started again. Descriptor: its new pipe."""


class Shadow(Message, frozen=True):
    """First message to a shadow child. Descriptors: the model's memfd, then the ring.

    Attributes:
        tolerance: How far scores or raw outputs may differ and still agree.
        remembers: The model's answers depend on earlier samples: it begins anew
            wherever one is missing.
        sha256: As in ``Load``.
    """

    manifest: bytes
    variant: str
    executor: Executor
    tolerance: float
    remembers: bool = False
    sha256: str = ""


class Stop(Message, frozen=True):
    """Finish the sample in flight, then leave."""


class Ready(Message, frozen=True):
    """The child has locked itself in and imported what it needs.

    Attributes:
        locks: Which layers hold: layer -> "" or why it does not.
        data_bytes: Data size after imports, for the limit that follows.
        engines: Engine name -> version, of those that import.
    """

    pid: Pid
    locks: Table
    data_bytes: Imports
    engines: Table


class Loaded(Message, frozen=True):
    """The candidate is built and warm."""

    generation: Count
    seconds: float


class Swapped(Message, frozen=True):
    """The candidate answers.

    Attributes:
        first_seq: Number of the first sample it answers.
        gap_ns: Longest time without an answer while input waited, around the swap.
    """

    generation: Count
    first_seq: Count
    gap_ns: Count


class Tapped(Message, frozen=True):
    """A Tap or an Untap was performed."""

    generation: Count


class Shadowed(Message, frozen=True):
    """What a shadow has answered so far; sent now and then, from its start on.

    Attributes:
        compared: Samples that the active model answered, and the candidate was given.
        agreed: Those on which both say the same; ``failed`` those that the candidate
            did not answer, ``not_finite`` those it answered with NaN or infinity.
        timed: Samples in which nothing disturbed it; ``p95_ms`` is of those, and
            ``late`` how many of them took longer than its budget.
        active_p95_ms: The active model's on all samples compared.
        dropped: Samples that came too fast for the shadow.
        detail: The first sample that went wrong, for people.
    """

    compared: Count = 0
    agreed: Count = 0
    failed: Count = 0
    not_finite: Count = 0
    timed: Count = 0
    p95_ms: float = 0.0
    active_p95_ms: float = 0.0
    dropped: Count = 0
    detail: Text = ""
    late: Count = 0


class Watched(Message, frozen=True):
    """What the monitor of a loaded model says: now and then, and at each alarm.

    Attributes:
        generation: That of the model's Load.
    """

    generation: Count
    monitored: Monitored


class Anchored(Message, frozen=True):
    """This board's own baseline of a model, complete: to be kept.

    Attributes:
        generation: That of the model's Load.
        site: For the ``Watch`` of the next worker.
        number: Of the collection that it is of: as ordered last.
    """

    generation: Count
    site: Annotated[bytes, Meta(max_length=MAX_PROFILE_BYTES)]
    number: Count = 0


class Inspected(Message, frozen=True):
    """What the integrity checks of a loaded model have done: now and then.

    Attributes:
        generation: That of the model's Load.
        evidence: What differs from what was verified; sent at once.
    """

    generation: Count
    checked: Checked
    evidence: Evidence | None = None


class Refused(Message, frozen=True):
    """A load or an examination ended; ``detail`` is for people."""

    generation: Count
    reason: Reason
    detail: Text


class SourceState(Message, frozen=True):
    """The source began (no reason), ended or failed.

    With ``ended`` and a reason the worker leaves for it; otherwise it lives on.
    """

    reason: Reason
    detail: Text = ""
    ended: bool = False


class Stopped(Message, frozen=True):
    """The loop has ended; the statistics block is final."""

    next_seq: Count


class Examine(Message, frozen=True):
    """First message to a preflight child.

    Descriptors: one memfd for each variant in ``plan`` (in the order of first
    appearance), then the golden samples.

    Attributes:
        plan: (variant, executor) pairs to try, most wanted first.
        rounds: Timed rounds of each pair, interleaved.
        deadline_s: The child ends itself after so long.
        digests: Variant -> digest of its marked copy; the manifest's where none is
            named.
    """

    manifest: bytes
    plan: tuple[tuple[str, Executor], ...]
    rounds: int = 9
    deadline_s: float = 60.0
    digests: dict[str, str] = {}


class Ask(Message, frozen=True):
    """First message to a child that answers given inputs once, and leaves.

    Descriptors: the model's memfd, then the inputs' (an .npz with one array by the
    variant's name: stored values of its one input, any number of them).

    Attributes:
        sha256: As in ``Load``.
        most: More inputs are refused.
        deadline_s: The child ends itself after so long.
    """

    manifest: bytes
    variant: str
    executor: Executor
    sha256: str = ""
    most: int = MAX_ANSWERS
    deadline_s: float = 60.0


class Answers(Message, frozen=True):
    """What an Ask was answered: the most likely class of each input, in their order."""

    classes: Annotated[tuple[Class, ...], Meta(max_length=MAX_ANSWERS)]


class Examining(Message, frozen=True):
    """The child is about to try ``plan[index]``: whom to blame if it dies now."""

    index: Count
    stage: Word


class Finding(Message, frozen=True):
    """What the preflight child found out about ``plan[index]``.

    Attributes:
        reason: Empty if it may run; ``detail`` says where and by how much it may not.
        p50_ms: Median and ``p95_ms`` 95th percentile of a whole inference.
        max_difference: Largest distance from a golden output, in real units.
        ram_bytes: Growth of the resident set by this pair, and ``peak_bytes`` the
            child's peak.
    """

    index: Count
    reason: Reason = Reason.NONE
    detail: Text = ""
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    max_difference: float = 0.0
    ram_bytes: Bytes = 0
    peak_bytes: Bytes = 0


class Examined(Message, frozen=True):
    """All pairs were tried; nothing follows."""


ToChild = (
    Configure
    | Load
    | Activate
    | Discard
    | Tap
    | Untap
    | Watch
    | Commission
    | Shed
    | Inspect
    | NewSource
    | Stop
    | Examine
    | Ask
    | Shadow
)
FromChild = (
    Ready
    | Loaded
    | Swapped
    | Tapped
    | Shadowed
    | Watched
    | Anchored
    | Inspected
    | Refused
    | SourceState
    | Stopped
    | Examining
    | Finding
    | Examined
    | Answers
)

_encoder = msgspec.msgpack.Encoder()
_to_child: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToChild)
_from_child: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(FromChild)


def render_message(message: Message) -> bytes:
    """Return the record of a message.

    Raises:
        DeviceError: It does not fit one record (``internal``).
    """
    record = _encoder.encode(message)
    if len(record) > MAX_MESSAGE_BYTES:
        raise DeviceError(
            f"{type(message).__name__} of {len(record)} bytes does not fit one record",
            reason=Reason.INTERNAL,
        )
    return record


def parse_to_child(record: bytes) -> ToChild:
    """Parse what a child receives; the daemon is trusted, errors are bugs."""
    message: ToChild = _to_child.decode(record)
    return message


def parse_from_child(record: bytes) -> FromChild:
    """Parse what the daemon receives from a child, which is not trusted.

    Raises:
        DeviceError: The record is none of the messages (``crash``).
    """
    try:
        message: FromChild = _from_child.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise DeviceError(
            f"a child sent what is no message: {err}", reason=Reason.CRASH
        ) from err
    return message
