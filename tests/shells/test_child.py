"""A child process: whatever it does, the daemon learns its end and goes on."""

import asyncio
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from agent.core.messages import Activate, Load, Loaded, Stop
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.supervise.allowance import Allowance
from agent.supervise.child import LINES, Child, spawn_child
from tests.fakes.digits import PATIENCE_S, executor, in_loop, until

ROGUE = (sys.executable, str(Path(__file__).parent.parent / "fakes" / "rogue_child.py"))


@asynccontextmanager
async def misbehaving(behaviour: str) -> AsyncIterator[Child]:
    """Start a child that misbehaves; it is gone in the end."""
    child = await spawn_child("run", name="rogue", program=(*ROGUE, behaviour))
    try:
        yield child
    finally:
        await child.close()


async def end_of(child: Child) -> list[Loaded]:
    """Return the answers until the child's end."""
    answers = []
    async with asyncio.timeout(PATIENCE_S):
        while (message := await child.receive()) is not None:
            if isinstance(message, Loaded):
                answers.append(message)
    return answers


@in_loop
async def test_an_end_is_noticed_though_a_grandchild_holds_the_socket() -> None:
    """The process has ended; what it sent before is read, then there is no more."""
    async with misbehaving("leave_a_grandchild") as child:
        await child.send(Stop())
        answers = await end_of(child)
        assert answers == [Loaded(1, 0.0), Loaded(2, 0.0)]
        assert await child.wait() == -11
        grandchild = int(child.last_words)
        await child.send(Stop())  # no error: it is gone
        os.kill(grandchild, 9)


@in_loop
async def test_sending_to_a_deaf_child_ends_with_it() -> None:
    """Two senders wait for a full socket; both are let go when the child is ended."""
    async with misbehaving("deaf") as child:
        await child.receive()
        load = Load(1, b"x" * 100_000, "int8", executor())
        async with asyncio.TaskGroup() as group:
            senders = [
                group.create_task(send_many(child, load)),
                group.create_task(send_many(child, load)),
            ]
            await asyncio.wait(senders, timeout=0.2)
            assert not any(sender.done() for sender in senders)
            child.kill()


async def send_many(child: Child, load: Load) -> None:
    """Send more than any socket holds."""
    for _ in range(100):
        await child.send(load)


@in_loop
async def test_both_senders_get_through_once_it_listens() -> None:
    """None of two senders that waited for room is forgotten."""
    async with misbehaving("slow_to_listen") as child:
        await child.receive()
        load = Load(1, b"x" * 100_000, "int8", executor())
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(child.send(load))
        assert len(await end_of(child)) == 4


@in_loop
async def test_what_cannot_be_sent_is_the_devices_fault() -> None:
    """More descriptors than the kernel passes on is an error with a reason."""
    async with misbehaving("hang") as child:
        await child.receive()
        with socket.socket() as any_one, pytest.raises(DeviceError) as refused:
            await child.send(Activate(1), [any_one.fileno()] * 300)
    assert refused.value.reason == Reason.MEMORY


def test_lines_beyond_the_allowance_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A child that floods its standard error fills no log."""
    caplog.set_level(logging.INFO, "agent.supervise.child")

    @in_loop
    async def case() -> None:
        async with misbehaving("chatter"):
            await until(lambda: "child.said" in caplog.messages, "its first line")
            await asyncio.sleep(0.5)

    case()
    said = [record.message for record in caplog.records]
    # Spans may have passed while a slow machine looked on.
    spans = 1 + said.count("child.suppressed")
    assert said.count("child.said") <= LINES * spans + 1
    assert "child.suppressed" in said
    assert sum(vars(record).get("lines", 0) for record in caplog.records) > LINES


@in_loop
async def test_a_flood_of_messages_leaves_others_their_turns() -> None:
    """Whoever else runs in the loop goes on, and a timeout ends the reading."""
    async with misbehaving("flood") as child:
        await child.receive()
        await child.send(Stop())
        turns = 0

        async def others() -> None:
            nonlocal turns
            while turns < 100:
                await asyncio.sleep(0)
                turns += 1
            child.kill()

        async with asyncio.TaskGroup() as group:
            group.create_task(others())
            await end_of(child)
    assert turns == 100


def test_an_allowance_is_for_a_span() -> None:
    """So many, then no more; another span allows as many again."""
    long, short = Allowance(2, 3600.0), Allowance(1, 0.0)
    assert [long.take() for _ in range(4)] == [True, True, False, False]
    assert [short.take() for _ in range(3)] == [True, True, True]
    for _ in range(3):
        long.give_back()
    assert [long.take() for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("mode", "score"), [("run", "300"), ("shadow", "400"), ("preflight", "500")]
)
def test_short_of_memory_the_kernel_ends_a_child_first(
    mode: Literal["run", "shadow", "preflight"], score: str
) -> None:
    """What only tries goes before a worker, and a worker before the daemon."""

    @in_loop
    async def case() -> None:
        child = await spawn_child(mode, name="rogue", program=(*ROGUE, "deaf"))
        try:
            assert oom_score(child.pid) == score
        finally:
            await child.close()

    case()


def oom_score(pid: int) -> str:
    """Return what a process weighs more or less when memory is short."""
    return Path(f"/proc/{pid}/oom_score_adj").read_text("ascii").strip()
