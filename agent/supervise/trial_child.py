"""Children that try a candidate, and may die of it: what preflight and shadow share."""

import asyncio
import contextlib
import logging
import resource
import signal

from agent.core.manifest import Manifest
from agent.core.messages import FromChild, Ready
from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError
from agent.supervise.child import Child

log = logging.getLogger(__name__)
START_S = 30.0  # numpy and the runtime, cold, on a Pi 3 with a slow card
MB = 1024 * 1024
# Golden samples, raw copies and thread stacks of a trial beside the model itself.
SLACK_MB = 96
LAST_WORDS_S = 0.5  # a process that died of a signal is gone at once
# SIGKILL is what the kernel's memory killer sends, SIGALRM the child's own deadline.
CAUSES = {-signal.SIGKILL: Reason.MEMORY, -signal.SIGALRM: Reason.HANG}


async def ready_child(child: Child) -> Ready:
    """Wait until the child has locked itself in.

    Raises:
        TrialFailedError: It died or sent something else (``crash``).
    """
    message = await next_message(child)
    if isinstance(message, Ready):
        return message
    raise TrialFailedError(
        f"the child that tries it did not start: {child.last_words or 'no word'}",
        reason=Reason.CRASH,
    )


async def next_message(child: Child) -> FromChild | None:
    """Wait for the next message; None at the end, and for what is no message."""
    try:
        return await child.receive()
    except DeviceError as err:
        log.warning("trial.broken", extra={"detail": str(err)})
        return None


async def cause_of_death(child: Child) -> Reason:
    """Return why a child ended before its time; the caller makes sure it does."""
    try:
        # It may have closed its socket before it dies of what it dies of.
        code = await asyncio.wait_for(child.wait(), LAST_WORDS_S)
    except TimeoutError:  # it lives: it was the one to break off
        return Reason.CRASH
    return CAUSES.get(code, Reason.CRASH)


def limit_child_memory(pid: int, manifest: Manifest, given_bytes: int = 0) -> None:
    """Cap the child's data at what the bundle declares, with slack for the trial.

    Args:
        pid: The child.
        manifest: Of what it tries.
        given_bytes: What else it is given to read, which it copies.
    """
    largest = max(variant.size for variant in manifest.variants)
    limit = int((manifest.budgets.ram_mb + SLACK_MB) * MB * 1.25) + 2 * largest
    limit += 2 * given_bytes
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
