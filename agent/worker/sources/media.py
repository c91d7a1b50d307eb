"""Samples from pictures and sound: one file is one sample."""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from agent.worker.pictures import decode_picture
from agent.worker.samples import MAX_SAMPLE_BYTES, Array, InputError

PICTURE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)
PCM_SCALE = np.float32(1.0 / 32768.0)


def read_picture(path: Path, array: str) -> Iterator[Array]:
    """Yield a picture as uint8 (height, width, 3) or, if gray, (height, width, 1).

    Raises:
        InputError: It is none.
    """
    del array
    yield decode_picture(path, "the file")


def read_wav(path: Path, array: str) -> Iterator[Array]:
    """Yield 16 bit sound as float32 (samples,) in -1..1; stereo is averaged.

    Raises:
        InputError: It is no WAV file, or not 16 bit PCM of one or two channels.
    """
    del array
    try:
        with wave.open(str(path), "rb") as sound:
            channels, width = sound.getnchannels(), sound.getsampwidth()
            if width != 2 or channels not in (1, 2):
                raise InputError(
                    f"{8 * width} bit sound of {channels} channels; "
                    "16 bit mono or stereo is read",
                    todo="Convert it: ffmpeg -i IN -ac 1 -c:a pcm_s16le OUT.wav",
                )
            if sound.getnframes() * channels * width > MAX_SAMPLE_BYTES:
                raise InputError("longer than one sample may be")
            content = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as err:
        raise InputError(
            f"not a readable WAV file: {str(err) or 'it ends early'}"
        ) from err
    yield decode_pcm(content, channels)


def decode_pcm(content: bytes | bytearray | memoryview, channels: int = 1) -> Array:
    """Return little-endian 16 bit PCM as float32 in -1..1, channels averaged."""
    values = np.frombuffer(content, "<i2") * PCM_SCALE
    if channels > 1:
        values = values.reshape(-1, channels).mean(axis=1, dtype=np.float32)
    return values
