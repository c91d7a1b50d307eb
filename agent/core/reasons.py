"""Why something did not happen: one enum of stable words.

The words are metric labels, log fields and JSON values; a word is never renamed. Each
is explained once, in ``agent.core.explanations``.

>>> str(Reason.SIGNATURE)
'signature'
"""

from enum import StrEnum


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
    REVOKED = "revoked"
    # The way to a repository
    TOO_SLOW = "too_slow"
    TLS = "tls"
    REDIRECT = "redirect"
    RATE_LIMITED = "rate_limited"
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
    AGREEMENT = "agreement"
    FAILURES = "failures"
    DRIFT = "drift"
    # The monitor
    PROFILE = "profile"
    COMMISSIONING = "commissioning"
    UNWATCHED = "unwatched"
    WATCHING_OFF = "watching_off"
    # The plan, and what operators ask for
    WINDOW = "window"
    PAUSED = "paused"
    NOT_BEFORE = "not_before"
    PERCENT = "percent"
    HELD = "held"
    SUPERSEDED = "superseded"
    NO_PREVIOUS = "no_previous"
    UNKNOWN_PIPELINE = "unknown_pipeline"
    BUSY = "busy"
    ROLE = "role"
    CERTIFICATE = "certificate"
    REQUEST = "request"
    # Samples
    INPUT = "input"
    INVOKE = "invoke"
    OUTPUT = "output"
    OVERRUN = "overrun"
    PARTIAL = "partial"
    WARMING = "warming"
    STOPPING = "stopping"
    SHED = "shed"
    ABSTAINED = "abstained"
    # What makes a board do less
    HEAT = "heat"
    THROTTLED = "throttled"
    UNDER_VOLTAGE = "under_voltage"
    MEMORY_PRESSURE = "memory_pressure"
    DEADLINE = "deadline"
    CRASHES = "crashes"
    CALM = "calm"
    # The board and its operator
    SETTINGS = "settings"
    DISK_FULL = "disk_full"
    QUOTA = "quota"
    READ_ONLY = "read_only"
    PERMISSION = "permission"
    LOCKED = "locked"
    DESCRIPTORS = "descriptors"
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
    NOT_INSTALLED = "not_installed"
    UPGRADE = "upgrade"
    INTERNAL = "internal"
