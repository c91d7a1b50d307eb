"""Floors: nothing older than what was verified once is believed again.

The rules this module keeps:
 * A floor remembers who signed what raised it. It holds only as long as those keys
   still meet their role's threshold: whoever steals a key and signs version 2^31, or
   a time in 2099, loses that weapon with the key.
 * As long as it holds, a floor only rises.
 * The floor of ``root`` holds for ever: its versions form a chain without gaps, so
   nobody can jump ahead in it, and an old root would bring revoked keys back.

>>> keys = RoleKeys(("a", "b"), threshold=1)
>>> stolen = raised(None, 2**31, ("a",), keys)
>>> height(stolen, keys), height(stolen, RoleKeys(("b",), threshold=1))
(2147483648, 0)
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

# Far above any honest version, far below where JSON readers begin to round.
MAX_HEIGHT = 2**53 - 1
Height = Annotated[int, Meta(ge=0, le=MAX_HEIGHT)]


class RoleKeys(Struct, frozen=True):
    """Which keys a role has now, and how many of them have to sign."""

    keyids: tuple[str, ...]
    threshold: int


class Floor(Struct, frozen=True):
    """A version, a generation or a time (Unix seconds), and who signed it."""

    height: Height
    signers: tuple[str, ...]


class Floors(Struct, frozen=True):
    """Everything a board remembers about one repository besides its metadata.

    Attributes:
        root: Highest root version believed.
        roles: Role -> floor of its version.
        time: Floor of the clock, by the keys that signed the issue time.
        generations: Group file -> floor of its generation.
        clock_s: The clock floor as it was computed last, Unix seconds.
        offline_s: The issue time of the newest root: what of the clock floor no online
            key has moved.
    """

    root: Height = 0
    roles: dict[str, Floor] = {}
    time: Floor | None = None
    generations: dict[str, Floor] = {}
    clock_s: Height = 0
    offline_s: Height = 0


def holds(floor: Floor, keys: RoleKeys) -> bool:
    """Tell whether the signers of a floor still meet the role's threshold."""
    return len(set(floor.signers) & set(keys.keyids)) >= max(keys.threshold, 1)


def height(floor: Floor | None, keys: RoleKeys) -> int:
    """Return what must not be undercut: 0 where no floor holds."""
    return floor.height if floor and holds(floor, keys) else 0


def raised(
    floor: Floor | None, value: int, signers: Sequence[str], keys: RoleKeys
) -> Floor:
    """Return the floor after ``value`` was verified: it rises, or is replaced."""
    if floor and holds(floor, keys) and floor.height >= value:
        return floor
    return Floor(value, tuple(signers))


def render_floors(floors: Floors) -> bytes:
    """Return the spelling in which floors are kept."""
    return msgspec.json.encode(floors)


def parse_floors(raw: bytes) -> Floors:
    """Return the floors that ``render_floors`` wrote.

    Law: ``parse_floors(render_floors(floors)) == floors``.

    Raises:
        msgspec.ValidationError: It did not write these bytes.
        msgspec.DecodeError: Likewise.
    """
    return msgspec.json.decode(raw, type=Floors)
