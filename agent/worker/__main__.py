"""Entry of the child processes: ``python -I -m agent.worker MODE ARGUMENTS``.

``run CONTROL PARENT BLOCK [READABLE...]`` is the data plane of one pipeline;
``preflight CONTROL PARENT [READABLE...]`` tries a candidate and may die of it;
``shadow CONTROL PARENT [READABLE...]`` lets it answer copies of live samples;
``ask CONTROL PARENT [READABLE...]`` lets a model answer what it is given, once.
CONTROL and BLOCK are descriptors, PARENT is the daemon's process id.

The rules this module keeps:
 * Wait until standard input ends: the daemon has then opened what it reads of us, which
   nobody can any more once we are locked in.
 * Lock in first; only then import numpy, the runtime, or anything that parses.
 * The main thread runs the loop; signals that a terminal or systemd sends to the whole
   group are ignored: the daemon says when to stop, and its death kills.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

from agent.worker.locks import lock_in

# They get a tenth of a core that somebody else wants: the worker does not notice.
STAND_BACK = ("shadow", "ask")
STAND_BACK_NICE = 10


def main(arguments: list[str]) -> None:
    """Lock in, then become what MODE says."""
    mode, control, parent, *rest = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    block = int(rest.pop(0)) if mode == "run" else -1
    unlocked = "--unlocked" in rest  # for the benchmark that prices the locks
    readable = [Path(path) for path in rest if not path.startswith("--")]
    if mode in STAND_BACK:
        with contextlib.suppress(OSError):  # forbidden here: it only costs more
            os.nice(STAND_BACK_NICE)
    os.read(0, 1)
    locks = {} if unlocked else lock_in(int(parent), readable)
    if mode == "run":
        from agent.worker.run import run_worker

        run_worker(int(control), block, locks)
    elif mode == "shadow":
        from agent.worker.run import run_shadow

        run_shadow(int(control), locks)
    elif mode == "ask":
        from agent.worker.run import run_asked

        run_asked(int(control), locks)
    else:
        from agent.worker.run import run_preflight

        run_preflight(int(control), locks)


if __name__ == "__main__":
    main(sys.argv[1:])
