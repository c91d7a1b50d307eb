"""The board of the storm: the daemon's own client, poller and store, and an oracle.

Only the trials are scripted (they say yes, so that nothing but trust stands between an
input and the active model), and the disk is one in memory.
"""

import asyncio
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.metadata import Metadata

from agent.core.floors import Floors
from agent.core.flow import FilesSource
from agent.core.installed import Board
from agent.core.reasons import Reason
from agent.core.targets import GroupFile
from agent.settings import PipelineSettings, Settings, UpdateSettings
from agent.store import Store
from agent.trust.bundle import open_bundle
from agent.trust.client import TrustedRepository
from agent.trust.notes import Remembered
from agent.update import Supply, Surroundings, UpdatePoller
from tests.fakes.bundle_factory import NOW
from tests.fakes.scripted_trials import ScriptedTrials
from tests.fuzz.fleet import (
    BUNDLES,
    CONTENTS,
    GENERATIONS,
    Files,
    Fleet,
    Publication,
    remove,
    served,
    write,
)

BOARD = Board("board-1", ("aarch64",), "0.1.0", 10**9, 10**9)
DIGESTS = {version: hashlib.sha256(raw).hexdigest() for version, raw in BUNDLES.items()}
# What a sender's bytes can be refused for; anything else would blame somebody else.
REFUSALS = frozenset(
    {
        *(Reason.SIGNATURE, Reason.THRESHOLD, Reason.EXPIRED, Reason.REPLAYED),
        *(Reason.MIXED, Reason.MISSING_TARGET, Reason.METADATA, Reason.DIGEST),
        *(Reason.LENGTH, Reason.UNREACHABLE, Reason.TOO_LARGE, Reason.TRUNCATED),
        *(Reason.MALFORMED, Reason.MANIFEST, Reason.SCHEMA, Reason.VERSION_FLOOR),
        *(Reason.HARDWARE, Reason.MIN_AGENT, Reason.MISMATCH, Reason.REVOKED),
        *(Reason.REDIRECT, Reason.TOO_SLOW, Reason.UNKNOWN_PIPELINE),
        # And what a desired state may say on purpose, or by a change under true keys.
        *(Reason.PAUSED, Reason.PERCENT, Reason.NOT_BEFORE, Reason.WINDOW),
    }
)
HONEST = "as_signed"  # a change that changed no value: what was signed is done
NOTHING = "no_order"  # believed, and it orders nothing


@dataclass(frozen=True, slots=True)
class Found:
    """What a look came to.

    Attributes:
        word: The reason, ``HONEST`` or ``NOTHING``.
        wrong: What must never be, empty if all is well.
    """

    word: str
    wrong: str = ""


