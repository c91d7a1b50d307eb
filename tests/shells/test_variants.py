"""Variants chosen by a real preflight child, kept by a real store, and shown."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from agent.cli import cli
from agent.core.executors import Executor
from agent.core.installed import PassedOver
from agent.core.messages import Finding
from agent.core.reasons import Reason
from agent.core.update_machine import Job
from agent.errors import TrialFailedError
from agent.publish.pack import render_bundle
from agent.store import Store
from agent.supervise.preflight import PreflightReport, Wish, run_preflight
from agent.trust.bundle import Bundle
from tests.fakes.digits import in_loop
from tests.fakes.fleet import variants
from tests.fakes.stored import content, installed
from tests.fakes.two_variants import LARGE, SMALL, two_variants

EXECUTOR = Executor("litert", "xnnpack", 2, "2.3.0")
ROWS = tuple(
    PassedOver(f"v{number}", EXECUTOR, "golden" if number % 2 else "", "é" * 200, 0.1)
    for number in range(16)
)


def needed(bundle: Bundle, name: str) -> int:
    """Return the bytes of memory that a variant asks for."""
    variant = bundle.manifest.variant(name)
    return variant.size + variant.ram_bytes


@in_loop
async def test_the_most_accurate_variant_is_chosen() -> None:
    """On whatever computes it fastest; all others are explained."""
    report = await run_preflight(two_variants(), Wish(cpu_count=2))
    chosen = report.chosen
    assert chosen is not None
    assert chosen.variant == LARGE
    assert chosen.why == "most accurate of 2 variants that keep the budgets, 0.97"
    tried = {(row.variant, row.executor) for row in chosen.passed_over}
    assert tried | {(chosen.variant, chosen.executor)} == set(report.plan)
    small = [row.detail for row in chosen.passed_over if row.variant == SMALL]
    assert small
    assert all("accuracy 0.91 against 0.97" in detail for detail in small)


@in_loop
async def test_without_all_accuracies_the_fastest_is_chosen() -> None:
    """What one variant says of itself is compared with nothing."""
    report = await run_preflight(two_variants(large=None), Wish(cpu_count=2))
    assert report.chosen is not None
    assert report.chosen.why.startswith("fastest of ")


@in_loop
async def test_what_the_board_has_no_memory_for_is_not_tried() -> None:
    """The smaller variant runs, and the large one's row says what is missing."""
    bundle = two_variants()
    between = (needed(bundle, SMALL) + needed(bundle, LARGE)) / 2
    report = await run_preflight(bundle, Wish(cpu_count=2, available_bytes=between))
    chosen = report.chosen
    assert chosen is not None
    assert chosen.variant == SMALL
    large = [row for row in chosen.passed_over if row.variant == LARGE]
    assert {row.reason for row in large} == {"memory"}
    assert all("available" in row.detail for row in large)
    assert all(row.p50_ms == 0 for row in large)


@in_loop
async def test_no_memory_for_any_variant_is_a_refusal() -> None:
    """Nothing is loaded to find that out."""
    report = PreflightReport()
    with pytest.raises(TrialFailedError) as caught:
        await run_preflight(two_variants(), Wish(available_bytes=1.0), report)
    assert caught.value.reason == Reason.MEMORY
    assert all(isinstance(it, Finding) for it in report.findings.values())
    assert report.findings.keys() == set(range(len(report.plan)))


def test_reasons_survive_a_restart(tmp_path: Path) -> None:
    """The store keeps with a model why it runs, also in the job on the way to it."""
    model = replace(installed(1), why="fastest", passed_over=ROWS, p50_ms=0.25)
    job = Job("door", "kws", 1, model.sha256, installed=model)
    store = Store.open(tmp_path / "state")
    with store.stage(model.sha256, model.size) as staging:
        staging.write(memoryview(content(1)))
        staging.commit()
    store.save_job(job)
    store.close()
    again = Store.open(tmp_path / "state")
    assert again.load_job() == job
    again.commit("door", model)
    again.close()
    third = Store.open(tmp_path / "state")
    assert third.slots("door").active == model
    third.close()


def test_inspect_says_why(tmp_path: Path) -> None:
    """``inspect --run`` shows what was declared, what was chosen, and why."""
    path = tmp_path / "two.bundle"
    bundle = two_variants()
    golden, profile = bytes(bundle.golden), bundle.profile
    raw = render_bundle(bundle.manifest, variants(bundle), golden, profile)
    path.write_bytes(raw)
    result = CliRunner().invoke(cli, ["inspect", "--run", "--json", str(path)])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {it["name"]: it["accuracy"] for it in found["variants"]} == {
        LARGE: 0.97,
        SMALL: 0.91,
    }
    (chosen,) = (it for it in found["trials"] if it["chosen"])
    assert (chosen["variant"], chosen["why"][:13]) == (LARGE, "most accurate")
    assert all(it["why"] for it in found["trials"] if not it["finding"]["reason"])
    shown = CliRunner().invoke(cli, ["inspect", "--run", str(path)])
    assert "Accuracy" in shown.stdout
    assert "accuracy 0.91 against 0.97" in " ".join(shown.stdout.split())
