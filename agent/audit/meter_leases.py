"""Leases on the disk: written by a thread of the meter's own, ahead of their use.

The rules this module keeps:
 * Nothing counts before it is durable: neither a lease nor a voucher.
 * One lock guards the account, held for microseconds; another one orders writes. Who
   needs both takes that of the disk first.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.audit.meter_file import MeterFile
from agent.audit.meter_usage import UsageFile
from agent.core.meter import MeterState, UsageRow
from agent.core.meter_account import Account
from agent.core.reasons import Reason
from agent.core.voucher import Voucher
from agent.errors import DeviceError

log = logging.getLogger(__name__)
RETRY_S = 1.0  # a full disk is looked at so often
END_S = 5.0  # what the last write may take


@dataclass(frozen=True, slots=True)
class Clocks:
    """What time it is.

    Attributes:
        wall: Unix seconds: the later of the clock and its floor.
        monotonic: Seconds that nobody sets.
    """

    wall: Callable[[], float]
    monotonic: Callable[[], float] = time.monotonic

    def now(self) -> tuple[float, float]:
        """Return both."""
        return self.wall(), self.monotonic()


class Leases:
    """Keeps an account durable.

    Args:
        account: What is counted; to be touched with ``lock`` held.
        file: Where its state is kept; ``usage`` the rows of past hours.
        usage: See above.
        clocks: What time it is.
        marks: Whether to note what is handed out: only a refund asks for it.

    Attributes:
        lock: Guards the account.
        trouble: Why the disk takes nothing now, or nothing.
    """

    def __init__(
        self,
        account: Account,
        file: MeterFile,
        usage: UsageFile,
        clocks: Clocks,
        *,
        marks: bool,
    ) -> None:
        self.account = account
        self._file, self._usage = file, usage
        self._clocks = clocks
        self._marks = marks
        self._marked = -1
        self.trouble = Reason.NONE
        self.lock = threading.Condition()
        self._disk = threading.Lock()
        self._wanted = self._ended = False
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        """Begin to renew leases."""
        self._thread.start()

    def want(self) -> None:
        """Have a lease renewed soon; the lock is held."""
        if not self._wanted:
            self._wanted = True
            self.lock.notify_all()

    def renew(self) -> None:
        """Reserve another lease, durably; the thread does so.

        Raises:
            DeviceError: The disk does not play along; nothing is lost.
        """
        with self._disk:
            self._keep_past()
            with self.lock:
                self._wanted = False
                planned, stretch_s = self.account.plan(*self._clocks.now())
            self._save(planned)
            with self.lock:
                self.account.adopt(planned, stretch_s)

    def keep(self, voucher: Voucher) -> None:
        """Let a voucher count, once that is durable.

        Raises:
            RequestRefusedError: ``replayed``, ``expired`` or ``units``.
            DeviceError: It could not be kept.
        """
        with self._disk:
            with self.lock:
                planned, stretch_s = self.account.redeemed(voucher, *self._clocks.now())
                # What is taken back must not be handed out while that is written.
                self.account.frozen = True
            try:
                self._save(planned)
                with self.lock:
                    self.account.adopt(planned, stretch_s)
            finally:
                with self.lock:
                    self.account.frozen = False

    def mark(self, handed: int) -> bool:
        """Note up to where workers are let answer, before they are, if that matters.

        Returns:
            Whether they may be.
        """
        if not self._marks or handed <= self._marked:
            return True
        try:
            self._file.mark(handed)
        except DeviceError as err:
            self._stumble(err)
            return False
        self._marked = handed
        return True

    def rows(self) -> list[UsageRow]:
        """Return all rows of usage there are.

        Raises:
            DeviceError: What was kept cannot be read.
        """
        with self._disk:
            kept = self._usage.rows()
            with self.lock:
                return [*kept, *self.account.all_rows()]

    def close(self) -> None:
        """End the thread; give back what was reserved and not used."""
        with self.lock:
            self._ended = True
            self.lock.notify_all()
        if self._thread.is_alive():
            self._thread.join(END_S)
        try:
            with self._disk:
                with self.lock:
                    closing = self.account.closing(self._clocks.monotonic())
                self._save(closing)
                if self._marks:
                    self._file.mark(closing.used)
        except DeviceError as err:
            # Then the next start settles it as a crash.
            said = {"reason": err.reason, "detail": str(err)}
            log.warning("meter.not_closed", extra=said)

    def _run(self) -> None:
        """Renew leases whenever one is due."""
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self._wanted or self._ended)
                if self._ended:
                    return
            try:
                self.renew()
            except DeviceError:
                with self.lock:
                    self._wanted = True
                    self.lock.wait_for(lambda: self._ended, RETRY_S)

    def _keep_past(self) -> None:
        """Move the rows of hours that are over to their own file."""
        with self.lock:
            rows = self.account.past_rows(self._clocks.wall())
            first = self.account.state.closed
        if rows:
            self._usage.add(first, rows)
            with self.lock:
                self.account.forget(rows)

    def _save(self, state: MeterState) -> None:
        """Write a state; the lock of the disk is held.

        Raises:
            DeviceError: The disk does not play along.
        """
        try:
            self._file.save(state)
        except DeviceError as err:
            self._stumble(err)
            raise
        if self.trouble:
            log.info("meter.recovered")
        self.trouble = Reason.NONE

    def _stumble(self, err: DeviceError) -> None:
        """Say once that the disk does not play along."""
        if not self.trouble:
            said = {"reason": err.reason, "detail": str(err)}
            log.warning("meter.not_written", extra=said)
        self.trouble = Reason(err.reason)
