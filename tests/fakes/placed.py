"""Models as pipelines place them, where nothing ever runs: bytes of no model."""

import hashlib

from msgspec.structs import replace

from agent.core.executors import Executor
from agent.core.installed import Installed
from agent.core.manifest import MonitorRules, render_manifest
from agent.supervise.placing import Placed
from tests.fakes.bundles import manifest
from tests.fakes.digits import AlteredBundle

PROFILE = b'{"schema": 1}'


def place_bytes(
    version: int = 7, *, profile: bytes = PROFILE, rules: MonitorRules | None = None
) -> Placed:
    """Return a version of ``kws`` whose only variant is bytes of its own."""
    content = f"model {version}".encode()
    stated = replace(
        manifest({"int8": content}, version), monitor=rules or MonitorRules()
    )
    raw = render_manifest(stated)
    digest = hashlib.sha256(raw).hexdigest()
    bundle = AlteredBundle(
        stated, raw, digest, len(raw), memoryview(b""), content, profile
    )
    installed = Installed(
        "kws", version, digest, len(raw), "int8", Executor("litert", "plain")
    )
    return Placed(bundle, installed)


def variant_of(placed: Placed) -> str:
    """Return the digest that its baseline is known by."""
    return placed.bundle.manifest.variant("int8").sha256
