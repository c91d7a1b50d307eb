"""Sealed models at a start: what lacks is a key or an envelope, not the bytes."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.flow import BoardSource
from agent.core.protect_settings import SealSettings
from agent.core.reasons import Reason
from agent.core.snapshot import PipelineSnapshot
from agent.daemon import Daemon
from agent.errors import DeviceError
from agent.publish.sealed_folder import load_card, load_content, load_envelopes
from agent.settings import BoardSettings, PipelineSettings, Settings
from agent.store import Store
from tests.fakes.digits import digits, place
from tests.fakes.sealed import SealingOwner
from tests.fakes.stored import content

NAME, BOARD = "digits", "pi-7"


class Sealed:
    """A board whose versions 1 and 2 were committed sealed.

    Attributes:
        store: What is committed; ``owner`` has the key and the envelopes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = SealingOwner(folder / "owner")
        self.store = Store.open(folder / "state")
        self.folders = [self._commit(version) for version in (1, 2)]
        self.key = self.owner.key(BOARD)

    def _commit(self, version: int) -> Path:
        """Seal a version and commit it as an update would."""
        bundle = digits(version)
        plain = bytes(memoryview(bundle.golden.obj))
        folder = self.owner.seal(plain, NAME, version, [BOARD])
        card = load_card(folder)
        with self.store.stage(card.sha256, card.size) as staging:
            staging.write(memoryview(load_content(folder, card)))
            self.store.save_envelope(card.sha256, load_envelopes(folder)[BOARD])
            staging.commit()
        installed = place(bundle).installed
        model = replace(
            installed, sha256=card.sha256, size=card.size, sealed=card.sealed
        )
        self.store.commit(NAME, model)
        return folder

    @property
    def sha256(self) -> str:
        """Name of the active object."""
        return load_card(self.folders[1]).sha256

    def boot(self) -> Daemon:
        """Return a daemon that has read what is committed."""
        settings = Settings(
            pipeline=(PipelineSettings(NAME, NAME, BoardSource()),),
            board=BoardSettings(id=BOARD),
            seal=SealSettings(key=str(self.key)),
        )
        daemon = Daemon(
            settings,
            self.store,
            self.folder,
            root=b"",
            socket=self.folder / "socket",
            announce=lambda _: None,
        )
        daemon._models.boot()
        return daemon


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Sealed]:
    """Give such a board."""
    made = Sealed(tmp_path)
    yield made
    made.store.close()


def told(daemon: Daemon) -> tuple[int, str]:
    """Return the version that is to run, 0 for none, and why it is not ready."""
    shown: PipelineSnapshot = daemon.snapshot().pipelines[0]
    return (shown.active.version if shown.active else 0), str(shown.reason)


def test_a_start_needs_no_network(sealed: Sealed) -> None:
    """Object, envelope and key are on the board."""

    async def story() -> None:
        assert told(sealed.boot())[0] == 2

    asyncio.run(story())


@pytest.mark.parametrize("how", ["gone", "another", "no envelope", "rotten"])
def test_what_cannot_be_opened_waits_and_falls_back_to_nothing(
    sealed: Sealed, how: str
) -> None:
    """Its reason is told, nothing is written, and it runs once that is mended."""
    reason = Reason.SEAL_KEY if how == "gone" else Reason.ENVELOPE
    key, envelope = sealed.key.read_bytes(), sealed.store.load_envelope(sealed.sha256)
    assert envelope is not None
    if how in {"gone", "another"}:
        sealed.key.unlink()
    if how == "another":
        sealed.owner.key(BOARD)
    kept = sealed.folder / "state/envelope" / sealed.sha256
    if how == "no envelope":
        kept.unlink()
    if how == "rotten":
        kept.write_bytes(envelope[:-1] + b"\0")
    before = sealed.store.slots(NAME)

    async def story() -> None:
        daemon = sealed.boot()
        assert told(daemon) == (0, reason)
        lacking = {NAME} if reason == Reason.ENVELOPE else set()
        assert set(daemon._models.unopened()) == lacking
        assert sealed.store.slots(NAME) == before
        assert sealed.store.all_set_aside() == []
        sealed.key.write_bytes(key)
        sealed.key.chmod(0o600)
        sealed.store.save_envelope(sealed.sha256, envelope)
        daemon._models.give(NAME)
        assert (told(daemon)[0], daemon._models.unopened()) == (2, {})

    asyncio.run(story())


def test_a_key_that_others_may_read_opens_what_is_committed(
    sealed: Sealed, caplog: pytest.LogCaptureFixture
) -> None:
    """Refusing it would stop the answers and protect nothing: a warning says so.

    What is new is refused all the same.
    """
    sealed.key.chmod(0o644)

    async def story() -> None:
        daemon = sealed.boot()
        assert told(daemon)[0] == 2
        warned = [it for it in caplog.records if it.message == "seal.key_open"]
        assert {it.levelno for it in warned} == {logging.WARNING}
        card = load_card(sealed.folders[1])
        envelope = load_envelopes(sealed.folders[1])[BOARD]
        with pytest.raises(DeviceError, match="read by others"):
            daemon._unsealer.check(card.sealed, envelope)

    asyncio.run(story())


def test_rotten_ciphertext_falls_back_as_any_bytes_do(sealed: Sealed) -> None:
    """It is the bytes then: the previous version, sealed as well, takes over."""
    path = sealed.folder / "state/obj" / sealed.sha256
    path.chmod(0o600)
    path.write_bytes(content(2, path.stat().st_size))

    async def story() -> None:
        assert told(sealed.boot())[0] == 1
        assert sealed.store.load_envelope(sealed.sha256) is None  # gone with its object

    asyncio.run(story())


def test_a_start_without_sealed_models_imports_no_cipher() -> None:
    """What is not used costs nothing: neither HPKE nor AEADs, nor what unseals."""
    script = (
        "import sys, agent.daemon; print([m for m in sys.modules if m.startswith("
        "('cryptography', 'agent.trust.unseal', 'agent.trust.envelope',"
        " 'agent.trust.seal_key', 'agent.board.secrecy'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
