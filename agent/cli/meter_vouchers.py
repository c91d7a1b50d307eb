"""``tinyward meter vouchers``: issue vouchers for a board, on the vendor's machine."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, Unpack

import click

from agent.cli.meter_key import passphrase_option
from agent.cli.passphrase import ask_passphrases
from agent.core.reasons import Reason
from agent.core.voucher import BOARD_BYTES, Kind, Voucher, key_hash, parse_fields
from agent.core.voucher_text import MAX_VOUCHERS, render_text
from agent.errors import SettingsError

DAY_S = 86_400
_file = click.Path(dir_okay=False, path_type=Path)
_date = click.DateTime(["%Y-%m-%d"])
ONE_OF = "say one of --units, --seconds, --unlimited-until, --revoke, --revoke-all"


class Goods(TypedDict):
    """What is sold, as options say it."""

    units: int | None
    seconds: int | None
    unlimited_until: datetime | None
    revoke: int | None
    revoke_all: bool


class Places(TypedDict):
    """Files, as options name them."""

    output: Path | None
    qr: Path | None
    book: Path | None


@click.command("vouchers", short_help="Issue vouchers for a board.")
@click.option(
    "--board",
    required=True,
    metavar="NAME[=KEY]",
    help="For which board; KEY once, as `tinyward meter status` there shows it.",
)
@click.option("--units", type=click.IntRange(1), help="So many inferences.")
@click.option("--seconds", type=click.IntRange(1), help="Unlimited running, so long.")
@click.option("--unlimited-until", type=_date, help="Unlimited to this day's end, UTC.")
@click.option("--revoke", type=click.IntRange(1), help="Take so many units back.")
@click.option("--revoke-all", is_flag=True, help="Take back all that is left.")
@click.option("--until", type=_date, help="Redeem it by this day's end (UTC).")
@click.option("--count", type=click.IntRange(1, MAX_VOUCHERS), default=1)
@click.option("--key", "key_file", required=True, type=_file, help="The vendor's key.")
@passphrase_option
@click.option("--output", "-o", type=_file, help="Write the vouchers there instead.")
@click.option(
    "--qr",
    type=_file,
    help="Also as QR codes: FILE.svg or FILE.png, numbered if several; - for here.",
)
@click.option("--book", type=_file, help="What was issued.  [default: KEY.book]")
def command(  # noqa: PLR0913 - each is an option
    *,
    board: str,
    until: datetime | None,
    count: int,
    key_file: Path,
    passphrase_files: Sequence[Path],
    output: Path | None,
    qr: Path | None,
    book: Path | None,
    **goods: Unpack[Goods],
) -> None:
    """Issue vouchers; each counts once, on this board alone.

    Their numbers follow each other and stand in the book before a voucher leaves, so
    no number is given twice. A board takes the newest 64 numbers in any order. A
    voucher that takes units back voids those with lower numbers.
    """
    from agent.publish.vouchers import Wanted, issue, load_vendor_key

    name, _, spelled = board.partition("=")
    kind, amount = _goods(goods)
    ends_s = _end_of(until) if until else 0
    wanted = Wanted(name, _read_key(spelled), kind, amount, ends_s, count)
    ((_, passphrase),) = ask_passphrases([key_file], passphrase_files)
    private = load_vendor_key(key_file, passphrase)
    now_s = time.time()  # noqa: TID251 - when it was issued, for the book
    place = book or key_file.with_name(f"{key_file.name}.book")
    vouchers = issue(private, wanted, place, now_s)
    _deliver(name, vouchers, {"output": output, "qr": qr, "book": place})


def _deliver(name: str, vouchers: Sequence[bytes], places: Places) -> None:
    """Write vouchers, as text and as QR codes."""
    from agent.publish.files import write_durably

    text = "\n".join(_render(name, raw) for raw in vouchers)
    if places["output"] is None:
        click.echo(text, nl=False)
    else:
        write_durably(places["output"], text.encode(), mode=0o600)
        click.echo(f"wrote {len(vouchers)} to {places['output']}")
    if places["qr"] is not None:
        from agent.cli.meter_qr import write_codes

        for line in write_codes(vouchers, places["qr"]):
            click.echo(line)


def _render(name: str, raw: bytes) -> str:
    """Return a voucher as text, with a remark that says what it is."""
    voucher = parse_fields(raw)
    by = f", redeem by {_day(voucher.expiry_s)}" if voucher.expiry_s else ""
    return f"# {name}, number {voucher.seq}: {_says(voucher)}{by}\n{render_text(raw)}"


def _says(voucher: Voucher) -> str:
    """Say what a voucher gives."""
    match voucher.kind:
        case Kind.UNITS:
            return f"{voucher.units:,} units"
        case Kind.TIME:
            return f"{voucher.units:,} seconds of unlimited running"
        case Kind.UNTIL:
            return f"unlimited to the end of {_day(voucher.units)}"
        case Kind.REVOKE:
            return (
                f"takes back {f'{voucher.units:,} units' if voucher.units else 'all'}"
            )


def _goods(goods: Goods) -> tuple[Kind, int]:
    """Return the kind and number that the options say.

    Raises:
        click.UsageError: Not exactly one of them is given.
    """
    found: list[tuple[Kind, int]] = []
    if goods["units"] is not None:
        found.append((Kind.UNITS, goods["units"]))
    if goods["seconds"] is not None:
        found.append((Kind.TIME, goods["seconds"]))
    if goods["unlimited_until"] is not None:
        found.append((Kind.UNTIL, _end_of(goods["unlimited_until"])))
    if goods["revoke"] is not None:
        found.append((Kind.REVOKE, goods["revoke"]))
    if goods["revoke_all"]:
        found.append((Kind.REVOKE, 0))
    if len(found) != 1:
        raise click.UsageError(ONE_OF)
    return found[0]


def _read_key(spelled: str) -> bytes:
    """Return a board's hash: from 64 hex digits, a verifier key, or a file with one.

    Raises:
        SettingsError: It is none of these.
    """
    if not spelled:
        return b""
    from agent.audit.key import parse_public
    from agent.cli.places import read_file
    from agent.errors import BundleRefusedError

    try:
        found = bytes.fromhex(spelled)
        if len(found) == BOARD_BYTES:
            return found
    except ValueError:
        pass  # then it is a key, or a file's name
    try:
        given = Path(spelled).is_file()
        text = read_file(Path(spelled)).decode() if given else spelled
        return key_hash(parse_public(text))
    except (BundleRefusedError, OSError, UnicodeDecodeError) as err:
        raise SettingsError(
            "KEY of --board is no board's key",
            reason=Reason.SETTINGS,
            todo="Take the line `key` of `tinyward meter status` on that board.",
        ) from err


def _end_of(day: datetime) -> int:
    """Return the last second of a day, UTC."""
    return int(day.replace(tzinfo=UTC).timestamp()) + DAY_S - 1


def _day(at_s: int) -> str:
    """Return the day of a time, UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d}"
