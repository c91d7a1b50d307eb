"""Many short cases on forks of a warm process, a few at a time.

The rules this module keeps:
 * The parent has imported everything and has no threads; a case inherits that, and
   dies alone.
 * A case that does not answer is a failed one, with its own words.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import msgspec

from tests.faults.oracle import Verdict

Case = Callable[[], list[Verdict]]
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
JOBS = 2  # the machines that run this have two cores, and each case is one process


def die_with_parent() -> None:
    """End when whoever waits for this process ends, however that happens."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_all(cases: Iterable[Case], jobs: int = JOBS) -> Iterator[list[Verdict]]:
    """Yield what each case found, in their order."""
    running: list[tuple[int, int]] = []
    for case in cases:
        running.append(_begin(case))
        if len(running) >= jobs:
            yield _end(*running.pop(0))
    while running:
        yield _end(*running.pop(0))


def _begin(case: Case) -> tuple[int, int]:
    """Start a case; return its process and the file it writes its answer to."""
    answer = os.memfd_create("answer")
    process = os.fork()
    if process == 0:
        _be(case, answer)
    return process, answer


def _be(case: Case, answer: int) -> NoReturn:
    """Be the child: answer and end, whatever happens."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    try:
        os.write(answer, msgspec.json.encode(case()))
    except BaseException:  # noqa: BLE001 - shown, and seen by the parent
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(0)


def _end(process: int, answer: int) -> list[Verdict]:
    """Wait for a case and return its answer."""
    _, status = os.waitpid(process, 0)
    raw = os.pread(answer, os.fstat(answer).st_size, 0)
    os.close(answer)
    if not raw:
        return [Verdict(f"case of process {process}", wrong=[f"no answer, {status}"])]
    return msgspec.json.decode(raw, type=list[Verdict])
