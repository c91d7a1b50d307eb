"""pack.toml: the manifest as its author writes it, without what can be computed.

The rules this module keeps:
 * ``parse_description`` is pure: bytes in, frozen values out. Unknown keys, wrong types
   and impossible values are errors that name the key.
 * Every key means what it means in the manifest; file names are relative to pack.toml.
"""

import tomllib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.core.degradation import DegradeSteps
from agent.core.manifest import (
    NO_STEPS,
    Budgets,
    ModelName,
    ModelVersion,
    MonitorRules,
    Name,
    Postprocess,
    StateLink,
    Task,
    Text,
    TrialRules,
)
from agent.core.mistakes import describe_mistake
from agent.core.reasons import Reason
from agent.core.steps import Step
from agent.errors import SettingsError
from agent.publish.origin import OriginTable

MAX_DESCRIPTION_BYTES = 1024 * 1024  # 5,000 labels take 100 kB
FileName = Annotated[str, Meta(min_length=1, max_length=4096)]
Labels = Annotated[tuple[Text, ...], Meta(max_length=5_000)]


class Described(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every table of pack.toml: immutable and strict."""


class VariantDescription(Described, frozen=True):
    """[[variant]]: one .tflite file of the model.

    Attributes:
        name: ``int8``, ``float``, ``small``...
        file: The .tflite file.
        tolerance: Largest difference from a golden output that still agrees, in real
            (dequantised) units. Kernels differ by a few steps of the output's scale.
        runtimes: Engines that may run it; empty means any.
        delegates: Names of ``[[delegate]]`` tables of agent.toml that it may use.
        accuracy: Share of right answers on the author's own test data, 0 to 1. Where
            all variants say it, a board runs the most accurate it can afford.
    """

    name: Name
    file: FileName
    tolerance: Annotated[float, Meta(ge=0, le=1e9)]
    runtimes: tuple[Literal["litert", "tflite"], ...] = ()
    delegates: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None


class PackDescription(Described, frozen=True):
    """Everything in pack.toml.

    Attributes:
        samples: Recorded samples before preprocess: an .npz, .npy or what the
            ``files`` source reads; the first ``golden_samples`` become golden.
        array: Which array of an .npz holds them; empty means the first, ``*`` all of
            them, one for each of the model's inputs by name.
        golden_samples: 32 take 4.8 MB of 224 x 224 colour images, and a second.
        labels: Class names in the model's order, or a file with one a line.
        degrade: What a pipeline does less at each level, unless its settings say.
        profile: The reference profile that ``tinyward profile`` made; empty: none.
        provenance: Where the model came from: an in-toto statement in a file, or a
            table of which one is made; empty: not said.
    """

    model: ModelName
    version: ModelVersion
    task: Task
    samples: FileName
    variant: Annotated[
        tuple[VariantDescription, ...], Meta(min_length=1, max_length=16)
    ]
    array: str = ""
    golden_samples: Annotated[int, Meta(ge=1, le=10_000)] = 32
    version_name: Text = ""
    io: Literal["raw", "float"] = "raw"
    labels: Labels | FileName = ()
    profile: Annotated[str, Meta(max_length=4096)] = ""
    provenance: OriginTable | Annotated[str, Meta(max_length=4096)] = ""
    preprocess: Annotated[tuple[Step, ...], Meta(max_length=16)] = ()
    postprocess: Postprocess = Postprocess()
    state: Annotated[tuple[StateLink, ...], Meta(max_length=64)] = ()
    budgets: Budgets = Budgets()
    trial: TrialRules = TrialRules()
    monitor: MonitorRules = MonitorRules()
    degrade: DegradeSteps = NO_STEPS


def parse_description(raw: bytes) -> PackDescription:
    """Parse and check pack.toml.

    Raises:
        SettingsError: ``settings``; the message names the key and what is wrong.
    """
    if len(raw) > MAX_DESCRIPTION_BYTES:
        raise wrong(f"{len(raw)} bytes, at most {MAX_DESCRIPTION_BYTES} allowed")
    try:
        description = msgspec.convert(
            tomllib.loads(raw.decode("utf-8")), PackDescription
        )
    except msgspec.ValidationError as err:
        raise wrong(describe_mistake(str(err))) from err
    except ValueError as err:  # no UTF-8, no TOML, an integer of 4,301 digits
        raise wrong(f"not TOML: {err}") from err
    except RecursionError as err:
        raise wrong("not TOML: nested too deeply") from err
    _check_unique([variant.name for variant in description.variant])
    return description


def parse_labels(raw: bytes) -> tuple[str, ...]:
    """Parse a file of labels: one a line, blank ones at the end ignored.

    Raises:
        SettingsError: ``settings``.
    """
    try:
        lines = raw.decode("utf-8").rstrip().splitlines()
        return msgspec.convert([line.strip() for line in lines], Labels)
    except UnicodeDecodeError as err:
        raise wrong(f"labels: not UTF-8 text: {err}") from err
    except msgspec.ValidationError as err:
        raise wrong(f"labels: {describe_mistake(str(err))}") from err


def wrong(what: str) -> SettingsError:
    """Return the error for a description that cannot be packed."""
    return SettingsError(what, reason=Reason.SETTINGS)


def _check_unique(names: list[str]) -> None:
    """Two variants cannot share a name: it names their entry."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise wrong(f"variant[{index}].name: two variants are called {name!r}")
