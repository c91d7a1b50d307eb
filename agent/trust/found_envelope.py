"""One board's envelope of a sealed bundle, as a repository holds it: small, unsigned.

The rules this module keeps:
 * What is fetched here proves nothing: whether it opens the signed bytes, unsealing
   says.
 * A repository without one says so quietly; one that is out of reach is a refusal.
"""

import re
from typing import TYPE_CHECKING

from tuf.api.exceptions import DownloadLengthMismatchError

from agent.core.reasons import Reason
from agent.core.sealing import envelope_path
from agent.core.targets import BOARD_ID_PATTERN
from agent.errors import BundleRefusedError
from agent.trust.refusals import reasons_for_target

if TYPE_CHECKING:
    from agent.trust.fetcher import Fetcher

_BOARD = re.compile(BOARD_ID_PATTERN)


def fetch_envelope(
    fetcher: "Fetcher", model: str, version: int, board: str, most: int
) -> bytes | None:
    """Return a board's envelope of a version; None where there is none for it.

    Args:
        fetcher: Reads the repository.
        model: Of a verified target.
        version: Likewise.
        board: Its id. None has an envelope whose id is no file's name.
        most: Bytes that it may have.

    Raises:
        BundleRefusedError: ``envelope``: it is too long to be one; ``unreachable``,
            ``too_slow``, ``tls`` or ``redirect``.
        DeviceError: ``certificate``: our own certificate cannot be used.
    """
    if not _BOARD.fullmatch(board):
        return None
    path = envelope_path(model, version, board)
    try:
        with reasons_for_target(path):
            return fetcher.download_bytes(path, most)
    except BundleRefusedError as err:
        if err.reason == Reason.MISSING_TARGET:
            return None
        if isinstance(err.__cause__, DownloadLengthMismatchError):
            raise BundleRefusedError(str(err), reason=Reason.ENVELOPE) from err
        raise
