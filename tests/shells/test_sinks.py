"""Sinks: whole lines or nothing, and never a wait."""

import fcntl
import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.flow import CommandSink, CountSink, FileSink, LinesSink, SinkSettings
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.sinks import CountingSink, LineSink, build_sink

PIPE_BYTES = 4096  # the smallest pipe that Linux makes: one page


class SmallPipe:
    """A pipe of one page, a sink on one end, and who reads it on the other."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.sink = LineSink(writing)
        os.set_blocking(self.reading, False)

    def read(self, count: int = 1 << 20) -> bytes:
        """Return what the pipe holds, at most ``count`` bytes."""
        try:
            return os.read(self.reading, count)
        except BlockingIOError:
            return b""

    def stop_reading(self) -> None:
        """Close the reader's end."""
        os.close(self.reading)
        self.reading = -1

    def close(self) -> None:
        """Close what is open."""
        self.sink.close()
        if self.reading >= 0:
            os.close(self.reading)


@pytest.fixture
def pipe() -> Iterator[SmallPipe]:
    """Give a small pipe."""
    made = SmallPipe()
    yield made
    made.close()


def test_a_prediction_is_one_line(pipe: SmallPipe) -> None:
    """The reader gets JSON, one object a line; NaN is null."""
    record = {"seq": 1, "label": "ja\n", "score": 0.5, "outputs": {"out": [1, 2]}}
    assert pipe.sink.write(record)
    assert pipe.sink.write({"score": float("nan")})
    lines = pipe.read().splitlines()
    assert [json.loads(line) for line in lines] == [record, {"score": None}]


def test_a_full_pipe_drops_whole_lines(pipe: SmallPipe) -> None:
    """What does not fit is dropped and counted; what is inside stays whole."""
    record: dict[str, object] = {"pad": "x" * 988}  # 999 bytes and the line's end
    taken = [pipe.sink.write(record) for _ in range(6)]
    assert taken == [True] * 4 + [False] * 2
    assert pipe.sink.dropped == 2
    assert [json.loads(line) for line in pipe.read().splitlines()] == [record] * 4
    assert pipe.sink.write(record)


def test_the_rest_of_a_long_line_goes_first(pipe: SmallPipe) -> None:
    """Of a line longer than the pipe the rest is kept; lines meanwhile are dropped."""
    long: dict[str, object] = {"pad": "x" * 6000}
    short: dict[str, object] = {"seq": 2}
    assert pipe.sink.write(long)
    assert not pipe.sink.write(short)
    seen = pipe.read()
    assert len(seen) == PIPE_BYTES
    assert pipe.sink.write(short)
    seen += pipe.read()
    assert [json.loads(line) for line in seen.splitlines()] == [long, short]
    assert pipe.sink.dropped == 1


def test_a_reader_that_has_gone_costs_lines_only(pipe: SmallPipe) -> None:
    """EPIPE is a dropped line, again and again, and never an exception."""
    assert pipe.sink.write({"pad": "x" * 6000})
    pipe.stop_reading()
    assert [pipe.sink.write({"seq": seq}) for seq in range(3)] == [False] * 3
    assert pipe.sink.dropped == 3


@given(
    sizes=st.lists(st.integers(0, 9000), max_size=12),
    reads=st.lists(st.integers(0, 9000), min_size=12, max_size=12),
)
def test_readers_see_whole_lines_in_order(sizes: list[int], reads: list[int]) -> None:
    """Law: what arrives is exactly the lines that were taken, however it is read."""
    pipe = SmallPipe()
    taken, seen = [], b""
    for seq, size in enumerate(sizes):
        if pipe.sink.write({"seq": seq, "pad": "x" * size}):
            taken.append(seq)
        seen += pipe.read(reads[seq]) if reads[seq] else b""
    for _ in range(8):  # a last short line pushes out what was kept
        seen += pipe.read()
        if pipe.sink.write({"seq": -1}):
            break
    seen += pipe.read()
    pipe.close()
    lines = [json.loads(line) for line in seen.splitlines()]
    assert [line["seq"] for line in lines] == [*taken, -1]
    assert pipe.sink.dropped >= len(sizes) - len(taken)


@pytest.mark.parametrize(
    "settings", [LinesSink(), FileSink(path="p"), CommandSink(command=("cat",))]
)
def test_sinks_that_write(settings: SinkSettings) -> None:
    """Standard output, files and programs are all a pipe to the worker."""
    reading, writing = os.pipe()
    sink = build_sink(settings, writing)
    assert isinstance(sink, LineSink)
    assert sink.write({"seq": 1})
    sink.close()
    assert os.read(reading, 100) == b'{"seq":1}\n'
    os.close(reading)
    with pytest.raises(DeviceError) as caught:
        build_sink(settings, None)
    assert caught.value.reason == Reason.INTERNAL


def test_the_count_sink_writes_nothing() -> None:
    """It needs no pipe and never drops."""
    sink = build_sink(CountSink(), None)
    assert isinstance(sink, CountingSink)
    assert sink.write({"seq": 1})
    sink.close()
