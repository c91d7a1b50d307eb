"""Pipe sources: frames of exact size, newest wins or the program waits, any end."""

import fcntl
import os
import termios
import threading
import time
from array import array
from collections.abc import Iterator

import numpy as np
import pytest

from agent.core.flow import BoardSource, CommandSource, SourceSettings
from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError
from agent.worker.samples import Array, InputError
from agent.worker.sources import PipeSource, build_source
from agent.worker.sources.frames import build_decoder, frame_bytes
from agent.worker.sources.mailbox import Mailbox
from tests.fakes.pictures import PLAIN

PAIR = CommandSource(command=("x",), format="f32le", values=2)
PAIR_LOSSLESS = CommandSource(command=("x",), format="f32le", values=2, live=False)
MJPEG = CommandSource(command=("x",), format="mjpeg", live=False)
WAIT_S = 20.0  # long enough for any machine; every wait ends when its event comes


class Program:
    """A source and the writing end of its pipe, as a program would hold it."""

    def __init__(self, settings: SourceSettings) -> None:
        self.reading, self.writing = os.pipe()
        built = build_source(settings, self.reading)
        assert isinstance(built, PipeSource)
        self.source = built

    def write(self, *values: float) -> None:
        """Write values as f32le."""
        os.write(self.writing, np.array(values, "<f4").tobytes())

    def take(self) -> Array:
        """Take the next sample."""
        sample = self.source.take(WAIT_S)
        assert isinstance(sample, np.ndarray)
        return sample

    def die(self) -> None:
        """Close the writing end."""
        os.close(self.writing)
        self.writing = -1

    def restart(self) -> None:
        """Be started again, on a new pipe."""
        reading, self.writing = os.pipe()
        self.source.replace(reading)

    def wait_until_ended(self) -> None:
        """Take until the end of the stream was seen."""
        assert self.source.take(WAIT_S) is None
        assert self.source.ended

    def close(self) -> None:
        """Close both ends."""
        self.source.close()
        if self.writing >= 0:
            os.close(self.writing)


@pytest.fixture
def lossless() -> Iterator[Program]:
    """Give a program whose frames are all taken."""
    program = Program(PAIR_LOSSLESS)
    yield program
    program.close()


@pytest.fixture
def live() -> Iterator[Program]:
    """Give a program of which only the newest frame counts."""
    program = Program(PAIR)
    yield program
    program.close()


def test_frames_of_exact_size(lossless: Program) -> None:
    """Bytes become frames wherever they are cut."""
    content = np.arange(6, dtype="<f4").tobytes()
    for at in range(0, len(content), 5):
        os.write(lossless.writing, content[at : at + 5])
    taken = [lossless.take().tolist() for _ in range(3)]
    assert taken == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert 0 < lossless.source.ready_ns <= time.perf_counter_ns()
    assert (lossless.source.dropped, lossless.source.partial) == (0, 0)


def test_nothing_yet(lossless: Program) -> None:
    """Without a whole frame ``take`` comes back empty-handed, and nothing has ended."""
    lossless.write(1.0)
    assert lossless.source.take(0.001) is None
    assert not lossless.source.ended


def test_half_a_frame_at_the_end(lossless: Program) -> None:
    """A program that dies within a frame leaves one partial sample."""
    lossless.write(1.0, 2.0, 3.0)
    lossless.die()
    assert lossless.take().tolist() == [1.0, 2.0]
    lossless.wait_until_ended()
    assert (lossless.source.dropped, lossless.source.partial) == (0, 1)


def test_a_program_that_is_started_again(lossless: Program) -> None:
    """Its new pipe goes on where frames begin; half a frame does not leak into it."""
    lossless.write(1.0)
    lossless.die()
    lossless.wait_until_ended()
    lossless.restart()
    assert not lossless.source.ended
    lossless.write(7.0, 8.0)
    assert lossless.take().tolist() == [7.0, 8.0]
    assert lossless.source.partial == 1


def test_a_program_that_dies_again_and_again(lossless: Program) -> None:
    """However death and new pipe coincide, the new pipe is kept and its frames come."""
    for number in range(100):
        lossless.write(number, number)
        lossless.die()
        lossless.restart()
        assert lossless.take().tolist() == [number, number]


