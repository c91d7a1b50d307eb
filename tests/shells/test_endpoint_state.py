"""State as JSON: complete, and JSON throughout."""

import json
from dataclasses import fields, replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.histogram import bucket_bound_ns, bucket_index
from agent.core.snapshot import (
    AgentSnapshot,
    ModelCounts,
    PipelineSnapshot,
    UpdateSnapshot,
)
from agent.core.targets import Wanted
from agent.core.updates import Decision, Progress
from agent.endpoint.state import (
    describe_agent,
    describe_readiness,
    is_ready,
    render_json,
)
from tests.fakes.snapshots import agent, pipeline, section


def shown(snapshot: AgentSnapshot) -> dict[str, object]:
    """Return the state as a client reads it."""

    def refuse(name: str) -> object:
        raise AssertionError(f"{name} is not JSON")

    parsed: dict[str, object] = json.loads(
        render_json(describe_agent(snapshot)), parse_constant=refuse
    )
    return parsed


def pipeline_of(snapshot: AgentSnapshot) -> dict[str, object]:
    """Return the only pipeline."""
    pipelines = shown(snapshot)["pipelines"]
    assert isinstance(pipelines, dict)
    found: dict[str, object] = pipelines["door"]
    return found


def models_of(snapshot: AgentSnapshot) -> list[dict[str, dict[str, object]]]:
    """Return what each model version answered."""
    models = pipeline_of(snapshot)["models"]
    assert isinstance(models, list)
    return models


def test_samples_add_up() -> None:
    """``in`` = ok + failed + dropped, by version, with reasons."""
    one, two = models_of(agent(pipeline()))
    assert one["samples"] == {
        "in": 5,
        "ok": 3,
        "failed": 0,
        "dropped": 2,
        "reasons": {"overrun": 2},
    }
    assert two["labels"] == {"no": 2}


@given(st.lists(st.integers(min_value=1, max_value=10**10), min_size=1))
def test_percentiles_come_from_fine_buckets(durations: list[int]) -> None:
    """Each percentile lies in the bucket of the true one, and they are in order."""
    counts = ModelCounts("kws", 1, (), section(durations))
    (model,) = models_of(agent(replace(pipeline(), counts=(counts,))))
    total = model["latency_ms"]["total"]
    assert isinstance(total, dict)
    assert total["p50"] <= total["p95"] <= total["p99"]
    assert total["p99"] <= bucket_bound_ns(bucket_index(max(durations))) / 1e6
    assert total["mean"] == pytest.approx(sum(durations) / len(durations) / 1e6)
    assert total["count"] == len(durations)


def test_what_was_never_measured_is_null() -> None:
    """Before the first sample there is no latency; JSON has no NaN."""
    fresh = replace(pipeline(), counts=(ModelCounts("kws", 1, (), section([])),))
    (model,) = models_of(agent(fresh))
    none = {"count": 0, "p50": None, "p95": None, "p99": None, "mean": None}
    assert model["latency_ms"]["total"] == none


def test_odd_times_are_null() -> None:
    """A gap or lag that is infinite or NaN is no number of JSON either."""
    odd = pipeline_of(
        agent(replace(pipeline(), gap_s=float("inf"), lag_s=float("nan")))
    )
    assert (odd["swap_gap_ms"], odd["source_lag_ms"]) == (None, None)


def test_a_pipeline_without_a_model_is_shown() -> None:
    """``active`` is null, the reason says why."""
    empty = replace(pipeline(ready=False, reason="no_model"), active=None, counts=())
    found = pipeline_of(agent(empty))
    assert (found["active"], found["reason"], found["models"]) == (None, "no_model", [])


def test_nothing_of_the_snapshot_is_left_out() -> None:
    """A field added to a pipeline's snapshot has to be shown, maybe renamed."""
    renamed = {
        "counts": "models",
        "gap_s": "swap_gap_ms",
        "lag_s": "source_lag_ms",
        "seq": "next_seq",
        "busy_s": "busy_ms",
        "budgets_ms": "models",
        "stand_in": "runs",
        "worker_pid": "worker",
        "worker_rss_bytes": "worker",
        "worker_locks": "worker",
    }
    keys = {renamed.get(f.name, f.name) for f in fields(PipelineSnapshot)} - {"name"}
    assert keys <= set(pipeline_of(agent(pipeline())))


def test_nothing_of_an_update_is_left_out() -> None:
    """A field added to the update's snapshot has to be shown, under its own name."""
    update = shown(agent(pipeline()))["update"]
    assert isinstance(update, dict)
    assert {f.name for f in fields(UpdateSnapshot)} <= set(update)


def test_decisions_and_progress_are_shown_whole() -> None:
    """What is wanted, why not yet, and how far it is: as the structs say it."""
    decision = Decision(
        "door", "waits", Wanted("kws", 3), "push", 3, "window", "w", 9.0
    )
    progress = Progress(8, "door", "kws", 3, "ab" * 32, "FETCHING", 10, 100, 5.0)
    snapshot = agent(pipeline())
    update = replace(snapshot.update, decisions=(decision,), progress=progress)
    found = shown(replace(snapshot, update=update))["update"]
    assert isinstance(found, dict)
    assert msgspec.convert(found["decisions"], tuple[Decision, ...]) == (decision,)
    assert msgspec.convert(found["progress"], Progress) == progress


def test_swaps_are_rows() -> None:
    """Counts by (result, reason) are rows with both."""
    assert pipeline_of(agent(pipeline()))["swaps"] == [
        {"result": "ok", "reason": "", "count": 1}
    ]


@given(st.lists(st.booleans(), max_size=4))
def test_an_agent_is_ready_if_all_pipelines_are(ready: list[bool]) -> None:
    """One pipeline that is not ready is enough to say so."""
    snapshot = agent(*(pipeline(f"p{n}", ready=r) for n, r in enumerate(ready)))
    assert is_ready(snapshot) == all(ready)
    assert describe_readiness(snapshot)["ready"] == all(ready)
