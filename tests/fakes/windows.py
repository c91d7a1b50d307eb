"""A model that only windows its samples: preprocess is real, nothing else is asked."""

from dataclasses import replace
from typing import Literal

from msgspec.structs import replace as with_fields

from agent.core.manifest import TensorSpec
from agent.core.steps import Window
from agent.worker.preprocess import build_preprocess
from tests.fakes.worker_parts import scripted_model


class WindowedModel:
    """A scripted model behind a real window.

    Attributes:
        model: As a worker has it loaded.
        resets: How often it was told to forget.
    """

    def __init__(
        self, length: int, hop: int, sample_is: Literal["row", "rows"] = "row"
    ) -> None:
        step = Window(length=length, hop=hop, sample_is=sample_is)
        spec = TensorSpec("in", (length, 1), "float32")
        preprocess = build_preprocess((step,), (spec,), "raw", finite=True)
        self.resets = 0

        def reset() -> None:
            self.resets += 1
            preprocess.reset()

        scripted = scripted_model(1)
        self.model = replace(
            scripted,
            manifest=with_fields(scripted.manifest, preprocess=(step,)),
            preprocess=preprocess,
            reset=reset,
        )
