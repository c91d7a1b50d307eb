"""The vendor's commands: keys, numbers that are given once, text, files and codes."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from rich.text import Text

from agent.audit.key import verify_ed25519
from agent.cli import cli
from agent.cli.board_answers import MeterAnswer
from agent.cli.meter_link import PipelineAnswer, StatusAnswer
from agent.cli.meter_status import render_status
from agent.cli.meter_view import paid_text
from agent.core.meter_status import MeterStatus
from agent.core.note import NoteKey, render_key
from agent.core.reasons import Reason
from agent.core.voucher import (
    ISSUER_BYTES,
    MAX_UNITS,
    Kind,
    Voucher,
    believe_voucher,
    key_hash,
)
from agent.core.voucher_text import parse_file
from agent.errors import AgentError
from agent.publish.vouchers import Wanted, issue, make_vendor_key, read_book
from tests.fakes.metered import BOARD_KEY, STATUS
from tests.fakes.vouchers import BOARD, VENDOR

KEY = key_hash(BOARD)
NOW_S = 1_800_000_000.0


def wanted(units: int = 100, count: int = 1, key: bytes = KEY) -> Wanted:
    """Return an order of units for one board."""
    return Wanted("pi-0042", key, Kind.UNITS, units, count=count)


def run(*words: object) -> Result:
    """Run ``tinyward meter`` in this process."""
    return CliRunner().invoke(cli, ["meter", *map(str, words)])


@pytest.fixture
def vendor(tmp_path: Path) -> tuple[object, ...]:
    """Give the options that name a vendor's key."""
    secret = tmp_path / "passphrase"
    secret.write_text("five random words\n", encoding="utf-8")
    options = ("--passphrase-file", secret)
    assert run("key", tmp_path / "vendor.key", *options).exit_code == 0
    return ("--key", tmp_path / "vendor.key", *options)


def believed(raw: bytes, home: Path) -> Voucher:
    """Return what a board that knows the vendor takes a voucher for."""
    public = load_pem_public_key((home / "vendor.key.pub").read_bytes())
    plain = public.public_bytes_raw()  # type: ignore[union-attr] # Ed25519
    return believe_voucher(
        raw,
        key_hash(plain)[:ISSUER_BYTES],
        KEY,
        lambda signature, text: verify_ed25519(plain, signature, text),
    )


def test_a_board_believes_what_is_sold(
    vendor: tuple[object, ...], tmp_path: Path
) -> None:
    """Numbers follow each other over runs; the key is named once."""
    named = f"pi-0042={KEY.hex()}"
    first = run("vouchers", "--board", named, "--units", 100, "--count", 2, *vendor)
    assert first.exit_code == 0
    assert "# pi-0042, number 1: 100 units\n" in first.output
    out = tmp_path / "more.txt"
    until = ("--until", "2030-01-01", "--seconds", 60, "-o", out)
    assert run("vouchers", "--board", "pi-0042", *until, *vendor).exit_code == 0
    raws = [*parse_file(first.output.encode()), *parse_file(out.read_bytes())]
    found = [believed(raw, tmp_path) for raw in raws]
    assert [it.seq for it in found] == [1, 2, 3]
    assert (found[2].kind, found[2].units) == (Kind.TIME, 60)
    assert found[2].expiry_s == 1_893_542_399
    page = read_book(tmp_path / "vendor.key.book").boards["pi-0042"]
    assert (page.next, len(page.issued)) == (4, 2)


def test_units_that_no_counter_holds_are_not_sold(
    vendor: tuple[object, ...], tmp_path: Path
) -> None:
    """The number that would have been next is named, and the limit; none is spent."""
    named = f"pi-0042={KEY.hex()}"
    sold = ("vouchers", "--board", named, "--count", 4, "--units")
    assert run(*sold, 100, *vendor).exit_code == 0
    refused = run(*sold, 2**63 - 1, *vendor)
    assert refused.exit_code == 1
    said = " ".join(refused.output.split())
    assert f"voucher 5 has {2**63 - 1:,} units" in said
    assert f"{MAX_UNITS:,}" in said
    assert read_book(tmp_path / "vendor.key.book").boards["pi-0042"].next == 5


