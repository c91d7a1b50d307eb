"""What a board's log answers to who asks: checkpoints, proofs, records.

The rules this module keeps:
 * Everything is about the newest checkpoint that is on the medium: what is not signed
   yet is not shown.
 * It reads the disk, and is called in threads, one at a time.
"""

import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.audit.archive import MAX_RECORDS, Archive
from agent.audit.log import AuditLog
from agent.core.checkpoint import Checkpoint
from agent.core.log_proof import RecordProof, render_proof
from agent.core.merkle import prove_consistency
from agent.core.reasons import Reason
from agent.core.receipts import parse_receipt
from agent.errors import DeviceError, RequestRefusedError

Json = dict[str, Any]


class Ledger:
    """Satisfies the endpoint's ``Ledger``.

    Args:
        folder: The log's.
        log: Returns it; None as long as it is not open.
    """

    def __init__(self, folder: Path, log: Callable[[], AuditLog | None]) -> None:
        self._archive = Archive(folder)
        self._log = log
        self._one = threading.Lock()

    def checkpoint(self) -> str:
        """Return the newest signed checkpoint.

        Raises:
            DeviceError: ``starting``: there is none yet.
        """
        return self._newest()[1]

    def prove(self, index: int) -> str:
        """Return the proof of a record as a text.

        Raises:
            RequestRefusedError: ``request``: there is no such record, or it is gone.
            DeviceError: ``starting``.
            BundleRefusedError: ``log``: the log is damaged.
        """
        checkpoint, note = self._newest()
        with self._one:
            record, path = self._archive.prove(index, checkpoint)
            event = self._archive.event(record)
        return render_proof(RecordProof(record, index, tuple(path), note, event))

    def grow(self, old: int, new: int) -> Json:
        """Return the proof that the log of ``new`` records begins with ``old``.

        Args:
            old: Records then.
            new: Records later; 0 for the newest checkpoint, which comes along.

        Raises:
            RequestRefusedError, DeviceError, BundleRefusedError: As ``prove``.
        """
        checkpoint, note = self._newest()
        with self._one:
            if new in (0, checkpoint.size):
                path = self._archive.grow(old, checkpoint)
                return self._growth(old, checkpoint.size, path, note)
            if not 0 < old <= new < checkpoint.size:
                what = f"no {old} of {new} records among {checkpoint.size}"
                raise RequestRefusedError(what, reason=Reason.REQUEST)
            path = prove_consistency(old, new, self._archive.nodes(new))
        return self._growth(old, new, path, "")

    def records(self, start: int, count: int) -> Json:
        """Return some records, and what their events say.

        Raises:
            RequestRefusedError, DeviceError, BundleRefusedError: As ``prove``.
        """
        checkpoint, _ = self._newest()
        with self._one:
            found = self._archive.records(start, count or MAX_RECORDS, checkpoint.size)
            said = dict(self._archive.events_of(start))
            first = self._archive.first()
        records = []
        for record in found:
            seq = parse_receipt(record).seq
            text = said.get(seq, b"").decode("utf-8", "replace")
            records.append({"record": b64encode(record).decode(), "event": text})
        return {"first": first, "size": checkpoint.size, "records": records}

    @staticmethod
    def _growth(old: int, new: int, path: list[bytes], note: str) -> Json:
        """Return a proof of consistency as it is sent."""
        steps = [b64encode(step).decode() for step in path]
        return {"from": old, "to": new, "path": steps, "checkpoint": note}

    def _newest(self) -> tuple[Checkpoint, str]:
        """Return the newest checkpoint and its signed form.

        Raises:
            DeviceError: ``starting``: there is none yet.
        """
        log = self._log()
        durable = log.durable if log else None
        if durable is None or not durable.note:
            raise DeviceError("nothing is signed yet", reason=Reason.STARTING)
        return durable.checkpoint, durable.note
