"""Why something did not happen: one enum of stable words, each explained once.

The words are metric labels, log fields and JSON values; a word is never renamed.
The README's table of refusals is rendered from ``EXPLANATIONS`` and checked by a test.

>>> str(Reason.SIGNATURE), EXPLANATIONS[Reason.SIGNATURE].actor
('signature', 'sender')
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal


class Reason(StrEnum):
    """Every word that may stand in a ``reason`` field."""

    NONE = ""
    # Repository metadata and targets
    SIGNATURE = "signature"
    THRESHOLD = "threshold"
    EXPIRED = "expired"
    REPLAYED = "replayed"
    MIXED = "mixed"
    MISSING_TARGET = "missing_target"
    METADATA = "metadata"
    DIGEST = "digest"
    LENGTH = "length"
    UNREACHABLE = "unreachable"
    # Bundles
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    MANIFEST = "manifest"
    SCHEMA = "schema"
    # Admission to this board
    VERSION_FLOOR = "version_floor"
    HARDWARE = "hardware"
    MIN_AGENT = "min_agent"
    MISMATCH = "mismatch"
    NO_EXECUTOR = "no_executor"
    DELEGATE = "delegate"
    # Trial
    CONTRACT = "contract"
    UNSUPPORTED_OP = "unsupported_op"
    DYNAMIC_SHAPE = "dynamic_shape"
    GOLDEN = "golden"
    NOT_FINITE = "not_finite"
    LATENCY = "latency"
    MEMORY = "memory"
    CRASH = "crash"
    HANG = "hang"
    CRASH_LOOP = "crash_loop"
    # Samples
    INPUT = "input"
    INVOKE = "invoke"
    OUTPUT = "output"
    OVERRUN = "overrun"
    PARTIAL = "partial"
    WARMING = "warming"
    STOPPING = "stopping"
    # The board and its operator
    SETTINGS = "settings"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    PERMISSION = "permission"
    LOCKED = "locked"
    STATE = "state"
    SOURCE_MISSING = "source_missing"
    SOURCE_FAILED = "source_failed"
    SOURCE_SILENT = "source_silent"
    NO_MODEL = "no_model"
    STARTING = "starting"
    REQUESTED = "requested"
    OOM = "oom"
    ADDRESS = "address"
    NOT_ORCHESTRATOR = "not_orchestrator"
    INTERNAL = "internal"


Actor = Literal["sender", "author", "operator", "nobody", "us"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means, who has to act, and what they can do.

    Attributes:
        actor: ``sender`` (of the bundle), ``author`` (of the model), ``operator``
            (of the board), ``nobody`` (it passes by itself) or ``us`` (a bug).
        what: What happened, in one sentence.
        todo: What that person can do.
    """

    actor: Actor
    what: str
    todo: str


