"""From a deployment to what it wants of this board's pipelines.

The rules this module keeps:
 * Each chunk names one signed bundle, by metadata or by a pointer; the server's hashes
   of a pointer are checked, though nobody trusts them.
 * What cannot be understood fails the action (``Misunderstood``), with words; a server
   that could not be asked does not.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

from agent.core.ddi_messages import (
    MAX_DEPLOYMENT_BYTES,
    Artifact,
    Chunk,
    Deployment,
    is_document,
    parse_deployment,
)
from agent.core.ddi_pointer import MAX_POINTER_BYTES, parse_pointer, parse_target_path
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.errors import BundleRefusedError
from agent.update.ddi_talk import FILE, Talk
from agent.update.endings import NETWORK

# Weak ones as well: they only tell a file that was cut on its way.
ALGORITHMS = ("sha256", "sha1", "md5")
Where = Literal["deploymentBase", "confirmationBase", "installedBase"]


class Orders:
    """Reads deployments."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def read(self, url: str, action: str, where: Where) -> Deployment | None:
        """Return the deployment at an address, None where there is none any more.

        Raises:
            BundleRefusedError: ``unreachable``: what came is no document at all;
                ``protocol``: it is one that makes no sense; and others.
            DeviceError: ``unauthorized``, or our own papers.
        """
        raw = await self._talk.read(url, where, MAX_DEPLOYMENT_BYTES)
        if raw is None:
            return None
        if not is_document(raw):
            # A portal or a proxy answers for the server: that is no word of its own.
            what = f"{where}: the answer is no JSON object"
            raise BundleRefusedError(what, reason=Reason.UNREACHABLE)
        deployment = parse_deployment(raw, where)
        if deployment.id != action:
            what = f"{where}: {action} calls itself {deployment.id}"
            raise BundleRefusedError(what, reason=Reason.PROTOCOL)
        return deployment

    async def understand(
        self, deployment: Deployment, models: Mapping[str, str]
    ) -> dict[str, Wanted]:
        """Return pipeline -> what is wanted.

        Args:
            deployment: What the server says.
            models: Pipeline -> the model that the settings want in it.

        Raises:
            BundleRefusedError: ``protocol``, ``unknown_pipeline``, ``foreign_url``,
                ``digest``, ``length``, ``too_large``; or what the network did.
            DeviceError: ``unauthorized``, or our own papers.
        """
        pipelines: dict[str, Wanted] = {}
        for chunk in deployment.chunks:
            wanted = await self._named(chunk)
            ours = [name for name, model in models.items() if model == wanted.model]
            if not ours:
                what = f"no pipeline of this board runs {wanted.model!r}"
                raise BundleRefusedError(what, reason=Reason.UNKNOWN_PIPELINE)
            for name in ours:
                if pipelines.setdefault(name, wanted) != wanted:
                    raise _unclear(f"several versions of {wanted.model!r}")
        if not pipelines:
            raise _unclear("there is no chunk in it")
        return pipelines

    async def _named(self, chunk: Chunk) -> Wanted:
        """Return what a chunk names."""
        if chunk.target:
            return parse_target_path(chunk.target)
        small = [it for it in chunk.artifacts if it.size <= MAX_POINTER_BYTES]
        if len(small) != 1:
            raise _unclear(
                f"chunk {chunk.name[:64]!r} has no `tuf.target`, and {len(small)}"
                f" artifacts of at most {MAX_POINTER_BYTES} bytes that could name one"
            )
        return parse_pointer(await self._fetch(small[0]))

    async def _fetch(self, pointer: Artifact) -> bytes:
        """Return a pointer's bytes, if they are those that the server describes."""
        name = f"artifact {pointer.filename[:64]!r}"
        if not pointer.href:
            raise _unclear(f"{name} has no link")
        url = self._talk.controller.artifact(pointer.href)
        raw = await self._talk.read(url, name, MAX_POINTER_BYTES, FILE)
        if raw is None:
            raise _unclear(f"{name} is not there")
        if len(raw) != pointer.size:
            what = f"{name} has {len(raw)} bytes, not {pointer.size}"
            raise BundleRefusedError(what, reason=Reason.LENGTH)
        for algorithm in ALGORITHMS:
            said = pointer.hashes.get(algorithm)
            found = hashlib.new(algorithm, raw, usedforsecurity=False).hexdigest()
            if said and said != found:
                what = f"{name} has another {algorithm} than the server says"
                raise BundleRefusedError(what, reason=Reason.DIGEST)
        return raw


def is_verdict(error: BundleRefusedError) -> bool:
    """Return whether an error is about the action, and not about the way to it."""
    return error.reason not in NETWORK | {Reason.REDIRECT}


def _unclear(what: str) -> BundleRefusedError:
    """Return the error for a deployment that names no bundles."""
    return BundleRefusedError(what, reason=Reason.PROTOCOL)
