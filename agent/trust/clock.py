"""The time that expiry is judged by: never earlier than what was verified once.

The rules this module keeps:
 * The floor moves by signed values only: the build date, the issue time of ``root``,
   and ``x-issued`` of ``timestamp``. Never by an HTTP date or a server's answer.
 * A clock before the floor is used as the floor; it never locks anybody out.
 * An issue time counts at most up to the expiry of the offline roles: what they did
   not vouch for, an online key cannot claim.
 * There are two floors. Metadata expires by the *clock floor*, which each timestamp
   raises. Certificates end by the *certificate floor*: the build date and the issue
   time of ``root``, which no online key moves.

Boards without a clock battery wake up in 1970, where nothing is ever expired.

Why two: whoever steals the timestamp key can raise the clock floor to the expiry of
the offline roles, months ahead, where every server's and operator's certificate has
ended. Then the cure, a root that replaces the key, could not be fetched any more, and
the board would be lost for good. The certificate floor is older, so a board with a
wrong clock takes a certificate that ended since the last root for a while longer; for
a server that is harmless (what its bytes are worth, TUF decides), and a stolen
operator's certificate is revoked by its serial number, which needs no clock.
"""

import calendar
import time
from collections.abc import Iterable
from datetime import UTC, datetime

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

ISSUED_FIELD = "x-issued"
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # the spelling of `expires` in TUF
_LAST_S = 253_402_300_799.0  # 9999-12-31T23:59:59Z, the last second of datetime


def parse_issued(value: object) -> int:
    """Return a signed issue time as Unix seconds; 0 where there is none.

    Raises:
        BundleRefusedError: ``metadata``: it is not a UTC time.
    """
    if value is None:
        return 0
    try:
        return calendar.timegm(time.strptime(str(value), _FORMAT))
    except ValueError as err:
        raise BundleRefusedError(
            f"{ISSUED_FIELD} is not a time such as 2026-01-31T12:00:00Z",
            reason=Reason.METADATA,
        ) from err


def learned_time(issued_s: int, offline_expiries: Iterable[datetime]) -> int:
    """Return how far an issue time moves the floor, Unix seconds."""
    limits = [int(expiry.timestamp()) for expiry in offline_expiries]
    return max(0, min([issued_s, *limits]))


def moment(now_s: float) -> datetime:
    """Return Unix seconds as a UTC time; impossible ones become the nearest."""
    return datetime.fromtimestamp(min(max(now_s, 0.0), _LAST_S), UTC)
