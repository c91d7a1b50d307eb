"""Sources and sinks that a pipeline may name: where samples come from and go to.

Here they are only described, for the settings and the control messages;
``agent.worker.sources`` and ``agent.worker.sinks`` perform them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agent.core.reasons import Reason
from agent.errors import SettingsError

RawFormat = Literal[
    "rgb24", "bgr24", "gray8", "yuv420p", "nv12", "mjpeg", "s16le", "f32le"
]
PIXEL_FORMATS = ("rgb24", "bgr24", "gray8", "yuv420p", "nv12")
Command = Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
Rate = Annotated[float, Meta(ge=0, le=1e6)]


class Described(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of every source and sink table: strict, told apart by ``kind``."""


class FilesSource(Described, frozen=True, tag="files"):
    """Recorded input, lossless: images, .npy/.npz, WAV, CSV or JSONL.

    Attributes:
        path: A file, or a directory whose files are taken in the order of names.
        array: Which array of an .npz holds the samples; empty means the first, ``*``
            all of them, one for each of the model's inputs by name.
        rate: Samples per second; 0 means as fast as the model answers.
        loop: Start again at the end; otherwise the pipeline then stays idle.
        memory: Read everything before the first sample (at most 256 MB).
    """

    path: str
    array: str = ""
    rate: Rate = 0.0
    loop: bool = False
    memory: bool = False


class CommandSource(Described, frozen=True, tag="command"):
    """Raw frames from a program's standard output: how cameras and microphones come.

    Attributes:
        command: Program and arguments; never a shell.
        format: How the bytes of a frame are laid out.
        width: Pixels in a row (pixel formats).
        height: Rows of pixels (pixel formats).
        stride: Bytes from one row to the next; 0 means no padding.
        values: Values in a frame (``s16le``, ``f32le``).
        live: Keep only the newest frame and count the others as dropped; otherwise
            the program waits.
        silent_s: After so long without a whole frame the source counts as failed and
            its program is started again.
    """

    command: Command
    format: RawFormat
    width: Annotated[int, Meta(ge=0, le=16_384)] = 0
    height: Annotated[int, Meta(ge=0, le=16_384)] = 0
    stride: Annotated[int, Meta(ge=0, le=262_144)] = 0
    values: Annotated[int, Meta(ge=0, le=16_777_216)] = 0
    live: bool = True
    silent_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0

    def check(self, where: str) -> None:
        """Refuse a frame geometry that its format does not have.

        Raises:
            SettingsError: ``settings``, naming the key below ``where``.
        """
        pixels = self.format in PIXEL_FORMATS
        if pixels and not (self.width and self.height):
            raise _wrong(where, f"{self.format} needs width and height")
        if self.format in ("s16le", "f32le") and not self.values:
            raise _wrong(where, f"{self.format} needs values (per frame)")
        if self.stride and not pixels:
            raise _wrong(where, f"{self.format} has no stride")
        if self.stride and self.stride < self.row_bytes:
            raise _wrong(where, f"stride below a row's {self.row_bytes} bytes")
        if self.format in ("yuv420p", "nv12") and (self.width % 2 or self.height % 2):
            raise _wrong(where, f"{self.format} needs even width and height")
        if self.format == "yuv420p" and self.stride % 2:
            raise _wrong(where, "yuv420p needs an even stride (chroma has half of it)")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of pixels without padding; 0 for other formats."""
        if self.format not in PIXEL_FORMATS:
            return 0
        return self.width * (3 if self.format in ("rgb24", "bgr24") else 1)


class BoardSource(Described, frozen=True, tag="board"):
    """The board's own readings as a float32 vector: live input on every machine.

    The vector is ``[cpu %, memory %, disk %, load of 1 min, temperature in degrees C,
    CPU frequency in MHz, bytes received/s, bytes sent/s]``; NaN where a board has no
    such sensor; a ``fill`` step of the manifest mends that.

    Attributes:
        rate: Readings per second.
    """

    rate: Annotated[float, Meta(gt=0, le=100)] = 1.0


class LinesSink(Described, frozen=True, tag="stdout"):
    """Predictions as JSON lines on the daemon's standard output."""


class FileSink(Described, frozen=True, tag="file"):
    """Predictions as JSON lines in a file that is rotated.

    Attributes:
        path: The newest file; older ones are ``path.1``, ``path.2``...
        max_mb: Size at which it is rotated, in MB.
        keep: How many older files stay.
    """

    path: str
    max_mb: Annotated[float, Meta(gt=0, le=10_000)] = 10.0
    keep: Annotated[int, Meta(ge=0, le=1000)] = 3


class CommandSink(Described, frozen=True, tag="command"):
    """Predictions as JSON lines on a program's standard input.

    Attributes:
        command: Program and arguments; never a shell.
    """

    command: Command


class CountSink(Described, frozen=True, tag="count"):
    """Predictions are only counted."""


SourceSettings = FilesSource | CommandSource | BoardSource
SinkSettings = LinesSink | FileSink | CommandSink | CountSink


def _wrong(where: str, what: str) -> SettingsError:
    """Return the error for a key that is well formed but makes no sense."""
    return SettingsError(f"{where}: {what}", reason=Reason.SETTINGS)
