"""On arm64: an offline install, ``doctor``, ``demo``, an update and a rollback."""

import json
import os
from errno import ECANCELED
from pathlib import Path
from typing import Any

import pytest

from agent.board.layers import LAYERS
from tests.arm64.elf import Elf, read_elf
from tests.arm64.root import DEADLINE_S, TINYWARD, ArmRoot

# The first test pays for making the root, too.
pytestmark = pytest.mark.timeout(4 * DEADLINE_S)

AARCH64 = 183  # EM_AARCH64
PAGE_BYTES = 16 * 1024  # Raspberry Pi OS on a Pi 5; some Jetsons have 64 KB
ROLLBACK = Path(__file__).with_name("rollback.sh")
Json = dict[str, Any]


def libraries(board: ArmRoot) -> dict[str, Elf]:
    """Return every shared library that was installed."""
    packages = next((board.path / "opt/tinyward/lib").glob("python3*"))
    found = (path for path in packages.rglob("*.so*") if not path.is_symlink())
    read = ((path.name, read_elf(path)) for path in found)
    return {name: elf for name, elf in read if elf is not None}


def test_every_library_is_for_arm64_and_for_large_pages(board: ArmRoot) -> None:
    """No wheel brought another machine's code, nor one that a Pi 5 cannot map."""
    found = libraries(board)
    assert len(found) > 20
    assert {elf.machine for elf in found.values()} == {AARCH64}
    coarse = {name for name, elf in found.items() if elf.alignment < PAGE_BYTES}
    assert coarse == set()


def test_doctor_says_what_the_board_has(board: ArmRoot) -> None:
    """The machine, the runtime, the processor's features; layers that are not there."""
    findings = json.loads(board.run(TINYWARD, "doctor", "--json"))["findings"]
    said = {row["topic"]: row["what"] for row in findings}
    assert "aarch64" in said["agent"]
    assert "aarch64" in said["hardware"]
    assert said["runtime"].startswith("litert ")
    assert "asimd" in said["processor"]
    layers = [row["what"] for row in findings if row["topic"] == "sandbox"]
    assert [line.partition(":")[0] for line in layers] == [*LAYERS]
    assert "no_new_privs" in layers
    assert [row for row in findings if row["mark"] == "red"] == []


def test_the_demo_holds_all_its_claims(board: ArmRoot) -> None:
    """An update under load without a lost sample, and both attacks are refused."""
    summary: Json = json.loads(
        board.run(TINYWARD, "demo", "--json", "--seconds", "6", "--rate", "50")
    )
    assert set(summary["claims"].values()) == {True}
    assert summary["swap"]["result"] == "ok"
    assert summary["samples"]["lost"] == 0


@pytest.fixture(scope="module")
def told(board: ArmRoot) -> tuple[Json, Json]:
    """Give the state after an update, and that after going back."""
    (board.path / "srv" / ROLLBACK.name).write_bytes(ROLLBACK.read_bytes())
    script = f"/srv/{ROLLBACK.name}"
    said = board.run("/bin/sh", script, str(int(DEADLINE_S / 4)))
    after_update, after_rollback = map(json.loads, said.splitlines())
    return after_update, after_rollback


def test_a_version_is_replaced_and_a_person_goes_back(told: tuple[Json, Json]) -> None:
    """Version 2 answers, then version 1 again; no sample is lost on the way."""
    pipelines = [state["pipelines"]["digits"] for state in told]
    assert [row["active"]["version"] for row in pipelines] == [2, 1]
    sums = [row["samples"] for row in pipelines[1]["models"]]
    ended = sum(row["ok"] + row["failed"] + row["dropped"] for row in sums)
    assert sum(row["in"] for row in sums) - ended in (0, 1)
    assert {row["failed"] for row in sums} == {0}


def test_an_executor_of_its_own_was_chosen(told: tuple[Json, Json]) -> None:
    """Preflight ran the golden samples here: kernels of Arm agree with those of x86."""
    active = told[0]["pipelines"]["digits"]["active"]
    assert active["executor"].startswith("litert ")


def test_a_layer_that_is_not_there_is_said_and_not_fatal(
    told: tuple[Json, Json],
) -> None:
    """Emulation has no filter of system calls: the worker runs, and says so."""
    locks = told[0]["pipelines"]["digits"]["worker"]["locks"]
    assert {*LAYERS} <= set(locks)
    assert (locks["parent"], locks["no_new_privs"], locks["no_core"]) == ("", "", "")
    # Every rule of the filter was understood: it is the kernel that refuses the whole.
    assert locks["seccomp"] in ("", f"[Errno {ECANCELED}] {os.strerror(ECANCELED)}")
