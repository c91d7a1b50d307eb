"""A pipeline's pipes: they outlive workers, and never begin within a frame."""

import asyncio
import logging
import os
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.core.flow import (
    BoardSource,
    CommandSink,
    CommandSource,
    CountSink,
    FileSink,
    FilesSource,
    SinkSettings,
    SourceSettings,
)
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.settings import PipelineSettings
from agent.supervise.plumbing import Plumbing, check_pipes
from tests.fakes.digits import ENDLESS, in_loop, until

SOUND = CommandSource(("sh", "-c", "yes | tr -d '\\n'; sleep 600"), "s16le", values=100)
JPEGS = CommandSource(("sh", "-c", "yes | tr -d '\\n'; sleep 600"), "mjpeg")


@asynccontextmanager
async def laid(
    source: SourceSettings = ENDLESS,
    sinks: Sequence[SinkSettings] = (),
    *,
    up: bool = True,
) -> AsyncIterator[tuple[Plumbing, list[int]]]:
    """Lay the pipes of a pipeline; yield them and the sources that were announced.

    Unless ``up``, there is no worker yet that could be told of a source.
    """
    announced: list[int] = []

    async def new_source(descriptor: int) -> bool:
        announced.append(descriptor)
        return up

    settings = PipelineSettings("digits", "digits", source, tuple(sinks))
    plumbing = Plumbing(settings, lambda: (1.0, 2.0), new_source)
    async with asyncio.TaskGroup() as group:
        plumbing.start(group)
        try:
            yield plumbing, announced
        finally:
            await plumbing.finish(10.0)


@in_loop
async def test_only_sinks_that_write_have_a_pipe(tmp_path: Path) -> None:
    """Recorded input and counting need none; each other sink has one, in order."""
    sinks = (CountSink(), FileSink(str(tmp_path / "a")), CommandSink(("cat",)))
    async with laid(FilesSource("~/samples"), sinks) as (plumbing, _):
        assert len(plumbing.descriptors()) == 2
        assert plumbing.readable == [Path.home() / "samples"]
        assert plumbing.dropped(None) == {"1-file": 0, "2-command": 0}


@in_loop
async def test_lines_that_were_written_arrive_before_the_end(tmp_path: Path) -> None:
    """finish lets files and programs take what is left in their pipes."""
    piped = tmp_path / "piped"
    slow = CommandSink(("sh", "-c", f"sleep 0.1; cat > {piped}"))
    async with laid(sinks=(FileSink(str(tmp_path / "file")), slow)) as (plumbing, _):
        for descriptor in plumbing.descriptors():
            os.write(descriptor, b"a\nb\n")
        await until(lambda: plumbing._sink_programs[0].pid > 0, "the program")
    assert (tmp_path / "file").read_bytes() == piped.read_bytes() == b"a\nb\n"


@in_loop
async def test_programs_of_sinks_are_told_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What they say carries the sink's number in the settings."""
    caplog.set_level(logging.INFO)
    words = CommandSink(("sh", "-c", "echo words >&2; exec cat"))
    async with laid(sinks=(words, CountSink(), words)):
        await until(lambda: caplog.messages.count("child.said") == 2, "both")
    said = [it for it in caplog.records if it.message == "child.said"]
    names = {it.__dict__["child"] for it in said}
    assert names == {"digits-sink-0", "digits-sink-2"}


@in_loop
async def test_a_sink_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    """The operator learns it at the start, not from missing lines."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.RaisesGroup(pytest.RaisesExc(Exception, match="sink file")):
        async with laid(sinks=(FileSink(str(tmp_path / "file" / "lines")),)):
            pass


@in_loop
async def test_the_board_source_is_a_pipe_of_frames() -> None:
    """The worker gets a read end with readings in it."""
    async with laid(BoardSource(rate=100.0)) as (plumbing, _):
        (reader,) = plumbing.descriptors()
        assert len(await asyncio.to_thread(os.read, reader, 8)) == 8


@in_loop
async def test_a_new_worker_never_begins_within_a_frame() -> None:
    """Sound has no marks: its program begins again with the worker, on a new pipe."""
    async with laid(SOUND) as (plumbing, announced):
        await until(lambda: len(announced) == 1, "the program")
        (before,) = plumbing.descriptors()
        assert os.read(before, 3) == b"yyy"
        plumbing.worker_died()
        (between,) = plumbing.descriptors()
        assert os.read(between, 10) == b""  # nothing of the old pipe is left
        await until(lambda: len(announced) == 2, "the program's next life")
        (after,) = plumbing.descriptors()
        assert await asyncio.to_thread(os.read, after, 1) == b"y"


@in_loop
async def test_a_worker_gets_each_pipe_once() -> None:
    """What it was configured with is not told again; what it missed is, later."""
    async with laid(SOUND, up=False) as (plumbing, announced):
        await until(lambda: len(announced) == 1, "a program before its worker")
        await plumbing.announce()
        assert announced == [announced[0]] * 2  # nobody was there to take it
        plumbing.descriptors()  # a worker is configured with it
        await plumbing.announce()
        assert len(announced) == 2
        plumbing.silent()  # a new pipe, while that worker is not up yet
        await until(lambda: len(announced) == 3, "the program's next life")
        await plumbing.announce()  # it is up now
        assert len(announced) == 4


@in_loop
async def test_a_camera_that_marks_its_frames_goes_on() -> None:
    """MJPEG finds its next picture by itself: the camera is not started again."""
    async with laid(JPEGS) as (plumbing, announced):
        await until(lambda: len(announced) == 1, "the program")
        before = plumbing.descriptors()
        plumbing.worker_died()
        assert plumbing.descriptors() == before
        assert announced == before


@in_loop
async def test_a_silent_program_is_started_again() -> None:
    """Silence restarts the program and is the reason until frames come."""
    quiet = CommandSource(("sleep", "600"), "s16le", values=100)
    async with laid(quiet) as (plumbing, announced):
        await until(lambda: len(announced) == 1, "the program")
        plumbing.silent()
        await until(lambda: len(announced) == 2, "its next life")
        await until(lambda: plumbing.reason == Reason.SOURCE_SILENT, "the reason")
        plumbing.saw_sample()
        await until(lambda: plumbing.reason == Reason.NONE, "frames")


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names alone


def test_pipes_that_cannot_be_made_are_told_before(tmp_path: Path) -> None:
    """Too few descriptors: an error with a word of its own, and none is kept."""
    table = PipelineSettings("a", "a", BoardSource(), (FileSink(str(tmp_path / "a")),))
    before, limits = open_descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    check_pipes([table])
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 100, limits[1]))
    try:
        with pytest.raises(DeviceError) as err:
            check_pipes([table] * 50)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert err.value.reason == Reason.DESCRIPTORS
    assert open_descriptors() == before
