"""What reasons mean and what to do, where the board's operator acts or nobody has to.

One line is one reason; ``agent.core.explanations`` puts them together.
"""

from agent.core.reason_words import Words
from agent.core.reasons import Reason

# The operator of a board.
OPERATOR: Words = {
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
    Reason.HEAT: (
        "The board is hotter than [degrade] allows.",
        "Give it air, a heat sink or a fan, or less to do.",
    ),
    Reason.THROTTLED: (
        "The board's firmware or kernel holds its clock down.",
        "Cool it; `tinyward doctor` shows which limit holds.",
    ),
    Reason.UNDER_VOLTAGE: (
        "The board's power supply is too weak.",
        "Use the supply that the board's maker names, and a shorter cable.",
    ),
    Reason.MEMORY_PRESSURE: (
        "The board has too little memory left.",
        "Stop other programs, or run fewer or smaller models.",
    ),
    Reason.DEADLINE: (
        "Too many answers come later than the model's budget.",
        "Use a smaller variant, fewer samples, or a faster board.",
    ),
    Reason.CRASHES: (
        "A pipeline's worker died more than once within ten minutes.",
        "Read its last words in the log.",
    ),
    Reason.NOT_INSTALLED: (
        "Tinyward is not installed as a service here, or not from one of its slots.",
        "Install it as the README's section Install says.",
    ),
    Reason.UPGRADE: (
        "The new version of Tinyward did not get ready; the old one runs again.",
        "Read its last words: `journalctl -u tinyward`.",
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
    Reason.DESCRIPTORS: (
        "This process may not open more files.",
        "Raise `LimitNOFILE=` of the service; what failed is tried again.",
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
    Reason.TOO_SLOW: (
        "The server sent too slowly, or not at all, and was left.",
        "It goes on later, where it stopped. Check the network and `update.min_kbps`.",
    ),
    Reason.TLS: (
        "No trusted TLS connection: version, certificate or CA do not fit.",
        "Check `update.ca`, the server's certificate and this board's clock.",
    ),
    Reason.RATE_LIMITED: (
        "Too many requests in a short time.",
        "Wait as long as Retry-After says.",
    ),
    Reason.QUOTA: (
        "What is stored on this board would exceed its quota.",
        "Raise `update.quota_mb` (uploads: `control.max_upload_mb`).",
    ),
    Reason.WINDOW: (
        "It waits for its maintenance window.",
        "Wait, or change the group's `window`.",
    ),
    Reason.PAUSED: (
        "The desired state is paused.",
        "Run `tinyward repo pause --resume` and publish.",
    ),
    Reason.HELD: (
        "An operator rolled back here; that holds until a newer generation.",
        "Assign again (a newer generation), or wait for the repaired version.",
    ),
    Reason.NO_PREVIOUS: (
        "There is no earlier model on this board to go back to.",
        "Assign the model that should run.",
    ),
    Reason.UNKNOWN_PIPELINE: (
        "This board has no pipeline of that name.",
        "See `tinyward status` for the names it has.",
    ),
    Reason.BUSY: (
        "Another update is under way; the answer names its phase.",
        "Wait until it has ended, then ask again.",
    ),
    Reason.SUPERSEDED: (
        "A newer desired state took its place before it was committed.",
        "Nothing: the newer one is carried out.",
    ),
    Reason.ROLE: (
        "The client certificate's role does not allow this request.",
        "Use an operator's certificate: `tinyward ca issue --role operator`.",
    ),
    Reason.CERTIFICATE: (
        "A certificate is missing, expired, revoked or another's.",
        "See `tinyward identity show`; issue a new one with `tinyward ca`.",
    ),
    Reason.REQUEST: (
        "The request cannot be understood.",
        "Compare it with /v1/openapi.json.",
    ),
}
# It passes by itself.
NOBODY: Words = {
    Reason.DELTA: (
        "A delta did not give the signed bytes: the whole bundle is fetched instead.",
        "Nothing; if every board says so, publish the delta anew.",
    ),
    Reason.SHED: (
        "The board does less for a while: this sample was left out on purpose.",
        "Nothing: `tinyward status` says what holds it back.",
    ),
    Reason.ABSTAINED: (
        "The board gives no answers for a while, as its settings or the model say.",
        "Nothing: `tinyward status` says what holds it back.",
    ),
    Reason.CALM: (
        "What held a pipeline back is over.",
        "Nothing: it goes down the ladder by itself.",
    ),
    Reason.OVERRUN: (
        "A live source was faster than the model; the newest sample won.",
        "Lower the source's rate if every sample matters.",
    ),
    Reason.WARMING: (
        "A sliding window was not full yet.",
        "Nothing: it fills with the next samples.",
    ),
    Reason.COMMISSIONING: (
        "This board still collects what it compares later input with.",
        "Nothing: it goes on with the next samples.",
    ),
    Reason.STOPPING: ("The worker was asked to stop.", "Nothing."),
    Reason.STARTING: ("The worker has not answered a sample yet.", "Wait."),
    Reason.REQUESTED: ("The worker was restarted on purpose.", "Nothing."),
    Reason.NOT_BEFORE: (
        "The desired state begins later.",
        "Wait for its `not_before`.",
    ),
    Reason.PERCENT: (
        "The staged rollout has not drawn this board yet.",
        "Raise `percent` when the first boards do well.",
    ),
}
