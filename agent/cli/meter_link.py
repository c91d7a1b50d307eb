"""What the commands of ``tinyward meter`` ask a board, and its answers.

The rules this module keeps:
 * Boards are of all ages: a key that is not known here is passed over, one that is not
   there has a default.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec
from msgspec import Struct

from agent.cli.plain_text import plain
from agent.cli.reach import Local, Remote, local_link, remote_links
from agent.core.reasons import Reason
from agent.core.voucher_text import LINES, render_text
from agent.errors import DeviceError

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink

Answer = TypeVar("Answer")
AT_ONCE = 100  # vouchers in one request: 30 kB, of 64 that a board takes

board_option = click.option(
    "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
)


class Where(Local, Remote):
    """Which board, as options say it."""


class PipelineAnswer(Struct, frozen=True):
    """One pipeline's part of the status."""

    policy: str = ""
    grace: int = 0
    every: int = 0
    allowed: int = 0
    reason: str = ""
    used: int = 0
    free: int = 0


class StatusAnswer(Struct, frozen=True):
    """The meter's status; see ``agent.core.meter_report``."""

    board: str = ""
    vendor: str = ""
    left: int = 0
    owed: int = 0
    bought: int = 0
    used: int = 0
    reserved: int = 0
    lease: int = 0
    lost: int = 0
    free: int = 0
    failed: int = 0
    unlimited: bool = False
    until: int = 0
    seconds: int = 0
    voucher: int = 0
    refund: bool = False
    trouble: str = ""
    pipelines: dict[str, PipelineAnswer] = {}


class VoucherAnswer(Struct, frozen=True):
    """What became of one voucher."""

    voucher: int = 0
    kind: str = ""
    units: int = 0
    reason: str = ""
    detail: str = ""


class RedeemedAnswer(Struct, frozen=True):
    """What became of all that were sent."""

    redeemed: Sequence[VoucherAnswer] = ()
    left: int = 0


class ReportAnswer(Struct, frozen=True):
    """A signed usage report."""

    report: str = ""


def meter_link(board: str | None, where: Where) -> "BoardLink":
    """Return the link to the board that the options name."""
    if board is None:
        return local_link(where["config"], where["socket"])
    return remote_links([board], where)[0]


def send_vouchers(link: "BoardLink", vouchers: Sequence[bytes]) -> RedeemedAnswer:
    """Have a board redeem vouchers.

    Raises:
        RequestRefusedError: None of those in one request counts: the last one's reason.
    """
    done: list[VoucherAnswer] = []
    left = 0
    for at in range(0, len(vouchers), AT_ONCE):
        text = "\n".join(render_text(raw) for raw in vouchers[at : at + AT_ONCE])
        body = msgspec.json.encode({"vouchers": text})
        answer = link.post("/v1/meter/vouchers", body)
        found = msgspec.convert(answer, RedeemedAnswer)
        done += found.redeemed
        left = found.left
    return RedeemedAnswer(done, left)


def read_answer(link: "BoardLink", path: str, kind: type[Answer]) -> Answer:
    """Return a board's answer of a kind.

    Raises:
        DeviceError: ``request``: it is another one.
    """
    try:
        return msgspec.convert(link.read_all(path), kind)
    except msgspec.ValidationError as err:
        raise DeviceError(
            f"{link.where}: an answer that is not understood: {plain(err)}",
            reason=Reason.REQUEST,
            todo="Use the tinyward of the board's own version.",
        ) from err


def looks_like_text(words: Sequence[str]) -> bool:
    """Whether arguments are a typed voucher: as long as one, not the name of a file."""
    if any("/" in word for word in words):
        return False
    return sum(len(word) for word in words) >= LINES * 10
