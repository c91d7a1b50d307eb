"""Deltas, applied: as a parser of what others write."""

import hashlib

from agent.publish.deltas import make_delta
from agent.update.delta_apply import apply_delta
from tests.fuzz.fleet import BUNDLES

OLD, NEW = BUNDLES[1], BUNDLES[2]
DIGEST = hashlib.sha256(NEW).hexdigest()
PATCHES = (make_delta(OLD, NEW), make_delta(b"", NEW))


def applied(raw: bytes) -> str:
    """A delta: the signed bytes come of it, or nothing is believed."""
    content = bytearray()
    base = memoryview(OLD)
    apply_delta(base, memoryview(raw), content.extend, len(NEW), DIGEST)
    if content != NEW:
        raise ValueError("other bytes came of it")
    return "applied"
