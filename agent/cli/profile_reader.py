"""Reading features of held-out data in a child that a model may kill.

``read_features`` starts ``agent.cli.profile_child``, shows how far it is, and returns
what it read; the two speak in the messages below, each behind its length.

The rules this module keeps:
 * What the child sends is bounded and checked: a model may have taken it over.
 * The child ends with this call, whatever happens; so does its model.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.cli.examiner import BRANCHES
from agent.cli.profile_words import HEAD, Done, Failed, Features, Question, decoder
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError, TrialFailedError

# A child that says nothing for so long hangs: it speaks several times a second, unless
# one inference or one file takes longer.
SILENT_S = 120.0
MAX_REPLY_BYTES = 512 * 1024 * 1024
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a child has read, as arrays; see ``Features``.

    Attributes:
        said: The message itself.
        values: (n, d) float64.
        shifts: Name -> (m, d) features of changed samples.
    """

    said: Features
    values: NDArray[np.float64]
    index: NDArray[np.int32]
    confidence: NDArray[np.float32]
    number: NDArray[np.int64]
    part: NDArray[np.int32]
    shifts: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class FeatureChild:
    """Starts the child that reads features.

    Attributes:
        command: How it is started; its arguments follow.
        silent_s: A child that says nothing for so long is ended.
    """

    command: tuple[str, ...] = (sys.executable, "-I", "-m", "agent.cli.profile_child")
    silent_s: float = SILENT_S

    def read(self, question: Question, progress: Progress) -> Rows:
        """Run one variant over the data.

        Args:
            question: What to run.
            progress: Is called with the number of samples read so far.

        Raises:
            TrialFailedError: The model killed the child (``crash``), made it hang
                (``hang``), or fails on the data.
            AgentError: The data cannot be read, or do not become the model's input.
        """
        with tempfile.TemporaryFile() as complaints:
            arguments = [*self.command, str(os.getpid()), *question.parts]
            with subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
            ) as child:
                try:
                    said = self._listen(child, question, progress)
                finally:
                    child.kill()
            if said is None:
                complaints.seek(0)
                said = _ending(child.returncode, complaints.read(4096))
        return _understand(said)

    def _listen(
        self, child: subprocess.Popen[bytes], question: Question, progress: Progress
    ) -> Features | Failed | None:
        """Ask, and follow what the child says until its last word.

        Returns:
            None where it ended without one.

        Raises:
            TrialFailedError: ``hang``.
            DeviceError: ``internal``: it speaks another language.
        """
        if child.stdin is None or child.stdout is None:  # never: both are pipes
            raise _unexpected("it has no pipes")
        try:
            with child.stdin as asking:
                asking.write(msgspec.msgpack.encode(question))
        except BrokenPipeError:
            child.wait(self.silent_s)
            return None
        for raw in _messages(child.stdout, self.silent_s):
            try:
                said = decoder.decode(raw)
            except msgspec.MsgspecError as err:
                raise _unexpected(str(err)) from err
            if not isinstance(said, Done):
                return said
            progress(said.samples)
        child.wait(self.silent_s)
        return None


def _messages(pipe: IO[bytes], silent_s: float) -> Iterator[bytes]:
    """Yield whole messages until the pipe ends.

    Raises:
        TrialFailedError: ``hang``: nothing came for ``silent_s``.
        DeviceError: ``internal``: a message that cannot be.
    """
    kept = bytearray()
    descriptor = pipe.fileno()
    while True:
        ready, _, _ = select.select([descriptor], [], [], silent_s)
        if not ready:
            raise TrialFailedError(
                f"the model gave no answer for {silent_s:g} s", reason=Reason.HANG
            )
        piece = os.read(descriptor, 1 << 20)
        if not piece:
            return
        kept += piece
        while len(kept) >= HEAD.size:
            end = HEAD.size + HEAD.unpack_from(kept)[0]
            if end > MAX_REPLY_BYTES:
                raise _unexpected(f"a message of {end} bytes")
            if len(kept) < end:
                break
            yield bytes(kept[HEAD.size : end])
            del kept[:end]


def _ending(code: int, complaint: bytes) -> Failed:
    """Say how a child ended that never said its last word."""
    if code < 0:
        how = signal.strsignal(-code)
        what = f"the model killed the process that ran it: {how}"
        return Failed("TrialFailedError", what, Reason.CRASH)
    what = complaint.decode("utf-8", "replace")
    return Failed("DeviceError", str(_unexpected(what)), Reason.INTERNAL)


def _understand(said: Features | Failed) -> Rows:
    """Return a last word as arrays.

    Raises:
        AgentError: What the child reports.
        DeviceError: ``internal``: its arrays contradict each other.
    """
    if isinstance(said, Failed):
        branch: type[AgentError] = BRANCHES.get(said.branch, DeviceError)
        raise branch(said.message, reason=said.reason, todo=said.todo)
    width = len(said.names)
    try:
        values = _floats(said.values).reshape(-1, width)
        shifts = {
            rows.name: _floats(rows.values).reshape(-1, width) for rows in said.shifts
        }
        rows = Rows(
            said=said,
            values=values,
            index=np.frombuffer(said.index, "<i4"),
            confidence=np.frombuffer(said.confidence, "<f4"),
            number=np.frombuffer(said.number, "<i8"),
            part=np.frombuffer(said.part, "<i4"),
            shifts=shifts,
        )
    except ValueError as err:
        raise _unexpected(str(err)) from err
    if not _fits(rows):
        raise _unexpected("its arrays contradict each other")
    return rows


def _fits(rows: Rows) -> bool:
    """Whether arrays have one length, finite numbers, and name what there is."""
    width = len(rows.said.names)
    each = (rows.index, rows.confidence, rows.number, rows.part)
    known = (rows.number >= 0) & (rows.number < rows.said.samples)
    return (
        {len(values) for values in each} == {len(rows.values)}
        and bool(known.all())
        and all(0 <= at < width for at in (*rows.said.inputs, *rows.said.outputs))
        and bool(np.isfinite(rows.confidence).all())
        and all(
            bool(np.isfinite(values).all())
            for values in (rows.values, *rows.shifts.values())
        )
    )


def _floats(raw: bytes) -> NDArray[np.float64]:
    """Return float32 bytes as float64 numbers."""
    return np.frombuffer(raw, "<f4").astype(np.float64)


def _unexpected(said: str) -> DeviceError:
    """Return the error for a child that ended as it never should."""
    return DeviceError(
        f"the process that reads features failed: {said}", reason=Reason.INTERNAL
    )
