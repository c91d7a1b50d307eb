"""The child of ``ChildExaminer``, which answers one question about a model.

``python -I -m agent.cli.examiner_child PARENT [READABLE...]``:
One question on standard input, one reply on standard output, then it ends.

The rules this module keeps:
 * Limit and lock in first; only then import numpy, the runtime, or what parses.
 * Standard output belongs to the reply: what a runtime prints goes to standard error.
"""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from agent.cli.examiner import (
    BRANCHES,
    AskContract,
    AskDrawn,
    Question,
    Reply,
)
from agent.core.reasons import Reason
from agent.errors import AgentError
from agent.worker.locks import lock_in

# A model that says it needs more than this is refused (``memory``) instead of making
# the machine swap.
MEMORY_SHARE = 0.5


def main(arguments: list[str]) -> None:
    """Lock in, answer, end."""
    parent, *readable = arguments
    _limit_memory()  # locked in, a process changes no limit any more
    lock_in(int(parent), map(Path, readable))
    replies = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import msgspec

    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    reply = caught(lambda: answer(question))
    with os.fdopen(replies, "wb") as out:
        out.write(msgspec.msgpack.encode(reply))


def answer(question: Question) -> Reply:
    """Answer one question.

    Raises:
        AgentError: The model or the samples cannot be used.
    """
    from agent.core.manifest import parse_manifest
    from agent.worker.examine import default_examiner

    if isinstance(question, AskContract):
        return Reply(contract=default_examiner().contract(question.content))
    manifest = parse_manifest(question.manifest)
    if isinstance(question, AskDrawn):
        from agent.cli.draft import record_drawn

        return Reply(golden=record_drawn(manifest, question.content))
    golden = default_examiner().golden(
        manifest,
        question.variants,
        Path(question.samples),
        question.array,
        question.count,
    )
    return Reply(golden=golden)


def caught(ask: Callable[[], Reply]) -> Reply:
    """Return the answer, or the error of ours that stands for it."""
    try:
        return ask()
    except AgentError as err:
        return Reply(
            error=branch_of(err),
            message=str(err),
            reason=Reason(err.reason),
            todo=err.todo,
        )


def branch_of(error: AgentError) -> str:
    """Return the branch of the error tree that an error belongs to."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((name for name in names if name in BRANCHES), "DeviceError")


def _limit_memory() -> None:
    """Cap this process's data at a share of the machine's memory."""
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = int(machine_bytes * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1:])
