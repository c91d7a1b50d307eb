"""Executors: how reports name what computes."""

import msgspec
import pytest
from hypothesis import given

from agent.core.executors import DelegateFile, Executor
from tests.core.strategies import executors

TPU = DelegateFile(name="edgetpu", path="/usr/lib/libedgetpu.so.1", sha256="a" * 64)


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (Executor("litert", "xnnpack", 1, "2.3.0"), "litert 2.3.0 / xnnpack / 1"),
        (Executor("tflite", "plain", 4), "tflite / plain / 4"),
        (Executor("litert", "delegate", 1, "2.3.0", TPU), "litert 2.3.0 / edgetpu / 1"),
    ],
)
def test_description_names_runtime_kernels_and_threads(
    executor: Executor, words: str
) -> None:
    """Three parts in one order; a delegate goes by its own name."""
    assert executor.describe() == words


@given(executors)
def test_executors_survive_storage(executor: Executor) -> None:
    """What was chosen is what is read back from the state and from messages."""
    assert msgspec.json.decode(msgspec.json.encode(executor), type=Executor) == executor


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../tpu"), ("name", ""), ("sha256", "A" * 64), ("sha256", "a" * 63)],
)
def test_delegates_are_named_and_digested_strictly(key: str, value: str) -> None:
    """A delegate's name is a word and its digest is 64 lower-case hex digits."""
    tree = {"name": "tpu", "path": "p", "sha256": "a" * 64} | {key: value}
    with pytest.raises(msgspec.ValidationError, match=key):
        msgspec.convert(tree, DelegateFile)
