"""Kept inputs on the disk: sealed to the model's owner, the newest that fit a quota.

The rules this module keeps:
 * Nothing is on the disk that this board could read again: a sample is encrypted to the
   owner's public key in memory, and what is written is what came of that.
 * Files are named by the number of their receipt, and appear whole. They are not
   synced: a loss of power may cost the last ones, and an audit says which.
 * The oldest go first. What does not fit at all, or comes faster than the disk takes
   it, is not kept, and is counted; the log of receipts says which (``untold``).
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock

from agent.audit.log import NO_SEQ
from agent.core.disk_reasons import disk_reason
from agent.core.kept import kept_name, kept_seq, seal_context
from agent.core.kept_gaps import Gaps, render_gaps
from agent.core.reasons import Reason
from agent.core.receipts import name_word
from agent.errors import AgentError

log = logging.getLogger(__name__)
FOLDER = "audit-kept"  # of the state directory, beside the log's own
MB = 1_000_000
MAX_WAITING = 64  # samples in memory that wait for the disk, of 8 MB at most
MAX_WAITING_BYTES = 32 * MB
TELL_S = 1.0  # at most so often is said what was not kept: a second's runs in one event
Seal = Callable[[bytes, bytes], bytes]  # (content, what it is bound to) -> sealed


class KeptInputs:
    """Keeps samples; satisfies ``agent.supervise.receipts.Keeper``.

    Args:
        folder: Where; made when the first one comes.
        quota_mb: What they may take in all.
        board: The board's id, which every file is bound to.
        seal: Encrypts to the owner.

    Attributes:
        skipped: Samples that were not kept.
    """

    def __init__(self, folder: Path, quota_mb: float, board: str, seal: Seal) -> None:
        self.folder = folder
        self._quota_bytes = int(quota_mb * MB)
        self._board = board
        self._seal = seal
        self._files: OrderedDict[int, int] | None = None  # seq -> bytes, once looked at
        self._bytes = 0
        self._waiting = self._waiting_bytes = 0
        self._lock = Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._said = Reason.NONE
        self._gaps = Gaps()  # under the lock
        self._told_s = 0.0
        self.skipped = 0

    def keep(self, pipeline: str, seq: int, content: bytes) -> None:
        """Take one sample; a thread seals and writes it."""
        if seq >= NO_SEQ:  # its receipt found no room: nobody could ask for it
            self.skipped += 1
            return
        with self._lock:
            waiting = self._waiting_bytes + len(content)
            if self._waiting >= MAX_WAITING or waiting > MAX_WAITING_BYTES:
                self.skipped += 1
                self._gaps.miss(pipeline, seq, late=False)
                return
            self._gaps.hit(pipeline, late=False)
            self._waiting, self._waiting_bytes = self._waiting + 1, waiting
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "kept-inputs")
        context = seal_context(self._board, name_word(pipeline), seq)
        self._thread.submit(self._keep, pipeline, seq, content, context)

    def untold(self, *, at_once: bool = False) -> list[dict[str, object]]:
        """Return facts for events ``NOT_KEPT``: what was not kept and not said yet.

        Args:
            at_once: Nothing will be asked for later.
        """
        now_s = time.monotonic()
        if not at_once and now_s - self._told_s < TELL_S:
            return []
        with self._lock:
            found = self._gaps.take()
        if found:
            self._told_s = now_s
        return [it for name, runs in found.items() for it in render_gaps(name, runs)]

    def miss(self, count: int) -> None:
        """Count samples that were to be kept, and were lost before they came here."""
        self.skipped += count

    def close(self) -> None:
        """Wait until everything that was taken is written; nothing may come after."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _keep(self, pipeline: str, seq: int, content: bytes, context: bytes) -> None:
        """Seal and write one sample; it is worth nobody's error."""
        is_kept = False
        try:
            sealed = self._seal(content, context)
            if self._make_room(len(sealed)):
                self._write(seq, sealed)
                is_kept = True
            else:
                self.skipped += 1
            self._said = Reason.NONE
        except OSError as err:
            self._skip(disk_reason(err.errno), str(err))
        except AgentError as err:
            self._skip(Reason(err.reason), str(err))
        finally:
            with self._lock:
                if is_kept:
                    self._gaps.hit(pipeline, late=True)
                else:
                    self._gaps.miss(pipeline, seq, late=True)
                self._waiting -= 1
                self._waiting_bytes -= len(content)

    def _write(self, seq: int, sealed: bytes) -> None:
        """Write one file."""
        name = kept_name(seq)
        aside = self.folder / f"{name}.tmp"
        try:
            # The names of kept inputs are public; what they were is for nobody here.
            aside.touch(mode=0o600)
            aside.write_bytes(sealed)
            aside.replace(self.folder / name)
        except OSError:
            with suppress(OSError):
                aside.unlink()
            raise
        files = self._known()
        self._bytes += len(sealed) - files.pop(seq, 0)
        files[seq] = len(sealed)

    def _make_room(self, size: int) -> bool:
        """Remove the oldest until one more fits; False if it never will."""
        if size > self._quota_bytes:
            return False
        files = self._known()
        while files and self._bytes + size > self._quota_bytes:
            seq, freed = files.popitem(last=False)
            with suppress(FileNotFoundError):
                (self.folder / kept_name(seq)).unlink()
            self._bytes -= freed
        return True

    def _known(self) -> OrderedDict[int, int]:
        """Return what lies there, the oldest first."""
        if self._files is None:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            found: list[tuple[int, int]] = []
            for path in self.folder.iterdir():
                seq = kept_seq(path.name)
                if seq is None:
                    path.unlink()  # half of a file, from before a loss of power
                else:
                    found.append((seq, path.stat().st_size))
            self._files = OrderedDict(sorted(found))
            self._bytes = sum(self._files.values())
        return self._files

    def _skip(self, reason: Reason, detail: str) -> None:
        """Count a sample that was not kept; say the first of each reason."""
        self.skipped += 1
        if self._said is not reason:
            self._said = reason
            log.warning("audit.not_kept", extra={"reason": reason, "detail": detail})


class KeptFolder:
    """Kept inputs as a folder holds them; satisfies the endpoint's ``KeptInputs``.

    Args:
        folder: Where they lie; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def seqs(self, first: int, end: int) -> list[int]:
        """Return which receipts from ``first`` to before ``end`` have their input."""
        try:
            found = [kept_seq(path.name) for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(seq for seq in found if seq is not None and first <= seq < end)

    def read(self, seq: int) -> bytes | None:
        """Return one sealed sample; None where it is not there any more."""
        try:
            return (self._folder / kept_name(seq)).read_bytes()
        except FileNotFoundError:
            return None
