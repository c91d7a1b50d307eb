"""Asking a model: given inputs go to a copy of it in a locked child, once.

This is how triggers of a watermark are answered. The rules this module keeps:
 * The worker is not touched: nothing of this is a sample, so no statistic, meter,
   receipt or sink hears of it.
 * Neither inputs nor answers are logged or stored; the inputs go to the child in a
   sealed memfd, which ends with it.
 * The child has the worker's locks, a memory limit and a deadline, and stands back.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.executors import DelegateFile, Executor
from agent.core.messages import MAX_ANSWERS, Answers, Ask, Refused
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.errors import AgentError, DeviceError, TrialFailedError
from agent.supervise.child import PROGRAM, Child, spawn_child
from agent.supervise.memfd import sealed_memfd
from agent.supervise.trial_child import (
    START_S,
    cause_of_death,
    limit_child_memory,
    next_message,
    ready_child,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked.

    Attributes:
        bundle: The model's; ``variant`` which of its variants.
        executor: What computes: the one that answers live samples.
        delegates: Libraries that it may load.
    """

    bundle: OpenedBundle
    variant: str
    executor: Executor
    delegates: Sequence[DelegateFile] = ()


async def ask_model(
    asked: Asked,
    inputs: bytes | memoryview,
    *,
    most: int = MAX_ANSWERS,
    deadline_s: float = 0.0,
    program: Sequence[str] = PROGRAM,
) -> tuple[int, ...]:
    """Return the class that a model answers to each input.

    Args:
        asked: Who.
        inputs: An .npz with one array by the variant's name; see ``messages.Ask``.
        most: More inputs are refused.
        deadline_s: For all of it; 0 takes what the manifest allows its preflight.
        program: What is started as the child; only tests start anything else.

    Raises:
        TrialFailedError: The model or the inputs were refused, or the child died or
            took too long.
        DeviceError: ``memory``: there was no process or memory left.
    """
    allowed_s = deadline_s or asked.bundle.manifest.trial.preflight_s
    order = Ask(
        asked.bundle.raw_manifest,
        asked.variant,
        asked.executor,
        asked.bundle.variant_sha256(asked.variant),
        most,
        allowed_s,
    )
    try:
        async with asyncio.timeout(START_S + allowed_s):
            return await _converse(asked, order, inputs, program)
    except TimeoutError as err:
        raise TrialFailedError(
            f"no answers within {allowed_s:.0f} s", reason=Reason.HANG
        ) from err


async def _converse(
    asked: Asked, order: Ask, inputs: bytes | memoryview, program: Sequence[str]
) -> tuple[int, ...]:
    """Start a child, ask, and return what it answers; the child is gone in the end."""
    readable = [Path(delegate.path) for delegate in asked.delegates]
    try:
        child = await spawn_child("ask", name="ask", readable=readable, program=program)
    except OSError as err:
        raise _no_memory(err) from err
    try:
        await ready_child(child)
        limit_child_memory(child.pid, asked.bundle.manifest, len(inputs))
        await _send(child, order, asked.bundle.variant_bytes(order.variant), inputs)
        return await _answers(child)
    finally:
        await child.close()


async def _send(
    child: Child, order: Ask, model: memoryview, inputs: bytes | memoryview
) -> None:
    """Send the order, and what is needed for it."""
    opened: list[int] = []
    try:
        opened.append(sealed_memfd("asked-model", model))
        opened.append(sealed_memfd("asked-inputs", inputs))
        await child.send(order, opened)
    except OSError as err:
        raise _no_memory(err) from err
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def _answers(child: Child) -> tuple[int, ...]:
    """Wait for the one message that a child sends.

    Raises:
        TrialFailedError: It died or refused, or what it sent is something else.
    """
    message = await next_message(child)
    if isinstance(message, Answers):
        return message.classes
    if isinstance(message, Refused):
        raise TrialFailedError(message.detail, reason=message.reason)
    if message is None:
        reason = await cause_of_death(child)
        raise TrialFailedError("the asked model died", reason=reason)
    raise TrialFailedError("the asked child sent no answers", reason=Reason.CRASH)


def _no_memory(err: OSError) -> AgentError:
    """Return the error for a board that has no room to ask a model."""
    return DeviceError(f"no room to ask a model: {err}", reason=Reason.MEMORY)
