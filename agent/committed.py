"""The models that the store says are committed, opened and given to their pipelines.

The rules this module keeps:
 * What runs is hashed before it is parsed; bytes that rotted fall back to the previous
   ones, and what the owner revoked does not start.
 * A disk that cannot be read delays one pipeline, never the others: it is read again.
 * So does a sealed model that nothing here opens: its bytes are whole, and what lacks
   is this board's key, or an envelope for it. Nothing falls back for that.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NoReturn, Protocol

from agent.core.explanations import EXPLANATIONS
from agent.core.installed import Installed
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.core.sealing import Sealed
from agent.errors import BundleRefusedError, DeviceError
from agent.store import Store
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.trust.bundle import open_bundle

log = logging.getLogger(__name__)
COMMITTED = "committed"  # the result of reports of updates that were
READ_AGAIN_S = 10.0  # a mount that comes late, a permission that was mended
# Why a model that was verified once is not started; the bytes, not the disk.
UNUSABLE = {Reason.DIGEST: "model.rotten", Reason.REVOKED: "model.revoked"}
# Why a sealed model is not started; neither the bytes nor the disk.
OF_THE_ENVELOPE = frozenset({Reason.ENVELOPE, Reason.UNSEAL, Reason.WATERMARK})
CLOSED = OF_THE_ENVELOPE | {Reason.SEAL_KEY}


def _untold(name: str) -> None:
    """Tell nobody which pipeline comes next."""
    del name


class Unsealer(Protocol):
    """Opens sealed bundles; see ``agent.update.needs.Unsealer``."""

    def check(self, sealed: Sealed, envelope: bytes) -> None:
        """Stay silent if this envelope is for this board, model and version."""

    def open(
        self, content: memoryview, target_sha256: str, sealed: Sealed, envelope: bytes
    ) -> OpenedBundle:
        """Return the opened bundle."""


class CommittedModels:
    """Hands committed models to pipelines.

    Args:
        store: What is committed.
        pipelines: By name.
        revoked: Returns the digests that the owner revoked, as known here.
        unsealer: Opens those that are sealed.
    """

    def __init__(
        self,
        store: Store,
        pipelines: Mapping[str, Pipeline],
        revoked: Callable[[], Collection[str]],
        unsealer: Unsealer,
    ) -> None:
        self._store = store
        self._pipelines = pipelines
        self._revoked = revoked
        self._unsealer = unsealer
        self._unread: set[str] = set()  # pipelines whose model could not be read
        self._closed: dict[str, tuple[Installed, Reason]] = {}  # those of them sealed

    def boot(self, before: Callable[[str], None] = _untold) -> None:
        """Give every pipeline the model the store says is committed.

        ``before`` is called with the name of each: its bytes may take long to hash.
        """
        for name in self._pipelines:
            before(name)
            self.begin(name)

    def begin(self, name: str) -> None:
        """Give a pipeline that begins the model the store says is committed."""
        if self._start(name):
            closed = self._closed.get(name)
            if closed is not None:
                self._pipelines[name].give(None, closed[1])
        elif self._was_revoked(name):
            self._pipelines[name].give(None, Reason.REVOKED)

    def look_up(self, name: str) -> None:
        """Let a pipeline run what is committed of another model of the settings."""
        placed = self._read(name)
        why = Reason.NO_MODEL if placed is None else Reason.REQUESTED
        self._pipelines[name].give(placed, why)

    def give(self, name: str) -> None:
        """Let a pipeline run what is committed now, or nothing where nothing is.

        The pipeline's model was revoked or set aside, or what opens it came.
        """
        if name not in self._pipelines:
            return  # it was removed meanwhile
        why = Reason.REQUESTED if name in self._closed else Reason.REVOKED
        placed = self._read(name)
        if name not in self._unread:
            self._pipelines[name].give(placed, why)

    def unopened(self) -> dict[str, Installed]:
        """Return pipeline -> its committed model, where no kept envelope opens it."""
        return {
            name: installed
            for name, (installed, reason) in self._closed.items()
            if reason in OF_THE_ENVELOPE and name in self._pipelines
        }

    async def read_again(self) -> NoReturn:
        """Try again, now and then, what could not be read."""
        while True:
            await asyncio.sleep(READ_AGAIN_S)
            self._unread &= self._pipelines.keys()
            for name in tuple(self._unread):
                self._start(name)

    async def after_crash_loop(self, name: str, reason: str) -> Placed | None:
        """A model killed its workers in a row: the one before it takes over, if any."""
        try:
            failed = self._store.slots(name).active
            installed = self._fall_back(name, Reason.CRASH_LOOP)
        except DeviceError as err:  # the disk: the model is read again later
            _warn_unwritten(name, err)
            self._unread.add(name)
            return None
        log.warning(
            "model.kept" if installed == failed else "model.set_aside",
            extra={
                "pipeline": name,
                "reason": Reason.CRASH_LOOP,
                "died_of": reason,
                "now": f"{installed.model} {installed.version}" if installed else "-",
            },
        )
        return self._read(name)

    def _start(self, name: str) -> bool:
        """Start one pipeline with its committed model; return whether there is one."""
        placed = self._read(name)
        if placed is not None:
            self._pipelines[name].start_with(placed)
        return placed is not None or name in self._unread

    def _was_revoked(self, name: str) -> bool:
        """Whether a pipeline without a model lost its last one to a revocation."""
        try:
            for report in self._store.reports():
                if (report.pipeline, report.result) == (name, COMMITTED):
                    return report.sha256 in self._revoked()
        except DeviceError as err:  # what is not known is not said
            facts = {"pipeline": name, "reason": err.reason, "detail": str(err)}
            log.warning("model.unreadable", extra=facts)
        return False

    def _read(self, name: str) -> Placed | None:
        """Open a pipeline's committed model; one that cannot be read waits."""
        self._unread.discard(name)
        self._closed.pop(name, None)
        try:
            return self._committed(name)
        except DeviceError as err:
            # The disk, not the bytes: the others start, and it is read again later.
            facts = {"pipeline": name, "reason": err.reason, "detail": str(err)}
            log.warning("model.unreadable", extra=facts)
            self._unread.add(name)
            return None

    def _committed(self, name: str) -> Placed | None:
        """Open what is committed; what is unusable falls back to what was before.

        Raises:
            DeviceError: The disk does not let it be read.
        """
        model = self._pipelines[name].settings.model
        slots = self._store.slots(name)
        for installed in (slots.active, slots.previous, slots.factory):
            if installed is None or installed.model != model:
                continue
            # Also where the store could not write that it fell back.
            other = installed != slots.active
            if other and self._store.is_set_aside(installed.sha256):
                continue
            try:
                return self._placed(installed)
            except DeviceError as err:
                if err.reason in CLOSED:
                    self._closed[name] = installed, Reason(err.reason)
                raise
            except BundleRefusedError as err:
                revoked = err.reason == Reason.REVOKED
                reason = Reason.REVOKED if revoked else Reason.DIGEST
                facts = {"pipeline": name, "reason": err.reason, "detail": str(err)}
                log.warning(UNUSABLE[reason], extra=facts)
                self._fall_back(name, reason)
        return None

    def _fall_back(self, name: str, reason: Reason) -> Installed | None:
        """Let the store move to the model before; a full disk only delays that."""
        try:
            return self._store.fall_back(name, reason, self._revoked())
        except DeviceError as err:
            _warn_unwritten(name, err)
            return self._store.slots(name).active

    def _placed(self, installed: Installed) -> Placed:
        """Open a committed bundle: hashed before it is parsed.

        Raises:
            BundleRefusedError: ``revoked``, or its bytes are not the verified ones.
            DeviceError: They cannot be read, or this board cannot unseal them.
        """
        if installed.sha256 in self._revoked():
            what = f"{installed.model} {installed.version} was revoked"
            raise BundleRefusedError(what, reason=Reason.REVOKED)
        bundle = self._opened(installed)
        bundle.manifest.variant(installed.variant)
        return Placed(bundle, installed)

    def _opened(self, installed: Installed) -> OpenedBundle:
        """Hash and open what is stored, unsealed where it is sealed."""
        sealed, sha256 = installed.sealed, installed.sha256
        if sealed is None:
            content = self._store.open_object(sha256)
            return open_bundle(content, max_bytes=len(content))
        what = f"{installed.model} {installed.version}"
        envelope = self._store.load_envelope(sha256)
        if envelope is None:
            raise _closed(f"the envelope of {what} is gone", Reason.ENVELOPE)
        try:
            # Before its bytes are read: as long as it fails, it is asked often.
            self._unsealer.check(sealed, envelope)
            content = self._store.open_object(sha256)
            return self._unsealer.open(content, sha256, sealed, envelope)
        except BundleRefusedError as err:
            if err.reason in OF_THE_ENVELOPE:
                raise _closed(str(err), Reason(err.reason)) from err
            raise


def _closed(what: str, reason: Reason) -> DeviceError:
    """Return the error for a sealed model that is whole, and cannot be opened here."""
    return DeviceError(what, reason=reason, todo=EXPLANATIONS[reason].todo)


def _warn_unwritten(name: str, err: DeviceError) -> None:
    """Say that the store could not take note of a fall back."""
    facts = {"pipeline": name, "reason": err.reason, "detail": str(err)}
    log.warning("store.not_written", extra=facts)
