"""What reasons mean and what to do, where those act who make and send models.

One line is one reason; ``agent.core.explanations`` puts them together.
"""

from collections.abc import Mapping

from agent.core.reasons import Reason

Words = Mapping[Reason, tuple[str, str]]  # reason -> (what, todo)

# The sender of a bundle, or the keeper of a repository.
SENDER: Words = {
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
    Reason.REVOKED: (
        "The owner revoked these bytes: they may run nowhere any more.",
        "Publish a repaired model under a higher version and assign it.",
    ),
    Reason.REDIRECT: (
        "The repository's server sent the board to another host.",
        "Name the final address in `update.repository`.",
    ),
}
# The author of a model.
AUTHOR: Words = {
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
    Reason.AGREEMENT: (
        "In shadow it agreed with the active model on fewer samples than it promises.",
        "Compare both on the same input; lower `trial.min_agreement` if that is meant.",
    ),
    Reason.FAILURES: (
        "On probation more samples failed than its trial rules allow.",
        "Read the worker's log; raise `trial.max_failed` if that is normal.",
    ),
    Reason.DRIFT: (
        "On probation its answers did not look like those of its reference profile.",
        "See `tinyward monitor` and the profile's report; profile it on such input.",
    ),
    Reason.PROFILE: (
        "The reference profile is damaged, or of another model or preprocessing.",
        "Make it again with `tinyward profile`, pack and publish.",
    ),
    Reason.UNWATCHED: (
        "There is no reference profile in this bundle: only a site baseline is used.",
        "Make one with `tinyward profile` and pack it.",
    ),
    Reason.WATCHING_OFF: (
        "Watching is off, by the settings or by the model's manifest.",
        "Raise `monitor.cpu_share` above 0; let `monitor.keep` of the model allow it.",
    ),
}
# A bug.
US: Words = {
    Reason.INTERNAL: ("Something unexpected happened.", "Report it with the log line."),
}
