"""Programs of sources and sinks: real ones, started, ended, started again."""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.supervise.programs import LAUNCH, Program
from tests.fakes.digits import in_loop, until
from tests.shells.test_locks import is_gone


async def nothing() -> None:
    """There is nobody to tell."""


def no_pipes() -> tuple[int, int]:
    """Connect a program to nothing."""
    return -1, -1


@asynccontextmanager
async def kept(*command: str) -> AsyncIterator[tuple[Program, list[int]]]:
    """Keep a program running; yield it and the process ids of its lives."""
    lives: list[int] = []

    async def started() -> None:
        lives.append(program.pid)

    program = Program("camera", command, no_pipes, started)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(program.run())
        try:
            yield program, lives
        finally:
            task.cancel()


def endings(caplog: pytest.LogCaptureFixture) -> Sequence[tuple[str, str]]:
    """Return (reason, detail) of the ends that were logged."""
    return [
        (record.__dict__["reason"], record.__dict__["detail"])
        for record in caplog.records
        if record.message == "program.ended"
    ]


@in_loop
async def test_a_missing_program_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """What is not installed is said so, and looked for again."""
    async with kept("no-such-camera") as (program, lives):
        await until(lambda: len(endings(caplog)) >= 2, "two tries")
        assert program.reason == Reason.SOURCE_MISSING
    assert lives == []
    assert set(endings(caplog)) == {
        ("source_missing", "no-such-camera is not installed")
    }


@in_loop
async def test_a_program_that_dies_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its exit code and last words are logged, and it gets another life."""
    script = "echo starting >&2; echo 'no camera found' >&2; exit 3"
    async with kept("sh", "-c", script) as (program, lives):
        await until(lambda: len(lives) >= 2, "two lives")
        await until(lambda: len(endings(caplog)) >= 2, "two ends")
        assert program.reason == Reason.SOURCE_FAILED
    assert len(set(lives)) == len(lives)
    assert endings(caplog)[0] == ("source_failed", "exit code 3; no camera found")


@in_loop
async def test_a_restart_of_ours_keeps_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A silent program is ended for silence, not for the signal that ended it."""
    async with kept("sleep", "600") as (program, lives):
        await until(lambda: len(lives) == 1, "a life")
        program.running()
        await until(lambda: program.reason == Reason.NONE, "it works")
        program.restart(Reason.SOURCE_SILENT)
        await until(lambda: len(lives) == 2, "a second life")
        await until(lambda: program.reason == Reason.SOURCE_SILENT, "the reason")
    assert [reason for reason, _ in endings(caplog)] == ["source_silent"]


@in_loop
async def test_the_whole_group_ends(tmp_path: Path) -> None:
    """What a program started ends with it."""
    note = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {note}.new; mv {note}.new {note}; wait"
    async with kept("sh", "-c", script) as (_, lives):
        await until(note.exists, "the grandchild")
        grandchild = int(note.read_text("ascii"))
        assert not is_gone(grandchild)
    await until(lambda: is_gone(grandchild), "its end")
    await until(lambda: is_gone(lives[0]), "the program's end")


@in_loop
async def test_no_descriptor_left_costs_a_start_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A start that fails for want of descriptors is tried again."""
    tries = iter(range(2))

    def connect() -> tuple[int, int]:
        if next(tries, None) is not None:
            raise OSError(24, "Too many open files")
        return -1, -1

    program = Program("camera", ("sleep", "600"), connect, nothing)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(program.run())
        await until(lambda: program.pid > 0, "a start")
        task.cancel()
    assert [reason for reason, _ in endings(caplog)] == ["source_failed"] * 2
    assert "Too many open files" in endings(caplog)[0][1]


@in_loop
async def test_let_end_waits_for_the_program_itself(tmp_path: Path) -> None:
    """A program that is let end sees the end of its input, and is not started again."""
    reader, writer = os.pipe()
    kept_lines = tmp_path / "lines"
    program = Program(
        "sink",
        ("sh", "-c", f"cat > {kept_lines}"),
        lambda: (os.dup(reader), -1),
        nothing,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(program.run())
        await until(lambda: program.pid > 0, "a start")
        os.write(writer, b"last line\n")
        program.let_end()
        os.close(writer)
        os.close(reader)
        await asyncio.wait({task})
    assert kept_lines.read_bytes() == b"last line\n"


def members(group: int) -> set[int]:
    """Return the processes of a group that have not ended."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = entry.read_text(encoding="ascii", errors="replace")
            state, _, its_group = words.rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.add(int(entry.parent.name))
    return found


def test_dies_with_the_daemon() -> None:
    """kill -9 of the daemon ends its programs, and all that they have started."""
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-I', '-S', sys.argv[1],"
        " str(os.getpid()), 'sh', '-c', 'sleep 600 | (echo; exec sleep 600); :'],"
        " stdout=subprocess.PIPE, start_new_session=True, text=True)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-I", "-c", code, LAUNCH], stdout=subprocess.PIPE, text=True
    )
    with daemon:
        assert daemon.stdout is not None
        group = int(daemon.stdout.readline())
        before = members(group)
        os.kill(daemon.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while members(group) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(before) >= 4  # the launcher, the shell, and both of its children
    assert members(group) == set()


@pytest.mark.parametrize(
    ("orphaned", "command", "code"),
    [
        (False, "true", 0),
        (False, "/nonexistent", 127),
        (False, "sh -c kill\\ -9\\ $$", -9),
        (False, "sh -c kill\\ -15\\ $$", -15),
        (False, "sh -c kill\\ -13\\ $$", -13),  # Python ignores SIGPIPE
        (True, "true", 1),  # the daemon is gone already
    ],
)
def test_launch_ends_like_the_program(orphaned: bool, command: str, code: int) -> None:  # noqa: FBT001 - a case
    """The launcher's exit code is the program's, or says why there is none."""
    parent = 1 if orphaned else os.getpid()
    done = subprocess.run(
        [sys.executable, "-I", "-S", LAUNCH, str(parent), *shlex.split(command)],
        check=False,
        capture_output=True,
    )
    assert done.returncode == code


@in_loop
async def test_a_program_that_ends_is_seen_by_who_reads_from_it() -> None:
    """The launcher holds no end of the program's pipes."""
    reader, writer = os.pipe()
    script = ("sh", "-c", "exec >&- 2>&-; sleep 600")
    program = Program("camera", script, lambda: (-1, writer), nothing)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(program.run())
        assert await asyncio.to_thread(os.read, reader, 1) == b""
        assert program.pid > 0
        task.cancel()
    os.close(reader)


@in_loop
async def test_what_a_program_says_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of its standard error come out as events, unprintable bytes without."""
    caplog.set_level(logging.INFO)
    async with kept("sh", "-c", "printf 'a\\033[31mb\\n' >&2; sleep 600"):
        await until(
            lambda: any(r.message == "child.said" for r in caplog.records), "a line"
        )
    (said,) = [r for r in caplog.records if r.message == "child.said"]
    assert (said.__dict__["child"], said.__dict__["text"]) == ("camera", "a[31mb")


@in_loop
async def test_short_of_memory_the_kernel_ends_a_program_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The program has the score of a worker, from its first moment on."""
    async with kept("sh", "-c", "cat /proc/self/oom_score_adj >&2; exit 3"):
        await until(lambda: bool(endings(caplog)), "its end")
    assert endings(caplog)[0] == ("source_failed", "exit code 3; 300")
