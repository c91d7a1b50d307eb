"""One board's envelope of a sealed bundle, as a repository holds it: small, unsigned.

The rules this module keeps:
 * What is fetched here proves nothing: whether it opens the signed bytes, unsealing
   says.
 * A repository without one says so quietly; one that is out of reach is a refusal.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tuf.api.exceptions import DownloadLengthMismatchError

from agent.core.reasons import Reason
from agent.core.sealing import MAX_ENVELOPE_BYTES, envelope_path, most_envelope_bytes
from agent.core.targets import BOARD_ID_PATTERN, SignedTarget
from agent.errors import BundleRefusedError
from agent.trust.refusals import reasons_for_target

if TYPE_CHECKING:
    from agent.trust.fetcher import Fetcher

_BOARD = re.compile(BOARD_ID_PATTERN)


def fetch_envelope(
    fetcher: "Fetcher",
    find: Callable[[str, int], SignedTarget],
    model: str,
    version: int,
    board: str,
) -> bytes | None:
    """Return a board's envelope of a version; None where there is none for it.

    Args:
        fetcher: Reads the repository.
        find: Returns what is signed of a version: how long its envelopes may be.
        model: Of a verified target.
        version: Likewise.
        board: Its id. None has an envelope whose id is no file's name.

    Raises:
        BundleRefusedError: ``envelope``: it is too long to be one; ``unreachable``,
            ``too_slow``, ``tls`` or ``redirect``.
        DeviceError: ``certificate``: our own certificate cannot be used.
    """
    if not _BOARD.fullmatch(board):
        return None
    path, most = envelope_path(model, version, board), MAX_ENVELOPE_BYTES
    with suppress(BundleRefusedError):  # of what nobody signed, as much as any has
        if (sealing := find(model, version).fields.sealed) is not None:
            most = most_envelope_bytes(sealing)
    try:
        with reasons_for_target(path):
            return fetcher.download_bytes(path, most)
    except BundleRefusedError as err:
        if err.reason == Reason.MISSING_TARGET:
            return None
        if isinstance(err.__cause__, DownloadLengthMismatchError):
            raise BundleRefusedError(str(err), reason=Reason.ENVELOPE) from err
        raise
