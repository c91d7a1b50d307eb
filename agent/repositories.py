"""The repositories that the settings name, all under the one provisioned root.

The rules this module keeps:
 * The fleet's repository and the uploaded slice share a cache and floors: they are one
   repository, by two ways. Each factory slice has a cache of its own, and no floors.
 * What the owner revoked is known from the board's notes, with or without a network.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from agent import RELEASED_S
from agent.settings import Settings
from agent.trust.client import TrustedRepository
from agent.trust.notes import Notes, NotesAtHand, load_certificate_floor
from agent.trust.revoked import KnownRevocations
from agent.trust.transport import Transport
from agent.update import Supply


class Repositories:
    """Makes ``TrustedRepository`` values; nothing of a repository is read yet.

    Args:
        settings: The whole agent.toml; pipelines may come and go by ``follow``.
        notes: Where floors and revocations are kept.
        state_dir: Where metadata is cached.
        root: Bytes of the provisioned root.json; empty without one.
    """

    def __init__(
        self, settings: Settings, notes: Notes, state_dir: Path, root: bytes
    ) -> None:
        self._settings = settings
        # All save through this value: who asks on the event loop never waits.
        self._notes = NotesAtHand(notes)
        self._revoked = KnownRevocations(self._notes, root)
        self._caches = state_dir / "tuf"
        self._root = root
        self._slices: dict[str, Callable[[], TrustedRepository]] = {}
        self._paths: dict[str, str] = {}  # where those that are opened so lie

    def supply(self, uploaded: Path) -> Supply:
        """Return where bundles may come from; ``uploaded`` is the slice's folder.

        Raises:
            SettingsError: ``update.repository`` is no address.
            DeviceError: The floors cannot be read.
        """
        inbox = self._trusted("fleet", str(uploaded)) if self._root else None
        self.follow(self._settings)
        return Supply(self._fleet(), self._slices, inbox)

    def follow(self, settings: Settings) -> None:
        """Go on with other pipelines: who was supplied sees their slices at once."""
        paths = {it.name: it.factory for it in settings.pipeline if it.factory}
        for name in [it for it in self._paths if paths.get(it) != self._paths[it]]:
            del self._paths[name], self._slices[name]
        for name in paths.keys() - self._paths.keys():
            self._paths[name] = paths[name]
            self._slices[name] = partial(
                self._trusted, f"factory-{name}", paths[name], factory=True
            )

    def revoked_bundles(self) -> Sequence[str]:
        """Return the digests of revoked bundles, as far as this board knows.

        Raises:
            DeviceError: ``state``: what was revoked is not known.
        """
        return self._revoked.bundles

    def revoked_operators(self) -> Sequence[str]:
        """Return the serial numbers of revoked certificates, likewise.

        Raises:
            DeviceError: ``state``: what was revoked is not known.
        """
        return self._revoked.operators

    def certificate_floor(self) -> float:
        """Return the time by which certificates are judged at least, Unix seconds.

        Raises:
            DeviceError: ``state``: the floors cannot be read.
        """
        return load_certificate_floor(self._notes, self._root, RELEASED_S)

    def _fleet(self) -> TrustedRepository | None:
        """The fleet's repository, if the settings name one."""
        update = self._settings.update
        if not update.repository:
            return None
        transport = Transport(
            ca=update.ca,
            certificate=update.certificate,
            key=update.key,
            proxy=update.proxy,
            min_kbps=update.min_kbps,
            deadline_s=update.deadline_s,
        )
        return self._trusted("fleet", update.repository, transport=transport)

    def _trusted(
        self,
        cache: str,
        repository: str,
        *,
        factory: bool = False,
        transport: Transport | None = None,
    ) -> TrustedRepository:
        """A repository that the provisioned root vouches for."""
        return TrustedRepository(
            metadata_dir=self._caches / cache,
            repository=repository,
            root=self._root,
            notes=self._notes,
            build_time=RELEASED_S,
            factory=factory,
            transport=transport,
        )
