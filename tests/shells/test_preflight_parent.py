"""The daemon's side of a preflight: whatever the child does, a verdict comes of it."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from agent.core.manifest import Manifest, render_manifest
from agent.core.opened_bundle import OpenedBundle
from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError
from agent.supervise.child import PROGRAM
from agent.supervise.preflight import (
    PreflightReport,
    Wish,
    run_preflight,
)
from tests.fakes.digits import AlteredBundle, digits, in_loop
from tests.fakes.tiny_models import content
from tests.shells.test_preflight import lying

ROGUE = (sys.executable, str(Path(__file__).parent.parent / "fakes" / "rogue_child.py"))
WISH = Wish(kernels="plain")  # two pairs: each variant on plain kernels


def altered(manifest: Manifest, model: bytes | None = None) -> AlteredBundle:
    """Return the demo's bundle with another manifest, or other models."""
    bundle = digits(1)
    return AlteredBundle(
        manifest,
        render_manifest(manifest),
        bundle.sha256,
        bundle.size,
        bundle.golden,
        model or bytes(bundle.variant_bytes("int8")),
    )


def open_descriptors() -> int:
    """Return how many descriptors are open; the listing's own is one of the listed."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1


async def refused(
    bundle: OpenedBundle, behaviour: str = ""
) -> tuple[str, PreflightReport]:
    """Return the reason of a refusal, and what was found out until then."""
    report = PreflightReport()
    program = (*ROGUE, behaviour) if behaviour else PROGRAM
    with pytest.raises(TrialFailedError) as err:
        await run_preflight(bundle, WISH, report, program)
    return err.value.reason, report


@in_loop
async def test_a_good_bundle_is_tried_on_every_pair() -> None:
    """All pairs are found out about, in a locked child, and one is chosen."""
    report = await run_preflight(digits(1), Wish(cpu_count=2))
    assert report.chosen is not None
    assert {found.reason for found in report.findings.values()} == {Reason.NONE}
    assert report.findings.keys() == set(range(len(report.plan)))
    assert [found.index for found in report.findings.values()] == [*report.findings]
    assert (report.chosen.variant, report.chosen.executor) in report.plan
    assert report.locks["seccomp"] == ""
    assert report.crashed == {}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("segfault", "crash"),
        ("starved", "memory"),
        ("alarmed", "hang"),
        ("confused", "crash"),
        ("nonsense", "crash"),
        ("late_nonsense", "crash"),
        ("stranger", "crash"),
        ("huge", "crash"),
        ("wild", "crash"),
        ("no_findings", "crash"),
        ("impossible", "crash"),
        ("flood_findings", "crash"),
    ],
)
def test_whatever_the_child_does_is_a_verdict(behaviour: str, reason: str) -> None:
    """A child that dies, lies or talks nonsense fails the candidate, nobody else."""

    @in_loop
    async def case() -> None:
        found, _ = await refused(digits(1), behaviour=behaviour)
        assert found == reason

    case()


@in_loop
async def test_each_pair_gets_its_own_chance() -> None:
    """The pair that was announced is to blame; another child tries the others."""
    _, report = await refused(digits(1), behaviour="segfault")
    assert len(report.plan) == 2
    assert report.crashed == {0: Reason.CRASH, 1: Reason.CRASH}


@in_loop
async def test_findings_of_a_second_child_are_its_own() -> None:
    """What the next child calls its first pair is the second of the plan."""
    program = (*ROGUE, "segfault_once")
    report = await run_preflight(digits(1), WISH, program=program)
    assert report.chosen is not None
    assert report.crashed == {0: Reason.CRASH}
    assert report.findings.keys() == {1}
    assert (report.chosen.variant, report.chosen.executor) == report.plan[1]


@in_loop
async def test_a_child_that_hangs_is_ended() -> None:
    """A deadline ends a preflight of which nothing comes; the child is gone."""
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await run_preflight(digits(1), WISH, program=(*ROGUE, "hang"))
    assert asyncio.all_tasks() == before


@in_loop
async def test_a_model_that_hangs_ends_by_its_own_deadline() -> None:
    """The child's alarm ends it; that is a hang, not a crash or a lack of memory."""
    manifest = digits(1).manifest
    hurried = replace(manifest, trial=replace(manifest.trial, preflight_s=0.001))
    reason, _ = await refused(altered(hurried))
    assert reason == "hang"


@in_loop
async def test_no_descriptor_left_is_the_devices_fault() -> None:
    """A board without a descriptor or a process to spare does not blame the model."""
    bundle = digits(1)
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    errors = []
    for left in range(8):
        few = open_descriptors() + left
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, old[1]))
        try:
            await run_preflight(bundle, WISH, program=(*ROGUE, "nonsense"))
        except (DeviceError, TrialFailedError) as err:
            errors.append(err)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, old)
    starved = [err for err in errors if isinstance(err, DeviceError)]
    assert len(starved) > 3
    assert {err.reason for err in starved} == {Reason.MEMORY}


@in_loop
async def test_bytes_that_changed_are_refused() -> None:
    """The child hashes what it loads."""
    changed = bytearray(digits(1).variant_bytes("int8"))
    changed[100] ^= 1
    reason, report = await refused(altered(digits(1).manifest, bytes(changed)))
    assert reason == "digest"
    assert report.crashed == {}


@in_loop
async def test_a_budget_that_is_exceeded_is_named() -> None:
    """Too slow for its own manifest: `latency`."""
    stated = digits(1).manifest
    int8 = tuple(each for each in stated.variants if each.name == "int8")
    budgets = replace(stated.budgets, p95_ms=1e-6)
    reason, _ = await refused(altered(replace(stated, variants=int8, budgets=budgets)))
    assert reason == "latency"


@in_loop
async def test_no_memory_is_named() -> None:
    """A model that needs more than it may have: `memory`, and nothing crashes."""
    stated, golden = lying("huge")
    huge = AlteredBundle(
        stated,
        render_manifest(stated),
        "0" * 64,
        1,
        memoryview(golden),
        content("huge"),
    )
    reason, report = await refused(huge)
    assert (reason, report.crashed) == ("memory", {})
