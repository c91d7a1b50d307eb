"""The daemon's hand on receipts, meters and kept inputs: built where one is wanted.

The rules this module keeps:
 * What is switched off is not imported.
 * Nothing waits for the log, and it is opened in a thread: until it is open no sample
   is answered that has to have a receipt, and that is sooner than a worker has loaded.
 * What happens meanwhile is kept, and is in the log once it is open.
"""

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.disk_reasons import disk_error
from agent.core.log_view import LogView
from agent.core.meter_status import MeterStatus
from agent.core.protect_settings import Unpaid
from agent.core.reasons import Reason
from agent.core.receipts import NO_HASH, InputHash, ReceiptOrder
from agent.core.sealing_keys import parse_public_key
from agent.errors import AgentError, SettingsError
from agent.settings import Settings
from agent.supervise.pipeline import Pipeline
from agent.supervise.receipts import Receipting
from agent.update.threads import in_thread

if TYPE_CHECKING:
    from agent.audit.kept import KeptFolder, KeptInputs
    from agent.audit.ledger import Ledger
    from agent.audit.log import AuditLog
    from agent.audit.metering import Metering
    from agent.audit.ratchet import Seal
    from agent.audit.recorder import LogRecorder
    from agent.audit.rings import Rings

log = logging.getLogger(__name__)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CPU_FLAGS = Path("/proc/cpuinfo")
KEY_FILE = "audit.key"
KEPT_END_S = 1.0  # a stalled card must not keep the log from its last checkpoint
MAX_EARLY = 64  # events before the log is open: a start has some five


