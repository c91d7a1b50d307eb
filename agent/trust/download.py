"""One target on its way here: resumed, bounded, and believed only as a whole.

The rules this module keeps:
 * The digest runs over every byte, those kept from an earlier call included. Bytes of
   two connections that do not fit together are dropped once and fetched anew.
 * A file whose length is announced wrongly, or that begins as a web page, is refused
   before anything kept is dropped: a captive portal does not cost half a download.
 * The number of retries is bounded by what they bring. What is too slow is left to a
   later call, which goes on where this one stopped.
 * ``write`` is asked (with no bytes) whether it still wants the rest, at least each
   second; whatever it raises ends the download.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, Self

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.trust.fetcher import Fetcher, Part, TransportError

RETRIES = 5  # in a row that brought nothing worth mentioning
WORTH_BYTES = 256 * 1024  # a retry that brought as much was worth it
_NOTHING = memoryview(b"")
_ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})


class Resumable(Protocol):
    """What is here of a target whose fetching was interrupted."""

    @property
    def kept(self) -> memoryview:
        """The bytes from its beginning that are here."""

    @property
    def tag(self) -> str:
        """The strong ETag under which they were served, else empty."""

    def remember(self, tag: str) -> None:
        """Take the ETag under which the bytes that follow are served."""

    def restart(self) -> None:
        """Drop what is kept: the next byte written is the first."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed about a target, and the name it is served by.

    Attributes:
        path: The target's name; ``served`` its path below the repository.
        length: Its bytes.
        hashes: Algorithm -> hex digest; all have to hold.
    """

    path: str
    served: str
    length: int
    hashes: Mapping[str, str]

    @classmethod
    def of(cls, path: str, length: int, sha256: str, *, prefixed: bool) -> Self:
        """Return what was signed; ``prefixed`` names it by its digest, too."""
        folder, slash, last = path.rpartition("/")
        name = f"{folder}{slash}{sha256}.{last}" if prefixed else path
        return cls(path, f"targets/{name}", length, {"sha256": sha256})


class SmallContent:
    """A target that is kept in memory; implements ``Resumable``."""

    def __init__(self) -> None:
        self._content = bytearray()
        self.tag = ""

    @property
    def kept(self) -> memoryview:
        """Nothing to begin with: a new one is made for each call."""
        return _NOTHING

    def remember(self, tag: str) -> None:
        """Take the tag."""
        self.tag = tag

    def restart(self) -> None:
        """Drop everything."""
        self._content.clear()

    def write(self, chunk: memoryview) -> None:
        """Append bytes."""
        self._content += chunk

    def content(self) -> bytes:
        """Return what was written."""
        return bytes(self._content)


class Download:
    """One call of ``TrustedRepository.fetch``."""

    def __init__(
        self,
        fetcher: Fetcher,
        signed: Signed,
        write: Callable[[memoryview], None],
        resume: Resumable | None = None,
        pause_s: float = 0.5,
    ) -> None:
        """Take over what is kept; nothing is fetched yet.

        Args:
            fetcher: Reads the repository.
            signed: What to fetch.
            write: Takes the bytes, in order.
            resume: What is kept of them; without it, nothing can be written twice and
                a connection that breaks ends the call.
            pause_s: Before the first retry; doubled each time, with full jitter.
        """
        self._fetcher = fetcher
        self._signed = signed
        self._write = write
        self._resume = resume
        self._pause_s = pause_s
        self._tag = ""
        self._taken = self._reused = 0
        self._digests = _digests(signed)
        self._joined = False  # whether bytes of two connections lie behind each other

    def run(self) -> int:
        """Fetch and verify; return how many kept bytes were not fetched again.

        Raises:
            BundleRefusedError: ``length`` or ``digest``.
            DownloadError: It could not be fetched, or not yet.
        """
        self._take_kept()
        self._fill()
        if not self._holds() and self._joined:
            self._restart()
            self._fill()
        if not self._holds():
            raise self._refused("its content is not what was signed", Reason.DIGEST)
        return self._reused

    def _holds(self) -> bool:
        """Tell whether everything is here, as it was signed."""
        found = {name: digest.hexdigest() for name, digest in self._digests.items()}
        return found == dict(self._signed.hashes)

    def _take_kept(self) -> None:
        """Go on behind what is kept, if the server can be asked for the rest."""
        if self._resume is None or not len(self._resume.kept):
            return
        kept, tag = self._resume.kept, self._resume.tag
        if tag and len(kept) <= self._signed.length:
            self._hash(kept)
            self._taken = self._reused = len(kept)
            self._tag, self._joined = tag, True
        else:
            self._resume.restart()

    def _restart(self) -> None:
        """Begin again with the first byte."""
        if self._resume is not None:
            self._resume.restart()
        self._taken = self._reused = 0
        self._digests = _digests(self._signed)
        self._tag, self._joined = "", False

    def _fill(self) -> None:
        """Fetch until the signed length is here, reconnecting while that pays."""
        best, fruitless = self._taken, 0
        while self._taken < self._signed.length or not self._signed.length:
            try:
                self._connect()
            except TransportError as err:
                # The farthest we ever got counts: starting over is no progress.
                fruitless = 0 if self._taken >= best + WORTH_BYTES else fruitless + 1
                best = max(best, self._taken)
                if not self._worth_a_retry(err, fruitless):
                    raise
                self._pause(fruitless)
            else:
                return

    def _worth_a_retry(self, error: TransportError, fruitless: int) -> bool:
        """Tell whether to connect again at once."""
        if self._resume is None and self._taken:
            return False
        if error.reason == Reason.TOO_SLOW:
            return fruitless == 0
        return error.reason == Reason.UNREACHABLE and fruitless <= RETRIES

    def _pause(self, fruitless: int) -> None:
        """Wait before a retry, unless nobody wants it any more."""
        left_s = self._pause_s * 2**fruitless * random.random()  # noqa: S311 - jitter
        while left_s > 0:
            time.sleep(min(left_s, 1.0))
            left_s -= 1.0
            self._pulse()

    def _pulse(self) -> None:
        """Let ``write`` end the download although there is nothing to write."""
        self._write(_NOTHING)

    def _connect(self) -> None:
        """Take from one connection as much as it gives."""
        self._pulse()
        served, tag = self._signed.served, self._tag
        with self._fetcher.open_part(served, self._taken, tag, self._pulse) as part:
            # Read before anything is dropped, or judged: it may be a web page.
            first = next(part.chunks, b"")
            if part.length not in {None, self._signed.length}:
                what = f"it has {part.length} bytes there, other"
                raise self._refused(what, Reason.LENGTH)
            self._begin(part)
            for chunk in chain((first,) if first else (), part.chunks):
                self._take(chunk)
        if self._taken < self._signed.length:
            if part.length is None and self._taken > part.start:
                # Without a length, an end may be a connection that was cut.
                raise TransportError(f"{served}: ended after {self._taken} bytes")
            raise self._refused(f"{self._taken} bytes, fewer", Reason.LENGTH)

    def _begin(self, part: Part) -> None:
        """Prepare for a part: the rest, or the whole file again."""
        if part.start != self._taken:
            self._restart()
        if part.start:
            self._joined = True
            return
        self._tag = part.tag
        if self._resume is not None:
            self._resume.remember(part.tag)

    def _take(self, chunk: bytes) -> None:
        """Hash and hand over what has arrived."""
        if self._taken + len(chunk) > self._signed.length:
            raise self._refused("more bytes", Reason.LENGTH)
        self._write(memoryview(chunk))
        self._hash(chunk)
        self._taken += len(chunk)

    def _hash(self, content: bytes | memoryview) -> None:
        """Let the digests run over bytes."""
        for digest in self._digests.values():
            digest.update(content)

    def _refused(self, what: str, reason: Reason) -> BundleRefusedError:
        """Return the error for content that was not signed."""
        than = f" than the {self._signed.length} signed"
        text = f"{what}{than if reason == Reason.LENGTH else ''}"
        return BundleRefusedError(f"{self._signed.path}: {text}", reason=reason)


def _digests(signed: Signed) -> "dict[str, hashlib._Hash]":
    """Return a new digest for each algorithm that was signed.

    Raises:
        BundleRefusedError: ``metadata``: there is none, or one that nobody knows.
    """
    if not signed.hashes or not _ALGORITHMS.issuperset(signed.hashes):
        raise BundleRefusedError(
            f"{signed.path}: hashed by {sorted(signed.hashes)}", reason=Reason.METADATA
        )
    return {name: hashlib.new(name) for name in signed.hashes}
