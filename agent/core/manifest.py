"""The manifest: what a bundle says about itself, parsed once into frozen values.

The rules this module keeps:
 * ``parse_manifest`` raises ``BundleRefusedError`` only, for any bytes.
 * Strict: unknown keys, duplicate keys, wrong types, NaN and impossible values are
   refused; ``schema`` rises when keys are added and older schemas stay readable.
 * Law: ``parse_manifest(render_manifest(m)) == m``.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from agent.core.degradation import DegradeSteps
from agent.core.marking import Marking, heads_mistake, marking_mistake
from agent.core.reasons import Reason
from agent.core.steps import Step, Window
from agent.errors import BundleRefusedError

SCHEMA = 4  # the newest this agent reads; ``needed_schema`` says what a manifest needs
MAX_MANIFEST_BYTES = 128 * 1024  # fits one control message; 5,000 labels take half
MAX_VERSION = 2**31 - 1  # fits every database, wire format and dashboard

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")]
ModelName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
ModelVersion = Annotated[int, Meta(ge=1, le=MAX_VERSION)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
Dimension = Annotated[int, Meta(ge=1, le=2**24)]
ByteCount = Annotated[int, Meta(ge=0, le=2**40)]
Text = Annotated[str, Meta(max_length=200)]
Dtype = Literal[
    "float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"
]
Task = Literal["classification", "regression", "anomaly", "detection", "raw"]


class Frozen(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every part of the manifest: immutable, and strict when parsed."""


class TensorSpec(Frozen, frozen=True):
    """One input or output tensor: the contract that is checked before activation.

    ``scale`` and ``zero_point`` are the per-tensor affine quantisation of the TFLite
    specification, ``real = scale * (stored - zero_point)``; scale 0 means none.
    """

    name: Text
    shape: Annotated[tuple[Dimension, ...], Meta(max_length=8)]
    dtype: Dtype
    scale: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    zero_point: Annotated[int, Meta(ge=-(2**15), le=2**15)] = 0


class Variant(Frozen, frozen=True):
    """One executable form of the model, and what it needs.

    Attributes:
        name: ``int8``, ``float``, ``small``...
        file: Entry of the bundle that holds the .tflite bytes.
        sha256: Digest of those bytes; ``size`` their number.
        inputs: Tensor contract, in the model's order; ``outputs`` likewise.
        tolerance: Largest difference from a golden output that still agrees, in
            real (dequantised) units.
        runtimes: Engines that may run it; empty means any.
        delegates: Names of ``[[delegate]]`` tables it may use.
        ram_bytes: What the interpreter needs beyond the file, measured by the packer.
        accuracy: Share of right answers on the author's own test data, 0 to 1; None
            where it is not said. The most accurate variant that a board can afford is
            the one that runs.
    """

    name: Name
    file: Annotated[str, Meta(pattern=r"^variants/[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)")]
    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=2**40)]
    inputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=64)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1, max_length=64)]
    tolerance: Annotated[float, Meta(ge=0, le=1e9)]
    runtimes: tuple[Literal["litert", "tflite"], ...] = ()
    delegates: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    ram_bytes: ByteCount = 0
    # Since schema 3
    accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None


class StateLink(Frozen, frozen=True):
    """An output that is fed back as an input of the next sample (streaming models)."""

    output: Text
    input: Text


class Postprocess(Frozen, frozen=True):
    """How outputs become a prediction.

    Attributes:
        top_k: Classification: how many labels a prediction names.
        output: Name of the tensor to read; empty means the first that is not state.
        layout: Detection: ``ssd`` (boxes, classes, scores, count) or ``yolov8``.
        min_score: Detection: boxes below it are not reported.
        max_overlap: Detection, yolov8: intersection over union above which the
            weaker of two boxes of one class is suppressed.
        max_boxes: Detection: at most this many boxes a sample.
    """

    top_k: Annotated[int, Meta(ge=1, le=100)] = 1
    output: Text = ""
    layout: Literal["ssd", "yolov8"] = "ssd"
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_overlap: Annotated[float, Meta(ge=0, le=1)] = 0.45
    max_boxes: Annotated[int, Meta(ge=1, le=1000)] = 100


class Golden(Frozen, frozen=True):
    """The golden samples' entry: ``golden.npz``, its digest, size and sample count."""

    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=2**40)]
    samples: Annotated[int, Meta(ge=1, le=10_000)]


class Budgets(Frozen, frozen=True):
    """What the model may cost on a board: p95 latency in ms, memory in MB."""

    p95_ms: Positive = 1000.0
    ram_mb: Positive = 256.0


