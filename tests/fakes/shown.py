"""Facts with a story, for the page: a board that drifts and refused an update.

Numbers come from sines, not from chance: a picture of the page is the same each time.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import nan, sin

from agent.core.events import Event, Level
from agent.core.installed import Installed
from agent.core.readings import BoardIdentity, BoardReadings
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    ServerSnapshot,
)
from agent.core.targets import Wanted
from agent.core.trend import TrendPoint
from agent.core.updates import Decision, Report, SetAside
from agent.core.watching import (
    Alarm,
    AnchorState,
    FeatureDrift,
    ModelWatch,
    Monitored,
    Score,
)
from tests.fakes.snapshots import LITERT, NOW, FixedFacts, agent, pipeline, section

DIGEST = "5f3c" * 16
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
FEATURES = ("brightness", "contrast", "sharpness", "red_blue", "edges", "entropy")


def watch_of(*, drifts: bool = True) -> ModelWatch:
    """Return what a monitor says of ``digits`` 8."""
    score = 1.46 if drifts else 0.41
    alarms = (Alarm("shipped", "input", active=drifts, confirmed=drifts, raised=1),)
    shifts = (3.1, -1.4, 0.7, -0.3, 0.2, 0.05) if drifts else (0.2, -0.1, 0, 0, 0, 0)
    monitored = Monitored(
        samples=48_211,
        interval=4,
        autocorrelation=0.82,
        share=0.011,
        anchors=(
            AnchorState("shipped", valid=True, calibration="grouped"),
            AnchorState(
                "site",
                valid=False,
                reason="commissioning",
                collected=1_240,
                wanted=2_000,
            ),
        ),
        scores=(
            Score("shipped", "input", "mewma", score),
            Score("shipped", "output", "mewma", 0.3),
        ),
        alarms=alarms,
        features=tuple(
            FeatureDrift("shipped", name, shift, psi=abs(shift) / 4, ks=0.1)
            for name, shift in zip(FEATURES, shifts, strict=True)
        ),
        accuracy=0.91,
        repeated=3,
    )
    return ModelWatch("digits", 8, monitored, {("shipped", "input"): NOW - 95.0})


def shown_pipeline(name: str = "digits", *, drifts: bool = True) -> PipelineSnapshot:
    """Return a pipeline that answers, with everything a page can show of one."""
    durations = [int(52_000 + 9_000 * abs(sin(i / 7))) for i in range(4_000)]
    answered = replace(
        section(durations + [400_000] * 12, dropped=7),
        labels=tuple(
            int(900 * abs(sin(i * 1.3))) if i < len(LABELS) else 0 for i in range(65)
        ),
    )
    return replace(
        pipeline(name),
        model="digits",
        active=Installed("digits", 8, DIGEST, 9_000, "int8", LITERT, NOW - 1_500.0),
        counts=(
            ModelCounts("digits", 7, LABELS, section([50_000] * 900)),
            ModelCounts("digits", 8, LABELS, answered),
        ),
        watch=(watch_of(drifts=drifts),),
        budgets_ms={8: 0.2},
        restarts={},
        sink_dropped={},
        lag_s=0.0021,
    )


def points_of(*, count: int = 450, drifts: bool = True) -> Sequence[TrendPoint]:
    """Return fifteen minutes that end in a drift."""
    return [
        TrendPoint(
            NOW - (count - i) * 2.0,
            rate=118 + 6 * sin(i / 9) + 2 * sin(i / 2.3),
            failed=0.0,
            dropped=1.5 if 200 <= i < 215 else 0.0,
            p50_ms=0.054 + 0.002 * sin(i / 11),
            p95_ms=0.068 + 0.004 * sin(i / 5),
            p99_ms=0.09 + 0.03 * abs(sin(i / 17)),
            lag_ms=2.0,
            drift=0.4 + 0.1 * sin(i / 8) + (1.1 * max(0, i - 380) / 70) * drifts,
            version=8,
        )
        for i in range(count)
    ]


def events_of() -> list[Event]:
    """Return some events, of all levels."""
    rows: list[tuple[Level, str, dict[str, str]]] = [
        ("info", "agent.started", {"version": "0.1.0", "pipelines": "1"}),
        ("info", "worker.started", {"pipeline": "digits", "pid": "4711"}),
        ("info", "update.committed", {"model": "digits", "version": "8"}),
        (
            "warning",
            "update.refused",
            {"model": "digits", "version": "9", "reason": "threshold"},
        ),
        ("debug", "control.handshake", {"detail": "TimeoutError"}),
        ("error", "worker.died", {"pipeline": "digits", "reason": "crash"}),
        ("warning", "drift.alarm", {"pipeline": "digits", "scope": "input"}),
    ]
    return [
        Event(i + 1, NOW - 900 + 130 * i, level, name, fields)
        for i, (level, name, fields) in enumerate(rows)
    ]


def reports_of() -> list[Report]:
    """Return a refusal and an installation."""
    return [
        Report(
            *(9, "digits", "digits", 9, "cd" * 32, "fleet/groups/all", 13),
            result="refused",
            reason="threshold",
            detail="signature threshold 1 of 2",
            ended_at=NOW - 420,
        ),
        Report(
            *(8, "digits", "digits", 8, DIGEST, "fleet/groups/all", 12),
            result="committed",
            ended_at=NOW - 1_500,
        ),
    ]


ASIDE = [SetAside("ee" * 32, "golden", NOW - 86_000)]
READINGS = BoardReadings(
    cpu_percent=23.4,
    memory_percent=41.2,
    disk_percent=63.0,
    load_1min=0.71,
    cpu_frequency_hertz=1.5e9,
    received_bytes_per_s=2_300.0,
    sent_bytes_per_s=nan,
    temperatures=(("cpu", 58.4),),
    throttled=(("under_voltage", False), ("throttled", False)),
    memory_available_bytes=1.1e9,
    memory_stalled_percent=0.5,
    disk_free_bytes=1.2e10,
    disk_wear=(("mmcblk0", 0.3),),
    clock_synchronised=True,
    identity=BoardIdentity("raspberry_pi", "Raspberry Pi 4 Model B Rev 1.4", "6.6"),
)


def shown_agent(*pipelines: PipelineSnapshot) -> AgentSnapshot:
    """Return an agent whose last refusal was a signature too few."""
    plain = agent(*pipelines)
    decisions = tuple(
        Decision(it.name, "refused", Wanted("digits", 9), reason="threshold")
        for it in pipelines
    )
    update = replace(
        plain.update,
        phase="IDLE",
        decisions=decisions,
        last_refusal=("threshold", "digits 9: signature threshold 1 of 2"),
    )
    return replace(plain, board="greenhouse-7", update=update)


def shown_server() -> ServerSnapshot:
    """Return a fleet's server that lets this board in no longer, amid an order."""
    return ServerSnapshot(
        "https://fleet.example",
        last_poll=NOW - 600,
        next_poll=NOW + 240,
        action="17",
        said="download",
        download="forced",
        update="skip",
        window_open=False,
        held="heat",
        outbox=2,
        trouble=("unauthorized", "poll: the fleet's server answered 401"),
    )


def shown_facts(count: int = 1) -> FixedFacts:
    """Return facts of a board with so many pipelines; the first one drifts."""
    names = ["digits", *(f"door {i}" for i in range(2, count + 1))][:count]
    made = [shown_pipeline(name, drifts=name == "digits") for name in names]
    return FixedFacts(
        shown=shown_agent(*made),
        logged=events_of(),
        points={name: points_of(drifts=name == "digits") for name in names},
        board=READINGS,
    )
