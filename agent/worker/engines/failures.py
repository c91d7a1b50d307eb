"""What a runtime's complaint means: its exceptions and messages -> one reason.

The runtimes raise a handful of built-in exceptions whose only content is a message;
each message below was seen from LiteRT 2.3 or tflite-runtime 2.14.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from agent.core.reasons import Reason
from agent.errors import TrialFailedError

# OSError: a missing file or delegate. UnicodeDecodeError (a ValueError): a tensor
# whose name is no text. SystemError: a wheel that was built for another numpy.
RAISED_BY_RUNTIMES = (
    ValueError,
    RuntimeError,
    OSError,
    MemoryError,
    OverflowError,
    TypeError,
    SystemError,
)
_SIGNS: tuple[tuple[str, Reason], ...] = (
    ("unresolved custom op", Reason.UNSUPPORTED_OP),
    ("Didn't find op for builtin opcode", Reason.UNSUPPORTED_OP),
    ("Select TensorFlow op", Reason.UNSUPPORTED_OP),
    # XNNPACK says no more than this when it cannot get its packed weights.
    ("failed to create XNNPACK runtime", Reason.MEMORY),
    ("bad_alloc", Reason.MEMORY),
    ("allocate memory", Reason.MEMORY),
    ("BytesRequired number of", Reason.MEMORY),
)
MAX_DETAIL = 300  # a runtime can repeat one sentence for every node


def judge_failure(err: BaseException) -> Reason:
    """Return the reason for what a runtime raised.

    >>> judge_failure(MemoryError("std::bad_alloc"))
    <Reason.MEMORY: 'memory'>
    >>> judge_failure(RuntimeError("Encountered unresolved custom op: Add."))
    <Reason.UNSUPPORTED_OP: 'unsupported_op'>
    >>> judge_failure(ValueError("Model provided has model identifier 'abcd'"))
    <Reason.CONTRACT: 'contract'>
    """
    if isinstance(err, MemoryError):
        return Reason.MEMORY
    message = str(err)
    # LiteRT's arena fails without a word when an allocation fails; every other
    # failure of its has a message.
    if isinstance(err, RuntimeError) and not message.strip():
        return Reason.MEMORY
    for sign, reason in _SIGNS:
        if sign in message:
            return reason
    return Reason.CONTRACT


@contextmanager
def translated(what: str, otherwise: Reason = Reason.CONTRACT) -> Iterator[None]:
    """Raise what a runtime raises in the block as a failed trial.

    Args:
        what: What is done in the block, for people.
        otherwise: The reason where the message does not tell.

    Raises:
        TrialFailedError: ``unsupported_op``, ``memory`` or ``otherwise``.
    """
    try:
        yield
    except RAISED_BY_RUNTIMES as err:
        reason = judge_failure(err)
        detail = " ".join(str(err).split())[:MAX_DETAIL] or type(err).__name__
        printable = "".join(c if c.isprintable() else "?" for c in detail)
        raise TrialFailedError(
            f"{what}: {printable}",
            reason=otherwise if reason is Reason.CONTRACT else reason,
        ) from err
