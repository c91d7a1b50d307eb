"""The graph inside a model: its operators, and what its tensors need.

Both runtimes know the graph, but only ``_get_ops_details`` tells it. That method is
private, so it is used in this module alone and never on the sample path.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

PAGE_BYTES = 4096
RAM_STEP_BYTES = 64 * 1024  # estimates are no finer than that


class Inspectable(Protocol):
    """The part of both runtimes' ``Interpreter`` that this module asks."""

    def get_tensor_details(self) -> list[dict[str, Any]]:
        """Return what is known of every tensor."""

    def get_input_details(self) -> list[dict[str, Any]]:
        """Return what is known of the inputs."""

    def get_output_details(self) -> list[dict[str, Any]]:
        """Return what is known of the outputs."""

    def _get_ops_details(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: the tensors it reads and writes, by index."""

    operator: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_nodes(interpreter: Inspectable) -> tuple[Node, ...]:
    """Return the operators of the main graph, in the order they run."""
    return tuple(
        Node(str(node["op_name"]), _indices(node["inputs"]), _indices(node["outputs"]))
        for node in interpreter._get_ops_details()  # noqa: SLF001 - see the module
    )


def estimate_ram(interpreter: Inspectable) -> int:
    """Return bytes that the tensors need beside the file, in steps of 64 KiB.

    Counted twice over: the largest sum of tensors that live at one time, as an arena
    has to hold them, and the constants, of which fast kernels keep a packed copy. It
    depends on the model alone, not on the machine: bundles stay reproducible.
    """
    sizes: dict[int, int] = {
        int(tensor["index"]): int(np.prod(tensor["shape"], dtype=np.int64))
        * np.dtype(tensor["dtype"]).itemsize
        for tensor in interpreter.get_tensor_details()
    }
    nodes = read_nodes(interpreter)
    fed = {int(tensor["index"]) for tensor in interpreter.get_input_details()}
    kept = {int(tensor["index"]) for tensor in interpreter.get_output_details()}
    moving = fed.union(*(node.outputs for node in nodes))
    read = kept.union(*(node.inputs for node in nodes))
    constant_bytes = sum(sizes.get(index, 0) for index in read - moving)
    need = peak_bytes(nodes, sizes, fed, kept) + constant_bytes
    return -(-need // RAM_STEP_BYTES) * RAM_STEP_BYTES


def peak_bytes(
    nodes: Sequence[Node],
    sizes: Mapping[int, int],
    fed: Iterable[int],
    kept: Iterable[int],
) -> int:
    """Return the largest sum of tensors that live at one time.

    Args:
        nodes: The operators, in the order they run.
        sizes: Tensor index -> bytes.
        fed: Inputs, which live from the start; ``kept`` outputs, to the end.
        kept: See above.

    >>> chain = (Node("A", (0,), (1,)), Node("B", (1,), (2,)))
    >>> peak_bytes(chain, {0: 4, 1: 8, 2: 1}, fed=[0], kept=[2])
    12
    """
    last_use = {index: at for at, node in enumerate(nodes) for index in node.inputs}
    live = set(fed)
    peak = sum(sizes.get(index, 0) for index in live)
    for at, node in enumerate(nodes):
        live.update(node.outputs)
        peak = max(peak, sum(sizes.get(index, 0) for index in live))
        live -= {index for index in live if last_use.get(index, -1) <= at} - set(kept)
    return peak


def _indices(values: Iterable[int]) -> tuple[int, ...]:
    """Return tensor indices without -1, which stands for a missing optional one."""
    return tuple(int(value) for value in values if int(value) >= 0)
