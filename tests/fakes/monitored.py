"""What a monitor says, with something in every place, for listeners and metrics."""

from dataclasses import replace

from msgspec.structs import replace as replace_struct

from agent.core.degradation import LadderState, Level, Measure
from agent.core.integrity import Checked, IntegrityView
from agent.core.snapshot import ModelCounts, PipelineSnapshot
from agent.core.watching import (
    Alarm,
    AnchorState,
    FeatureDrift,
    ModelWatch,
    Monitored,
    Score,
)
from tests.fakes.snapshots import NOW, pipeline, section

DIGEST = "cd" * 32
MONITORED = Monitored(
    samples=5_000,
    interval=20,
    autocorrelation=0.28,
    spent_ns=210_000_000,
    share=0.004,
    windows=20,
    window_samples=250,
    anchors=(
        AnchorState("shipped", valid=True, digest=DIGEST, calibration="grouped"),
        AnchorState(
            "site", valid=False, reason="commissioning", collected=500, wanted=2_000
        ),
    ),
    scores=(
        Score("shipped", "all", "mewma", 1.75),
        Score("shipped", "all", "etable", 0.5),
        Score("shipped", "output", "mewma", 0.25),
    ),
    alarms=(Alarm("shipped", "all", active=True, confirmed=False, raised=2),),
    features=(
        FeatureDrift("shipped", "brightness", -1.25, psi=0.4, ks=0.125),
        FeatureDrift("shipped", "sharpness", 0.5, psi=0.01, ks=0.0625),
    ),
    confidence=(0, 0, 0, 0, 0, 10, 40, 150, 800, 4_000),
    confidence_sum=4_600.5,
    repeated=3,
    invalid={"nan": 2},
    accuracy=0.93,
    predictions=(4_000, 995, 5),
)


def watch(version: int = 2, monitored: Monitored = MONITORED) -> ModelWatch:
    """Return what the monitor of one version says."""
    raised = {("shipped", "all"): NOW - 60.0}
    return ModelWatch("kws", version, monitored, raised, window_at=NOW - 5.0)


def watched(name: str = "door", *versions: ModelWatch) -> PipelineSnapshot:
    """Return a pipeline whose models are watched, the one that answers by default."""
    return replace(
        pipeline(name),
        watch=versions or (watch(),),
        budgets_ms={1: 0.05, 2: 0.06},
        busy_s=0.0125,
        ladder=LadderState(
            level=Level.SUSPECT,
            measures=(Measure.HALF_RATE,),
            transitions=((Level.SUSPECT, "heat", 2),),
        ),
        integrity=IntegrityView(
            wanted=True,
            now=Checked(bytes={"source": 53_936, "packed": 45_008}),
            checks={"source": 7, "packed": 7, "answers": 20, "audit": 3},
            since_pass_s=0.1,
        ),
    )


def crowded(name: str, models: int, labels: int) -> PipelineSnapshot:
    """Return a watched pipeline with many versions that answered with many labels."""
    words = tuple(f"label {k}" for k in range(labels))
    answered = section([55_000, 70_000])
    answered = replace(
        answered,
        labels=(*(9,) * labels, *(0,) * (len(answered.labels) - labels)),
    )
    counts = [ModelCounts("kws", 1 + k, words, answered) for k in range(models)]
    shown = watched(name, *(watch(1 + k) for k in range(models)))
    assert shown.active is not None
    active = replace_struct(shown.active, version=models)
    budgets_ms = {one.version: 0.06 for one in counts}
    return replace(shown, active=active, counts=tuple(counts), budgets_ms=budgets_ms)
