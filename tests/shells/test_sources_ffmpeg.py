"""Command sources fed by the real ffmpeg, checked against its own RGB and Pillow."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from agent.core.flow import CommandSource
from agent.worker.samples import Array, InputError
from agent.worker.sources import PipeSource, build_source

WIDTH, HEIGHT, FRAMES = 64, 48, 5
PICTURE = f"testsrc=size={WIDTH}x{HEIGHT}:rate=25"
# Flat colours: chroma has no edges that sampling and interpolation could move.
BARS = f"smptebars=size={WIDTH}x{HEIGHT}:rate=25"
WAIT_S = 30.0
Tool = Callable[[str], Path]
Subsampled = Literal["yuv420p", "nv12"]


def play(program: Path, source: str, *output: str) -> bytes:
    """Return what ffmpeg writes for a generated source."""
    arguments = ["-v", "error", "-f", "lavfi", "-i", source, *output, "-"]
    done = subprocess.run([str(program), *arguments], check=True, capture_output=True)
    return done.stdout


def video(program: Path, source: str, pixels: str) -> bytes:
    """Return raw frames in one of ffmpeg's pixel formats."""
    output = ("-frames:v", str(FRAMES), "-f", "rawvideo", "-pix_fmt", pixels)
    return play(program, source, *output)


def receive(settings: CommandSource, content: bytes) -> list[Array]:
    """Send bytes through a pipe and take all samples, which are copied."""
    reading, writing = os.pipe()
    source = build_source(settings, reading)
    cat_path = str(shutil.which("cat"))
    with subprocess.Popen([cat_path], stdin=subprocess.PIPE, stdout=writing) as cat:
        os.close(writing)
        assert cat.stdin is not None
        cat.stdin.write(content)
        cat.stdin.close()
        samples = []
        while not source.ended:
            sample = source.take(WAIT_S)
            if isinstance(sample, np.ndarray):
                samples.append(sample.copy())
    assert (source.dropped, source.partial) == (0, 0)
    source.close()
    return samples


def camera(form: str) -> CommandSource:
    """Describe a camera of which every frame is wanted."""
    size = {} if form == "mjpeg" else {"width": WIDTH, "height": HEIGHT}
    return CommandSource(("ffmpeg",), form, live=False, **size)  # type: ignore[arg-type] # a format


