"""Feature names that become labels: those a model's monitor said first, and no others.

A worker is not trusted, and each new name is three new series for ever in every
Prometheus that looks: one that invents names would fill its disk, not ours.
"""

from dataclasses import replace

from msgspec.structs import replace as replace_struct

from agent.core.snapshot import PipelineSnapshot
from agent.core.watching import MAX_FEATURES, ModelWatch

MAX_MODELS = 256  # models whose names are kept; 4 pipelines have some 16


class FeatureNames:
    """Remembers the names of each model's features."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], set[str]] = {}

    def admit(self, pipeline: PipelineSnapshot) -> PipelineSnapshot:
        """Return a pipeline without features of names that came too late."""
        watch = tuple(self._admit(pipeline.name, one) for one in pipeline.watch)
        return replace(pipeline, watch=watch)

    def _admit(self, pipeline: str, watch: ModelWatch) -> ModelWatch:
        """Return one model's monitor with features of known names."""
        key, monitored = (pipeline, watch.model, watch.version), watch.monitored
        if key not in self._known and len(self._known) >= MAX_MODELS:
            del self._known[next(iter(self._known))]  # the one that came first
        known = self._known.setdefault(key, set())
        for feature in monitored.features:
            if len(known) < MAX_FEATURES:
                known.add(feature.feature)
        kept = tuple(it for it in monitored.features if it.feature in known)
        if len(kept) == len(monitored.features):
            return watch
        return replace_struct(watch, monitored=replace_struct(monitored, features=kept))
