"""A repository whose metadata is believed without looking: a dictionary of bundles."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from agent.core.deltas import SignedDelta
from agent.core.reasons import Reason
from agent.core.targets import (
    BundleFields,
    GroupFile,
    Revocations,
    SignedFile,
    SignedTarget,
    Wanted,
    bundle_path,
    device_path,
    group_path,
)
from agent.errors import AgentError, BundleRefusedError

CHUNK_BYTES = 1024


class Resumable(Protocol):
    """What is kept of a bundle whose fetching was interrupted."""

    @property
    def kept(self) -> memoryview:
        """Its first bytes."""

    @property
    def tag(self) -> str:
        """Their ETag."""

    def remember(self, tag: str) -> None:
        """Take the ETag."""

    def restart(self) -> None:
        """Drop what is kept."""


class ScriptedRepository:
    """Implements ``agent.update.needs.Repository``.

    Attributes:
        bundles: (model, version) -> content, as signed.
        spoiled: (model, version) -> content that is delivered instead.
        gone: (model, version) whose content is signed and not there.
        groups: Group -> desired state; ``devices`` likewise, by board id.
        fields: (model, version) -> what is signed differently.
        error: What the next refreshes raise; ``unread`` what the asking for desired
            states does, and ``unheard`` the asking for what is revoked.
        broken_at: After how many bytes the next fetch breaks off, once.
        changed: What a refresh returns.
        revocations: What is revoked; ``ends`` when each role expires.
        calls: What was asked, in order.
        refreshed: Called when a refresh succeeded.
        clock_floor: What it says about time.
        patches: Signed deltas -> content that is delivered, None: nothing.
        undelta: What the asking for deltas raises.
        envelopes: (model, version, board) -> envelope, or what asking for it raises.
    """

    def __init__(self, bundles: Mapping[tuple[str, int], bytes] | None = None) -> None:
        self.bundles = dict(bundles or {})
        self.spoiled: dict[tuple[str, int], bytes] = {}
        self.gone: set[tuple[str, int]] = set()
        self.groups: dict[str, GroupFile] = {}
        self.devices: dict[str, GroupFile] = {}
        self.fields: dict[tuple[str, int], dict[str, object]] = {}
        self.error: AgentError | None = None
        self.unread: AgentError | None = None
        self.unheard: AgentError | None = None
        self.calls: list[str] = []
        self.refreshed: Callable[[], object] = lambda: None
        self.clock_floor = 0.0
        self.broken_at: int | None = None
        self.changed = True
        self.revocations = Revocations()
        self.ends: dict[str, float] = {}
        self.issued = 0.0
        self.retry_after = 0.0
        self.patches: dict[SignedDelta, bytes | None] = {}
        self.undelta: AgentError | None = None
        self.envelopes: dict[tuple[str, int, str], bytes | AgentError] = {}
        self._believed = False

    def assign(self, group: str = "all", **pipelines: tuple[str, int]) -> None:
        """Publish the next generation of a group's desired state."""
        last = self.groups.get(group)
        wanted = {name: Wanted(*pair) for name, pair in pipelines.items()}
        generation = last.generation + 1 if last else 1
        self.groups[group] = GroupFile(generation=generation, pipelines=wanted)

    def refresh(self, now: float) -> bool:
        """Believe what is there, or raise; say whether it changed."""
        del now
        self.calls.append("refresh")
        if self.error is not None:
            raise self.error
        first, self._believed = not self._believed, True
        self.refreshed()
        return first or self.changed

    def desired(
        self, groups: Sequence[str], device: str = ""
    ) -> list[tuple[str, GroupFile]]:
        """Return the desired states of the device and of those groups that have one."""
        self._check()
        if self.unread is not None:
            raise self.unread
        own = [(device_path(device), self.devices.get(device))]
        named = [(group_path(group), self.groups.get(group)) for group in groups]
        return [(path, file) for path, file in own + named if file is not None]

    def revoked(self) -> Revocations:
        """Return what is revoked."""
        self._check()
        if self.unheard is not None:
            raise self.unheard
        return self.revocations

    def expiries(self) -> Mapping[str, float]:
        """Return when each role expires."""
        return self.ends if self._believed else {}

    def find(self, model: str, version: int) -> SignedTarget:
        """Return what was signed about a bundle."""
        self._check()
        content = self.bundles.get((model, version))
        if content is None:
            raise BundleRefusedError("no such target", reason=Reason.MISSING_TARGET)
        sha256 = hashlib.sha256(content).hexdigest()
        size = len(content)
        said: dict[str, object] = {
            "model": model,
            "version": version,
            "plain_sha256": sha256,
            "plain_bytes": size,
        }
        said |= self.fields.get((model, version), {})
        fields = msgspec.convert(said, BundleFields)
        return SignedTarget(bundle_path(model, version), size, sha256, fields)

    def deltas(self, target: SignedTarget) -> Sequence[SignedDelta]:
        """Return the deltas that lead to a bundle; all that were scripted may."""
        if self.undelta is not None:
            raise self.undelta
        return [it for it in self.patches if it.fields.to_sha256 == target.sha256]

    def envelope(self, model: str, version: int, board: str) -> bytes | None:
        """Return a board's envelope of a version."""
        self.calls.append(f"envelope {model} {version} {board}")
        found = self.envelopes.get((model, version, board))
        if isinstance(found, AgentError):
            raise found
        return found

    def fetch(
        self,
        target: SignedFile,
        write: Callable[[memoryview], None],
        max_bytes: int,
        resume: Resumable | None = None,
    ) -> int:
        """Deliver a bundle in blocks, behind what is kept, and judge it at the end."""
        self.calls.append(f"fetch {target.path}")
        if target.length > max_bytes:
            raise BundleRefusedError("too large", reason=Reason.TOO_LARGE)
        content = self._served(target)
        if content is None:
            raise BundleRefusedError("it is gone", reason=Reason.MISSING_TARGET)
        kept = self._kept(content, resume)
        for start in range(kept, min(len(content), target.length), CHUNK_BYTES):
            end = min(start + CHUNK_BYTES, target.length)
            if self.broken_at is not None and end > self.broken_at:
                self.broken_at = None
                raise BundleRefusedError("it broke off", reason=Reason.UNREACHABLE)
            write(memoryview(content)[start:end])
        if len(content) != target.length:
            raise BundleRefusedError("another length", reason=Reason.LENGTH)
        if hashlib.sha256(content).hexdigest() != target.sha256:
            raise BundleRefusedError("another digest", reason=Reason.DIGEST)
        return kept

    def _served(self, target: SignedFile) -> bytes | None:
        """Return what is delivered; None where it is not there."""
        if isinstance(target, SignedTarget):
            key = (target.fields.model, target.fields.version)
            content = self.spoiled.get(key, self.bundles.get(key))
            return None if key in self.gone else content
        return self.patches[target] if isinstance(target, SignedDelta) else None

    def _kept(self, content: bytes, resume: Resumable | None) -> int:
        """Return where to go on; what was served under another tag is dropped."""
        if resume is None:
            return 0
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if len(resume.kept) and resume.tag == tag:
            return len(resume.kept)
        resume.restart()
        resume.remember(tag)
        return 0

    def _check(self) -> None:
        """Nothing is said before it was verified."""
        if not self._believed:
            raise BundleRefusedError("not verified yet", reason=Reason.UNREACHABLE)
