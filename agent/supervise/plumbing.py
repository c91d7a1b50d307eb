"""One pipeline's pipes and programs: what feeds its worker and what reads from it.

The rules this module keeps:
 * Pipes outlive workers; a new worker gets duplicates of the same ends.
 * A program whose frames carry no mark of their beginning is started again with its
   worker, because nobody knows where in a frame the old one died. MJPEG goes on.
 * A worker gets each pipe once, whether it was configured with it or told of it later:
   a second time would make it begin anew in the middle of a frame.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from operator import add
from pathlib import Path

from agent.core.flow import (
    BoardSource,
    CommandSink,
    CommandSource,
    CountSink,
    FileSink,
    FilesSource,
)
from agent.core.reasons import Reason
from agent.core.statistics_block import MAX_SINKS, Block
from agent.errors import DeviceError
from agent.settings import PipelineSettings
from agent.supervise.feeds import (
    Pump,
    RotatingWriter,
    StdoutWriter,
    check_file,
    feed_board,
    open_pipe,
)
from agent.supervise.programs import Program

# Pipes' worth of descriptors that are left for the start of a worker and a scrape.
SPARE = 8
STARTS_ANYWHERE = ("mjpeg",)  # formats that find the next frame by themselves


class Plumbing:
    """Builds the pipes of one pipeline and keeps their other ends busy.

    Attributes:
        readable: Paths the worker has to read.
    """

    def __init__(
        self,
        settings: PipelineSettings,
        read_board: Callable[[], Sequence[float]],
        new_source: Callable[[int], Awaitable[bool]],
        libraries: Sequence[Path] = (),
    ) -> None:
        self._libraries = libraries
        self._read_board = read_board
        self._new_source = new_source
        self._source_reader = -1
        self._given = False  # the worker of now has that pipe
        self._readers: list[int] = []  # of sinks' programs, to be closed after them
        self._folded = [0] * MAX_SINKS
        self._lay(settings)

    def _lay(self, settings: PipelineSettings) -> None:
        """Make the pipes that the settings ask for."""
        self._settings = settings
        self._program: Program | None = None
        self._pumps: dict[int, Pump] = {}
        self._sink_tasks: list[asyncio.Task[None]] = []
        self._source_tasks: list[asyncio.Task[None]] = []
        self._sink_programs: list[Program] = []
        self._sinks = [
            (number, sink, *open_pipe())
            for number, sink in enumerate(settings.sinks)
            if not isinstance(sink, CountSink)
        ]
        source = settings.source
        paths = [source.path] if isinstance(source, FilesSource) else []
        self.readable = [
            *(Path(path).expanduser() for path in paths),
            *self._libraries,
        ]

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start what runs beside the worker; ``finish`` ends it.

        Raises:
            DeviceError: A sink's file cannot be opened (``permission``).
        """
        for number, sink, reader, _ in self._sinks:
            self._pump(number, sink, reader)
        self._sink_programs = [
            self._sink_program(number, sink, reader)
            for number, sink, reader, _ in self._sinks
            if isinstance(sink, CommandSink)
        ]
        self._sink_tasks = [
            group.create_task(program.run()) for program in self._sink_programs
        ]
        source = self._settings.source
        if isinstance(source, BoardSource):
            self._source_reader, writer = open_pipe()
            feed = feed_board(writer, source.rate, self._read_board)
            self._source_tasks = [group.create_task(feed)]
        if isinstance(source, CommandSource):
            name = f"{self._settings.name}-source"
            self._program = Program(
                name, source.command, self._connect_source, self.announce
            )
            self._source_tasks = [group.create_task(self._program.run())]

    async def change(
        self, settings: PipelineSettings, group: asyncio.TaskGroup, timeout_s: float
    ) -> None:
        """Take other settings while there is no worker: end everything, begin anew.

        Args:
            settings: What to lay now.
            group: Where programs run, as for ``start``.
            timeout_s: What sinks get for the lines that are left, as for ``finish``.

        Raises:
            DeviceError: A sink's file cannot be opened (``permission``).
        """
        await self.finish(timeout_s)
        ended = (*self._sink_tasks, *self._source_tasks)
        if ended:  # a camera is opened by one program at a time
            await asyncio.wait(ended)
        self.let_go()
        if settings.sinks != self._settings.sinks:
            self._folded = [0] * MAX_SINKS  # they are counted by number
        else:
            for number, pump in self._pumps.items():
                self._folded[number] += pump.lost
        self._lay(settings)
        self.start(group)

    def descriptors(self) -> list[int]:
        """Return what a new worker gets: the source's pipe, then the sinks'."""
        needs_pipe = isinstance(self._settings.source, BoardSource | CommandSource)
        if needs_pipe and self._source_reader < 0:
            self._source_reader, writer = open_pipe()
            os.close(writer)
        source = [self._source_reader] if needs_pipe else []
        self._given = True
        return [*source, *(writer for _, _, _, writer in self._sinks)]

    async def announce(self) -> None:
        """Hand the source's pipe to the worker that runs, if it lacks it.

        Called after each start of the program and of the worker, whichever is later.
        """
        if self._source_reader >= 0 and not self._given:
            self._given = True  # before the wait, in which a newer pipe may be made
            if not await self._new_source(self._source_reader):
                self._given = False

    @property
    def reason(self) -> Reason:
        """Why the source gives nothing, as far as its program knows."""
        return self._program.reason if self._program else Reason.NONE

    def saw_sample(self) -> None:
        """The worker has received a sample: the program does its work."""
        if self._program is not None and self._program.pid:
            self._program.running()

    def silent(self) -> None:
        """No frame for too long: start the program again."""
        if self._program is not None and self._program.pid:
            self._program.restart(Reason.SOURCE_SILENT)

    def worker_died(self) -> None:
        """Start a program again whose frames cannot be told apart any more."""
        source = self._settings.source
        if self._program is None or not isinstance(source, CommandSource):
            return
        if source.format not in STARTS_ANYWHERE:
            self._program.restart(Reason.REQUESTED)
            self._drop_source()  # what is left in it begins somewhere in a frame

    def dropped(self, block: Block | None) -> dict[str, int]:
        """Return the predictions that each sink did not take: by number and kind."""
        by_worker = block.sink_dropped if block else (0,) * MAX_SINKS
        return {
            f"{number}-{sink.__struct_config__.tag}": by_worker[number]
            + self._folded[number]
            + (self._pumps[number].lost if number in self._pumps else 0)
            for number, sink in enumerate(self._settings.sinks)
            if not isinstance(sink, CountSink)
        }

    def fold_dropped(self, block: Block) -> None:
        """Keep what a worker that is dead has dropped: counters never fall."""
        self._folded = [*map(add, self._folded, block.sink_dropped)]

    async def finish(self, timeout_s: float) -> None:
        """Close the writing ends and let pumps and programs take what is left.

        What does not end in time is ended; lines that it has not taken are gone.
        """
        for program in self._sink_programs:
            program.let_end()
        self.close()
        deadline_s = time.monotonic() + timeout_s
        if self._sink_tasks:
            await asyncio.wait(self._sink_tasks, timeout=timeout_s)
        for pump in self._pumps.values():
            await pump.finish(deadline_s - time.monotonic())
        for task in (*self._sink_tasks, *self._source_tasks):
            task.cancel()

    def close(self) -> None:
        """Close the writing ends: pumps and programs then end by themselves."""
        while self._sinks:
            _, sink, reader, writer = self._sinks.pop()
            os.close(writer)
            if isinstance(sink, CommandSink):  # its programs have duplicates of it
                self._readers.append(reader)

    def let_go(self) -> None:
        """Close everything: neither programs nor a worker are left to be served."""
        self.close()
        self._drop_source()
        while self._readers:
            os.close(self._readers.pop())

    def _pump(self, number: int, sink: object, reader: int) -> None:
        """Move one sink's lines; a command reads its pipe by itself.

        Raises:
            DeviceError: Its file cannot be opened (``permission``).
        """
        if isinstance(sink, CommandSink):
            return
        writer = RotatingWriter(sink) if isinstance(sink, FileSink) else StdoutWriter()
        name = f"{self._settings.name}-sink-{number}"
        self._pumps[number] = Pump(reader, writer, name)

    def _sink_program(self, number: int, sink: CommandSink, reader: int) -> Program:
        """Return the program that reads one sink's pipe."""

        async def nothing() -> None:
            """There is nobody to tell."""

        return Program(
            f"{self._settings.name}-sink-{number}",
            sink.command,
            lambda: (os.dup(reader), -1),
            nothing,
        )

    def _connect_source(self) -> tuple[int, int]:
        """Make a new pipe for a new life of the source's program."""
        self._drop_source()
        self._source_reader, writer = open_pipe()
        self._given = False
        return -1, writer

    def _drop_source(self) -> None:
        """Close the reading end of the source's pipe, if there is one."""
        if self._source_reader >= 0:
            os.close(self._source_reader)
            self._source_reader = -1


def check_sinks(settings: PipelineSettings) -> None:
    """Check that a pipeline's files can be written, before anything depends on it.

    Raises:
        DeviceError: ``permission``: one of them cannot be opened.
    """
    for sink in settings.sinks:
        if isinstance(sink, FileSink):
            check_file(sink)


def check_pipes(tables: Sequence[PipelineSettings]) -> None:
    """Check that pipelines could have their pipes, and workers, beside what runs.

    Raises:
        DeviceError: ``descriptors``: too few are left.
    """
    pipes = 0
    for table in tables:
        pipes += SPARE + 1  # and one of the source
        pipes += sum(not isinstance(sink, CountSink) for sink in table.sinks)
    taken: list[int] = []
    try:
        for _ in range(pipes):
            taken += os.pipe2(os.O_CLOEXEC)
    except OSError as err:
        raise DeviceError(
            f"the pipes of {len(tables)} pipelines: {err.strerror}",
            reason=Reason.DESCRIPTORS,
            todo="Raise LimitNOFILE= of the unit, or run fewer pipelines.",
        ) from err
    finally:
        for descriptor in taken:
            os.close(descriptor)
