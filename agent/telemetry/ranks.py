"""What may be left out where there is no room for all, and in which order.

The order is fixed, and known ahead: first what is known of the board beside its heat,
memory, disk and clock (node_exporter has it, too), then answers by label, then what
explains a drift (features, confidence), then the durations of single stages, then the
models that answer no more, the oldest first. The rest is what alerts and people need,
and is shown even where it alone has no room. ``agent.telemetry.budget`` leaves out.

The rules this module keeps:
 * Only the newest models are shown: a daemon may live through hundreds of updates.
"""

from enum import IntEnum

from agent.core.installed import Installed
from agent.core.snapshot import ModelCounts, PipelineSnapshot
from agent.core.watching import ModelWatch

KEPT_MODELS = 4  # one that answers, its predecessor, and two to compare with
# What alerts need at least, as tests count it: of an agent with a board's sensors,
# and of one pipeline with a model that is watched.
AGENT_SERIES = 60
PIPELINE_SERIES = 90


class Rank(IntEnum):
    """How early series are left out, the highest first.

    A model that answers no more has its age as rank, below ``STAGES``.
    """

    ESSENTIAL = 0
    STAGES = KEPT_MODELS
    FEATURES = STAGES + 1
    LABELS = STAGES + 2
    BOARD = STAGES + 3


def describe_rank(rank: int) -> str:
    """Return what a rank stands for, for people."""
    if rank < Rank.STAGES:
        return "older versions"
    return Rank(rank).name.lower()


def rank_models(pipeline: PipelineSnapshot) -> dict[tuple[str, int], int]:
    """Return (model, version) -> its age as rank, of the models that are shown.

    What answers now is 0, however old its version: after a rollback it is not the one
    that came last.
    """
    active = [pipeline.active] if pipeline.active is not None else []
    newest_first: list[Installed | ModelCounts | ModelWatch] = [
        *active,
        *reversed(pipeline.counts),
        *reversed(pipeline.watch),
    ]
    seen = dict.fromkeys((one.model, one.version) for one in newest_first)
    kept = list(seen)[:KEPT_MODELS]
    return {model: age for age, model in enumerate(kept)}


def least_series(pipelines: int) -> int:
    """Return how many series so many pipelines have when all else is left out."""
    return AGENT_SERIES + pipelines * PIPELINE_SERIES