class FuzzedBoard:
    """A board that runs version 1 and is shown one second publication after another."""

    def __init__(self, home: Path, fleet: Fleet) -> None:
        self._fleet, self._runner = fleet, asyncio.Runner()
        self._state, self._clean = home / "state", home / "clean"
        self._boot()
        self.poller_look()
        # What the publisher signed itself, before the first damage.
        cache = (self._state / "metadata").rglob("*.json")
        self._judged = {path.read_bytes() for path in cache}
        if self._active() != DIGESTS[1]:
            raise AssertionError(f"no board to begin with: {self._word()}")
        self._before = self._first = self._floors()
        self.store.close()
        shutil.copytree(self._state, self._clean)
        self._boot()

    def show(self, shown: Publication) -> Found:
        """Serve a publication, look once, judge, and take it away again."""
        files = shown.files
        write(self._fleet.path, files)
        try:
            self.poller_look()
            word, wrong = self._word(), self._wrong(signed=shown.signed)
        finally:
            fixed = {served(path, raw) for path, raw in CONTENTS.items()}
            remove(self._fleet.path, files.keys() - fixed)
            write(self._fleet.path, {p: r for p, r in _fixed().items() if p in files})
        # A board that has learned the truth goes on; one that did what it was told, or
        # learned what true keys said too much, could not be shown the same again.
        floors = self._floors()
        said = floors.generations.items()
        ahead = any(floor.height > GENERATIONS[path] for path, floor in said)
        active = self._active(), self._active("window")
        if wrong or shown.stolen or ahead or active != (DIGESTS[1], ""):
            self.restart(afresh=True)
        else:
            self._before = floors
        return Found(word, wrong)

    def restart(self, *, afresh: bool) -> None:
        """Boot again; ``afresh`` with the state that ran version 1 only."""
        self.store.close()
        if afresh:
            shutil.rmtree(self._state)
            shutil.copytree(self._clean, self._state)
            self._before = self._first
        self._boot()

    def _boot(self) -> None:
        """Open the store and begin."""
        self.store = Store.open(self._state)
        self.reboot()

    def close(self) -> None:
        """End."""
        self.store.close()
        self._runner.close()

    def poller_look(self) -> None:
        """Look once; only what the daemon expects is caught in there."""
        self._runner.run(self._poller.look())

    def reboot(self) -> None:
        """Build what the daemon builds; nothing is remembered but what is stored."""
        tables = [
            PipelineSettings(name=name, model="kws", source=FilesSource(path="x"))
            for name in ("door", "window")
        ]
        self._trusted = TrustedRepository(
            metadata_dir=self._state / "metadata",
            repository=str(self._fleet.path),
            root=self._fleet.root,
            notes=self.store,
            build_time=0.0,
        )
        self._poller = UpdatePoller(
            Settings(pipeline=tuple(tables), update=UpdateSettings(groups=("all",))),
            Supply(self._trusted),
            Surroundings(
                store=self.store,
                trials=ScriptedTrials(),
                opener=open_bundle,
                board=lambda: BOARD,
                clock=lambda: NOW,
                draw=lambda: 0.5,
            ),
        )

    def _active(self, pipeline: str = "door") -> str:
        """Return the digest of the active model."""
        active = self.store.slots(pipeline).active
        return active.sha256 if active else ""

    def _floors(self) -> Floors:
        """Return what must not fall."""
        return Remembered.of(self.store, self._fleet.root).load()

    def _word(self) -> str:
        """Say what the look came to."""
        snapshot = self._poller.snapshot()
        if snapshot.trouble:
            return snapshot.trouble[0]
        if self._active() == DIGESTS[2]:
            return HONEST
        # What is tried again waits; what needs somebody is refused. Both have a reason.
        reasons = (it.reason for it in snapshot.decisions)
        return next(filter(None, reasons), NOTHING)

    def _wrong(self, *, signed: bool) -> str:
        """Return what must never be, or an empty string."""
        word, floors, before = self._word(), self._floors(), self._before
        if word not in REFUSALS | {HONEST, NOTHING}:
            return f"a sender's bytes were called {word}: {self._poller.snapshot()}"
        for pipeline in ("door", "window"):
            active = self._active(pipeline)
            if active and active not in self._fleet.signed:
                return f"{pipeline} runs what nobody signed"
        if self.store.version_floor("kws") < 1 or floors.root < before.root:
            return "a floor fell"
        for role, floor in before.roles.items():
            if floors.roles[role].height < floor.height:
                return f"the floor of {role} fell"
        return self._kept() or ("" if signed else self._forged())

    def _kept(self) -> str:
        """Return what is in the cache of verified metadata and was never signed.

        By its parsed values, as TUF signs it: spelling does not count (line 30).
        """
        for path in (self._state / "metadata").rglob("*.json"):
            raw = path.read_bytes()
            if raw in self._judged:
                continue
            if Metadata[Any].from_bytes(raw).signed_bytes not in self._fleet.payloads:
                return f"{path.name} is believed, and nobody signed it: {raw[:200]!r}"
            self._judged.add(raw)
        return ""

    def _forged(self) -> str:
        """Return what is believed and was never signed."""
        if self._floors().clock_s > NOW:
            return "the clock believes a time that nobody signed"
        honest = {path: raw for path, raw in CONTENTS.items() if "fleet/" in path}
        for path, file in self._poller.sources.files:
            first = path.endswith("all") and file.generation == 1
            if not first and file != msgspec.json.decode(honest[path], type=GroupFile):
                return f"{path} is believed to say {file}"
        revoked = set(self._poller.sources.revoked)
        if revoked - set(json.loads(CONTENTS["revoked.json"])["bundles"]):
            return f"{revoked} is believed to be revoked"
        return ""


def _fixed() -> Files:
    """Return the honest contents by the names they are served under."""
    return {served(path, raw): raw for path, raw in CONTENTS.items()}
