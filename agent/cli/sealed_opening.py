"""Opening a sealed bundle from the command line, with a board's key at hand.

For owners who try what they sealed, and for boards that cannot use it. Without a key
what is signed about a sealed bundle is all that can be told.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

if TYPE_CHECKING:
    from agent.core.sealing import Sealed
    from agent.trust.bundle import Bundle

seal_key_option = click.option(
    "--seal-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A board's private key: open what is sealed, too.",
)
board_option = click.option(
    "--board", metavar="ID", help="Whose key it is.  [default: the host's name]"
)


@dataclass(frozen=True, slots=True)
class BoardKey:
    """A board's private key, and its id, which envelopes are bound to."""

    path: Path
    board: str


def named_key(path: Path | None, board: str | None) -> BoardKey | None:
    """Return the key that the command line names, if it names one."""
    return None if path is None else BoardKey(path, board or socket.gethostname())


def open_sealed(
    content: bytes,
    sha256: str,
    sealed: "Sealed",
    key: BoardKey,
    fetch: Callable[[str], bytes | None],
) -> "Bundle":
    """Open a sealed bundle as its board would.

    Args:
        content: The ciphertext.
        sha256: Its digest.
        sealed: What is said about it.
        key: The board's.
        fetch: Returns a board's envelope, or None.

    Raises:
        BundleRefusedError: ``envelope``, ``unseal``, or as ``open_bundle``.
        DeviceError: ``seal_key``.
    """
    from agent.trust.seal_key import load_seal_key
    from agent.trust.unseal import Unsealer

    envelope = fetch(key.board)
    if envelope is None:
        raise BundleRefusedError(
            f"{sealed.model} {sealed.version} is not sealed for {key.board}",
            reason=Reason.ENVELOPE,
            todo="`tinyward seal FOLDER --to BOARD.pub`; or name another --board.",
        )
    unsealer = Unsealer(key.board, lambda: load_seal_key(key.path))
    return unsealer.open(memoryview(content), sha256, sealed, envelope)