class TrialRules(Frozen, frozen=True):
    """How a candidate earns its place; without numbers preflight alone decides.

    Attributes:
        preflight_s: Deadline of the whole preflight child.
        shadow_samples: Live samples the candidate must shadow; 0 means no shadowing.
        probation_s: How long it answers before it is committed.
        min_agreement: Share of shadowed samples that must agree with the active one.
        shadow_every: One in so many samples is copied to the shadow. A model that
            remembers earlier samples is given all of them.
        tolerance: How far scores (regression, anomaly) or outputs (raw) may differ
            and still agree, in real units; 0 means the variant's golden tolerance.
        probation_samples: At least so many answers before it is committed.
        wait_s: How long shadowing, or a probation whose time is over, waits for its
            samples.
        max_failed: Share of samples that may fail beyond the share that failed
            with the active model.
        max_slowdown: 95th percentile of its durations, as a multiple of the active
            model's on the same board; 0 means any.
    """

    preflight_s: Positive = 60.0
    shadow_samples: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    probation_s: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    min_agreement: Annotated[float, Meta(ge=0, le=1)] = 0.0
    # Since schema 2
    shadow_every: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    tolerance: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    probation_samples: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    wait_s: Annotated[float, Meta(gt=0, le=1e6)] = 600.0
    max_failed: Annotated[float, Meta(ge=0, le=1)] = 0.1
    max_slowdown: Annotated[float, Meta(ge=0, le=1e6)] = 0.0


NO_STEPS = DegradeSteps()
# Keys of [trial] that agents of schema 1 refuse as unknown.
TRIAL_KEYS_2 = frozenset(TrialRules.__struct_fields__[4:])


class MonitorRules(Frozen, frozen=True):
    """What the monitor may keep of the input: nothing, statistics, or samples."""

    keep: Literal["nothing", "statistics", "samples"] = "statistics"


class Manifest(Frozen, frozen=True):
    """Everything a bundle states about itself.

    Attributes:
        io: ``raw`` feeds and returns the model's own dtypes; ``float`` quantises the
            input and dequantises outputs from the tensor contract.
        labels: Class names, in the model's order; empty means numbers.
        preprocess: Steps from a raw sample to the model's first input.
        degrade: What a pipeline does less at each level, unless its settings say.
        watermark: How a board tells its own copy of the model.
    """

    schema: Annotated[int, Meta(ge=1)]
    model: ModelName
    version: ModelVersion
    task: Task
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=16)]
    golden: Golden
    version_name: Text = ""
    io: Literal["raw", "float"] = "raw"
    labels: Annotated[tuple[Text, ...], Meta(max_length=5_000)] = ()
    preprocess: Annotated[tuple[Step, ...], Meta(max_length=16)] = ()
    postprocess: Postprocess = Postprocess()
    state: Annotated[tuple[StateLink, ...], Meta(max_length=64)] = ()
    budgets: Budgets = Budgets()
    trial: TrialRules = TrialRules()
    monitor: MonitorRules = MonitorRules()
    degrade: DegradeSteps = NO_STEPS  # since schema 3
    watermark: Marking | None = None  # since schema 4

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on earlier samples: by state, or by a window."""
        windows = any(isinstance(step, Window) for step in self.preprocess)
        return windows or bool(self.state)

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``.

        Raises:
            BundleRefusedError: There is none (``manifest``).
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise refused(f"no variant is called {name!r}")


def needed_schema(
    trial: TrialRules,
    variants: Sequence[Variant] = (),
    degrade: DegradeSteps = NO_STEPS,
    watermark: Marking | None = None,
) -> int:
    """Return the lowest schema that can say all this: older agents read it, too.

    >>> needed_schema(TrialRules(shadow_samples=9)), needed_schema(TrialRules(wait_s=9))
    (1, 2)
    >>> needed_schema(TrialRules(), degrade=DegradeSteps(safe=("abstain",)))
    3
    """
    if watermark is not None:
        return 4
    if degrade != NO_STEPS or any(it.accuracy is not None for it in variants):
        return 3
    said = msgspec.to_builtins(trial)  # leaves out what stands at its default
    return 2 if TRIAL_KEYS_2 & said.keys() else 1


def parse_manifest(raw: bytes) -> Manifest:
    """Parse and check a manifest.

    Raises:
        BundleRefusedError: ``too_large``, ``schema`` (of a newer agent), ``manifest``.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleRefusedError(
            f"manifest.json has {len(raw)} bytes, at most {MAX_MANIFEST_BYTES} allowed",
            reason=Reason.TOO_LARGE,
        )
    try:
        tree = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=unique_keys,
            parse_constant=no_constants,
        )
        # JSON can spell half a character (\ud800), which no file and no page can hold:
        # UnicodeEncodeError is a ValueError.
        json.dumps(tree, ensure_ascii=False).encode()
        _check_schema(tree)
        manifest = msgspec.convert(tree, Manifest)
    except (ValueError, RecursionError, msgspec.ValidationError) as err:
        raise refused(str(err) or type(err).__name__) from err
    check_manifest(manifest)
    return manifest


