"""Opening a sealed bundle: ciphertext and envelope in, a checked ``Bundle`` out.

The rules this module keeps:
 * Plain bytes exist in a memfd without a name and in one buffer of 272 KiB, which is
   wiped: in no file, and in no list of pieces.
 * Nothing is handed on, or parsed, before the last tag, the plain length and the signed
   plain digest agree; then the memfd is sealed (F_SEAL_*) and cannot change any more.
 * Marks are written between the two, and what they changed is hashed again.
 * Keys live as long as one call. Python cannot wipe them; the daemon allows no core
   dump and no debugger, and `tinyward doctor` looks for swap.
 * Raises ``BundleRefusedError`` (``envelope``, ``unseal`` or what ``open_bundle``
   says) or ``DeviceError`` (``seal_key``, no memory), for any bytes.
"""

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from cryptography.exceptions import InvalidTag

from agent.core.container import parse_container
from agent.core.disk_reasons import disk_reason
from agent.core.reasons import Reason
from agent.core.sealing import Marks, Sealed, content_context, sealed_bytes
from agent.core.targets import bundle_path
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.bundle import Bundle, open_bundle
from agent.trust.decrypting import BUFFER_BYTES, Decryption, decrypt
from agent.trust.envelope import open_envelope
from agent.trust.marks import write_marks
from agent.trust.seal_key import LoadKey

_SEALS = (
    fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
)


class Unsealer:
    """Opens bundles that are sealed for one board."""

    def __init__(self, board: str, load_key: LoadKey) -> None:
        """Args: whose envelopes to open; ``key_loader``'s, asked at each opening."""
        self._board = board
        self._load_key = load_key

    def open(
        self, content: memoryview, target_sha256: str, sealed: Sealed, envelope: bytes
    ) -> Bundle:
        """Open a sealed bundle; 50 MB take 50 ms, so ask a thread.

        Args:
            content: The ciphertext, whose signed digest the caller has verified.
            target_sha256: That digest: ``Bundle.sha256``.
            sealed: What its target's signed fields say.
            envelope: This board's.

        Raises:
            BundleRefusedError: ``envelope``, ``unseal``, or as ``open_bundle``.
            DeviceError: ``seal_key``; or there is no memory.
        """
        _check_length(content, sealed)
        # Before any memory is taken: most refusals are of an envelope.
        opened = open_envelope(envelope, self._load_key(), self._board, sealed)
        with _memory(f"sealed-{sealed.model}") as descriptor:
            unseal_into(descriptor, content, opened.key, sealed)
            bundle = _opened(descriptor, sealed, opened.marks)
        return replace(bundle, sha256=target_sha256, size=len(content))


def _check_length(content: memoryview, sealed: Sealed) -> None:
    """The signed plain length decides the ciphertext's, before memory is taken."""
    expected = sealed_bytes(sealed.sealing.algorithm, sealed.plain_bytes)
    if len(content) != expected:
        raise _refused(sealed, f"it has {len(content)} bytes, not {expected}")


def unseal_into(
    descriptor: int, content: memoryview, key: bytes, sealed: Sealed
) -> None:
    """Decrypt into an empty file; returns only if every byte is what the owner signed.

    Args:
        descriptor: The file; what is in it after a refusal is nobody's to read.
        content: The ciphertext.
        key: The content key.
        sealed: What is signed about it.

    Raises:
        BundleRefusedError: ``unseal``.
        OSError: The file cannot be written.
    """
    decryption = _decryption(content, key, sealed)
    buffer = bytearray(BUFFER_BYTES)
    try:
        with memoryview(buffer) as view:
            written, digest = _copied(descriptor, content, decryption, view)
    except (InvalidTag, ValueError) as err:
        raise _refused(sealed, "it was changed, cut or put together") from err
    finally:
        buffer[:] = bytes(len(buffer))  # the last window of the model
    if (written, digest) != (sealed.plain_bytes, sealed.plain_sha256):
        raise _refused(sealed, "its plain bytes are not the signed ones")