@dataclass(slots=True)
class Proofs:
    """What of receipts, meters and kept inputs belongs to no pipeline.

    Attributes:
        settings: As they were at the start: other ones need a restart.
        state_dir: Where the log lies.
        board_id: Whose it is.
        pipelines: By name; they may be added later.
        clock: Unix seconds: the later of the clock and its floor.
        metering: What is paid for; None where nothing is metered.
    """

    settings: Settings
    state_dir: Path
    board_id: str
    pipelines: Mapping[str, Pipeline]
    clock: Callable[[], float] = time.time  # noqa: TID251 - tests; the daemon has a floor
    metering: "Metering | None" = None
    _recorder: "LogRecorder | None" = None
    _kept: "KeptInputs | None" = None
    _rings: "Rings | None" = None
    _early: list[tuple[str, Mapping[str, object], bytes]] = field(default_factory=list)

    @property
    def is_wanted(self) -> bool:
        """Whether receipts are given: for themselves, or to be counted."""
        return self.settings.audit.mode != "off" or bool(self.settings.meter.vendor_key)

    @property
    def log(self) -> "AuditLog | None":
        """The log, once it is open."""
        return self._recorder.log if self._recorder else None

    def receipting(self) -> Receipting | None:
        """Return how pipelines give receipts; None where they give none."""
        if not self.is_wanted:
            return None
        if self._recorder is None:
            from agent.audit.recorder import LogRecorder, NoMeter

            self.metering = self._build_metering()
            self._recorder = LogRecorder(None, self.metering or NoMeter())
        audit = self.settings.audit
        if self._kept is None and audit.owner_key and audit.keep_one_in:
            self._kept = self._recorder.kept = self._keeper()
        order = ReceiptOrder(
            audit.mode if audit.mode != "off" else "count",
            choose_hash(audit.input_hash),
            audit.keep_one_in if self._kept and audit.mode != "off" else 0,
        )
        return Receipting(self._recorder, order, self._kept, self._keep_rings())

    def _keep_rings(self) -> "Rings":
        """Return what makes rings that outlive a kill."""
        if self._rings is None:
            from agent.audit.rings import Rings, memory_folder, word_of

            def told() -> tuple[int, int]:
                if (opened := self.log) is None:
                    return 0, 0
                return word_of(opened.origin), opened.inferences + opened.lost

            self._rings = Rings(memory_folder(self.state_dir), boot_id(), told)
        return self._rings

    def _build_metering(self) -> "Metering | None":
        """Return the meter, if anything is metered; it is opened with the log."""
        if not self.settings.meter.vendor_key:
            return None
        from agent.audit.metering import Metering, Rules

        def policies() -> Mapping[str, Unpaid]:
            return {name: it.settings.unpaid for name, it in self.pipelines.items()}

        def thin(pipeline: str, every: int) -> None:
            if pipeline in self.pipelines:
                self.pipelines[pipeline].thin(every)

        return Metering(Rules(self.settings.meter, policies, self.clock, thin))

    def follow(self, settings: Settings) -> None:
        """Go on by other rules for what is paid for, and other limits of the log."""
        if self.log is not None:
            self.log.follow(settings.audit)
        if self.metering is not None:
            self.metering.follow(settings.meter)

    def _keeper(self) -> "KeptInputs | None":
        """Return what keeps inputs for the owner; None where the key cannot be used."""
        from agent.audit.kept import FOLDER, KeptInputs

        if (seal := self._seal_to_owner()) is None:
            return None
        quota_mb = self.settings.audit.keep_mb
        return KeptInputs(self.state_dir / FOLDER, quota_mb, self.board_id, seal)

    def _seal_to_owner(self) -> "Seal | None":
        """Return what encrypts to the owner; None where the key cannot be used."""
        if not self.settings.audit.owner_key:
            return None
        try:
            return owner_seal(Path(self.settings.audit.owner_key).expanduser())
        except AgentError as err:
            said = {"reason": err.reason, "detail": str(err)}
            log.error("audit.not_kept", extra=said)  # noqa: TRY400 - no bug of ours
            return None

    def shown(self) -> LogView | None:
        """Return what is told of the log; None where there is none."""
        if self.log is None:
            return None
        missed = self._kept.skipped if self._kept else 0
        return replace(self.log.view(), not_kept=missed)

    def shown_meter(self) -> MeterStatus | None:
        """Return what is told of the meter; None where there is none, or not yet."""
        return self.metering.shown() if self.metering else None

    def kept(self) -> "KeptFolder | None":
        """Return what shows kept inputs to who asks; None where none are kept."""
        if self._kept is None:
            return None
        from agent.audit.kept import KeptFolder

        return KeptFolder(self._kept.folder)

    def ledger(self) -> "Ledger | None":
        """Return what proves the log to who asks; None where there is none."""
        if not self.is_wanted:
            return None
        from agent.audit.ledger import Ledger
        from agent.audit.opening import LOG_FOLDER

        return Ledger(self.state_dir / LOG_FOLDER, lambda: self.log)

    def signing_key(self) -> tuple[Path, bool] | None:
        """Return where the audit key is, and whether it may be made; None if off."""
        if self.settings.audit.mode == "off":
            return None
        audit = self.settings.audit
        return key_place(audit.key, audit.credential, self.state_dir)

    def note(
        self, name: str, facts: Mapping[str, object], model: bytes = NO_HASH
    ) -> None:
        """Say something in the log, if there is one: a redemption, a finding."""
        if self.log is not None:
            self.log.note(name, facts, model)
        elif self.is_wanted and len(self._early) < MAX_EARLY:
            self._early.append((name, facts, model))

    async def run(self) -> None:
        """Open the log, sign what is due; ends by cancellation, or at once if off."""
        if self._recorder is None:
            return
        from agent.audit.hearing import Hearing

        hearing = Hearing(self.note)
        hearing.install()
        try:
            opened = await in_thread(self._open)
            self._recorder.log = opened
            early, self._early = self._early, []
            for name, facts, model in early:
                opened.note(name, facts, model)
            await opened.run()
        except AgentError as err:
            # Without a log nothing is answered that needs one: its pipelines say why.
            self._recorder.closed = Reason(err.reason)
            said = {"reason": err.reason, "detail": str(err)}
            log.error("audit.not_opened", extra=said)  # noqa: TRY400 - no bug of ours
        finally:
            hearing.remove()

    async def close(self) -> None:
        """Sign what there is, once the workers have ended."""
        if self._kept is not None:
            with suppress(TimeoutError):  # the disk; then these are missing
                await asyncio.wait_for(in_thread(self._kept.close), KEPT_END_S)
            if self._recorder is not None:
                self._recorder.tell_not_kept(at_once=True)
        if self.metering is not None:
            await in_thread(self.metering.close)
        if self.log is not None:
            await self.log.close()
            if self._rings and self.log.durable.checkpoint.size == self.log.size:
                self._rings.forget()

    def _open(self) -> "AuditLog":
        """Open the log; a thread does.

        Raises:
            DeviceError: A key or the disk cannot be used.
        """
        from agent.audit.key import load_audit_key
        from agent.audit.leftovers import recover_rings
        from agent.audit.log import Place
        from agent.audit.opening import LOG_FOLDER, Opening, open_log

        audit = self.settings.audit
        path, may_make = key_place(audit.key, audit.credential, self.state_dir)
        place = Place("", boot_id(), self._runtime, time.time)  # noqa: TID251 - as daemon
        key = load_audit_key(path, may_make=may_make)
        seal = self._seal_to_owner()
        opening = Opening(self.state_dir, self.board_id, key, seal, place)
        try:
            opened = open_log(audit, opening)
            if self._rings is not None:
                # Before the meter settles: what rings held was answered, and counts.
                recover_rings(opened, self.state_dir / LOG_FOLDER, self._rings)
        except OSError as err:
            raise disk_error(err, {}) from err
        if self.metering is not None:
            try:
                self.metering.open(self.state_dir, key, opened)
            except AgentError as err:
                # Its pipelines say why; what happens goes into the log all the same.
                said = {"reason": err.reason, "detail": str(err)}
                log.error("meter.not_opened", extra=said)  # noqa: TRY400 - no bug of ours
        return opened

    def _runtime(self) -> str:
        """Return what answers, in 16 letters: engines, Python and machine."""
        engines: dict[str, str] = {}
        for pipeline in self.pipelines.values():
            engines |= pipeline.engines
        words = ",".join(f"{name} {it}" for name, it in sorted(engines.items()))
        said = f"{words}|{platform.python_version()}|{platform.machine()}"
        return sha256(said.encode()).hexdigest()[:16]


