"""Sources: where samples come from.

The rules this folder keeps: recorded sources are lossless, live ones keep the newest
sample and count what they drop; a bad sample is an ``InputError`` of its own and never
the end of a source; memory is bounded whatever a file or a program says.
"""

from agent.core.flow import FilesSource, SourceSettings
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.worker.sources.pipe import PipeSource, open_pipe
from agent.worker.sources.recorded import (
    EndlessSource,
    RecordedSource,
    open_recorded,
)
from agent.worker.sources.source import Source

__all__ = ["EndlessSource", "PipeSource", "RecordedSource", "Source", "build_source"]


def build_source(
    settings: SourceSettings, descriptor: int | None, start: int = 0
) -> Source:
    """Return the source that a pipeline's settings describe.

    Args:
        settings: The pipeline's ``source`` table.
        descriptor: The pipe of frames of ``command`` and ``board``; the source owns
            it from now on.
        start: Recorded samples to pass over, because an earlier worker took them.

    Raises:
        DeviceError: Nothing can be read (``source_missing``, ``source_failed``), or
            Pillow is needed and missing (``input``).
    """
    if isinstance(settings, FilesSource):
        return open_recorded(settings, start)
    if descriptor is None:
        raise DeviceError("the source came without a pipe", reason=Reason.INTERNAL)
    return open_pipe(settings, descriptor)
