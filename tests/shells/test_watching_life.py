"""Monitors of real workers: what they see is counted, kept and given back."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agent.core.flow import FilesSource
from agent.core.manifest import TrialRules
from agent.core.profile import parse_profile, render_profile
from agent.core.reasons import Reason
from agent.core.watching import AnchorState, Monitored
from agent.errors import RequestRefusedError, TrialFailedError
from agent.settings import MonitorSettings
from agent.store.anchors import Anchors
from agent.supervise.trials import PipelineTrials
from agent.supervise.watching import Monitoring
from tests.fakes.candidates import altered
from tests.fakes.digits import (
    ENDLESS,
    STREAM,
    Bench,
    digits,
    in_loop,
    placed,
    running,
    until,
)

NOW = 1_795_000_000.0


def monitoring(state_dir: Path, **table: float) -> Monitoring:
    """Return monitors that learn soon, and keep what they learn on disk."""
    settings = replace(MonitorSettings(cpu_share=0.5, site_samples=200), **table)
    return Monitoring(settings, Anchors(state_dir), lambda: NOW)


def said(bench: Bench) -> Monitored:
    """Return what the monitor of version 1 says."""
    rows = [it.monitored for it in bench.now.watch if it.version == 1]
    return rows[0] if rows else Monitored()


def site(bench: Bench) -> AnchorState:
    """Return the state of the site's baseline."""
    found = [it for it in said(bench).anchors if it.anchor == "site"]
    return found[0] if found else AnchorState("site", valid=False)


def variant() -> str:
    """Return what the baseline of version 1 is known by."""
    return placed(1).bundle.manifest.variant("int8").sha256


@in_loop
async def test_what_is_seen_is_shown() -> None:
    """Samples are watched, counted, and cost some time; the budget is known."""
    async with running(placed(1)) as bench:
        await until(lambda: said(bench).samples > 0, "a report")
        now = bench.now
        assert said(bench).spent_ns > 0
        assert now.budgets_ms == {1: placed(1).bundle.manifest.budgets.p95_ms}
        assert 0 <= now.busy_s < 60


def test_a_baseline_outlives_its_worker(tmp_path: Path) -> None:
    """Counted over a kill; kept on disk; given to the next worker, also of another
    daemon; and gone once an operator says so."""

    @in_loop
    async def case() -> None:
        anchors = Anchors(tmp_path)
        async with running(placed(1), monitoring=monitoring(tmp_path)) as bench:
            await until(lambda: variant() in anchors.load("digits"), "a baseline")
            await until(lambda: site(bench).valid, "its use")
            kept, before = anchors.load("digits")[variant()], said(bench).samples
            os.kill(bench.now.worker_pid, signal.SIGKILL)
            await until(lambda: bench.now.restarts == {"crash": 1}, "the death")
            assert said(bench).samples >= before
            await until(lambda: said(bench).samples > before, "the next worker")
            assert site(bench).valid
        # So many are never seen here: what is collected anew stays incomplete.
        slow = monitoring(tmp_path, site_samples=20_000)
        async with running(placed(1), monitoring=slow) as bench:
            await until(lambda: site(bench).valid, "the baseline of a life before")
            assert anchors.load("digits") == {variant(): kept}
            await bench.pipeline.commission()
            assert anchors.load("digits") == {}
            await until(lambda: not site(bench).valid, "the order")
            await until(lambda: site(bench).collected > 0, "another baseline")
            assert site(bench).reason == "commissioning"

    case()


def test_without_time_nothing_is_watched(tmp_path: Path) -> None:
    """The settings turn it off: no report ever comes, and it is said so."""

    @in_loop
    async def case() -> None:
        off = monitoring(tmp_path, cpu_share=0.0)
        async with running(placed(1), monitoring=off) as bench:
            await bench.answers(1, 3000)
            assert said(bench).samples == 0
            assert site(bench).reason == "unwatched"
            with pytest.raises(RequestRefusedError) as refused:
                await bench.pipeline.commission()
            assert refused.value.reason == "watching_off"

    case()


@in_loop
async def test_without_a_model_nothing_begins_anew() -> None:
    """There is no baseline of nothing."""
    async with running() as bench:
        with pytest.raises(RequestRefusedError) as refused:
            await bench.pipeline.commission()
        assert refused.value.reason == "no_model"


@in_loop
async def test_a_swap_keeps_both_apart() -> None:
    """Each version has its own counters; the old one's stand still."""
    async with running(placed(1)) as bench:
        await until(lambda: said(bench).samples > 0, "a report")
        await bench.pipeline.swap_in(placed(2))
        bench.pipeline.commit(placed(2))
        frozen = said(bench)
        await until(lambda: any(it.version == 2 for it in bench.now.watch), "a watch")
        await until(
            lambda: any(
                it.monitored.samples for it in bench.now.watch if it.version == 2
            ),
            "a report of the other",
        )
        assert said(bench).samples >= frozen.samples
        assert said(bench).scores == ()


def scrambled(folder: Path) -> FilesSource:
    """Return the demo's stream with the pixels of each picture in disorder."""
    with np.load(STREAM.path) as archive:
        images = archive["images"]
    order = np.random.default_rng(4).permutation(images[0].size)
    mixed = images.reshape(len(images), -1)[:, order].reshape(images.shape)
    np.savez(folder / "mixed.npz", images=mixed)
    return replace(ENDLESS, path=str(folder / "mixed.npz"))


def of_surer_answers(raw: bytes) -> bytes:
    """Return a profile of answers that were five deviations surer than they are."""
    profile = parse_profile(raw)
    references = []
    for it in profile.references:
        mean = np.frombuffer(it.mean, "<f4").copy()
        sd = np.frombuffer(it.sd, "<f4")
        mean[it.features.index("confidence")] += 5 * sd[it.features.index("confidence")]
        references.append(replace(it, mean=mean.tobytes()))
    return render_profile(replace(profile, references=tuple(references)))


@pytest.mark.parametrize("what", ["answers", "pictures", "nothing"])
def test_a_candidate_is_blamed_for_its_answers_alone(tmp_path: Path, what: str) -> None:
    """With a real monitor: one whose answers are not what its profile says ends with
    `drift`; pictures that are none, or as they should be, fail nobody."""
    source = scrambled(tmp_path) if what == "pictures" else ENDLESS
    upset, profile = what == "answers", digits(3).profile
    # Long enough for any machine: an alarm ends it as soon as it comes.
    rules = TrialRules(probation_s=600.0 if upset else 3.0, probation_samples=3000)
    manifest = replace(digits(3).manifest, trial=rules)
    it = altered(manifest, 3, of_surer_answers(profile) if upset else profile)
    # The model before has no profile, so that it cannot say that the input moved.
    first = altered(replace(digits(1).manifest, trial=TrialRules()))

    @in_loop
    async def case() -> None:
        async with running(
            first, source=source, monitoring=monitoring(tmp_path)
        ) as bench:
            await bench.ready()
            trials = PipelineTrials({"digits": bench.pipeline}, ())
            await trials.swap_in("digits", it.bundle, it.installed)
            if upset:
                with pytest.raises(TrialFailedError) as failed:
                    await trials.watch("digits", it.bundle, it.installed)
                assert failed.value.reason == Reason.DRIFT
            else:
                await trials.watch("digits", it.bundle, it.installed)
            await trials.swap_back("digits")
            await until(lambda: bench.now.state == "active", "the active model")

    case()
