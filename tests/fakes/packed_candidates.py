"""The demo's bundles under other rules, or spoiled: packed, sealed, ready to be signed.

Odd versions answer as the demo's first model does, even ones as its second.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from agent.core.manifest import Budgets, Manifest, TrialRules
from agent.publish.pack import render_bundle
from tests.fakes.fleet import bundle, opened_bundle, variants

Models = Mapping[str, bytes]


def rendered(version: int, golden_of: int = 0, **changes: object) -> bytes:
    """Return a version with other words in its manifest.

    Args:
        version: Its own.
        golden_of: Whose golden samples it has; its own unless told otherwise.
        changes: Fields of the manifest.
    """
    opened = opened_bundle(bundle(version))
    golden = opened_bundle(bundle(golden_of or version)).golden
    manifest = replace(opened.manifest, schema=2, **changes)
    return render_bundle(manifest, variants(opened), bytes(golden))


def on_trial(version: int, labels: Sequence[str] = (), **rules: object) -> bytes:
    """Return a version with trial rules of its own, and perhaps other labels."""
    stated = _manifest(version)
    trial = TrialRules(**rules)  # type: ignore[arg-type]  # fields, by name
    return rendered(version, trial=trial, labels=tuple(labels) or stated.labels)


def swapped_labels(version: int) -> tuple[str, ...]:
    """Return another word for every digit."""
    labels = _manifest(version).labels
    return (*labels[1:], labels[0])


def budgeted(version: int, **budgets: float) -> bytes:
    """Return a version that promises to cost no more than this."""
    return rendered(version, budgets=replace(Budgets(), **budgets))


def hungry(version: int, ram_bytes: int) -> bytes:
    """Return a version whose variants say that they need so much memory."""
    stated = _manifest(version).variants
    return rendered(
        version, variants=tuple(replace(it, ram_bytes=ram_bytes) for it in stated)
    )


def _manifest(version: int) -> Manifest:
    """Return the manifest as it is published."""
    return opened_bundle(bundle(version)).manifest
