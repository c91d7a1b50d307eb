"""Computing anew: exact where it can be, near elsewhere; strange bytes are findings."""

import hashlib

import numpy as np
import pytest

from agent.cli.rerun_compute import KERNELS, recompute
from agent.cli.rerun_reader import recompute as recompute_in_child
from agent.cli.rerun_words import Inference, Question
from agent.core.executors import Kernels
from agent.core.manifest import render_manifest
from agent.core.rerun import conclude
from agent.errors import AgentError
from agent.worker.receipts import own_cpu
from tests.fakes.tiny_models import content, executor, loaded, manifest, record

ROWS = np.arange(12, dtype=np.float32).reshape(3, 1, 4)


def question(name: str, *inferences: Inference, rows: np.ndarray = ROWS) -> Question:
    """Return what the child would be asked about a tiny model."""
    stated, golden = record(manifest(name), [rows])
    raw = content(name)
    digest = hashlib.sha256(raw).hexdigest()
    return Question(render_manifest(stated), name, raw, digest, golden, inferences)


def answered(
    name: str, *given: np.ndarray, cpu: str = "", kernels: Kernels = "plain"
) -> Inference:
    """Return an inference as a board keeps it."""
    with loaded(manifest(name), name, executor(kernels)) as model:
        outputs = model.engine.infer(list(given))
        word = model.executor.describe()
    inputs = tuple(it.tobytes() for it in given)
    said = tuple(it.tobytes() for it in outputs)
    return Inference(7, inputs, said, word, cpu or own_cpu())


def result(asked: Question, kernels: tuple[Kernels, ...] = KERNELS) -> str:
    """Return the verdict's word on the only inference."""
    (found,) = recompute(asked, kernels)
    return conclude(found).result


def test_the_same_kernels_give_the_same_bits() -> None:
    """State that was kept is fed back as it was."""
    state = np.full((1, 4), 0.25, np.float32)
    inference = answered("streaming", ROWS[1], state)
    assert result(question("streaming", inference)) == "exact"


@pytest.mark.parametrize(
    ("shift", "cpu", "expected"),
    [(1e3, "", "differs"), (1e3, "elsewhere", "differs")],
)
def test_another_answer_differs(shift: float, cpu: str, expected: str) -> None:
    """However far away the auditor is."""
    state = np.zeros((1, 4), np.float32)
    honest = answered("streaming", ROWS[1], state, cpu=cpu)
    said = np.frombuffer(honest.outputs[0], np.float32) + np.float32(shift)
    lied = Inference(
        7,
        honest.inputs,
        (said.tobytes(), honest.outputs[1]),
        honest.executor,
        honest.cpu,
    )
    assert result(question("streaming", lied)) == expected


def test_a_model_that_remembers_is_skipped() -> None:
    """Its variables were not kept: nothing can be said, and nothing is alleged."""
    short = ROWS[:, :, :1]
    inference = answered("remembering", short[1])
    asked = question("remembering", inference, rows=short)
    assert result(asked) == "skipped"


@pytest.mark.parametrize("inputs", [(), (b"",), (b"x" * 15,), (b"x" * 16, b"y")])
def test_what_does_not_fit_is_a_finding(inputs: tuple[bytes, ...]) -> None:
    """Bytes of other sizes are about that inference; others are computed."""
    state = np.zeros((1, 4), np.float32)
    good = answered("streaming", ROWS[2], state)
    strange = Inference(6, inputs, good.outputs, good.executor, good.cpu)
    words = [conclude(it) for it in recompute(question("streaming", strange, good))]
    assert [it.result for it in words] == ["differs", "exact"]
    assert "cannot be computed" in words[0].detail


def test_a_child_says_the_same() -> None:
    """Locked in, in a process of its own, message by message."""
    state = np.zeros((1, 4), np.float32)
    inferences = [answered("streaming", row, state) for row in ROWS]
    asked = question("streaming", *inferences)
    steps: list[int] = []
    found = list(recompute_in_child(asked, lambda: steps.append(1)))
    assert [conclude(it).result for it in found] == ["exact"] * 3
    assert len(steps) == 3


def test_a_child_that_cannot_load_it_says_why() -> None:
    """The error is ours, with its reason."""
    asked = question("streaming", answered("streaming", ROWS[0], ROWS[0]))
    broken = Question(
        asked.manifest,
        asked.variant,
        b"no model",
        asked.sha256,
        asked.golden,
        asked.inferences,
    )
    with pytest.raises(AgentError) as refused:
        list(recompute_in_child(broken, lambda: None))
    assert refused.value.reason == "digest"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "crash"),
        ("print('what', flush=True)", "internal"),
        ("import sys; sys.stdin.buffer.read()", "internal"),
        ("import time; time.sleep(60)", "hang"),
    ],
)
def test_children_that_do_anything_else(script: str, reason: str) -> None:
    """A model that took its process over ends the audit, and nothing else."""
    import sys

    asked = question("streaming", answered("streaming", ROWS[0], ROWS[0]))
    command = (sys.executable, "-c", script)
    with pytest.raises(AgentError) as ended:
        list(recompute_in_child(asked, lambda: None, command, 1.0))
    assert ended.value.reason == reason