def test_a_key_is_named_in_several_ways(
    vendor: tuple[object, ...], tmp_path: Path
) -> None:
    """By its hash, by the log's verifier key, or by a file that holds one."""
    line = render_key(BOARD_KEY)
    path = tmp_path / "board.pub"
    path.write_text(line + "\n", encoding="ascii")
    for number, key in enumerate((KEY.hex(), line, path), 1):
        told = run(
            *("vouchers", "--board", f"board-{number}={key}", "--units", 1), *vendor
        )
        (raw,) = parse_file(told.output.encode())
        assert believed(raw, tmp_path).board == KEY
    wrong = run("vouchers", "--board", "x=nothing", "--units", 1, *vendor)
    assert (wrong.exit_code, "no board's key" in wrong.output) == (2, True)


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".svg", b"<?xml"), (".png", b"\x89PNG")]
)
def test_codes_are_drawn(
    vendor: tuple[object, ...], tmp_path: Path, suffix: str, magic: bytes
) -> None:
    """Each voucher has a picture of its own, or one in the terminal."""
    pytest.importorskip("segno")
    named = ("--board", f"pi={KEY.hex()}", "--units", 5)
    told = run(
        "vouchers", *named, *vendor, "--count", 2, "--qr", tmp_path / f"q{suffix}"
    )
    assert told.exit_code == 0
    for number in (1, 2):
        assert (tmp_path / f"q-{number}{suffix}").read_bytes().startswith(magic)
    shown = run("vouchers", *named, *vendor, "--qr", "-")
    assert "\N{FULL BLOCK}" in shown.output or "\x1b[" in shown.output
    odd = run("vouchers", *named, *vendor, "--qr", tmp_path / "q.bmp")
    assert odd.exit_code == 2


@pytest.mark.parametrize(
    "goods",
    [(), ("--units", 1, "--seconds", 1), ("--units", 0), ("--revoke", 1, "--units", 1)],
)
def test_one_thing_is_sold_at_a_time(goods: tuple[object, ...]) -> None:
    """None, or two at once, is a mistake of usage."""
    told = run("vouchers", "--board", "x", "--key", "none", *goods)
    assert told.exit_code == 2


def test_a_number_is_given_once(tmp_path: Path) -> None:
    """However often it is cut off after the book: a gap, never the same one again."""
    book = tmp_path / "book"
    private = VENDOR.private
    first = issue(private, wanted(count=3), book, NOW_S)
    again = issue(private, wanted(key=b""), book, NOW_S)
    assert len({*first, *again}) == 4
    assert read_book(book).boards["pi-0042"].next == 5


def test_another_key_or_none_is_refused(tmp_path: Path) -> None:
    """A board with another key is another board; one nobody knows has to be named."""
    book = tmp_path / "book"
    with pytest.raises(AgentError, match="is not in the book"):
        issue(VENDOR.private, wanted(key=b""), book, NOW_S)
    issue(VENDOR.private, wanted(), book, NOW_S)
    with pytest.raises(AgentError, match="another key"):
        issue(VENDOR.private, wanted(key=bytes(32)), book, NOW_S)
    with pytest.raises(AgentError) as refused:
        issue(VENDOR.private, wanted(units=2**60), book, NOW_S)
    assert refused.value.reason == Reason.UNITS
    assert read_book(book).boards["pi-0042"].next == 2


def test_a_damaged_book_sells_nothing(tmp_path: Path) -> None:
    """Without it numbers would be given twice."""
    book = tmp_path / "book"
    for content in (b"{", b'{"boards": 3}', b'{"boards": {}, "more": 1}'):
        book.write_bytes(content)
        with pytest.raises(AgentError) as refused:
            issue(VENDOR.private, wanted(), book, NOW_S)
        assert refused.value.reason == Reason.SETTINGS
        assert book.read_bytes() == content


