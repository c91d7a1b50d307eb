"""Series are counted before there are any: by the settings, and by the models."""

import logging
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.manifest import Manifest, MonitorRules
from agent.core.profile import render_profile
from agent.settings import MonitorSettings
from agent.telemetry.estimate import (
    USUAL_FEATURES,
    USUAL_LABELS,
    Expected,
    estimate_series,
    expect,
    expected_families,
)
from agent.telemetry.exposition import Exposition
from agent.telemetry.families import Part
from agent.telemetry.ranks import Rank, least_series
from tests.core.profiles import describe, profile_of, sealed
from tests.fakes.monitored import crowded
from tests.fakes.snapshots import BOARD, agent

DEFAULT = MonitorSettings()
MODELS = [Expected(f"p{k}", "kws") for k in range(8)]


@dataclass(frozen=True)
class Bundle:
    """What is asked of a bundle."""

    manifest: Manifest
    profile: bytes = b""


def expected(bundle: Bundle) -> Expected:
    """Return what its first variant will say."""
    return expect("door", bundle, bundle.manifest.variants[0].name)


def test_a_model_is_asked_what_it_will_say() -> None:
    """Its labels by the manifest, its features by the profile."""
    described = describe(labels=("a", "b", "c"))[0]
    reference = sealed(("mean", "sd", "entropy"))
    raw = render_profile(profile_of(described, reference))
    found = expected(Bundle(described, raw))
    assert (found.labels, found.features) == (3, 3)


@pytest.mark.parametrize("profile", [b"", b"{", b"{}"])
def test_without_a_good_profile_the_usual_is_expected(profile: bytes) -> None:
    """The site's own baseline has features, too."""
    described = describe()[0]
    found = expected(Bundle(described, profile))
    assert (found.labels, found.features) == (USUAL_LABELS, USUAL_FEATURES)


def test_what_is_not_watched_has_no_features() -> None:
    """By its manifest, or by the settings."""
    nothing = describe(monitor=MonitorRules(keep="nothing"))[0]
    found = expected(Bundle(nothing))
    assert found.features == 0
    unwatched = MonitorSettings(cpu_share=0.0)
    assert estimate_series([found], DEFAULT) == estimate_series(
        [Expected("door", found.model, 1, found.labels)], unwatched
    )


@given(labels=st.integers(1, 5_000))
def test_labels_are_counted_as_far_as_they_are_shown(labels: int) -> None:
    """64, and one for all others; in privacy mode one."""
    described = describe(labels=tuple(map(str, range(labels))))[0]
    found = expected(Bundle(described))
    assert found.labels == min(labels, 65)
    one = estimate_series([replace_labels(found, 1)], DEFAULT)
    assert estimate_series([found], DEFAULT) == one + found.labels - 1
    private = MonitorSettings(privacy=True)
    assert estimate_series([found], private) == one


def replace_labels(found: Expected, labels: int) -> Expected:
    """Return the same model with another number of labels."""
    return Expected(found.pipeline, found.model, found.version, labels, found.features)


@pytest.mark.parametrize("pipelines", [1, 4, 8])
def test_the_estimate_is_near_what_a_scrape_has(pipelines: int) -> None:
    """Each family that a scrape has for a model is in it; not less than alerts need."""
    shown = [crowded(f"p{k}", 1, 12) for k in range(pipelines)]
    models = [Expected(f"p{k}", "kws", 1, 12, 2) for k in range(pipelines)]
    live = Exposition(MonitorSettings(max_series=100_000)).families(
        agent(*shown), BOARD
    )
    counted = estimate_series(models, DEFAULT)
    # A real monitor with both anchors has scores that the made-up scrape lacks.
    assert sum(live.tally().values()) * 0.9 <= counted
    assert counted <= sum(live.tally().values()) + 60 * pipelines
    assert counted >= least_series(pipelines) * 0.75


def test_what_has_no_room_is_said_at_start(caplog: pytest.LogCaptureFixture) -> None:
    """Before anybody scrapes, and not again when somebody does."""
    caplog.set_level(logging.INFO)
    Exposition().foresee(MODELS)
    assert [it.getMessage() for it in caplog.records] == ["metrics.left_out"]
    said = caplog.records[0].__dict__
    assert said["what"].split(",")[:2] == ["board", "labels"]
    assert "p7" in said["pipelines"].split(",")


def test_scrapes_keep_to_what_was_said_at_start() -> None:
    """The first labels would have room: they would be gone an hour later."""
    exposition = Exposition()
    shown = [crowded(f"p{k}", 1, 1) for k in range(8)]
    exposition.foresee(MODELS)
    families = exposition.families(agent(*shown), BOARD)
    ahead = expected_families(MODELS, DEFAULT)
    assert families.models == ahead.models
    assert Part("p7", Rank.LABELS) in families.left_out


def test_what_fits_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Two pipelines are within the default."""
    Exposition().foresee(MODELS[:2])
    assert caplog.records == []
