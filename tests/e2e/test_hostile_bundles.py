"""Two thousand hostile bundles: unsigned ones never run, signed nonsense harms nobody.

Volume goes through the same functions that the daemon calls, in this process; samples
of both go through a real daemon.
"""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agent import RELEASED_S
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, TrialFailedError
from agent.supervise.preflight import Wish, run_preflight
from agent.trust.bundle import open_bundle
from agent.trust.client import TrustedRepository
from tests.e2e.conftest import FULL_LOAD, MakeBoard
from tests.fakes.daemon_process import read_lines
from tests.fakes.fleet import (
    MAX_BYTES,
    MODEL,
    Fleet,
    bundle,
    opened_bundle,
    packed,
)
from tests.fakes.memory_notes import MemoryNotes
from tests.fakes.mutants import mutated, resealed

MUTANTS = 1000
TRIED = 150  # of them in a preflight child, two at a time
DELIVERED = 10
GOLDEN_SAMPLES = 32
STEADY = {**FULL_LOAD, "rate": 1000.0}


def test_2_4_a_thousand_unsigned_mutants_are_all_refused(tmp_path: Path) -> None:
    """TUF's length and digest stop every one before anything parses it."""
    fleet = Fleet(tmp_path)
    fleet.publish(1)
    now = time.time()  # noqa: TID251 - the repository was made at this time
    repository = TrustedRepository(
        metadata_dir=tmp_path / "tuf",
        repository=str(fleet.path),
        root=fleet.spoiled.root,
        notes=MemoryNotes(),
        build_time=RELEASED_S,
    )
    repository.refresh(now)
    target = repository.find(MODEL, 1)
    file = fleet.spoiled.bundle_file(MODEL, 1)
    good, chance = file.read_bytes(), random.Random(1)  # noqa: S311 - a seeded storm
    file.chmod(0o644)
    reasons: Counter[str] = Counter()
    for _ in range(MUTANTS):
        file.write_bytes(mutated(good, chance))
        received = bytearray()
        with pytest.raises(BundleRefusedError) as caught:
            repository.fetch(target, received.extend, MAX_BYTES)
        reasons[caught.value.reason] += 1
    assert set(reasons) <= {Reason.DIGEST, Reason.LENGTH, Reason.TRUNCATED}
    assert sum(reasons.values()) == MUTANTS
    file.write_bytes(good)
    received = bytearray()
    repository.fetch(target, received.extend, MAX_BYTES)
    assert bytes(received) == good


def test_2_4_unsigned_mutants_never_reach_the_store_of_a_daemon(
    make_board: MakeBoard, fleet: Fleet
) -> None:
    """Five through the real thing: version 1 answers on, each refusal is logged."""
    chance = random.Random(2)  # noqa: S311 - a seeded storm
    fleet.publish(1)
    board = make_board(source=STEADY)
    with board:
        board.wait_version(1)
        for version in range(2, 7):
            fleet.publish_spoiled(version, mutated(bundle(version), chance))
            board.wait_said(f"model=digits version={version} generation=")
            assert board.version() == 1
        results = board.state()["update"]["results"]
        refused = {row["reason"] for row in results if row["result"] == "refused"}
        assert refused <= {"digest", "length", "truncated"}
        objects = list((board.state_dir / "obj").iterdir())
        assert [path.read_bytes() for path in objects] == [bundle(1)]
        fleet.publish(7)
        board.wait_version(7)
        sums = board.samples()
    assert (sums["failed"], sums["dropped"]) == (0, 0)


def signed_mutants(count: int, seed: int) -> list[bytes]:
    """Return bundles with damaged contents and right seals, versions 2, 3..."""
    chance = random.Random(seed)  # noqa: S311 - a seeded storm
    return [resealed(packed(1), chance, version) for version in range(2, count + 2)]


def test_38_40_a_thousand_signed_mutants_open_and_some_are_tried() -> None:
    """Opening raises one kind of error only; a preflight always ends in a verdict."""
    mutants = signed_mutants(MUTANTS, seed=3)
    for content in mutants:
        opened = open_bundle(content, max_bytes=MAX_BYTES)
        assert opened.manifest.model == MODEL
    verdicts = asyncio.run(judged(mutants[:TRIED]))
    assert sum(verdicts.values()) == TRIED
    known = {str(reason) for reason in Reason}
    assert set(verdicts) <= known
    # Some damage hits a name or a padding byte and changes no answer.
    assert 0 < verdicts[""] < TRIED


async def judged(mutants: list[bytes]) -> Counter[str]:
    """Try bundles in preflight children, two at a time; count the reasons."""
    verdicts: Counter[str] = Counter()
    free = asyncio.Semaphore(2)

    async def judge(content: bytes) -> None:
        async with free:
            wish = Wish(kernels="plain", cpu_count=1)
            try:
                report = await run_preflight(opened_bundle(content), wish)
            except TrialFailedError as err:
                verdicts[str(err.reason)] += 1
            else:
                assert report.chosen is not None
                verdicts[""] += 1

    async with asyncio.TaskGroup() as group:
        for content in mutants:
            group.create_task(judge(content))
    return verdicts


def test_38_40_signed_mutants_run_only_where_their_golden_samples_agree(
    make_board: MakeBoard, fleet: Fleet, tmp_path: Path
) -> None:
    """Ten through the real daemon: it lives, and what it runs answers as recorded."""
    path = tmp_path / "lines.jsonl"
    sink = {"kind": "file", "path": path, "max_mb": 4000.0}
    fleet.publish(1)
    board = make_board(source=STEADY, sinks=[sink])
    mutants = signed_mutants(DELIVERED, seed=4)
    committed = []
    with board:
        board.wait_version(1)
        for version, content in enumerate(mutants, start=2):
            fleet.publish(version, content)
            board.wait_said(f"model=digits version={version} generation=")
            assert board.get("/healthz")[0] == 200
            if f"update.committed pipeline=digits model=digits version={version} " in (
                board.words()
            ):
                committed.append(version)
        last = DELIVERED + 2
        fleet.publish(last, None)
        board.wait_version(last)
        assert board.pipeline()["restarts"] == {}
        sums = board.samples()
    assert (sums["failed"], sums["dropped"]) == (0, 0)
    lines = read_lines(path)
    assert {line["version"] for line in lines} == {1, *committed, last}
    expected = scores_of(lines, 1)
    for version in committed:
        for sample, score in scores_of(lines, version).items():
            if sample in expected:
                assert score == pytest.approx(expected[sample], abs=0.1)


def scores_of(lines: list[dict[str, object]], version: int) -> dict[int, float]:
    """Return the scores of the samples that golden samples were made of."""
    count = len(np.load(FULL_LOAD["path"])["labels"])  # type: ignore[arg-type] # a path
    found = {}
    for line in lines:
        sample = (int(str(line["seq"])) - 1) % count
        if line["version"] == version and sample < GOLDEN_SAMPLES:
            found[sample] = float(str(line["score"]))
    return found