def render_manifest(manifest: Manifest) -> bytes:
    """Return the one canonical spelling of a manifest: sorted keys, two spaces.

    An empty ``degrade`` is left out, whoever made it: older agents do not know it.
    """
    if manifest.degrade == NO_STEPS:
        manifest = replace(manifest, degrade=NO_STEPS)
    tree = msgspec.to_builtins(manifest)
    text = json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8") + b"\n"


def check_manifest(manifest: Manifest) -> None:
    """Check what types alone cannot say: unique names, state links that fit.

    Raises:
        BundleRefusedError: ``manifest``.
    """
    names = [variant.name for variant in manifest.variants]
    files = [variant.file for variant in manifest.variants]
    if len(set(names)) != len(names) or len(set(files)) != len(files):
        raise refused("two variants share a name or a file")
    for variant in manifest.variants:
        inputs = _by_name(variant.inputs, f"variant {variant.name}: inputs")
        outputs = _by_name(variant.outputs, f"variant {variant.name}: outputs")
        for link in manifest.state:
            _check_link(link, inputs, outputs)
    fed = [link.input for link in manifest.state]
    if len(set(fed)) != len(fed):
        raise refused("two state links feed one input")
    if manifest.watermark is not None:
        _check_watermark(manifest, manifest.watermark)


def refused(what: str, *, reason: Reason = Reason.MANIFEST) -> BundleRefusedError:
    """Return the error that refuses a manifest, with a message that names the place."""
    return BundleRefusedError(f"manifest.json: {what}", reason=reason)


def _check_schema(tree: object) -> None:
    """Name a newer schema before strict parsing trips over its new keys."""
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise refused(
            f"schema {schema} is newer than {SCHEMA}, the newest this agent reads",
            reason=Reason.SCHEMA,
        )
    if not isinstance(tree, dict):
        return
    trial = tree.get("trial")
    newer = sorted(TRIAL_KEYS_2 & trial.keys()) if isinstance(trial, dict) else []
    if schema == 1 and newer:
        raise refused(f"trial.{newer[0]} needs schema 2: agents of schema 1 refuse it")
    if schema in (1, 2) and (newest := _keys_of_schema_3(tree)):
        what = f"needs schema 3: agents of schema {schema} refuse it"
        raise refused(f"{newest[0]} {what}")
    if schema in (1, 2, 3) and "watermark" in tree:
        raise refused(f"watermark needs schema 4: agents of schema {schema} refuse it")


def _keys_of_schema_3(tree: dict[str, object]) -> list[str]:
    """Return the keys of a manifest that agents of older schemas do not know."""
    variants = tree.get("variants")
    listed = variants if isinstance(variants, list) else []
    found = ["degrade"] if "degrade" in tree else []
    found += [
        f"variants[{at}].accuracy"
        for at, variant in enumerate(listed)
        if isinstance(variant, dict) and "accuracy" in variant
    ]
    return found


def _check_watermark(manifest: Manifest, mark: Marking) -> None:
    """Answers to triggers can be read as bits: there are classes, and one input."""
    if manifest.task != "classification" or manifest.state:
        raise refused("watermark: only classifiers without state can be marked")
    if any(len(variant.inputs) != 1 for variant in manifest.variants):
        raise refused("watermark: only models of one input can be marked")
    if manifest.labels and len(manifest.labels) != len(mark.groups):
        raise refused(
            f"watermark: {len(mark.groups)} groups for {len(manifest.labels)} labels"
        )
    sizes = {variant.name: variant.size for variant in manifest.variants}
    if mistake := marking_mistake(mark) or heads_mistake(mark, sizes):
        raise refused(f"watermark: {mistake}")


def _check_link(
    link: StateLink, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]
) -> None:
    """A state link joins two existing tensors of one shape and type."""
    source, sink = outputs.get(link.output), inputs.get(link.input)
    if source is None or sink is None:
        raise refused(f"state: no tensors {link.output!r} -> {link.input!r}")
    if (source.shape, source.dtype) != (sink.shape, sink.dtype):
        raise refused(f"state: {link.output!r} and {link.input!r} differ in shape")


def _by_name(specs: tuple[TensorSpec, ...], where: str) -> dict[str, TensorSpec]:
    """Index tensors by their names, which have to differ."""
    named = {spec.name: spec for spec in specs}
    if len(named) != len(specs):
        raise refused(f"{where} share a name")
    return named


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse the same key twice: two readers would believe two different things."""
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def no_constants(name: str) -> object:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is not JSON")
