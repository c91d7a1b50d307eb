"""The child that runs a suspect's .tflite: it may be made to harm whoever runs it.

``python -I -m agent.cli.watermark_child PARENT``: one question on standard input, one
reply on standard output, then it ends.

The rules this module keeps:
 * Limit and lock in first; only then import numpy, the runtime, or what parses.
 * Standard output belongs to the reply: what a runtime prints goes to standard error.
"""

import os
import resource
import sys

from agent.cli.watermark_words import Answered, RunThis
from agent.worker.locks import lock_in

MEMORY_SHARE = 0.5  # of the machine's: a model that says it needs more is not run


def main(arguments: list[str]) -> None:
    """Lock in, run, end."""
    (parent,) = arguments
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = int(machine_bytes * MEMORY_SHARE)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    lock_in(int(parent), ())
    replies = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import msgspec

    question = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=RunThis)
    reply = msgspec.msgpack.encode(answer(question))
    with os.fdopen(replies, "wb") as out:
        out.write(reply)


def answer(question: RunThis) -> Answered:
    """Run the model over real inputs; return real outputs, or why there are none."""
    import numpy as np

    from agent.errors import AgentError
    from agent.worker.engines import build_engine
    from agent.worker.engines.tensors import real_values
    from agent.worker.examine import default_examiner

    try:
        engine = build_engine(default_examiner().executor, question.content)
        if len(engine.inputs) != 1:
            return Answered(error=f"it has {len(engine.inputs)} inputs")
        (spec,) = engine.inputs
        real = np.frombuffer(question.inputs, np.float32).reshape(question.count, -1)
        if real.shape[1] != np.prod(spec.shape):
            return Answered(error=f"its input is {spec.shape}")
        if spec.scale:
            limits = np.iinfo(spec.dtype)
            real = np.rint(real / np.float32(spec.scale)) + spec.zero_point
            real = np.clip(real, limits.min, limits.max)
        stored = real.astype(spec.dtype).reshape(question.count, *spec.shape)
        rows = [
            real_values(engine.outputs[0], engine.infer([row])[0]).ravel()
            for row in stored
        ]
    except (AgentError, ValueError, RuntimeError) as err:
        return Answered(error=str(err))
    return Answered(outputs=np.stack(rows).astype(np.float32).tobytes())


if __name__ == "__main__":
    main(sys.argv[1:])
