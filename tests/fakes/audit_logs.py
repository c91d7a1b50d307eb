"""Logs of receipts for tests: keys, records, boards that log, and what befalls them."""

import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.audit.files import Folder
from agent.audit.key import AuditKey
from agent.audit.log import AuditLog, Place
from agent.audit.opening import Opening, open_log
from agent.audit.ratchet import Seal
from agent.core.protect_settings import AuditSettings
from agent.core.receipts import Receipt, pack_receipt
from agent.errors import BundleRefusedError

SETTINGS = AuditSettings(mode="chain", checkpoint_records=64)
DEADLINE_S = 30.0


def key_from(number: int) -> AuditKey:
    """Return the key of a number: the same in every run."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return AuditKey(private.sign, private.public_key().public_bytes_raw())


SOME_KEY = key_from(1)


def inference(number: int) -> bytes:
    """Return a record as a worker leaves it."""
    return pack_receipt(
        Receipt(
            seq=number,
            sample=number,
            monotonic_ns=1_000_000 + number,
            flags=0,
            pipeline=7,
            model=b"\x0d" * 32,
            input=bytes(32),
            output=number.to_bytes(32, "big"),
        )
    )


def inferences(count: int, first: int = 1) -> memoryview:
    """Return records of samples ``first`` and those that follow."""
    return memoryview(b"".join(inference(first + it) for it in range(count)))


def untold(done: int, of: int) -> None:
    """Tell nobody how far a verification is."""


def refusal(call: Callable[[], object]) -> str:
    """Return why a call refuses what it was given; empty where it takes it."""
    try:
        call()
    except BundleRefusedError as err:
        return err.reason
    return ""


class LoggingBoard:
    """A board as far as its log is concerned.

    Args:
        state_dir: Its state directory.
        board: Its id.
        key: Signs its log.
    """

    def __init__(
        self, state_dir: Path, board: str = "pi-0042", key: AuditKey = SOME_KEY
    ) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self.state_dir = state_dir
        self.board = board
        self.key = key
        self.boot = "boot-1"
        self.seal: Seal | None = None
        self.clock: Callable[[], float] = lambda: 1_800_000_000.0
        self.make_folder: Callable[[Path], Folder] = Folder

    @property
    def folder(self) -> Path:
        """Where its log lies."""
        return self.state_dir / "audit"

    def open(self, settings: AuditSettings = SETTINGS) -> AuditLog:
        """Open its log."""
        place = Place("", self.boot, lambda: "litert", self.clock)
        opening = Opening(
            self.state_dir, self.board, self.key, self.seal, place, self.make_folder
        )
        return open_log(settings, opening)


def wait_durable(log: AuditLog) -> AuditLog:
    """Sign all there is, and return when that is on the medium."""
    log.mark()
    wait_until(lambda: log.durable.checkpoint.size == log.size and log.durable.note)
    return log


def wait_until(condition: Callable[[], object]) -> None:
    """Look until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it never came about")
        time.sleep(0.001)
