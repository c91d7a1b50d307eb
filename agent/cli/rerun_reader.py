"""Having inferences computed anew in a child that a model may kill.

The rules this module keeps:
 * What the child sends is bounded and checked: a model may have taken it over. It can
   lie about its own model's answers, and about nothing else.
 * The child ends with this call, whatever happens; so does its model.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

import msgspec

from agent.cli.examiner import BRANCHES
from agent.cli.profile_words import Failed
from agent.cli.rerun_words import HEAD, Question, decoder
from agent.core.reasons import Reason
from agent.core.rerun import Recomputed
from agent.errors import AgentError, DeviceError, TrialFailedError

COMMAND = (sys.executable, "-I", "-m", "agent.cli.rerun_child")
SILENT_S = 120.0  # loading a model, or one inference on the slowest kernels
MAX_WORD_BYTES = 64 * 1024


def recompute(
    question: Question,
    progress: Callable[[], None],
    command: tuple[str, ...] = COMMAND,
    silent_s: float = SILENT_S,
) -> Iterator[Recomputed]:
    """Yield what came of each inference, in the order they were asked for.

    Args:
        question: What to compute.
        progress: Called while it works; may raise to break off.
        command: How the child is started; its parent's process id follows.
        silent_s: A child that says nothing for so long is ended.

    Raises:
        TrialFailedError: The model killed the child (``crash``), made it hang
            (``hang``), or runs on nothing here.
        DeviceError: ``internal``: it speaks another language.
    """
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as complaints:
        asked.write(msgspec.msgpack.encode(question))
        asked.seek(0)
        with subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as child:
            try:
                yield from _listen(child, question, progress, silent_s)
            finally:
                child.kill()


def _listen(
    child: subprocess.Popen[bytes],
    question: Question,
    progress: Callable[[], None],
    silent_s: float,
) -> Iterator[Recomputed]:
    """Yield what the child says.

    Raises:
        AgentError: It failed, or died before the last word.
    """
    assert child.stdout is not None  # noqa: S101 - typing: it is a pipe
    for inference in question.inferences:
        progress()
        said = _message(child.stdout, silent_s)
        if said is None:
            raise _ending(child.wait(silent_s))
        try:
            word = decoder.decode(said)
        except msgspec.MsgspecError as err:
            raise _unexpected(str(err)) from err
        if isinstance(word, Failed):
            branch: type[AgentError] = BRANCHES.get(word.branch, DeviceError)
            raise branch(word.message, reason=word.reason, todo=word.todo)
        if word.found.seq != inference.seq:
            raise _unexpected(f"it speaks of receipt {word.found.seq}")
        yield word.found


def _message(pipe: IO[bytes], silent_s: float) -> bytes | None:
    """Return the next message, None at the end.

    Raises:
        TrialFailedError: ``hang``.
        DeviceError: ``internal``.
    """
    head = _read(pipe.fileno(), HEAD.size, silent_s)
    if head is None:
        return None
    (length,) = HEAD.unpack(head)
    if length > MAX_WORD_BYTES:
        raise _unexpected(f"a message of {length} bytes")
    return _read(pipe.fileno(), length, silent_s)


def _read(descriptor: int, length: int, silent_s: float) -> bytes | None:
    """Return so many bytes, None where the pipe ends before.

    Raises:
        TrialFailedError: ``hang``: nothing came for ``silent_s``.
    """
    found = b""
    while len(found) < length:
        ready, _, _ = select.select([descriptor], [], [], silent_s)
        if not ready:
            raise TrialFailedError(
                f"the model gave no answer for {silent_s:g} s", reason=Reason.HANG
            )
        piece = os.read(descriptor, length - len(found))
        if not piece:
            return None
        found += piece
    return found


def _ending(code: int) -> AgentError:
    """Say how a child ended that did not compute everything."""
    if code < 0:
        how = signal.strsignal(-code)
        what = f"the model killed the process that computed it: {how}"
        return TrialFailedError(what, reason=Reason.CRASH)
    return _unexpected(f"it ended with {code}")


def _unexpected(said: str) -> DeviceError:
    """Return the error for a child that ended as it never should."""
    return DeviceError(
        f"the process that computes anew failed: {said}", reason=Reason.INTERNAL
    )