def _decryption(content: memoryview, key: bytes, sealed: Sealed) -> Decryption:
    """Begin to decrypt with the algorithm that is signed."""
    algorithm = sealed.sealing.algorithm
    target = bundle_path(sealed.model, sealed.version)
    try:
        context = content_context(target, sealed.version)
        return decrypt(algorithm, content, key, context)
    except ImportError as err:
        raise BundleRefusedError(
            f"{target} is sealed with {algorithm}, which this board's cryptography "
            "does not have",
            reason=Reason.UNSEAL,
            todo="`pip install 'cryptography>=50'` beside the agent.",
        ) from err  # a refusal, not trouble of the board: it keeps the model it has


@contextmanager
def _memory(name: str) -> Iterator[int]:
    """Open a memfd for a moment; mappings of it stay.

    Raises:
        DeviceError: There is no memory, or no descriptor.
    """
    descriptor = -1
    try:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        descriptor = os.memfd_create(name, flags)
        yield descriptor
    except (OSError, MemoryError) as err:
        said = err.strerror if isinstance(err, OSError) else "no memory"
        number = err.errno if isinstance(err, OSError) else None
        what = f"unsealing in memory: {said}"
        raise DeviceError(what, reason=disk_reason(number)) from err
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _copied(
    descriptor: int, content: memoryview, decryption: Decryption, buffer: memoryview
) -> tuple[int, str]:
    """Return length and digest of the plain bytes, now in the memfd."""
    digest, written, let_go = hashlib.sha256(), 0, 0
    for read, plain in decryption.into(buffer):
        with buffer[:plain] as piece:
            digest.update(piece)
            _write(descriptor, piece)
        written += plain
        let_go = _let_go(content, let_go, read)
    return written, digest.hexdigest()


def _write(descriptor: int, content: memoryview) -> None:
    """Append all of a piece."""
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written:])


def _let_go(content: memoryview, begin: int, read: int) -> int:
    """Give back pages of a mapped ciphertext that were read; return where they end.

    Only of a file that is mapped for reading as a whole: there the pages come back
    from the file if anybody looks again, and meanwhile are no memory of this process.
    """
    source, end = content.obj, read - read % mmap.PAGESIZE
    if not isinstance(source, mmap.mmap) or len(source) != len(content):
        return end
    with memoryview(source) as whole:
        if whole.readonly and end > begin:
            source.madvise(mmap.MADV_DONTNEED, begin, end - begin)
    return end


def _opened(descriptor: int, sealed: Sealed, marks: Marks | None) -> Bundle:
    """Seal the plain bytes, marked if need be, and open what is then unchangeable."""
    if marks is None:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        view = _mapped(descriptor, sealed.plain_bytes)
        return open_bundle(view, max_bytes=len(view), sha256=sealed.plain_sha256)
    view = _mapped(descriptor, sealed.plain_bytes)
    bundle = open_bundle(view, max_bytes=len(view), sha256=sealed.plain_sha256)
    # By the descriptor: a writable mapping would have to be gone before sealing.
    write_marks(descriptor, parse_container(view), bundle.manifest, marks)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    for name, expected in marks.results.items():
        # Through the mapping that is handed on, which shows what was written beside it.
        if hashlib.sha256(bundle.variant_bytes(name)).hexdigest() != expected:
            raise BundleRefusedError(
                f"envelope: marked variant {name!r} is not what its owner signed",
                reason=Reason.ENVELOPE,
            )
    return replace(bundle, marks=marks)


def _mapped(descriptor: int, size: int) -> memoryview:
    """Map the memfd for reading.

    Private, because a shared mapping counts as a writer until Linux 6.7, and a sealed
    memfd has none; without a write to it, a private mapping shows the file itself.
    """
    return memoryview(
        mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    )


def _refused(sealed: Sealed, what: str) -> BundleRefusedError:
    """Return the error for a ciphertext that is not what was sealed."""
    return BundleRefusedError(
        f"sealed {sealed.model} {sealed.version}: {what}", reason=Reason.UNSEAL
    )
