"""Floors rise as long as their signers count, and fall with them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.floors import (
    MAX_HEIGHT,
    Floor,
    Floors,
    RoleKeys,
    height,
    holds,
    parse_floors,
    raised,
    render_floors,
)

KEYIDS = st.lists(st.sampled_from("abcd"), unique=True, min_size=1).map(tuple)
HEIGHTS = st.integers(0, MAX_HEIGHT)
FLOORS = st.builds(Floor, HEIGHTS, KEYIDS)
KEYS = st.builds(RoleKeys, KEYIDS, st.integers(1, 4))
NAMED = st.dictionaries(st.text(max_size=8), FLOORS, max_size=4)


@given(st.none() | FLOORS, HEIGHTS, KEYIDS, KEYS)
def test_a_floor_that_holds_never_falls(
    floor: Floor | None, value: int, signers: tuple[str, ...], keys: RoleKeys
) -> None:
    """Whatever is verified next, what holds under the same keys is not undercut."""
    after = raised(floor, value, signers, keys)
    assert after.height >= height(floor, keys)
    assert after.height >= value


@given(FLOORS, HEIGHTS, KEYIDS)
def test_a_floor_whose_signers_are_gone_is_replaced(
    floor: Floor, value: int, signers: tuple[str, ...]
) -> None:
    """Once none of its signers has a say, the next verified value is the floor."""
    keys = RoleKeys(("e", *signers), 1)
    if set(floor.signers).isdisjoint(keys.keyids):
        assert height(floor, keys) == 0
        assert Floor(value, signers) == raised(floor, value, signers, keys)


@given(FLOORS, KEYS)
def test_a_floor_holds_exactly_while_its_signers_meet_the_threshold(
    floor: Floor, keys: RoleKeys
) -> None:
    """Holding is a matter of counting keys that both sides name."""
    count = sum(keyid in keys.keyids for keyid in floor.signers)
    assert (count >= keys.threshold) == holds(floor, keys)


def test_one_of_two_stolen_keys_takes_its_weapon_along() -> None:
    """Of two keys with threshold 1, only the stolen one signed; it is removed."""
    both, left = RoleKeys(("a", "b"), 1), RoleKeys(("b",), 1)
    weapon = raised(Floor(5, ("b",)), 2**31, ("a",), both)
    assert height(weapon, both) == 2**31
    assert height(weapon, left) == 0
    assert Floor(6, ("b",)) == raised(weapon, 6, ("b",), left)


@given(
    st.builds(
        Floors,
        root=HEIGHTS,
        roles=NAMED,
        time=st.none() | FLOORS,
        generations=NAMED,
        clock_s=HEIGHTS,
    )
)
def test_rendered_floors_parse_to_themselves(floors: Floors) -> None:
    """Law: ``parse_floors(render_floors(f)) == f``."""
    assert floors == parse_floors(render_floors(floors))


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"root": -1}', b'{"roles": {"a": 1}}'])
def test_other_bytes_are_not_floors(raw: bytes) -> None:
    """Damage is an error, never an empty memory."""
    with pytest.raises(msgspec.MsgspecError):
        parse_floors(raw)


def test_a_newer_agents_floors_are_readable() -> None:
    """Keys this agent does not know are left aside."""
    assert Floors(root=3) == parse_floors(b'{"root": 3, "later": {}}')