def test_a_pipe_replaced_before_its_end(lossless: Program) -> None:
    """What was written before the replacement is read before it, many times over."""
    old = []
    for number in range(50):
        lossless.write(number, number)
        old.append(lossless.writing)
        lossless.restart()
    taken: list[float] = []
    lossless.write(99.0, 99.0)
    while not taken or taken[-1] != 99.0:
        taken.append(lossless.take()[0].item())
    assert taken == [*range(50), 99.0]
    for descriptor in old:
        os.close(descriptor)


def test_the_pipe_it_reads_is_no_new_one(lossless: Program) -> None:
    """Told of its own pipe again, it goes on in the middle of the frame."""
    again = os.dup(lossless.reading)
    lossless.write(1.0)
    lossless.source.replace(again)
    lossless.write(2.0)
    assert lossless.take().tolist() == [1.0, 2.0]
    assert lossless.source.partial == 0


def test_newest_wins(live: Program) -> None:
    """Frames that came while nobody looked are dropped and counted, save the last."""
    for number in range(100):
        live.write(number, number)
    live.die()
    last = -1.0
    taken = 0
    while not live.source.ended:
        sample = live.source.take(WAIT_S)
        if isinstance(sample, np.ndarray):
            assert sample[0] > last
            last, taken = sample[0].item(), taken + 1
    assert last == 99.0
    assert taken + live.source.dropped == 100


def test_what_was_taken_is_not_written() -> None:
    """A sample stays as it is until the next ``take``, however many frames come."""
    mailbox = Mailbox(live=True)
    frames = [bytearray(b"a"), bytearray(b"b"), bytearray(b"c")]
    writing = frames[0]
    free = frames[1:]
    taken: bytearray | bytes | None = None
    for turn in range(30):
        returned = mailbox.put(writing, turn)
        if returned is not None:
            assert returned is not taken
            assert isinstance(returned, bytearray)
            free.append(returned)
        writing = free.pop()
        if turn % 3 == 0:
            answer = mailbox.take(0.0)
            assert answer is not None
            taken = answer[0]
            assert answer == (taken, turn)
        assert writing is not taken
    # Three frames are enough for ever: one written, one waiting, one looked at.
    assert mailbox.dropped == 20 - 1


def test_back_pressure() -> None:
    """Not live: the pipe fills up, the program waits, and no frame is lost."""
    values, count = 2000, 400  # 3.2 MB: more than any pipe holds
    wide = CommandSource(("x",), "f32le", values=values, live=False)
    program = Program(wide)
    content = np.arange(values * count, dtype="<f4").tobytes()

    def produce() -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(program.writing, view) :]
        program.die()

    producer = threading.Thread(target=produce)
    producer.start()
    first = [program.take()[0].item()]
    assert producer.is_alive()
    while not program.source.ended:
        sample = program.source.take(WAIT_S)
        if isinstance(sample, np.ndarray):
            first.append(sample[0].item())
    producer.join()
    assert first == [float(values * number) for number in range(count)]
    assert program.source.dropped == 0
    program.close()


def test_close_ends_an_idle_reader() -> None:
    """Closing does not wait for a program that writes nothing."""
    program = Program(PAIR_LOSSLESS)
    reader = program.source._reader
    program.close()
    assert not reader.is_alive()


def test_close_ends_a_reader_that_nobody_takes_from() -> None:
    """Nor does it wait for room: the reader holds a second frame and is let go."""
    program = Program(PAIR_LOSSLESS)
    program.write(*range(8))
    unread = array("i", [0])
    while unread[0] != 16:  # two of four frames: one waits, one wants to
        fcntl.ioctl(program.writing, termios.FIONREAD, unread)
    reader = program.source._reader
    program.close()
    assert not reader.is_alive()


def test_the_board_is_eight_values() -> None:
    """Readings are float32, NaN where a sensor is missing; the newest wins."""
    program = Program(BoardSource())
    readings = [1.0, 2.0, 3.0, 4.0, float("nan"), 6.0, 7.0, 8.0]
    program.write(*readings)
    sample = program.take()
    assert sample.dtype == np.float32
    assert np.array_equal(sample, np.array(readings, np.float32), equal_nan=True)
    program.close()


def test_mjpeg_and_noise() -> None:
    """Whole pictures are samples, a damaged one is a bad sample, noise is silence."""
    program = Program(MJPEG)
    noise = bytes(5_000)
    damaged = bytearray(PLAIN)
    place = damaged.index(b"\xff\xc0")
    damaged[place + 9] = 77  # 77 colour components: no decoder has them
    for content in (noise, PLAIN, bytes(damaged), noise, PLAIN[:200]):
        os.write(program.writing, content)
    assert program.take().shape == (24, 16, 3)
    with pytest.raises(InputError, match="a frame: no picture"):
        program.source.take(WAIT_S)
    program.die()
    program.wait_until_ended()
    assert program.source.partial == 1
    program.close()


