"""Errors, arranged by who has to act.

The rules this module keeps:
 * Handling follows blame: callers catch a branch of this tree, never a leaf.
 * ``reason`` is a stable word of ``agent.core.reasons`` and is used unchanged as
   metric label, log field and JSON answer; the message is for people.
 * ``todo`` says what the reader can do about it, or is empty where nothing helps.
"""

from typing import ClassVar


class AgentError(Exception):
    """Anything Tinyward reports on purpose; everything else is a bug.

    Attributes:
        reason: Stable low-cardinality word (a ``Reason``).
        todo: What the person reading this can do.
        exit_code: What a command line that ends with this error returns.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, reason: str, todo: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.todo = todo


class BundleRefusedError(AgentError):
    """The sender has to act: these bytes were not admitted."""


class TrialFailedError(AgentError):
    """The model's author has to act: trusted bytes did not pass their trial."""


class DeviceError(AgentError):
    """The operator has to act: disk, memory, permissions, a source or a program."""


class SettingsError(AgentError):
    """The operator has to act before anything starts: settings or usage."""

    exit_code: ClassVar[int] = 2


class RequestRefusedError(AgentError):
    """The caller has to act: what was asked for cannot be done as things are."""


class IllegalTransitionError(AgentError):
    """We have to act: a pair that the update machine's table does not have."""
