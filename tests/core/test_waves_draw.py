"""The draw: which boards a wave names, the same ones each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.inventory import BoardTable
from agent.core.schedule import takes_part
from agent.core.targets import GroupFile
from agent.core.waves_draw import (
    draw_order,
    draw_waves,
    percent_for,
    share_count,
    share_of,
)
from agent.errors import SettingsError

ids = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
fleets = st.lists(ids, min_size=1, max_size=60, unique=True)
salts = st.text(max_size=8)
percents = st.integers(1, 100)


def boards(names: list[str], *canaries: str) -> list[BoardTable]:
    """Return boards, some of them in the group ``canary``."""
    return [
        BoardTable(name, f"{name}:1", ("canary",) if name in canaries else ())
        for name in names
    ]


@given(fleets, salts, percents, percents)
def test_a_smaller_share_draws_within_a_larger_one(
    names: list[str], salt: str, one: int, other: int
) -> None:
    """1 % lies within 10 %, whatever the fleet and the salt; none is empty."""
    small, large = sorted((one, other))
    waves = draw_waves(boards(names), (f"{large}%",), salt)
    within = draw_waves(boards(names), (f"{small}%",), salt)
    assert set(within[0].boards) <= set(waves[0].boards)
    assert len(within[0].boards) == share_count(f"{small}%", len(names)) > 0


@given(fleets, salts, st.sets(st.integers(1, 99), max_size=4))
def test_no_board_is_in_two_waves(
    names: list[str], salt: str, percent: set[int]
) -> None:
    """Together they are all boards, each once, in whatever order the file has them."""
    shares = [f"{it}%" for it in sorted(percent)]
    waves = draw_waves(boards(names, names[0]), ("group:canary", *shares, "all"), salt)
    told = [name for wave in waves for name in wave.boards]
    assert sorted(told) == sorted(names)
    assert waves[0].boards == (names[0],)
    again = boards(names[::-1], names[0])
    assert waves == draw_waves(again, ("group:canary", *shares, "all"), salt)


@given(fleets, salts, st.data())
def test_a_group_file_draws_what_the_wave_draws(
    names: list[str], salt: str, data: st.DataObject
) -> None:
    """Boards themselves say yes to the percent of their wave, and the others no."""
    count = data.draw(st.integers(0, len(names)))
    percent = percent_for(names, count, salt)
    file = GroupFile(generation=1, pipelines={}, percent=percent, salt=salt)
    drawn = {name for name in names if takes_part(file, name)}
    assert set(draw_order(names, salt)[:count]) == drawn
    assert 0 <= percent <= 100


def test_shares_in_words() -> None:
    """Percents may have decimals, up to all; groups have none."""
    assert [
        share_of(name) for name in ("1%", "0.5 %", "100%", "all", "group:canary")
    ] == [1.0, 0.5, 100.0, 100.0, None]
    assert [
        share_count(*it) for it in (("7%", 100), ("0.01%", 100), ("all", 1000))
    ] == [7, 1, 1000]


@pytest.mark.parametrize(
    "name",
    ["", "0%", "101%", "-1%", "1e1%", "ten", "group:", "group", "\u0661%", "nan%"],
)
def test_waves_that_make_no_sense(name: str) -> None:
    """Each is refused, with how waves are written."""
    with pytest.raises(SettingsError) as caught:
        draw_waves(boards(["a"]), (name,), "salt")
    assert caught.value.reason == "inventory"
    assert "--wave group:canary" in caught.value.todo


def test_a_group_of_nobody() -> None:
    """A canary without boards would warn nobody."""
    with pytest.raises(SettingsError, match="no board is in the group 'canary'"):
        draw_waves(boards(["a"]), ("group:canary", "all"), "salt")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("10%", "5%"), "'5%' draws nobody: 10 % were drawn before it"),
        (("10%", "10%"), "'10%' draws nobody"),
        (("all", "100%"), "'100%' draws nobody"),
        (("all", "group:canary"), "'group:canary' has nobody"),
    ],
)
def test_waves_of_nobody(names: tuple[str, ...], what: str) -> None:
    """Shares that do not grow, and groups that were told already, are slips."""
    with pytest.raises(SettingsError, match=what):
        draw_waves(boards(["a", "b"], "a"), names, "salt")
