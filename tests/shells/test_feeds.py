"""Pipes between workers and the world: whole lines, rotated files, nobody waits."""

import asyncio
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.flow import FileSink
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.supervise.feeds import (
    MAX_LINE_BYTES,
    Pump,
    RotatingWriter,
    check_file,
    feed_board,
    open_pipe,
)
from tests.fakes.digits import in_loop, until

MB = 1024 * 1024


@dataclass
class ListWriter:
    """Keeps lines; fails while ``broken``, blocks while ``blocked``."""

    written: bytearray = field(default_factory=bytearray)
    broken: bool = False
    free: threading.Event = field(default_factory=threading.Event)
    closed: bool = False

    def __post_init__(self) -> None:
        self.free.set()

    def write(self, lines: bytes) -> None:
        """Keep lines."""
        self.free.wait()
        if self.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += lines

    def close(self) -> None:
        """Note it."""
        self.closed = True


def pumped(chunks: list[bytes]) -> ListWriter:
    """Return what arrives of chunks that go through a pump."""
    writer = ListWriter()

    async def case() -> None:
        reader, entry = open_pipe()
        pump = Pump(reader, writer, "sink")
        for chunk in chunks:
            await asyncio.to_thread(os.write, entry, chunk)
        os.close(entry)
        assert await pump.finish(60.0)

    asyncio.run(case())
    return writer


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_whole_lines_arrive_whatever_the_chunks(chunks: list[bytes]) -> None:
    """What arrives is everything up to the last line's end."""
    whole, newline, _ = b"".join(chunks).rpartition(b"\n")
    writer = pumped([chunk for chunk in chunks if chunk])
    assert (bytes(writer.written), writer.closed) == (whole + newline, True)