def test_an_endless_stream_without_frames() -> None:
    """Noise is read, forgotten and never a sample; memory does not grow."""
    program = Program(MJPEG)
    noise = b"\xff\xd9" * 10_000
    for _ in range(200):
        os.write(program.writing, noise)
    assert program.source.take(0.001) is None
    assert not program.source.ended
    program.die()
    program.wait_until_ended()
    assert (program.source.dropped, program.source.partial) == (0, 0)
    program.close()


@pytest.mark.parametrize(
    ("form", "stride", "expected"),
    [
        ("rgb24", 0, [[[1, 2, 3], [4, 5, 6]]]),
        ("rgb24", 8, [[[1, 2, 3], [4, 5, 6]]]),
        ("bgr24", 0, [[[3, 2, 1], [6, 5, 4]]]),
        ("bgr24", 9, [[[3, 2, 1], [6, 5, 4]]]),
        ("gray8", 0, [[[1], [2]]]),
        ("gray8", 5, [[[1], [2]]]),
    ],
)
def test_packed_pixels(form: str, stride: int, expected: list[object]) -> None:
    """Padding behind a row is stepped over; BGR becomes RGB."""
    settings = CommandSource(("x",), form, width=2, height=2, stride=stride)  # type: ignore[arg-type] # a format
    row = bytes(range(1, 1 + settings.row_bytes))
    padded = row + b"\xee" * (max(stride, len(row)) - len(row))
    frame = bytearray(padded * 2)
    assert frame_bytes(settings) == len(frame)
    assert build_decoder(settings)(frame).tolist() == expected * 2


def test_pcm() -> None:
    """s16le is -1..1 as float32."""
    settings = CommandSource(("x",), "s16le", values=3)
    samples = build_decoder(settings)(np.array([-32_768, 0, 16_384], "<i2").tobytes())
    assert samples.dtype == np.float32
    assert samples.tolist() == [-1.0, 0.0, 0.5]
    assert frame_bytes(settings) == 6


@pytest.mark.parametrize("form", ["yuv420p", "nv12"])
@pytest.mark.parametrize(
    ("ycbcr", "rgb"),
    [
        ((16, 128, 128), (0, 0, 0)),
        ((235, 128, 128), (255, 255, 255)),
        ((81, 90, 240), (255, 0, 0)),
        ((145, 54, 34), (0, 255, 0)),
        ((41, 240, 110), (0, 0, 255)),
        ((255, 255, 255), (255, 125, 255)),
        ((0, 0, 0), (0, 135, 0)),
    ],
)
def test_colours_of_bt601(
    form: str, ycbcr: tuple[int, int, int], rgb: tuple[int, int, int]
) -> None:
    """The primaries of the standard, and bytes outside its range, clipped."""
    width, height, stride = 4, 2, 6
    settings = CommandSource(("x",), form, width=width, height=height, stride=stride)  # type: ignore[arg-type] # a format
    luma, cb, cr = ycbcr
    frame = np.full(frame_bytes(settings), 77, np.uint8)
    rows = frame[: stride * height].reshape(height, stride)
    rows[:, :width] = luma
    chroma = frame[stride * height :]
    if form == "nv12":
        chroma[0:width:2], chroma[1:width:2] = cb, cr
    else:
        chroma[: width // 2], chroma[stride // 2 : stride // 2 + width // 2] = cb, cr
    picture = build_decoder(settings)(frame.tobytes()).astype(int)
    assert picture.shape == (height, width, 3)
    assert np.abs(picture - np.array(rgb)).max() <= 1


def test_a_pipe_is_needed() -> None:
    """Without a descriptor there is no command source: that would be our bug."""
    with pytest.raises(DeviceError) as caught:
        build_source(PAIR, None)
    assert caught.value.reason == Reason.INTERNAL


def test_an_odd_stride_has_no_chroma() -> None:
    """yuv420p's chroma rows have half the stride, which has to be even."""
    settings = CommandSource(("x",), "yuv420p", width=4, height=2, stride=5)
    with pytest.raises(SettingsError, match="even stride"):
        settings.check("source")
