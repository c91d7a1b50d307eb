"""Executors: runtime x kernels x delegate x threads, what actually computes.

>>> Executor(engine="litert", engine_version="2.3.0", kernels="xnnpack").describe()
'litert 2.3.0 / xnnpack / 1'
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

EngineName = Literal["litert", "tflite"]
Kernels = Literal["xnnpack", "plain", "reference", "delegate"]


class DelegateFile(Struct, frozen=True, forbid_unknown_fields=True):
    """[[delegate]]: a delegate library that bundles may ask for by name.

    Attributes:
        name: What a variant's ``delegates`` calls it.
        path: The library.
        sha256: Its digest; a file that differs is not loaded.
        options: Handed to the delegate as they are.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")]
    path: str
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    options: dict[str, str] = {}


class Executor(Struct, frozen=True):
    """What computes: part of every report, because outputs differ between kernels.

    Attributes:
        engine: Which runtime; ``engine_version`` its version, for reports only.
        kernels: ``xnnpack`` (the default delegate), ``plain`` (optimised built-in),
            ``reference`` (the oracle), or ``delegate``.
        threads: Threads of the interpreter.
        delegate: The allowed delegate library, with kernels ``delegate`` only.
    """

    engine: EngineName
    kernels: Kernels
    threads: int = 1
    engine_version: str = ""
    delegate: DelegateFile | None = None

    def describe(self) -> str:
        """Return ``litert 2.3.0 / xnnpack / 1``."""
        runtime = f"{self.engine} {self.engine_version}".strip()
        kernels = self.delegate.name if self.delegate else self.kernels
        return f"{runtime} / {kernels} / {self.threads}"
