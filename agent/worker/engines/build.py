"""Building an engine: a runtime's interpreter, allocated, warm, behind the Protocol."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agent.core.executors import EngineName, Executor, Kernels
from agent.core.manifest import TensorSpec
from agent.core.reasons import Reason
from agent.errors import TrialFailedError
from agent.worker.engines.delegates import load_allowed
from agent.worker.engines.engine import Engine, Infer
from agent.worker.engines.failures import translated
from agent.worker.engines.graph import estimate_ram, read_nodes
from agent.worker.engines.tensors import fixed_shape, tensor_specs, zeros
from agent.worker.runtimes import PACKAGES, available_engines
from agent.worker.samples import Array, Arrays

Interpreter = Any  # the runtimes ship no types
# ``BUILTIN`` brings the default delegate, which is XNNPACK. A delegate of our own
# gets the graph untouched by it.
RESOLVERS: Mapping[Kernels, str] = MappingProxyType(
    {
        "xnnpack": "BUILTIN",
        "plain": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
        "reference": "BUILTIN_REF",
        "delegate": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    }
)


@dataclass(frozen=True, slots=True)
class InterpreterEngine:
    """An engine over the ``Interpreter`` that both runtimes share."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    infer: Infer
    interpreter: Interpreter

    @property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators; ``DELEGATE`` stands for all that one took over."""
        return tuple(sorted({node.operator for node in read_nodes(self.interpreter)}))

    @property
    def ram_bytes(self) -> int:
        """Bytes that the tensors need beside the file, in steps of 64 KiB."""
        return estimate_ram(self.interpreter)

    def reset(self) -> None:
        """Set the variable tensors inside the model back to zero."""
        self.interpreter.reset_all_variables()


def build_engine(
    executor: Executor,
    content: bytes | memoryview | str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Engine:
    """Build, allocate and warm an interpreter.

    Args:
        executor: What shall compute.
        content: The .tflite bytes, or the path of a file that will not change (a
            sealed memfd as ``/proc/self/fd/N``): it is mapped, where bytes cost their
            size in private memory.
        shapes: Input name -> shape, to fix open dimensions.

    Raises:
        TrialFailedError: ``no_executor``, ``delegate``, ``contract``,
            ``unsupported_op``, ``dynamic_shape``, ``memory`` or ``invoke``.
    """
    runtime = import_runtime(executor.engine)
    delegates = None
    if executor.delegate:
        delegates = [load_allowed(executor.delegate, runtime.load_delegate)]
    source = (
        {"model_path": content}
        if isinstance(content, str)
        else {"model_content": bytes(content)}
    )
    with translated("build"):
        interpreter = runtime.Interpreter(
            **source,
            num_threads=executor.threads,
            experimental_op_resolver_type=runtime.OpResolverType[
                RESOLVERS[executor.kernels]
            ],
            experimental_delegates=delegates,
        )
        _fix_shapes(interpreter, shapes or {})
    with translated("allocate"):
        interpreter.allocate_tensors()
    return _warm_engine(interpreter)


def import_runtime(name: EngineName) -> Any:  # noqa: ANN401 - untyped modules
    """Return a runtime's module, imported at its first use.

    Raises:
        TrialFailedError: ``no_executor``.
    """
    imported = sys.modules.get(f"{PACKAGES[name]}.interpreter")
    if imported:  # looking at the disk again would cost a candidate 0.2 ms
        return imported
    if name not in available_engines():
        raise TrialFailedError(
            f"no runtime {name} works on this board", reason=Reason.NO_EXECUTOR
        )
    try:
        return importlib.import_module(f"{PACKAGES[name]}.interpreter")
    except (ImportError, OSError) as err:  # OSError: a shared library is missing
        raise TrialFailedError(
            f"runtime {name} does not load: {err}", reason=Reason.NO_EXECUTOR
        ) from err


def _fix_shapes(
    interpreter: Interpreter, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Give every input the shape it will have for good."""
    for tensor in interpreter.get_input_details():
        shape = fixed_shape(tensor, shapes.get(tensor["name"]))
        if shape:
            interpreter.resize_tensor_input(tensor["index"], shape, strict=True)


def _warm_engine(interpreter: Interpreter) -> InterpreterEngine:
    """Run zeros through: memory is touched, and open output shapes become known."""
    fed = interpreter.get_input_details()
    inputs = tensor_specs(fed)
    with translated("first sample", Reason.INVOKE):
        for tensor, spec in zip(fed, inputs, strict=True):
            interpreter.set_tensor(tensor["index"], zeros(spec))
        interpreter.invoke()
    answered = interpreter.get_output_details()
    infer = _build_infer(
        interpreter, [t["index"] for t in fed], [t["index"] for t in answered]
    )
    engine = InterpreterEngine(inputs, tensor_specs(answered), infer, interpreter)
    engine.reset()
    return engine


def _build_infer(
    interpreter: Interpreter, fed: Sequence[int], answered: Sequence[int]
) -> Infer:
    """Return the sample path of a model: a closure without anything it could lack."""
    set_tensor: Callable[[int, Array], None] = interpreter.set_tensor
    invoke: Callable[[], None] = interpreter.invoke
    get_tensor: Callable[[int], Array] = interpreter.get_tensor

    def infer(samples: Sequence[Array]) -> Arrays:
        for index, sample in zip(fed, samples, strict=True):
            set_tensor(index, sample)
        invoke()
        return [get_tensor(index) for index in answered]

    if len(fed) != 1 or len(answered) != 1:
        return infer
    (only_input,), (only_output,) = fed, answered

    def infer_one(samples: Sequence[Array]) -> Arrays:
        (sample,) = samples
        set_tensor(only_input, sample)
        invoke()
        return [get_tensor(only_output)]

    return infer_one
