"""A repository whose metadata is believed without looking: a dictionary of bundles."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from agent.core.reasons import Reason
from agent.core.targets import (
    BundleFields,
    GroupFile,
    SignedTarget,
    Wanted,
    bundle_path,
    group_path,
)
from agent.errors import AgentError, BundleRefusedError

CHUNK_BYTES = 1024


class ScriptedRepository:
    """Implements ``agent.update.needs.Repository``.

    Attributes:
        bundles: (model, version) -> content, as signed.
        spoiled: (model, version) -> content that is delivered instead.
        gone: (model, version) whose content is signed and not there.
        groups: Group -> desired state.
        fields: (model, version) -> what is signed differently.
        error: What the next refreshes raise.
        calls: What was asked, in order.
        refreshed: Called when a refresh succeeded.
        clock_floor: What it says about time.
    """

    def __init__(self, bundles: Mapping[tuple[str, int], bytes] | None = None) -> None:
        self.bundles = dict(bundles or {})
        self.spoiled: dict[tuple[str, int], bytes] = {}
        self.gone: set[tuple[str, int]] = set()
        self.groups: dict[str, GroupFile] = {}
        self.fields: dict[tuple[str, int], dict[str, object]] = {}
        self.error: AgentError | None = None
        self.calls: list[str] = []
        self.refreshed: Callable[[], object] = lambda: None
        self.clock_floor = 0.0
        self._believed = False

    def assign(self, group: str = "all", **pipelines: tuple[str, int]) -> None:
        """Publish the next generation of a group's desired state."""
        last = self.groups.get(group)
        wanted = {name: Wanted(*pair) for name, pair in pipelines.items()}
        generation = last.generation + 1 if last else 1
        self.groups[group] = GroupFile(generation=generation, pipelines=wanted)

    def refresh(self, now: float) -> None:
        """Believe what is there, or raise."""
        del now
        self.calls.append("refresh")
        if self.error is not None:
            raise self.error
        self._believed = True
        self.refreshed()

    def desired(self, groups: Sequence[str]) -> list[tuple[str, GroupFile]]:
        """Return the desired states of those groups that have one."""
        self._check()
        named = [group for group in groups if group in self.groups]
        return [(group_path(group), self.groups[group]) for group in named]

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

    def fetch(
        self, target: SignedTarget, write: Callable[[memoryview], None], max_bytes: int
    ) -> None:
        """Deliver a bundle in blocks and judge it at the end."""
        self.calls.append(f"fetch {target.path}")
        if target.length > max_bytes:
            raise BundleRefusedError("too large", reason=Reason.TOO_LARGE)
        key = (target.fields.model, target.fields.version)
        content = self.spoiled.get(key, self.bundles.get(key))
        if content is None or key in self.gone:
            raise BundleRefusedError("it is gone", reason=Reason.MISSING_TARGET)
        for start in range(0, min(len(content), target.length), CHUNK_BYTES):
            end = min(start + CHUNK_BYTES, target.length)
            write(memoryview(content)[start:end])
        if len(content) != target.length:
            raise BundleRefusedError("another length", reason=Reason.LENGTH)
        if hashlib.sha256(content).hexdigest() != target.sha256:
            raise BundleRefusedError("another digest", reason=Reason.DIGEST)

    def _check(self) -> None:
        """Nothing is said before it was verified."""
        if not self._believed:
            raise BundleRefusedError("not verified yet", reason=Reason.UNREACHABLE)