def reference(program: Path, source: str) -> Array:
    """Return ffmpeg's own RGB frames."""
    content = video(program, source, "rgb24")
    return np.frombuffer(content, np.uint8).reshape(FRAMES, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("form", ["rgb24", "bgr24"])
def test_packed_colour(require_tool: Tool, form: str) -> None:
    """Every pixel of every frame is that of ffmpeg."""
    ffmpeg = require_tool("ffmpeg")
    frames = receive(camera(form), video(ffmpeg, PICTURE, form))
    assert len(frames) == FRAMES
    assert np.array_equal(reference(ffmpeg, PICTURE), np.stack(frames))


def test_gray(require_tool: Tool) -> None:
    """Gray frames have one channel and the bytes of ffmpeg."""
    content = video(require_tool("ffmpeg"), PICTURE, "gray")
    frames = receive(camera("gray8"), content)
    assert np.stack(frames).shape == (FRAMES, HEIGHT, WIDTH, 1)
    assert np.stack(frames).tobytes() == content


@pytest.mark.parametrize("form", ["yuv420p", "nv12"])
def test_subsampled_colour(require_tool: Tool, form: Subsampled) -> None:
    """Flat colours agree with ffmpeg's RGB to two steps; edges blur both ways."""
    ffmpeg = require_tool("ffmpeg")
    frames = np.stack(receive(camera(form), video(ffmpeg, BARS, form))).astype(int)
    difference = np.abs(frames - reference(ffmpeg, BARS))
    assert difference.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert np.quantile(difference, 0.9) <= 2
    assert difference.mean() <= 3


@pytest.mark.parametrize("form", ["yuv420p", "nv12"])
def test_both_layouts_are_one_picture(require_tool: Tool, form: Subsampled) -> None:
    """The same frames in both layouts are equal, and close to Pillow's conversion."""
    ffmpeg = require_tool("ffmpeg")
    frames = np.stack(receive(camera(form), video(ffmpeg, PICTURE, form)))
    planes = np.frombuffer(video(ffmpeg, PICTURE, "yuv420p"), np.uint8)
    luma, chroma = np.split(planes.reshape(FRAMES, -1), [WIDTH * HEIGHT], axis=1)
    small = chroma.reshape(FRAMES, 2, HEIGHT // 2, WIDTH // 2).astype(float)
    wide = small.repeat(2, axis=2).repeat(2, axis=3)
    # Pillow's YCbCr has full range: stretch first, then let it convert.
    full_luma = (luma.reshape(FRAMES, HEIGHT, WIDTH).astype(float) - 16) * 255 / 219
    stretched = [full_luma, *((wide - 128) * 255 / 224 + 128).swapaxes(0, 1)]
    stacked = np.stack(stretched, axis=-1).round().clip(0, 255).astype(np.uint8)
    for frame, ycbcr in zip(frames, stacked, strict=True):
        bands = [Image.fromarray(np.ascontiguousarray(x)) for x in ycbcr.T]
        merged = Image.merge("YCbCr", bands).convert("RGB")
        expected = np.asarray(merged).swapaxes(0, 1)
        difference = np.abs(frame.astype(int) - expected)
        # Rounding twice costs 2; chroma beyond full range, which is rare, costs more.
        assert np.quantile(difference, 0.99) <= 2


def test_padded_rows(require_tool: Tool) -> None:
    """A stride cut into a wider picture steps over what lies beside it."""
    ffmpeg = require_tool("ffmpeg")
    settings = CommandSource(
        ("ffmpeg",), "rgb24", width=40, height=HEIGHT, stride=WIDTH * 3, live=False
    )
    frames = receive(settings, video(ffmpeg, PICTURE, "rgb24"))
    assert np.array_equal(reference(ffmpeg, PICTURE)[:, :, :40], np.stack(frames))


def test_mjpeg(require_tool: Tool) -> None:
    """Each picture is split off and decoded; together they are the stream."""
    ffmpeg = require_tool("ffmpeg")
    output = ("-frames:v", str(FRAMES), "-q:v", "2", "-f", "mjpeg")
    content = play(ffmpeg, BARS, *output)
    frames = np.stack(receive(camera("mjpeg"), content)).astype(int)
    difference = np.abs(frames - reference(ffmpeg, BARS))
    assert difference.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert np.median(difference) <= 2
    first = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(first, frames[0])


def test_mjpeg_between_headers(require_tool: Tool) -> None:
    """Multipart streams of network cameras have text between pictures."""
    output = ("-frames:v", str(FRAMES), "-f", "mpjpeg")
    content = play(require_tool("ffmpeg"), PICTURE, *output)
    assert len(receive(camera("mjpeg"), content)) == FRAMES


def test_sound(require_tool: Tool) -> None:
    """A sine of ffmpeg arrives as one: its frequency, its level, every sample."""
    source = "sine=frequency=1000:sample_rate=16000:duration=1"
    content = play(require_tool("ffmpeg"), source, "-f", "s16le")
    settings = CommandSource(("ffmpeg",), "s16le", values=1600, live=False)
    sound = np.concatenate(receive(settings, content))
    assert sound.dtype == np.float32
    assert len(sound) == 16_000
    assert int(np.abs(np.fft.rfft(sound)).argmax()) == 1000
    assert np.abs(sound).max() == pytest.approx(1 / 8, rel=0.01)


def test_a_live_camera_that_is_killed(require_tool: Tool) -> None:
    """Live: the newest frame wins, what was missed is counted, EOF ends it."""
    ffmpeg = require_tool("ffmpeg")
    reading, writing = os.pipe()
    arguments = [
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        PICTURE.replace("25", "100"),
    ]
    output = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    settings = CommandSource(("ffmpeg",), "rgb24", width=WIDTH, height=HEIGHT)
    source = build_source(settings, reading)
    assert isinstance(source, PipeSource)
    with subprocess.Popen([str(ffmpeg), *arguments, *output], stdout=writing) as camera:
        os.close(writing)
        ready_ns: list[int] = []
        while len(ready_ns) < 3 or source.dropped == 0:
            if source.take(WAIT_S) is not None:
                ready_ns.append(source.ready_ns)
                source._reader.join(0.03)  # look away for three frames
        camera.kill()
    assert ready_ns == sorted(ready_ns)
    while not source.ended:
        source.take(WAIT_S)
    source.close()


def test_what_ffmpeg_sends_instead_of_mjpeg(require_tool: Tool) -> None:
    """Raw video taken for mjpeg is silence, not garbage."""
    content = video(require_tool("ffmpeg"), PICTURE, "rgb24")
    try:
        assert receive(camera("mjpeg"), content) == []
    except InputError as err:
        pytest.fail(f"noise became a picture: {err}")