def test_a_vendors_key_is_made_once(tmp_path: Path) -> None:
    """It is private, encrypted, and never replaced; other files may lie beside it."""
    (tmp_path / "other").touch()
    path = tmp_path / "vendor.key"
    make_vendor_key(path, b"words")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    with pytest.raises(AgentError, match="never overwritten"):
        make_vendor_key(path, b"words")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A file that is not there, and a line with a mistake, before anyone is asked."""
    missing = run("redeem", tmp_path / ("a-folder-" * 20) / "none.txt")
    assert (missing.exit_code, "none.txt" in missing.output) == (2, True)
    path = tmp_path / "typed.txt"
    path.write_text("AAAAA BBBBB CCCCC DDDDD EEEEE FFFFF\n", encoding="ascii")
    typed = run("redeem", path)
    assert (typed.exit_code, "line 1 has a mistake" in typed.output) == (1, True)


def test_a_report_is_checked_without_a_board(tmp_path: Path) -> None:
    """By the board's verifier key; another key's report is refused."""
    from agent.core.meter import UsageRow
    from agent.core.meter_report import Usage, render_report
    from agent.core.note import sign_note

    private = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
    usage = Usage(KEY.hex(), 7, 7, 0, (UsageRow(491_000, "ab" * 32, 7),))
    report = tmp_path / "usage.txt"
    report.write_text(
        render_report(usage, lambda text: sign_note(text, BOARD_KEY, private.sign)),
        encoding="utf-8",
    )
    for key, code in ((BOARD_KEY, 0), (NoteKey("x", VENDOR.public), 1)):
        line = tmp_path / "key"
        line.write_text(render_key(key), encoding="ascii")
        told = run("report", "--check", report, "--log-key", line, "--json")
        assert told.exit_code == code
        assert code or json.loads(told.output)["answers"] == 7


def test_the_status_says_all_of_it() -> None:
    """Left, used, lost, what a pipeline does; nothing of it moves a cursor."""
    found = msgspec.convert(msgspec.to_builtins(STATUS), StatusAnswer)
    text = "\n".join(render_status(found))
    for said in ("617 units", "383 of 1,000", "12 lost", "for 1 min", "then stops"):
        assert said in text
    assert "a power cut now costs 90 at most" in text
    odd = StatusAnswer(
        owed=5,
        until=2**60,
        trouble="disk\x1b[2J",
        pipelines={"a\x1b": PipelineAnswer("grace", 9, reason="unpaid")},
    )
    shown = "\n".join(render_status(odd))
    assert "\x1b" not in shown
    assert "5 owed" in shown
    assert "unpaid: stopped, its grace of 9 is used up" in shown
    assert "more are owed" not in shown
    assert {it.name for it in msgspec.structs.fields(MeterStatus)} == {
        it.name for it in msgspec.structs.fields(StatusAnswer)
    }


@pytest.mark.parametrize(
    ("policy", "reason", "said"),
    [
        ("stop", "unpaid", "unpaid: stopped"),
        ("degrade", "unpaid", "unpaid: answers 1 in 7"),
        ("grace", "", "then 4 more are owed at most"),
        ("degrade", "", "then answers one in 7"),
    ],
)
def test_the_status_says_what_a_pipeline_does_now(
    policy: str, reason: str, said: str
) -> None:
    """Once units are used up it does not speak of what will be then."""
    paid = PipelineAnswer(policy, 9, 7, reason=reason)
    shown = [*render_status(StatusAnswer(owed=5, pipelines={"door": paid}))]
    assert shown[-1].endswith(said)


def test_the_row_of_the_status_is_red_when_nothing_is_left() -> None:
    """It says what is left, and is no alarm where nothing is counted."""
    assert paid_text(MeterAnswer(left=9)) == Text("9 units left")
    assert paid_text(MeterAnswer()).style == "red"
    assert paid_text(MeterAnswer(unlimited=True)).style == ""