EXPLANATIONS: Mapping[Reason, Explanation] = MappingProxyType(
    {
        Reason.SIGNATURE: Explanation(
            "sender",
            "Metadata or a bundle is not signed by a key this board trusts.",
            "Publish with the repository's own keys, or give the board its root.json.",
        ),
        Reason.THRESHOLD: Explanation(
            "sender",
            "Some keys signed, but fewer than the role's threshold.",
            "Have the missing key holders sign and publish again.",
        ),
        Reason.EXPIRED: Explanation(
            "sender",
            "Signed metadata is past its expiry date.",
            "Run `tinyward repo publish` again; check the board's clock.",
        ),
        Reason.REPLAYED: Explanation(
            "sender",
            "Metadata is older than what this board has already seen.",
            "Restore the newest repository; look for a stale mirror or an attack.",
        ),
        Reason.MIXED: Explanation(
            "sender",
            "Metadata files of different publications were mixed.",
            "Copy the whole repository at once, timestamp.json last.",
        ),
        Reason.MISSING_TARGET: Explanation(
            "sender",
            "A desired or listed target is not in the repository.",
            "Run `tinyward repo add` and `publish`, or copy the missing file.",
        ),
        Reason.METADATA: Explanation(
            "sender",
            "Repository metadata is missing or cannot be understood.",
            "Check that the path is a repository made by `tinyward repo init`.",
        ),
        Reason.DIGEST: Explanation(
            "sender",
            "Content does not have the digest that was signed for it.",
            "Copy the file again; if it persists, someone changed it.",
        ),
        Reason.LENGTH: Explanation(
            "sender",
            "Content is longer or shorter than what was signed for it.",
            "Copy the file again; if it persists, someone changed it.",
        ),
        Reason.UNREACHABLE: Explanation(
            "operator",
            "The repository cannot be read.",
            "Check `update.repository`, the mount, the cable.",
        ),
        Reason.TOO_LARGE: Explanation(
            "sender",
            "A bundle, or a part of it, exceeds the limit of this board.",
            "Ship a smaller variant, or raise `update.max_bundle_mb`.",
        ),
        Reason.TRUNCATED: Explanation(
            "sender", "The bundle ends too early.", "Copy the file again."
        ),
        Reason.MALFORMED: Explanation(
            "sender",
            "The container breaks a rule of the bundle format.",
            "Make bundles with `tinyward pack`, not with a zip program.",
        ),
        Reason.MANIFEST: Explanation(
            "sender",
            "The manifest has an unknown key, a wrong type or an impossible value.",
            "Correct pack.toml and pack again.",
        ),
        Reason.SCHEMA: Explanation(
            "operator",
            "The bundle is written in a newer schema than this agent knows.",
            "Update the agent on this board first.",
        ),
        Reason.VERSION_FLOOR: Explanation(
            "sender",
            "The version is lower than the highest one committed on this board.",
            "Publish the old model again under a higher version.",
        ),
        Reason.HARDWARE: Explanation(
            "sender",
            "The bundle is meant for other hardware.",
            "Assign another bundle to this board, or correct `board.hardware`.",
        ),
        Reason.MIN_AGENT: Explanation(
            "operator",
            "The bundle needs a newer agent.",
            "Update the agent on this board first.",
        ),
        Reason.MISMATCH: Explanation(
            "sender",
            "The bundle's manifest contradicts what was signed about it.",
            "Add the bundle again with `tinyward repo add`.",
        ),
        Reason.NO_EXECUTOR: Explanation(
            "author",
            "No runtime on this board may or can run any variant.",
            "See `tinyward doctor`; add a variant for this board's runtime.",
        ),
        Reason.DELEGATE: Explanation(
            "operator",
            "A delegate is missing, or is not the file that the settings allow.",
            "Check the path and sha256 of the [[delegate]] table.",
        ),
        Reason.CONTRACT: Explanation(
            "author",
            "The model's tensors are not those its manifest declares.",
            "Pack again from the model you mean.",
        ),
        Reason.UNSUPPORTED_OP: Explanation(
            "author",
            "The model needs an operator this runtime does not have.",
            "Convert with built-in operators only, or install the delegate.",
        ),
        Reason.DYNAMIC_SHAPE: Explanation(
            "author",
            "The model's shapes are dynamic and could not be fixed.",
            "Convert with fixed shapes, or declare them in pack.toml.",
        ),
        Reason.GOLDEN: Explanation(
            "author",
            "Golden samples did not give their recorded outputs within tolerance.",
            "Compare executors with `tinyward inspect --run`; widen or repair.",
        ),
        Reason.NOT_FINITE: Explanation(
            "author",
            "The model answered NaN or infinity.",
            "Check the model's numeric range on boundary inputs.",
        ),
        Reason.LATENCY: Explanation(
            "author",
            "The model is slower than its latency budget on this board.",
            "Use a smaller variant, or raise `budgets.p95_ms`.",
        ),
        Reason.MEMORY: Explanation(
            "author",
            "The model needs more memory than its budget, or than the board has.",
            "Use a smaller variant, or raise `budgets.ram_mb`.",
        ),
        Reason.CRASH: Explanation(
            "author",
            "The model killed the process that ran it.",
            "Try `tinyward inspect --run` on the same runtime.",
        ),
        Reason.HANG: Explanation(
            "author",
            "The model gave no answer within its deadline.",
            "Try `tinyward inspect --run`; raise `deadline_ms` if it is just slow.",
        ),
        Reason.CRASH_LOOP: Explanation(
            "author",
            "The model killed its worker three times in a row and was set aside.",
            "The previous model runs; publish a repaired version.",
        ),
        Reason.INPUT: Explanation(
            "operator",
            "A sample could not be turned into the model's input.",
            "Compare the source's format with `tinyward inspect BUNDLE`.",
        ),
        Reason.INVOKE: Explanation(
            "author", "The interpreter reported an error.", "Read the worker's log."
        ),
        Reason.OUTPUT: Explanation(
            "author",
            "An output could not be turned into a prediction.",
            "Check the manifest's task and labels.",
        ),
        Reason.OVERRUN: Explanation(
            "nobody",
            "A live source was faster than the model; the newest sample won.",
            "Lower the source's rate if every sample matters.",
        ),
        Reason.PARTIAL: Explanation(
            "operator",
            "A source ended in the middle of a sample.",
            "Read the program's own messages.",
        ),
        Reason.WARMING: Explanation(
            "nobody",
            "A sliding window was not full yet.",
            "Nothing: it fills with the next samples.",
        ),
        Reason.STOPPING: Explanation(
            "nobody", "The worker was asked to stop.", "Nothing."
        ),
        Reason.SETTINGS: Explanation(
            "operator",
            "The settings or the command line are wrong.",
            "Run `tinyward check FILE`: it names the key.",
        ),
        Reason.DISK_FULL: Explanation(
            "operator",
            "The disk is full.",
            "Free space below `state_dir`; nothing was lost.",
        ),
        Reason.READ_ONLY: Explanation(
            "operator",
            "The state directory cannot be written.",
            "Remount it read-write, or choose another `state_dir`.",
        ),
        Reason.PERMISSION: Explanation(
            "operator",
            "A file or directory belongs to someone else.",
            "Run as its owner, or correct the owner.",
        ),
        Reason.LOCKED: Explanation(
            "operator",
            "Another daemon uses this state directory.",
            "Stop it first; the message names its process.",
        ),
        Reason.STATE: Explanation(
            "operator",
            "The state database is damaged or of a newer agent.",
            "Use the newer agent, or move the state directory away.",
        ),
        Reason.SOURCE_MISSING: Explanation(
            "operator",
            "The source's file or program does not exist.",
            "Install it, or correct `source` in the settings.",
        ),
        Reason.SOURCE_FAILED: Explanation(
            "operator",
            "The source's program died or its data cannot be read.",
            "Read its last words in the log; it is started again with backoff.",
        ),
        Reason.SOURCE_SILENT: Explanation(
            "operator",
            "The source sends bytes but no frame, or nothing at all.",
            "Check its format, width, height and stride.",
        ),
        Reason.NO_MODEL: Explanation(
            "operator",
            "No verified model is committed for this pipeline yet.",
            "Publish and assign one, or set `factory`.",
        ),
        Reason.STARTING: Explanation(
            "nobody", "The worker has not answered a sample yet.", "Wait."
        ),
        Reason.REQUESTED: Explanation(
            "nobody", "The worker was restarted on purpose.", "Nothing."
        ),
        Reason.OOM: Explanation(
            "operator",
            "The kernel killed the worker for memory.",
            "Use a smaller variant, or free memory.",
        ),
        Reason.ADDRESS: Explanation(
            "operator",
            "The listen address cannot be used.",
            "Choose a free one in `local.listen`.",
        ),
        Reason.NOT_ORCHESTRATOR: Explanation(
            "operator",
            "The desired state came from a source the settings do not name.",
            "Change `update.orchestrator`, or use the configured source.",
        ),
        Reason.INTERNAL: Explanation(
            "us", "Something unexpected happened.", "Report it with the log line."
        ),
    }
)
