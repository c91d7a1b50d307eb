"""The child that examines models: whatever it does becomes a reason."""

import sys

import pytest
from msgspec import msgpack

from agent.cli.examiner import ChildExaminer, Reply
from agent.cli.examiner_child import branch_of
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.worker.samples import InputError


def child(code: str, deadline_s: float = 60.0) -> ChildExaminer:
    """Return an examiner whose child runs ``code``."""
    return ChildExaminer((sys.executable, "-c", code), deadline_s)


def sends(raw: bytes) -> str:
    """Return code that reads the question and sends bytes."""
    return f"import sys; sys.stdin.buffer.read(); sys.stdout.buffer.write({raw!r})"


CHILDREN: dict[str, tuple[str, float, Reason]] = {
    "dies": ("import os; os.abort()", 60.0, Reason.CRASH),
    "hangs": ("import signal; signal.pause()", 0.2, Reason.HANG),
    "raises": ("raise ValueError('ours')", 60.0, Reason.INTERNAL),
    "says nothing": ("", 60.0, Reason.INTERNAL),
    "says rubbish": (sends(b"rubbish"), 60.0, Reason.INTERNAL),
    "says too little": (sends(msgpack.encode(Reply())), 60.0, Reason.INTERNAL),
    "reports an unknown branch": (
        sends(msgpack.encode(Reply(error="KeyError", reason=Reason.MEMORY))),
        60.0,
        Reason.MEMORY,
    ),
}


@pytest.mark.parametrize("case", CHILDREN)
def test_whatever_the_child_does_becomes_a_reason(case: str) -> None:
    """A child that dies, hangs or lies is an error of ours with a stable reason."""
    code, deadline_s, reason = CHILDREN[case]
    with pytest.raises(AgentError) as caught:
        child(code, deadline_s).contract(b"TFL3")
    assert reason == caught.value.reason


def test_errors_keep_their_branch_across_processes() -> None:
    """A leaf of the error tree arrives as the branch that callers catch."""
    assert branch_of(InputError("too small")) == "DeviceError"
    assert branch_of(TrialFailedError("x", reason=Reason.GOLDEN)) == "TrialFailedError"
    assert issubclass(InputError, DeviceError)
