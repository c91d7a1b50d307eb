"""The asked child's side: one model answers given inputs once, in a process of its own.

What is asked are the triggers of a watermark. The rules this module keeps:
 * They are read from memory and answered; none of them, and no single answer to one,
   is written, logged or counted anywhere.
 * Inputs are not trusted: what they are is checked before anything computes on them.
"""

import io
import math
import os
from collections.abc import Callable, Sequence

import numpy as np

from agent.core.container import parse_container
from agent.core.manifest import TensorSpec, parse_manifest
from agent.core.messages import Answers, Ask, Message, Refused
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, TrialFailedError
from agent.worker.model import LoadedModel, load_model
from agent.worker.npy import read_header
from agent.worker.preflight import ends_by
from agent.worker.samples import Array

Send = Callable[[Message], None]


def asked(order: Ask, descriptors: Sequence[int], send: Send) -> None:
    """Answer every input and report, as the message's docstring says.

    Args:
        order: What to load and how much to answer.
        descriptors: The model's sealed memfd, then the inputs'.
        send: Takes one message to the daemon.
    """
    with ends_by(order.deadline_s):
        try:
            send(Answers(_answer(order, *descriptors)))
        except AgentError as err:
            send(Refused(0, Reason(err.reason), str(err)))
        except MemoryError as err:
            send(Refused(0, Reason.MEMORY, f"no memory: {err}"))


def _answer(order: Ask, model_memfd: int, inputs_memfd: int) -> tuple[int, ...]:
    """Return the class of each input.

    Raises:
        AgentError: The model does not load, the inputs are not its, or it fails.
    """
    manifest = parse_manifest(order.manifest)
    wanted = (order.variant, order.executor, model_memfd, order.sha256)
    model = load_model(0, manifest, *wanted)
    content = os.pread(inputs_memfd, os.fstat(inputs_memfd).st_size, 0)
    stack = parse_inputs(content, order.variant, model.variant.inputs[0])
    if len(stack) > order.most:
        raise _unfit(f"{len(stack)} of them, at most {order.most} are answered")
    return tuple(_classify(model, one) for one in stack)


def parse_inputs(content: bytes, variant: str, spec: TensorSpec) -> Array:
    """Return the inputs of a variant: (n, *shape of its input), as the model stores it.

    Args:
        content: An .npz, stored, with one array for each variant by its name.
        variant: Whose array is wanted.
        spec: Its one input tensor.

    Raises:
        BundleRefusedError: ``malformed``, ``truncated``, ``too_large``: it is no .npz;
            ``contract``: it has no array of inputs for this variant.
    """
    entry = parse_container(memoryview(content)).get(f"{variant}.npy")
    if entry is None:
        raise _unfit(f"none are given for variant {variant!r}")
    file = io.BytesIO(entry)
    try:
        shape, fortran, dtype = read_header(file)
    except ValueError as err:
        raise BundleRefusedError(f"inputs: {err}", reason=Reason.MALFORMED) from err
    values = memoryview(entry)[file.tell() :]
    one = math.prod(spec.shape)
    # Numbers, and no pickles: a dtype of objects has no name that a manifest knows.
    fits = not fortran and dtype == np.dtype(spec.dtype)
    if not fits or math.prod(shape) * dtype.itemsize != len(values):
        raise _unfit(f"{dtype} {shape} in {len(values)} bytes")
    if not shape or not shape[0] or math.prod(shape) != shape[0] * one:
        raise _unfit(f"{shape} are not inputs of {spec.shape}")
    return np.frombuffer(values, dtype).reshape(shape[0], *spec.shape)


def _classify(model: LoadedModel, stored: Array) -> int:
    """Return the class that a model answers to one stored input.

    Raises:
        TrialFailedError: ``invoke``, or ``not_finite``: it is no class.
    """
    inputs = [stored]
    try:
        index, _ = model.judge(inputs, model.infer(inputs))
    except (ValueError, RuntimeError) as err:
        raise TrialFailedError(f"asked: {err}", reason=Reason.INVOKE) from err
    if index < 0:
        raise TrialFailedError("asked: it answers no class", reason=Reason.OUTPUT)
    return index


def _unfit(what: str) -> BundleRefusedError:
    """Return the error for inputs that are not the model's."""
    return BundleRefusedError(f"inputs: {what}", reason=Reason.CONTRACT)
