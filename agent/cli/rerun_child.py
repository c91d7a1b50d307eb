"""The child that computes audited inferences anew, locked in like a worker.

``python -I -m agent.cli.rerun_child PARENT``:
One question on standard input, a message for each inference on standard output.

The rules this module keeps:
 * Limit and lock in first; only then import numpy, the runtime, or what parses.
 * Standard output belongs to the parent: what a runtime prints goes to standard error.
"""

import os
import resource
import sys

from agent.worker.locks import lock_in

MEMORY_SHARE = 0.5  # of the machine's: a model that wants more is refused, not swapped


def main(arguments: list[str]) -> None:
    """Lock in, compute, end."""
    (parent,) = arguments
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = int(machine_bytes * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    lock_in(int(parent), [])
    words = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import msgspec

    from agent.cli.examiner_child import branch_of
    from agent.cli.profile_words import Failed
    from agent.cli.rerun_compute import recompute
    from agent.cli.rerun_words import HEAD, Question, Said, Told
    from agent.core.reasons import Reason
    from agent.errors import AgentError

    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Question)
    with os.fdopen(words, "wb") as out:

        def say(word: Said) -> None:
            raw = msgspec.msgpack.encode(word)
            out.write(HEAD.pack(len(raw)) + raw)
            out.flush()

        try:
            for found in recompute(question):
                say(Told(found))
        except AgentError as err:
            say(Failed(branch_of(err), str(err), Reason(err.reason), err.todo))


if __name__ == "__main__":
    main(sys.argv[1:])
