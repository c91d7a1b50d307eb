"""What a board tells a DDI server, as bytes: attributes and feedback.

>>> said = Feedback("deploymentBase", "5", "closed", "success", at_ms=7)
>>> render_feedback(said).decode()
'{"timestamp":7,"status":{"execution":"closed","result":{"finished":"success"}}}'
>>> feedback_path(said)
('deploymentBase', '5', 'feedback')

Source: hawkBit, DdiActionFeedback, DdiConfirmationFeedback, DdiConfigData.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from agent.core.ddi import Feedback

# hawkBit takes 50 messages, and cuts each after 512 characters.
MAX_DETAILS, MAX_DETAIL = 16, 500
MAX_ATTRIBUTE = 128  # characters of an attribute's name, and of its value
# Attributes that change with each update: told when the server asks for them.
CHANGING = "model."


def feedback_path(said: Feedback) -> tuple[str, ...]:
    """Return where it is posted, below the controller's path."""
    return said.resource, said.action, "feedback"


def render_feedback(said: Feedback) -> bytes:
    """Return the body of a feedback."""
    details = [it[:MAX_DETAIL] for it in said.details[:MAX_DETAILS]]
    if said.reason:
        head = f"{said.reason}: {details[0]}" if details else said.reason
        details = [head[:MAX_DETAIL], *details[1:]]
    told: dict[str, object] = {"details": details} if details else {}
    if said.resource == "confirmationBase":
        return msgspec.json.encode({"confirmation": said.execution} | told)
    result = {"finished": said.finished}
    status = {"execution": said.execution, "result": result} | told
    return msgspec.json.encode({"timestamp": said.at_ms, "status": status})


def render_config(identity: Mapping[str, str]) -> bytes:
    """Return the body that tells a server what this board is."""
    return msgspec.json.encode({"mode": "merge", "data": _within_limits(identity)})


def identity_digest(identity: Mapping[str, str]) -> str:
    """Return what changes when attributes change that the server does not ask for."""
    steady = {
        name: value
        for name, value in _within_limits(identity).items()
        if not name.startswith(CHANGING)
    }
    return hashlib.sha256(msgspec.json.encode(sorted(steady.items()))).hexdigest()[:16]


def _within_limits(identity: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that a server takes; an empty one is none."""
    return {
        name: value[:MAX_ATTRIBUTE]
        for name, value in identity.items()
        if value and name and len(name) <= MAX_ATTRIBUTE
    }
