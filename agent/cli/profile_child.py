"""The child of ``FeatureChild``, which runs a model over held-out data.

``python -I -m agent.cli.profile_child PARENT [READABLE...]``:
One question on standard input, words about it on standard output, then it ends.

The rules this module keeps:
 * Limit and lock in first; only then import numpy, the runtime, or what parses.
 * Standard output belongs to the parent: what a runtime prints goes to standard error.
"""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.cli.examiner_child import branch_of
from agent.cli.profile_words import HEAD, Failed, Question, Said
from agent.core.reasons import Reason
from agent.errors import AgentError
from agent.worker.locks import lock_in

# A model that says it needs more than this is refused (``memory``) instead of making
# the machine swap.
MEMORY_SHARE = 0.5


def main(arguments: list[str]) -> None:
    """Lock in, read, end."""
    parent, *readable = arguments
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = int(machine_bytes * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    lock_in(int(parent), map(Path, readable))
    words = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    with os.fdopen(words, "wb") as out:

        def say(word: Said) -> None:
            raw = msgspec.msgpack.encode(word)
            out.write(HEAD.pack(len(raw)) + raw)
            out.flush()

        answer(question, say)


def answer(question: Question, say: Callable[[Said], None]) -> None:
    """Read, and say the last word: what was read, or the error that stands for it."""
    from agent.cli.profile_features import read

    try:
        last: Said = read(question, say)
    except AgentError as err:
        last = Failed(branch_of(err), str(err), Reason(err.reason), err.todo)
    say(last)


if __name__ == "__main__":
    main(sys.argv[1:])
