"""Flow: a frame geometry that its format does not have is refused by name."""

import pytest
from hypothesis import given

from agent.core.flow import CommandSource
from agent.core.reasons import Reason
from agent.errors import SettingsError
from tests.core.strategies import pixel_sources, value_sources

WRONG = {
    "no width": (CommandSource(("c",), "rgb24", height=4), "needs width and height"),
    "no height": (CommandSource(("c",), "gray8", width=4), "needs width and height"),
    "no values": (CommandSource(("c",), "f32le"), "needs values"),
    "stride of sound": (
        CommandSource(("c",), "s16le", values=4, stride=8),
        "has no stride",
    ),
    "stride of jpeg": (CommandSource(("c",), "mjpeg", stride=8), "has no stride"),
    "short stride": (
        CommandSource(("c",), "rgb24", width=4, height=4, stride=11),
        "below a row's 12 bytes",
    ),
    "odd stride of two planes": (
        CommandSource(("c",), "yuv420p", width=4, height=4, stride=5),
        "needs an even stride",
    ),
    "odd width": (
        CommandSource(("c",), "yuv420p", width=3, height=4),
        "needs even width and height",
    ),
    "odd height": (
        CommandSource(("c",), "nv12", width=4, height=3),
        "needs even width and height",
    ),
}


@pytest.mark.parametrize(("source", "what"), WRONG.values(), ids=list(WRONG))
def test_wrong_geometry_is_named(source: CommandSource, what: str) -> None:
    """The error names the key and what its format needs."""
    with pytest.raises(SettingsError, match=what) as caught:
        source.check("pipeline[0].source")
    assert str(caught.value).startswith("pipeline[0].source: ")
    assert caught.value.reason == Reason.SETTINGS


@given(pixel_sources | value_sources)
def test_possible_geometry_passes(source: CommandSource) -> None:
    """Every format with what it needs is accepted."""
    source.check("source")


@pytest.mark.parametrize(
    ("source", "row_bytes"),
    [
        (CommandSource(("c",), "rgb24", width=5, height=1), 15),
        (CommandSource(("c",), "bgr24", width=5, height=1), 15),
        (CommandSource(("c",), "gray8", width=5, height=1), 5),
        (CommandSource(("c",), "nv12", width=4, height=2), 4),
        (CommandSource(("c",), "mjpeg"), 0),
        (CommandSource(("c",), "f32le", values=5), 0),
    ],
)
def test_bytes_of_a_row(source: CommandSource, row_bytes: int) -> None:
    """A row has its pixels' bytes; planes are counted by their first one."""
    assert source.row_bytes == row_bytes
