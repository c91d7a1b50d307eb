"""An Examiner whose models run in a child of their own: packing survives any of them.

``ChildExaminer`` fits the Protocol of ``agent.publish.pack``. Its child is
``agent.cli.examiner_child``, which has the worker's locks, because the models that
``tinyward inspect`` is asked about may come from a stranger.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from agent.core.contract import Contract
from agent.core.manifest import Manifest, render_manifest
from agent.core.reasons import Reason
from agent.errors import (
    AgentError,
    BundleRefusedError,
    DeviceError,
    SettingsError,
    TrialFailedError,
)

EXAMINE_S = 600.0  # 32 golden samples of a 5 s model on two variants fit
# The branches that a child may report, by name: callers catch no leaves.
BRANCHES: dict[str, type[AgentError]] = {
    kind.__name__: kind
    for kind in (BundleRefusedError, DeviceError, SettingsError, TrialFailedError)
}


class Request(Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Base of what the child may be asked."""


class AskContract(Request, frozen=True):
    """What does this .tflite file say about itself?"""

    content: bytes


class AskGolden(Request, frozen=True):
    """What must these samples give? See ``Examiner.golden``."""

    manifest: bytes
    variants: dict[str, bytes]
    samples: str
    array: str
    count: int


class AskDrawn(Request, frozen=True):
    """What does this model give for inputs drawn at random? See ``record_drawn``."""

    manifest: bytes
    content: bytes


Question = AskContract | AskGolden | AskDrawn


class Reply(Struct, frozen=True, forbid_unknown_fields=True):
    """What the child answers: one of the first two, or an error.

    Attributes:
        error: Name of the error's branch; empty means none.
    """

    contract: Contract | None = None
    golden: bytes = b""
    error: str = ""
    message: str = ""
    reason: Reason = Reason.NONE
    todo: str = ""


@dataclass(frozen=True, slots=True)
class ChildExaminer:
    """Looks into models in a locked child, one child for each question.

    Attributes:
        command: How the child is started; its arguments follow.
        deadline_s: A child that has not answered by then is killed.
    """

    command: tuple[str, ...] = (sys.executable, "-I", "-m", "agent.cli.examiner_child")
    deadline_s: float = EXAMINE_S

    def contract(self, content: bytes) -> Contract:
        """Return what a .tflite file says about itself.

        Raises:
            TrialFailedError: It cannot be used, or killed the child (``crash``).
        """
        reply = self._ask(AskContract(content), ())
        if reply.contract is None:
            raise _unexpected("it sent no contract")
        return reply.contract

    def golden(
        self,
        manifest: Manifest,
        variants: Mapping[str, bytes],
        samples: Path,
        array: str,
        count: int,
    ) -> bytes:
        """Return golden.npz: the first ``count`` samples and what they must give.

        Raises:
            TrialFailedError: A model fails on them, or killed the child (``crash``).
            AgentError: The samples cannot be read, or do not become the input.
        """
        path = samples.resolve()
        question = AskGolden(
            manifest=render_manifest(manifest),
            variants=dict(variants),
            samples=str(path),
            array=array,
            count=count,
        )
        return self._ask(question, (path,)).golden

    def drawn(self, manifest: Manifest, content: bytes) -> bytes:
        """Return golden.npz of a draft (see ``agent.cli.draft``).

        Raises:
            TrialFailedError: The model fails on them, or killed the child (``crash``).
            AgentError: The model does not load.
        """
        return self._ask(AskDrawn(render_manifest(manifest), content), ()).golden

    def _ask(self, question: Question, readable: Sequence[Path]) -> Reply:
        """Ask a new child; whatever it does, this process goes on.

        Raises:
            AgentError: What the child raised, or how it ended.
        """
        arguments = [*self.command, str(os.getpid()), *map(str, readable)]
        try:
            ended = subprocess.run(
                arguments,
                input=msgspec.msgpack.encode(question),
                capture_output=True,
                timeout=self.deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise TrialFailedError(
                f"the model gave no answer for {self.deadline_s:g} s",
                reason=Reason.HANG,
            ) from err
        if ended.returncode < 0:
            raise TrialFailedError(
                "the model killed the process that examined it: "
                f"{signal.strsignal(-ended.returncode)}",
                reason=Reason.CRASH,
            )
        if ended.returncode:
            raise _unexpected(ended.stderr.decode("utf-8", "replace"))
        return parse_reply(ended.stdout)


def parse_reply(raw: bytes) -> Reply:
    """Parse what a child has sent, which a model may have taken over.

    Raises:
        AgentError: The error that the child reports.
        DeviceError: It is no reply (``internal``).
    """
    try:
        reply = msgspec.msgpack.decode(raw, type=Reply)
    except msgspec.MsgspecError as err:
        raise _unexpected(f"no reply: {err}") from err
    if not reply.error:
        return reply
    branch = BRANCHES.get(reply.error, DeviceError)
    raise branch(reply.message, reason=reply.reason, todo=reply.todo)


def _unexpected(said: str) -> DeviceError:
    """Return the error for a child that ended as it never should."""
    return DeviceError(
        f"the process that examines models failed: {said}", reason=Reason.INTERNAL
    )
