"""The meter's file: two slots that are written in turn, and a mark beside them.

Why no table of SQLite: a lease is one write of a few hundred bytes and one fdatasync of
a file whose room was taken before, at a fixed place. A commit in a write-ahead log
writes whole pages and lets the log grow, and a checkpoint of it syncs twice more.

The rules this module keeps:
 * A slot holds a serial number, a length and a SHA-256. The newest one that is whole
   counts: a write that a loss of power tore leaves the one before, and nothing was
   answered on the torn one's account yet.
 * A file in which no slot is whole is refused, never begun anew: with it would be gone
   which vouchers were redeemed.
 * The mark says up to where workers were let answer. It is not synced: it outlives the
   process, not the machine, and counts in the boot that wrote it only.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from agent.audit.files import Folder
from agent.core.disk_reasons import disk_error
from agent.core.meter import MeterState
from agent.core.reasons import Reason
from agent.errors import DeviceError

NAME = "meter.bin"
MAGIC = b"TWMETER1"
HEADER = struct.Struct(">8sQI32s")  # magic, serial, length, SHA-256 of all the rest
# 256 rows of a usage report take 22 kB.
SLOT_BYTES = 32_768
MARK_AT = 2 * SLOT_BYTES
MARK = struct.Struct(">8s16sQ16s")  # magic, boot, units, half a SHA-256 of these
FILE_BYTES = MARK_AT + 4096
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class MeterFile:
    """The durable state of one meter.

    Args:
        folder: Where it lies; it is there, and locked.
        boot_id: The file that names this boot of the kernel.
    """

    def __init__(self, folder: Folder, boot_id: Path = BOOT_ID) -> None:
        self._folder = folder
        self._serial = 0
        self._boot = _read_boot(boot_id)

    def load(self) -> MeterState | None:
        """Return what was saved last; None where nothing ever was.

        Raises:
            DeviceError: ``state``: no slot is whole; else what the disk says.
        """
        with _disk_errors():
            raw = self._folder.read(NAME, 0, MARK_AT)
        if not any(raw):
            return None  # it was being made when the power went
        found = [
            it
            for at in (0, SLOT_BYTES)
            if (it := _parse_slot(raw[at : at + SLOT_BYTES])) is not None
        ]
        if not found:
            raise DeviceError(
                f"{self._folder.path / NAME}: no part of it is whole",
                reason=Reason.STATE,
                todo="Keep it, and ask who sells the vouchers: without it nobody knows "
                "which were redeemed.",
            )
        self._serial, state = max(found, key=lambda it: it[0])
        return state

    def save(self, state: MeterState) -> None:
        """Save a state; it is durable when this returns.

        Raises:
            DeviceError: It may be or not be; what was saved before is there still.
        """
        serial = self._serial + 1
        content = msgspec.msgpack.encode(state)
        head = HEADER.pack(MAGIC, serial, len(content), _digest(serial, content))
        with _disk_errors():
            if self._serial == 0:
                self._folder.allocate(NAME, FILE_BYTES)
            self._folder.write(NAME, serial % 2 * SLOT_BYTES, head + content)
            self._folder.sync([NAME])
        self._serial = serial

    def mark(self, handed: int) -> None:
        """Note up to where workers are let answer, before they are.

        Raises:
            DeviceError: It was not noted.
        """
        body = MARK.pack(MAGIC, self._boot, handed, bytes(16))[:-16]
        with _disk_errors():
            self._folder.write(NAME, MARK_AT, body + sha256(body).digest()[:16])

    def marked(self) -> int | None:
        """Return the mark, if it was made in this boot of the kernel.

        Raises:
            DeviceError: What the disk says.
        """
        with _disk_errors():
            raw = self._folder.read(NAME, MARK_AT, MARK.size)
        if len(raw) != MARK.size:
            return None
        magic, boot, handed, check = MARK.unpack(raw)
        if magic != MAGIC or check != sha256(raw[:-16]).digest()[:16]:
            return None
        return int(handed) if boot == self._boot and any(boot) else None


def _parse_slot(raw: bytes) -> tuple[int, MeterState] | None:
    """Return a slot's serial number and state; None where it is not whole."""
    if len(raw) < HEADER.size:
        return None
    magic, serial, length, digest = HEADER.unpack_from(raw)
    content = raw[HEADER.size : HEADER.size + length]
    if magic != MAGIC or len(content) != length or digest != _digest(serial, content):
        return None
    try:
        return serial, msgspec.msgpack.decode(content, type=MeterState)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # of a newer agent: what that says cannot be counted on


def _digest(serial: int, content: bytes) -> bytes:
    """Return the check of a slot."""
    return sha256(serial.to_bytes(8, "big") + content).digest()


def _read_boot(path: Path) -> bytes:
    """Return what this boot is known by; zeros where the kernel does not say."""
    try:
        return sha256(path.read_bytes()).digest()[:16]
    except OSError:
        return bytes(16)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Translate what the disk says.

    Raises:
        DeviceError: ``disk_full``, ``read_only``, ``permission``, ``descriptors``, else
            ``state``.
    """
    try:
        yield
    except OSError as err:
        raise disk_error(err, {}) from err