def test_an_endless_line_costs_no_memory() -> None:
    """A line beyond all measure is left out; those around it arrive."""
    endless = [b"x" * (MAX_LINE_BYTES // 4)] * 10
    writer = pumped([b"first\n", *endless, b"\nlast\n"])
    assert bytes(writer.written) == b"first\nlast\n"


@in_loop
async def test_a_broken_disk_loses_lines_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lines that cannot be written are counted; one line is logged a failure."""
    writer = ListWriter(broken=True)
    reader, entry = open_pipe()
    pump = Pump(reader, writer, "digits-sink-0")
    for number in range(1, 4):
        os.write(entry, b"a\nb\n")
        await until(lambda n=number: pump.lost == 2 * n, "the loss")  # type: ignore[misc] # the number of this round
    writer.broken = False
    os.write(entry, b"c\n")
    await until(lambda: bytes(writer.written) == b"c\n", "the line")
    os.close(entry)
    assert await pump.finish(60.0)
    assert [record.message for record in caplog.records] == ["sink.failed"]


@in_loop
async def test_a_reader_that_never_reads_holds_nobody_up() -> None:
    """While a write blocks the loop goes on, and the end does not wait for it."""
    writer = ListWriter()
    writer.free.clear()
    reader, entry = open_pipe()
    os.set_blocking(entry, False)
    pump = Pump(reader, writer, "sink")
    os.write(entry, b"line\n")
    with pytest.raises(BlockingIOError):  # the worker drops from here on
        fill(entry)
    os.close(entry)
    assert not await pump.finish(0.01)
    writer.free.set()
    assert await pump.finish(60.0)


def fill(entry: int) -> None:
    """Write until a pipe is full."""
    while True:
        os.write(entry, b"line\n" * 1000)


def lines_of(path: Path) -> list[bytes]:
    """Return the lines of a file."""
    return path.read_bytes().splitlines()


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (1, 1), (3, 3)])
def test_rotation(tmp_path: Path, keep: int, kept: int) -> None:
    """A full file becomes .1, older ones count up, and only so many stay."""
    path = tmp_path / "deep" / "lines.jsonl"
    writer = RotatingWriter(FileSink(str(path), max_mb=10 / MB, keep=keep))
    for number in range(6):
        writer.write(b"line %d\n" % number)
    writer.close()
    found = sorted(path.parent.iterdir())
    assert len(found) == 1 + kept
    assert lines_of(path) == [b"line 5"]
    for age in range(1, kept + 1):
        assert lines_of(path.with_name(f"lines.jsonl.{age}")) == [
            b"line %d" % (5 - age)
        ]


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """A restart of the daemon does not cost the lines before it."""
    path = tmp_path / "lines"
    for line in (b"1\n", b"2\n"):
        writer = RotatingWriter(FileSink(str(path)))
        writer.write(line)
        writer.close()
    assert path.read_bytes() == b"1\n2\n"


def test_a_full_device_is_an_error_each_time() -> None:
    """No space left is reported by every write, and the file stays usable."""
    writer = RotatingWriter(FileSink("/dev/full"))
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            writer.write(b"line\n")
    writer.close()


def test_a_rotation_that_fails_is_tried_again(tmp_path: Path) -> None:
    """A folder that vanishes costs lines until it is back."""
    folder = tmp_path / "stick"
    path = folder / "lines"
    writer = RotatingWriter(FileSink(str(path), max_mb=10 / MB, keep=1))
    writer.write(b"12345678\n")
    gone = folder.rename(tmp_path / "unplugged")
    with pytest.raises(FileNotFoundError):
        writer.write(b"lost\n")
    gone.rename(folder)
    writer.write(b"kept\n")
    writer.close()
    assert lines_of(path)[-1] == b"kept"


def test_a_file_that_cannot_be_opened_is_the_operators(tmp_path: Path) -> None:
    """The error names the path and the reason."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DeviceError) as err:
        RotatingWriter(FileSink(str(tmp_path / "file" / "lines")))
    assert (err.value.reason, str(tmp_path) in str(err.value)) == (
        Reason.PERMISSION,
        True,
    )


def special(path: Path, kind: str) -> None:
    """Make something that is no file."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))


@pytest.mark.parametrize("opened", [RotatingWriter, check_file])
@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "a socket"])
def test_what_is_no_file_is_refused(
    tmp_path: Path, kind: str, opened: Callable[[FileSink], object]
) -> None:
    """Nobody waits for the reader of a FIFO; the error says what it is."""
    path = tmp_path / "lines"
    special(path, kind)
    with pytest.raises(DeviceError, match=f"{path}: it is {kind}, not a file"):
        opened(FileSink(str(path)))


def test_a_fifo_that_is_read_is_refused_too(tmp_path: Path) -> None:
    """Rotating would rename it away from its reader."""
    path = tmp_path / "lines"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(DeviceError, match="it is a FIFO"):
        RotatingWriter(FileSink(str(path)))
    os.close(reader)


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither the file nor its folders are made; one that is there stays as it is."""
    check_file(FileSink(str(tmp_path / "deep" / "er" / "lines")))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lines").write_bytes(b"1\n")
    check_file(FileSink(str(tmp_path / "lines")))
    assert (tmp_path / "lines").read_bytes() == b"1\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_check_sees_what_could_not_be_made(tmp_path: Path) -> None:
    """A folder that is a file, and a name that no disk takes."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("file/lines", "n" * 300, "loop"):
        with pytest.raises(DeviceError) as err:
            check_file(FileSink(str(tmp_path / path)))
        assert err.value.reason == Reason.PERMISSION


@in_loop
async def test_the_board_feed_writes_frames() -> None:
    """Frames of float32 arrive at the rate; a full pipe is nobody's problem."""
    reader, writer = open_pipe()
    read: Callable[[], tuple[float, ...]] = lambda: (1.5, float("nan"))  # noqa: E731
    async with asyncio.TaskGroup() as group:
        feed = group.create_task(feed_board(writer, 1e6, read))
        frame = await asyncio.to_thread(os.read, reader, 8)
        feed.cancel()
    first, second = struct.unpack("<2f", frame)
    assert (first, second != second) == (1.5, True)  # noqa: PLR0124 - NaN
    while os.read(reader, 65536):
        pass  # the write end was closed with the task
    os.close(reader)


@in_loop
async def test_the_board_feed_survives_a_full_pipe() -> None:
    """Nobody reads: the feed goes on."""
    reader, writer = open_pipe()
    count = 0

    def read() -> tuple[float, ...]:
        nonlocal count
        count += 1
        return (0.0,) * 1000

    async with asyncio.TaskGroup() as group:
        feed = group.create_task(feed_board(writer, 1e6, read))
        await until(lambda: count > 400, "more frames than the pipe holds")
        feed.cancel()
    os.close(reader)
