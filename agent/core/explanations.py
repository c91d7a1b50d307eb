"""What each reason means, who has to act, and what they can do.

The README's table of refusals is rendered from ``EXPLANATIONS`` and checked by a test.
One line is one reason, so that the table reads like the table it becomes.

>>> EXPLANATIONS[Reason.SIGNATURE].actor
'sender'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from agent.core.reasons import Reason

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


Words = Mapping[Reason, tuple[str, str]]  # reason -> (what, todo)

# The sender of a bundle, or the keeper of a repository.
_SENDER: Words = {
    Reason.SIGNATURE: (
        "Metadata or a bundle is not signed by a key this board trusts.",
        "Publish with the repository's own keys, or give the board its root.json.",
    ),
    Reason.THRESHOLD: (
        "Some keys signed, but fewer than the role's threshold.",
        "Publish with all holders' keys at hand: `--keys DIR` for each of them.",
    ),
    Reason.EXPIRED: (
        "Signed metadata is past its expiry date.",
        "Run `tinyward repo publish` again; check the board's clock.",
    ),
    Reason.REPLAYED: (
        "Metadata is older than what this board has already seen.",
        "Restore the newest repository; look for a stale mirror or an attack.",
    ),
    Reason.MIXED: (
        "Metadata files of different publications were mixed.",
        "Copy the whole repository at once, timestamp.json last.",
    ),
    Reason.MISSING_TARGET: (
        "A desired or listed target is not in the repository.",
        "Run `tinyward repo add` and `publish`, or copy the missing file.",
    ),
    Reason.METADATA: (
        "Repository metadata is missing or cannot be understood.",
        "Check that the path is a repository made by `tinyward repo init`.",
    ),
    Reason.DIGEST: (
        "Content does not have the digest that was signed for it.",
        "Copy the file again; if it persists, someone changed it.",
    ),
    Reason.LENGTH: (
        "Content is longer or shorter than what was signed for it.",
        "Copy the file again; if it persists, someone changed it.",
    ),
    Reason.TOO_LARGE: (
        "A bundle, or a part of it, exceeds the limit of this board.",
        "Ship a smaller variant, or raise `update.max_bundle_mb`.",
    ),
    Reason.TRUNCATED: ("The bundle ends too early.", "Copy the file again."),
    Reason.MALFORMED: (
        "The container breaks a rule of the bundle format.",
        "Copy the file again; `tinyward pack` makes bundles, a zip program cannot.",
    ),
    Reason.MANIFEST: (
        "The manifest has an unknown key, a wrong type or an impossible value.",
        "Correct pack.toml and pack again.",
    ),
    Reason.VERSION_FLOOR: (
        "The version is lower than the highest one committed on this board.",
        "Publish the old model again under a higher version.",
    ),
    Reason.HARDWARE: (
        "The bundle is meant for other hardware.",
        "Assign another bundle to this board, or correct `board.hardware`.",
    ),
    Reason.MISMATCH: (
        "The bundle's manifest contradicts what was signed about it.",
        "Add the bundle again with `tinyward repo add`.",
    ),
}
# The author of a model.
_AUTHOR: Words = {
    Reason.NO_EXECUTOR: (
        "No runtime on this board may or can run any variant.",
        "See `tinyward doctor`; add a variant for this board's runtime.",
    ),
    Reason.CONTRACT: (
        "The model's tensors are not those its manifest declares.",
        "Compare the file, `task` and `postprocess`; `tinyward inspect FILE` shows it.",
    ),
    Reason.UNSUPPORTED_OP: (
        "The model needs an operator this runtime does not have.",
        "Convert with built-in operators only, or install the delegate.",
    ),
    Reason.DYNAMIC_SHAPE: (
        "The model's shapes are dynamic and could not be fixed.",
        "Convert with fixed shapes, or declare them in pack.toml.",
    ),
    Reason.GOLDEN: (
        "Golden samples did not give their recorded outputs within tolerance.",
        "Compare executors with `tinyward inspect --run`; widen or repair.",
    ),
    Reason.NOT_FINITE: (
        "The model answered NaN or infinity.",
        "Check the model's numeric range on boundary inputs.",
    ),
    Reason.LATENCY: (
        "The model is slower than its latency budget on this board.",
        "Use a smaller variant, or raise `budgets.p95_ms`.",
    ),
    Reason.MEMORY: (
        "The model needs more memory than its budget, or than the board has.",
        "Use a smaller variant, or raise `budgets.ram_mb`.",
    ),
    Reason.CRASH: (
        "The model killed the process that ran it.",
        "Try `tinyward inspect --run` on the same runtime.",
    ),
    Reason.HANG: (
        "The model gave no answer within its deadline.",
        "Try `tinyward inspect --run`; raise `deadline_ms` if it is just slow.",
    ),
    Reason.CRASH_LOOP: (
        "It killed its worker three times in a row; the previous model runs, if any.",
        "Publish a repaired version.",
    ),
    Reason.INVOKE: ("The interpreter reported an error.", "Read the worker's log."),
    Reason.OUTPUT: (
        "An output could not be turned into a prediction.",
        "Check the manifest's task and labels.",
    ),
}
# The operator of a board.
_OPERATOR: Words = {
    Reason.UNREACHABLE: (
        "The repository cannot be read.",
        "Check `update.repository`, the mount, the cable.",
    ),
    Reason.SCHEMA: (
        "The bundle is written in a newer schema than this agent knows.",
        "Update the agent on this board first.",
    ),
    Reason.MIN_AGENT: (
        "The bundle needs a newer agent.",
        "Update the agent on this board first.",
    ),
    Reason.DELEGATE: (
        "A delegate is missing, or is not the file that the settings allow.",
        "Check the path and sha256 of the [[delegate]] table.",
    ),
    Reason.INPUT: (
        "A sample could not be turned into the model's input.",
        "Compare the samples with the input that `tinyward inspect FILE` shows.",
    ),
    Reason.PARTIAL: (
        "A source ended in the middle of a sample.",
        "Read the program's own messages.",
    ),
    Reason.SETTINGS: (
        "The settings or the command line are wrong.",
        "Correct the key or the option that the message names.",
    ),
    Reason.DISK_FULL: (
        "The disk is full.",
        "Free space below `state_dir`; nothing was lost.",
    ),
    Reason.READ_ONLY: (
        "The state directory cannot be written.",
        "Remount it read-write, or choose another `state_dir`.",
    ),
    Reason.PERMISSION: (
        "A file or directory belongs to someone else.",
        "Run as its owner, or correct the owner.",
    ),
    Reason.LOCKED: (
        "Another daemon uses this state directory.",
        "Stop it first; the message names its process.",
    ),
    Reason.STATE: (
        "The state directory is none, or its database is damaged or newer.",
        "Correct `state_dir`, use the newer agent, or move the directory away.",
    ),
    Reason.SOURCE_MISSING: (
        "The file or program of a source or sink does not exist.",
        "Install it, or correct `source` or `sinks` in the settings.",
    ),
    Reason.SOURCE_FAILED: (
        "The source's program died or its data cannot be read.",
        "Read its last words in the log; it is started again with backoff.",
    ),
    Reason.SOURCE_SILENT: (
        "The source sends bytes but no frame, or nothing at all.",
        "Check its format, width, height and stride.",
    ),
    Reason.NO_MODEL: (
        "No verified model is committed for this pipeline yet.",
        "Publish and assign one, or set `factory`.",
    ),
    Reason.OOM: (
        "The kernel killed the worker for memory.",
        "Use a smaller variant, or free memory.",
    ),
    Reason.ADDRESS: (
        "The listen address cannot be used.",
        "Choose a free one in `local.listen`.",
    ),
    Reason.NOT_ORCHESTRATOR: (
        "The desired state came from a source the settings do not name.",
        "Change `update.orchestrator`, or use the configured source.",
    ),
}
# It passes by itself.
_NOBODY: Words = {
    Reason.OVERRUN: (
        "A live source was faster than the model; the newest sample won.",
        "Lower the source's rate if every sample matters.",
    ),
    Reason.WARMING: (
        "A sliding window was not full yet.",
        "Nothing: it fills with the next samples.",
    ),
    Reason.STOPPING: ("The worker was asked to stop.", "Nothing."),
    Reason.STARTING: ("The worker has not answered a sample yet.", "Wait."),
    Reason.REQUESTED: ("The worker was restarted on purpose.", "Nothing."),
}
# A bug.
_US: Words = {
    Reason.INTERNAL: ("Something unexpected happened.", "Report it with the log line."),
}

_ACTORS: Mapping[Actor, Words] = {
    "sender": _SENDER,
    "author": _AUTHOR,
    "operator": _OPERATOR,
    "nobody": _NOBODY,
    "us": _US,
}
EXPLANATIONS: Mapping[Reason, Explanation] = MappingProxyType(
    {
        reason: Explanation(actor, what, todo)
        for actor, words in _ACTORS.items()
        for reason, (what, todo) in words.items()
    }
)
