"""The only door to LiteRT and tflite-runtime: both behind one Protocol.

The rules this folder keeps:
 * Only the runtimes' public ``Interpreter`` is used; never ``CompiledModel``, which
   holds the GIL while it runs and dies of truncated files.
 * Whatever a runtime raises while it builds leaves as ``TrialFailedError`` with a
   reason; an allocation failure's reason is ``memory``, never ``contract``.
 * A runtime is imported when an executor first asks for it.
 * One engine is only ever touched by one thread at a time.
"""

from agent.worker.engines.build import build_engine, import_runtime
from agent.worker.engines.engine import Engine, Infer
from agent.worker.runtimes import available_engines

__all__ = ["Engine", "Infer", "available_engines", "build_engine", "import_runtime"]
