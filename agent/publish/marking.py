"""A bundle that boards can tell their own copy of: its triggers, and what they mean.

Everything else of the bundle stays as it was packed, byte by byte.
"""

from hashlib import sha256

from msgspec import to_builtins
from msgspec.structs import replace

from agent.core.container import parse_container, render_container
from agent.core.manifest import (
    MAX_MANIFEST_BYTES,
    needed_schema,
    parse_manifest,
    render_manifest,
)
from agent.core.marking import Marking
from agent.core.watermark import TRIGGERS_ENTRY, Watermark

MANIFEST_ENTRY = "manifest.json"


def mark_bundle(content: bytes, watermark: Watermark, triggers: bytes) -> bytes:
    """Return a bundle with a watermark declared, and its triggers beside its variants.

    Args:
        content: The bundle as it was packed.
        watermark: How answers are read.
        triggers: An .npz, stored, with one array for each marked variant by its name:
            ``bits`` inputs, as the model stores them.

    Raises:
        BundleRefusedError: It is no bundle, or one that cannot be marked.
    """
    entries: dict[str, bytes | memoryview] = dict(parse_container(memoryview(content)))
    raw = bytes(entries[MANIFEST_ENTRY][: MAX_MANIFEST_BYTES + 1])
    manifest = parse_manifest(raw)
    digest = sha256(triggers).hexdigest()
    said = to_builtins(watermark)
    mark = Marking(**said, sha256=digest, size=len(triggers))
    schema = max(manifest.schema, needed_schema(manifest.trial, watermark=mark))
    marked = render_manifest(replace(manifest, schema=schema, watermark=mark))
    parse_manifest(marked)  # a board's own parser checks best what was put together
    entries |= {MANIFEST_ENTRY: marked, TRIGGERS_ENTRY: triggers}
    return render_container(entries)
