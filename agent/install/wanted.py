"""What an installation is to end with: what this version brings, what was asked for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from agent.install.shipped import Shipped


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be there.

    Attributes:
        slot: The slot that this program runs from.
        version: Its version, for people.
        digest: Of everything in the slot: a slot that was filled anew differs.
        schema: Of the state that it writes.
        shipped: Its unit files and fragments.
        drop_ins: Path -> content of the drop-ins that are asked for or there already.
        settings: Content of agent.toml where there is none.
        own_settings: Whether the operator named that content.
        fleet_root: The fleet's root.json; None where none was named.
        replace_root: Whether it may replace another one.
        board: The id to make an identity for; "" for none.
        starts: Whether the service is to be started.
    """

    slot: str
    version: str
    digest: str
    schema: int
    shipped: Shipped
    drop_ins: Mapping[str, bytes]
    settings: bytes
    own_settings: bool = False
    fleet_root: bytes | None = None
    replace_root: bool = False
    board: str = ""
    starts: bool = True

    @property
    def units(self) -> dict[str, bytes]:
        """Path -> content of all unit files."""
        return {**self.shipped.units, **self.drop_ins}

    @property
    def stamp(self) -> bytes:
        """What a service that was started with all this is known by."""
        # Content and not times: boards without a clock battery set files' times anew.
        digest = hashlib.sha256(self.digest.encode())
        for path, content in sorted(self.units.items()):
            digest.update(path.encode() + b"\0" + content + b"\0")
        filled = self.digest or "-"
        return f"{self.slot} {self.version} {filled} {digest.hexdigest()}\n".encode()

    @property
    def asks(self) -> bool:
        """Whether it was asked for what only settings can say."""
        return self.own_settings or self.fleet_root is not None or bool(self.board)
