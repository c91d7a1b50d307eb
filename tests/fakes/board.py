"""A board that follows a repository and survives being booted again and again."""

import shutil
from pathlib import Path

import pytest

from agent.core.targets import SignedTarget
from agent.errors import BundleRefusedError
from agent.trust.client import TrustedRepository
from agent.trust.transport import Transport
from tests.fakes.bundle_factory import NOW, SpoiledRepository
from tests.fakes.memory_notes import MemoryNotes


class Board:
    """One board's cache and notes; each refresh starts as after a reboot.

    Attributes:
        trusted: The client of the last refresh that succeeded.
        notes: What it remembers outside the cache.
        cache: Where it keeps metadata.
        address: Where it finds the repository: its directory, or a server's URL;
            ``transport`` how it speaks to that.
    """

    def __init__(
        self,
        home: Path,
        repository: SpoiledRepository,
        *,
        build_time: float = 0.0,
        factory: bool = False,
        address: str = "",
        transport: Transport | None = None,
    ) -> None:
        self.repository = repository
        self.address = address
        self.transport = transport
        self.cache = home / "metadata"
        self.notes = MemoryNotes()
        self.trusted = self.boot(build_time=build_time, factory=factory)
        self._build_time, self._factory = build_time, factory

    def boot(
        self, *, build_time: float = 0.0, factory: bool = False
    ) -> TrustedRepository:
        """Return a client that knows what the board kept."""
        return TrustedRepository(
            metadata_dir=self.cache,
            repository=self.address or str(self.repository.path),
            root=self.repository.root,
            notes=self.notes,
            build_time=build_time,
            factory=factory,
            transport=self.transport,
        )

    def refresh(self, now: float = NOW) -> TrustedRepository:
        """Boot and refresh; return the client."""
        trusted = self.boot(build_time=self._build_time, factory=self._factory)
        trusted.refresh(now)
        self.trusted = trusted
        return trusted

    def refusal(self, now: float = NOW) -> str:
        """Return the reason why a refresh is refused."""
        with pytest.raises(BundleRefusedError) as caught:
            self.refresh(now)
        return caught.value.reason

    def fetch(self, target: SignedTarget, max_bytes: int = 2**20) -> bytes:
        """Return a target's content."""
        content = bytearray()
        self.trusted.fetch(target, content.extend, max_bytes)
        return bytes(content)

    def lose_cache(self) -> None:
        """Empty the cache, as a power cut does to files that were not synced."""
        shutil.rmtree(self.cache)
