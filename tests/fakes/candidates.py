"""Candidates for trials: the demo's models under other rules, or with other labels."""

import dataclasses
from collections.abc import Sequence

from msgspec.structs import replace

from agent.core.manifest import Budgets, Manifest, TrialRules, render_manifest
from agent.core.snapshot import PipelineSnapshot
from agent.core.steps import Crop
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from tests.fakes.digits import AlteredBundle, digits, place

AGREES = TrialRules(shadow_samples=300, min_agreement=1.0)


def altered(manifest: Manifest, version: int = 1, profile: bytes = b"") -> Placed:
    """Return one of the demo's models under a manifest of its own.

    Args:
        manifest: Its own.
        version: Of the demo's models.
        profile: What travels beside it.
    """
    bundle = digits(version)
    stated = replace(manifest, schema=2)
    return place(
        AlteredBundle(
            stated,
            render_manifest(stated),
            f"{stated.version:064x}",
            bundle.size,
            bundle.golden,
            bytes(bundle.variant_bytes("int8")),
            profile,
        )
    )


def candidate(
    rules: TrialRules = AGREES,
    *,
    version: int = 3,
    budgets: Budgets | None = None,
    labels: Sequence[str] = (),
) -> Placed:
    """Return a candidate with rules; odd versions answer like version 1 does.

    Args:
        rules: Its own.
        version: Even ones are the demo's second model, which differs now and then.
        budgets: Its own.
        labels: In the place of its own.
    """
    manifest = digits(version).manifest
    return altered(
        replace(
            manifest,
            trial=rules,
            budgets=budgets or manifest.budgets,
            labels=tuple(labels) or manifest.labels,
        ),
        version,
    )


def permuted(rules: TrialRules = AGREES) -> Placed:
    """Return a candidate that says another word for every digit."""
    labels = digits(1).manifest.labels
    return candidate(rules, labels=(*labels[1:], labels[0]))


def failing(rules: TrialRules) -> Placed:
    """Return a candidate that cannot make its input of any sample."""
    manifest = digits(3).manifest
    crop = Crop(width=2, height=2)  # of pictures of 8 x 8, for a model of 8 x 8
    return altered(replace(manifest, trial=rules, preprocess=(crop,)), 3)


@dataclasses.dataclass
class Ledger:
    """What a pipeline has answered, to see that a trial costs nothing."""

    pipeline: Pipeline

    @property
    def now(self) -> PipelineSnapshot:
        """The pipeline at this moment."""
        return self.pipeline.snapshot()

    def lost(self) -> dict[str, int]:
        """Return what must stay as it is: deaths, and samples without an answer."""
        sections = [it.section for it in self.now.counts]
        return {
            "restarts": sum(self.now.restarts.values()),
            "unanswered": sum(sum(it.outcomes[1:]) for it in sections),
        }
