r"""Pointers: how a DDI server without metadata names a signed bundle.

hawkBit carries the name as metadata of a chunk: key ``tuf.target``, marked as visible
for targets, value ``models/<model>/<version>.bundle``. Servers that know no metadata
(gooseBit) carry it in an artifact of at most 4096 bytes, the *pointer*, which is one of

 * JSON: ``{"tuf.target": "models/kws/7.bundle"}``;
 * the path alone, on the first line;
 * a ``.swu`` (cpio, "newc" or "crc") with a member ``tinyward.json`` that is one of the
   above. gooseBit takes nothing else than images whose first member is a
   ``sw-description`` in libconfig syntax; that member's version is the server's own and
   means nothing here::

       echo 'software = { version = "7.0.0"; }' > sw-description
       echo '{"tuf.target": "models/kws/7.bundle"}' > tinyward.json
       printf 'sw-description\ntinyward.json\n' | cpio -o -H crc > kws-7.swu

The rules this module keeps:
 * A pointer is untrusted and names a target, nothing more: what runs is what the
   ``targets`` keys signed under that name.
 * Parsers raise ``BundleRefusedError`` with reason ``protocol``, nothing else.

>>> parse_target_path("models/kws/7.bundle")
Wanted(model='kws', version=7)
>>> parse_pointer(b'{"tuf.target": "models/kws/7.bundle"}')
Wanted(model='kws', version=7)

Source: new ASCII format of cpio(5).
"""

import msgspec

from agent.core.reasons import Reason
from agent.core.targets import Wanted, bundle_path
from agent.errors import BundleRefusedError

KEY = "tuf.target"
MEMBER = "tinyward.json"
# A description, a path and cpio's padding take 1 kB; no bundle of a model fits.
MAX_POINTER_BYTES = 4096
_CPIO = (b"070701", b"070702")
_HEADER = 110  # six bytes of magic, thirteen fields of eight hexadecimal digits
_SIZE, _NAME_SIZE = slice(54, 62), slice(94, 102)
_MAX_MEMBERS = 16
_END = b"TRAILER!!!"


def parse_target_path(path: str) -> Wanted:
    """Return the model and version that a bundle's target path names.

    Law: ``parse_target_path(bundle_path(w.model, w.version)) == w``.

    Raises:
        BundleRefusedError: ``protocol``: it is no such path.
    """
    model, _, file = path.removeprefix("models/").partition("/")
    digits = file.removesuffix(".bundle")
    try:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise _unclear(f"{path[:100]!r} is no path of a bundle")
        wanted = msgspec.convert({"model": model, "version": int(digits)}, Wanted)
    except msgspec.ValidationError as err:
        raise _unclear(f"{path[:100]!r} is no path of a bundle") from err
    # One spelling only: no leading zeros, nothing in front or behind.
    if bundle_path(wanted.model, wanted.version) != path:
        raise _unclear(f"{path[:100]!r} is no path of a bundle")
    return wanted


def parse_pointer(raw: bytes) -> Wanted:
    """Return what a pointer names.

    Raises:
        BundleRefusedError: ``protocol``.
    """
    if len(raw) > MAX_POINTER_BYTES:
        raise _unclear(f"has {len(raw)} bytes, at most {MAX_POINTER_BYTES} allowed")
    text = _member(raw) if raw.startswith(_CPIO) else raw
    if text.lstrip().startswith(b"{"):
        return parse_target_path(_named(text))
    try:
        lines = text.decode("ascii").split("\n", 1)
    except UnicodeDecodeError as err:
        raise _unclear("is neither JSON nor a path") from err
    return parse_target_path(lines[0].strip())


def _named(text: bytes) -> str:
    """Return the path that a JSON pointer names."""
    try:
        value = msgspec.json.decode(text, type=dict[str, object]).get(KEY)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise _unclear(f"is no JSON object: {err}") from err
    if not isinstance(value, str):
        raise _unclear(f"has no text {KEY!r}")
    return value


def _member(raw: bytes) -> bytes:
    """Return the pointer's member of a cpio archive.

    Raises:
        BundleRefusedError: ``protocol``: there is none, or the archive is cut short.
    """
    at = 0
    for _ in range(_MAX_MEMBERS):
        header = raw[at : at + _HEADER]
        if len(header) < _HEADER or not header.startswith(_CPIO):
            raise _unclear("is a cpio archive that is cut short")
        size, name_size = _number(header[_SIZE]), _number(header[_NAME_SIZE])
        name = raw[at + _HEADER : at + _HEADER + name_size].rstrip(b"\0")
        begin = _padded(at + _HEADER + name_size)
        if begin + size > len(raw):
            raise _unclear("is a cpio archive that is cut short")
        if name == MEMBER.encode():
            return raw[begin : begin + size]
        if name == _END:
            break
        at = _padded(begin + size)
    raise _unclear(f"is a cpio archive without a member {MEMBER!r}")


def _number(digits: bytes) -> int:
    """Return a field of a cpio header.

    Raises:
        BundleRefusedError: ``protocol``: it is no number.
    """
    # ``int`` would take signs, spaces and underscores as well.
    if not digits.isalnum():
        raise _unclear("is a cpio archive with a strange header")
    try:
        return int(digits, 16)
    except ValueError as err:
        raise _unclear("is a cpio archive with a strange header") from err


def _padded(offset: int) -> int:
    """Return the next offset that is a multiple of four."""
    return offset + -offset % 4


def _unclear(what: str) -> BundleRefusedError:
    """Return the error for a pointer that names nothing."""
    return BundleRefusedError(f"pointer {what}", reason=Reason.PROTOCOL)
