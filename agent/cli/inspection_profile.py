"""What a bundle's reference profile says, and whether a board could watch by it.

A bad profile refuses nothing: the model runs, and is watched without it. So it is told,
and not an error.
"""

from msgspec import Struct

from agent.core.drift.reference import open_shipped
from agent.core.manifest import Variant
from agent.core.profile import find_reference, parse_profile
from agent.trust.bundle import Bundle


class ReferenceFacts(Struct):
    """What the profile says of one variant.

    Attributes:
        unusable: Why a board would not watch by it; empty where it would. What follows
            is then empty, too.
        notes: What could not be calibrated.
    """

    variant: str
    unusable: str = ""
    kind: str = ""
    features: tuple[str, ...] = ()
    samples: int = 0
    groups: int = 0
    calibration: str = ""
    accuracy: float = -1.0
    notes: tuple[str, ...] = ()


class ProfileFacts(Struct):
    """A bundle's profile.json."""

    size: int
    references: tuple[ReferenceFacts, ...]


def profile_facts(bundle: Bundle) -> ProfileFacts | None:
    """Return what a bundle's profile says; None where it has none."""
    if not bundle.profile:
        return None
    references = tuple(
        _reference_facts(bundle, variant) for variant in bundle.manifest.variants
    )
    return ProfileFacts(len(bundle.profile), references)


def _reference_facts(bundle: Bundle, variant: Variant) -> ReferenceFacts:
    """Return what the profile says of one variant, as a board would find it."""
    shipped = open_shipped(bundle.profile, bundle.manifest, variant)
    if shipped.reference is None:
        return ReferenceFacts(variant.name, unusable=shipped.detail or shipped.reason)
    profile = parse_profile(bundle.profile)
    reference = find_reference(profile, bundle.manifest, variant.sha256)
    return ReferenceFacts(
        variant=variant.name,
        kind=reference.kind,
        features=reference.features,
        samples=reference.count,
        groups=reference.groups,
        calibration=reference.calibration,
        accuracy=reference.accuracy,
        notes=reference.notes,
    )