def owner_seal(path: Path) -> Callable[[bytes, bytes], bytes]:
    """Return what seals (content, info) to the owner whose public line is in a file.

    Raises:
        SettingsError: It is no such line, or cannot be read.
    """
    try:
        public = parse_public_key(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as err:
        raise SettingsError(
            f"audit.owner_key: {path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Bring the owner's .pub file there, or leave the setting empty.",
        ) from err

    def seal(content: bytes, info: bytes) -> bytes:
        from agent.publish.encrypting import wrap  # cryptography, with the first one

        return wrap(content, public, info)

    return seal


def key_place(key: str, credential: str, state_dir: Path) -> tuple[Path, bool]:
    """Return where the audit key is, and whether one that is missing is made."""
    if credential:
        return Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / credential, False
    if key:
        return Path(key).expanduser(), False
    return state_dir / KEY_FILE, True


def boot_id() -> str:
    """Return what this boot of the kernel is called; ``-`` where it does not say."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip() or "-"
    except OSError:
        return "-"


def choose_hash(wanted: str) -> InputHash:
    """Return what hashes inputs: SHA-256 where the CPU has instructions for it.

    Without them BLAKE2b is the faster one on 64-bit machines: a Pi 4 has none.
    """
    if wanted == "sha256":
        return "sha256"
    if wanted == "blake2b":
        return "blake2b"
    try:
        words = set(CPU_FLAGS.read_text(encoding="utf-8").split())
    except OSError:
        return "sha256"
    return "sha256" if words & {"sha2", "sha_ni"} else "blake2b"
