"""The demo's profiles are those that today's code makes of today's assets."""

import pytest

from agent.cli.profile_held_out import find_held_out
from agent.cli.profile_making import Making, make_profile
from agent.core.drift.reference import open_shipped
from agent.core.profile import parse_profile
from agent.demo.owner import ASSETS
from tests.fakes.digits import digits
from tests.fakes.profiled import STREAM, NoView


@pytest.mark.parametrize("version", [1, 2])
def test_a_board_watches_by_them(version: int) -> None:
    """Every variant of the demo's models has a reference that opens."""
    bundle = digits(version)
    assert bundle.profile == (ASSETS / f"digits-{version}/profile.json").read_bytes()
    for variant in bundle.manifest.variants:
        shipped = open_shipped(bundle.profile, bundle.manifest, variant)
        assert (shipped.reason, shipped.detail) == ("", "")
        assert shipped.reference is not None
        assert shipped.reference.calibration == "grouped"


def test_they_are_what_the_script_would_make() -> None:
    """Features, counts and answers are today's; run make_profiles.py if they are not.

    Thresholds depend on the machine's linear algebra in the last digits, and are left
    to the script.
    """
    bundle = digits(2)
    making = Making(
        bundle=bundle,
        variants=bundle.manifest.variants[:1],
        held_out=find_held_out(STREAM, "images", "writers", "labels"),
        kind="image",
    )
    view = NoView()
    made = make_profile(making, view).profile
    kept = parse_profile(bundle.profile)
    assert (made.preprocessing, made.features_version) == (
        kept.preprocessing,
        kept.features_version,
    )
    ours, theirs = made.references[0], kept.references[0]
    assert (ours.features, ours.counts, ours.classes) == (
        theirs.features,
        theirs.counts,
        theirs.classes,
    )
    assert ours.thresholds == pytest.approx(theirs.thresholds, rel=1e-3)
    assert view.stages == {"int8: reading": 600, "int8: calibrating": 100}
