"""Vouchers as QR codes: in files, or in the terminal.

The rules this module keeps:
 * A code holds the voucher's text in capitals and digits: QR's alphanumeric mode takes
   240 characters in a code of 57 modules a side.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from pathlib import Path

from agent.core.reasons import Reason
from agent.core.voucher import parse_fields
from agent.core.voucher_text import render_compact
from agent.errors import SettingsError
from agent.publish.files import write_durably

KINDS = (".svg", ".png")
SCALE = 4  # 1 mm a module when printed at 100 dots an inch
LEVEL = "m"  # 15 % of it may be dirt


def write_codes(vouchers: Sequence[bytes], path: Path) -> Iterator[str]:
    """Write a QR code for each voucher; yield what to say.

    Args:
        vouchers: Their bytes.
        path: A .svg or .png file; several are numbered. ``-`` yields them as text.

    Raises:
        SettingsError: segno is not installed, or the file is of another kind.
        DeviceError: A file cannot be written.
    """
    if str(path) != "-" and path.suffix not in KINDS:
        raise SettingsError(
            f"{path}: a QR code is a .svg or a .png file",
            reason=Reason.SETTINGS,
            todo="Name one of these, or - for the terminal.",
        )
    for raw in vouchers:
        if str(path) == "-":
            yield _text(raw)
            continue
        number = f"-{parse_fields(raw).seq}" if len(vouchers) > 1 else ""
        place = path.with_name(f"{path.stem}{number}{path.suffix}")
        write_durably(place, _image(raw, path.suffix[1:]), mode=0o600)
        yield f"wrote {place}"


def _image(raw: bytes, kind: str) -> bytes:
    """Return a code as an image."""
    code, out = _code(raw), BytesIO()
    code.save(out, kind=kind, scale=SCALE)
    return out.getvalue()


def _text(raw: bytes) -> str:
    """Return a code as lines for a terminal."""
    code, out = _code(raw), StringIO()
    code.terminal(out, compact=True)
    return out.getvalue()


def _code(raw: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - segno has no types
    """Return a voucher's code.

    Raises:
        SettingsError: segno is not installed.
    """
    try:
        import segno
    except ImportError as err:
        raise SettingsError(
            "QR codes need segno",
            reason=Reason.SETTINGS,
            todo="pip install 'tinyward[owner]'",
        ) from err
    return segno.make_qr(render_compact(raw), error=LEVEL)
