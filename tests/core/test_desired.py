"""The plan: which file decides, who takes part, and when something may start."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.desired import (
    Order,
    check_dates,
    has_begun,
    may_start,
    plan,
    takes_part,
)
from agent.core.executors import Executor
from agent.core.installed import Installed, Slots
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted
from agent.errors import BundleRefusedError

NOON = datetime(2026, 9, 1, 12, 0, tzinfo=UTC).timestamp()
KWS_2 = GroupFile(generation=4, pipelines={"door": Wanted("kws", 2)})
KWS_3 = GroupFile(generation=9, pipelines={"door": Wanted("kws", 3)})
EMPTY = {"door": Slots()}


def running(version: int, model: str = "kws") -> dict[str, Slots]:
    """Return a board whose door runs a version."""
    executor = Executor("litert", "xnnpack")
    return {
        "door": Slots(Installed(model, version, "a" * 64, 1, "int8", executor)),
    }


def planned(
    files: list[tuple[str, GroupFile]], slots: dict[str, Slots], now: float = NOON
) -> list[int]:
    """Return the versions that are ordered."""
    return [order.version for order in plan(files, slots, "board-1", now)]


def test_an_order_says_who_wants_what() -> None:
    """An order names the pipeline, the model, the version, the file, its generation."""
    files = [("fleet/groups/all", KWS_2)]
    expected = Order("door", "kws", 2, "fleet/groups/all", 4)
    assert [expected] == plan(files, EMPTY, "board-1", NOON)


def test_what_runs_needs_no_order() -> None:
    """The same version is left alone, another version or model is not."""
    files = [("all", KWS_2)]
    assert planned(files, running(2)) == []
    assert planned(files, running(1)) == [2]
    assert planned(files, running(3)) == [2]
    assert planned(files, running(2, "vww")) == [2]


def test_the_most_specific_file_decides_alone() -> None:
    """The first file that names a pipeline counts, also where it wants nothing new."""
    files = [("lab", KWS_3), ("all", KWS_2)]
    assert planned(files, EMPTY) == [3]
    assert planned(files, running(3)) == []
    assert planned(
        [("none", GroupFile(generation=1, pipelines={})), *files], EMPTY
    ) == [3]


def test_pipelines_without_a_word_stay() -> None:
    """A desired state for pipelines of other boards orders nothing here."""
    assert plan([("all", KWS_2)], {"window": Slots()}, "board-1", NOON) == []


def test_a_paused_file_holds_and_lets_no_other_in() -> None:
    """Paused: nothing new starts, and the less specific file does not step in."""
    files = [("lab", replace(KWS_3, paused=True)), ("all", KWS_2)]
    assert planned(files, EMPTY) == []


def test_a_file_out_of_its_window_holds() -> None:
    """Outside its window a file still decides, but nothing starts."""
    files = [("lab", replace(KWS_3, window="02:00-03:00")), ("all", KWS_2)]
    assert planned(files, EMPTY) == []


@pytest.mark.parametrize(
    "lab",
    [replace(KWS_3, percent=0), replace(KWS_3, not_before="2026-09-01T12:00:01Z")],
)
def test_a_file_not_in_force_gives_way(lab: GroupFile) -> None:
    """Boards that were not drawn, or not yet, follow the next file."""
    assert planned([("lab", lab), ("all", KWS_2)], EMPTY) == [2]


@given(
    salt=st.text(max_size=20),
    board=st.text(max_size=20),
    low=st.floats(0, 100),
    high=st.floats(0, 100),
)
def test_a_rollout_only_grows(salt: str, board: str, low: float, high: float) -> None:
    """Who takes part at some percentage takes part at every higher one."""
    low, high = sorted((low, high))
    fewer = takes_part(replace(KWS_2, salt=salt, percent=low), board)
    more = takes_part(replace(KWS_2, salt=salt, percent=high), board)
    assert fewer <= more


@given(salt=st.text(max_size=20), board=st.text(max_size=20))
def test_all_and_none(salt: str, board: str) -> None:
    """100 percent is every board, 0 percent none."""
    assert takes_part(replace(KWS_2, salt=salt, percent=100), board)
    assert not takes_part(replace(KWS_2, salt=salt, percent=0), board)


def test_the_draw_is_fair_and_documented() -> None:
    """SHA-256 of salt, NUL and id draws about the share that was asked for."""
    file = replace(KWS_2, salt="may", percent=25)
    drawn = sum(takes_part(file, f"board-{number}") for number in range(2000))
    assert 430 <= drawn <= 570
    # `printf 'may\0board-2' | sha256sum` begins with 20881039d808fc1e.
    drawn_at = 0x20881039D808FC1E / 2**64 * 100
    assert takes_part(replace(file, percent=drawn_at + 0.01), "board-2")
    assert not takes_part(replace(file, percent=drawn_at - 0.01), "board-2")


@pytest.mark.parametrize(
    ("window", "hour", "open_"),
    [
        ("", 12, True),
        ("12:00-13:00", 12, True),
        ("11:00-12:00", 12, False),
        ("22:00-04:00", 23, True),
        ("22:00-04:00", 3, True),
        ("22:00-04:00", 4, False),
        ("22:00-04:00", 12, False),
        ("00:00-00:00", 12, True),
    ],
)
def test_windows(window: str, hour: int, *, open_: bool) -> None:
    """A window is UTC, may pass midnight, and its end does not belong to it."""
    now = NOON + (hour - 12) * 3600
    assert open_ is may_start(replace(KWS_2, window=window), now)


@pytest.mark.parametrize(
    ("date", "begun"),
    [
        ("", True),
        ("2026-09-01T12:00:00Z", True),
        ("2026-09-01T12:00:00", True),
        ("2026-09-01T12:00:01", False),
        ("2026-09-01T14:00:00+02:00", True),
        ("2026-09-02", False),
    ],
)
def test_not_before(date: str, *, begun: bool) -> None:
    """A date counts in its own zone, and as UTC where it names none."""
    assert begun is has_begun(replace(KWS_2, not_before=date), NOON)


@pytest.mark.parametrize(
    "file",
    [
        replace(KWS_2, window=text)
        for text in ("12", "12:00", "12:00-24:00", "1:00-2:00", "12:00-12:60", "a-b")
    ]
    + [replace(KWS_2, not_before=text) for text in ("soon", "2026-13-01")],
)
def test_nonsense_is_the_senders_business(file: GroupFile) -> None:
    """A window or a date that cannot be read refuses the desired state."""
    with pytest.raises(BundleRefusedError) as caught:
        check_dates(file)
    assert caught.value.reason == Reason.METADATA


@pytest.mark.parametrize("times", [{"window": "25:00-26:00"}, {"not_before": "soon"}])
def test_nonsense_holds_its_own_pipelines_only(times: dict[str, str]) -> None:
    """What an unreadable file names stays as it is; other files and pipelines go on."""
    lab, board = replace(KWS_3, **times), EMPTY | {"gate": Slots()}
    everyone = {"door": Wanted("kws", 2), "gate": Wanted("vww", 5)}
    files = [("lab", lab), ("all", GroupFile(generation=1, pipelines=everyone))]
    assert planned(files, board) == [5]
    assert planned([("lab", replace(lab, percent=0)), *files[1:]], board) == [2, 5]


@given(window=st.text(max_size=32), date=st.text(max_size=32), now=st.floats(0, 1e11))
def test_any_text_is_read_or_refused(window: str, date: str, now: float) -> None:
    """No text in a signed file raises anything but BundleRefusedError."""
    file = replace(KWS_2, window=window, not_before=date)
    assert len(plan([("all", file)], EMPTY, "board-1", now)) <= 1
    try:
        check_dates(file)
    except BundleRefusedError as err:
        assert err.reason == Reason.METADATA  # noqa: PT017 - either way is right
