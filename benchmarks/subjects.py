"""What is measured: public models where they are found, packed as bundles."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from agent.core.executors import EngineName, Executor, Kernels
from agent.core.installed import Installed
from agent.core.manifest import TrialRules
from agent.publish.description import PackDescription, parse_description
from agent.publish.pack import pack, render_bundle
from agent.supervise.placing import Placed
from agent.trust.bundle import Bundle, open_bundle
from agent.worker.engines import available_engines
from agent.worker.examine import default_examiner

DEMO = Path(__file__).parent.parent / "agent" / "demo" / "assets" / "digits-2"
PUBLIC = {
    "kws": "kws_ref_model.tflite",
    "vww": "vww_96_int8.tflite",
    "resnet": "pretrainedResnet.tflite",
}
DEMO_NAME = "demo"  # no public model: the demo's
_FOLDER = tempfile.TemporaryDirectory(prefix="tinyward-bench-")  # gone at exit
INPUTS = 64  # enough that no input stays in the first-level cache by chance
DESCRIPTION = """
model = "{name}"
version = {version}
task = "{task}"
samples = "samples.npz"
golden_samples = 8
[[variant]]
name = "only"
file = "{file}"
tolerance = 1000000.0
[budgets]
p95_ms = 10000.0
ram_mb = 64.0
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A packed model and inputs for it.

    Attributes:
        whole: The bundle's bytes; ``bundle`` is the bundle opened.
        samples: The .npz its source reads.
        inputs: Those samples, each of the model's own shape and type.
        public: Whether it is the public model that the targets speak of.
    """

    name: str
    whole: bytes
    bundle: Bundle
    samples: Path
    inputs: Sequence[np.ndarray]
    public: bool

    def placed(self, executor: Executor) -> Placed:
        """Return the bundle as something a pipeline can run."""
        manifest = self.bundle.manifest
        installed = Installed(
            model=manifest.model,
            version=manifest.version,
            sha256=self.bundle.sha256,
            size=self.bundle.size,
            variant="only",
            executor=executor,
        )
        return Placed(self.bundle, installed)

    def content(self) -> bytes:
        """Return the .tflite bytes."""
        return bytes(self.bundle.variant_bytes("only"))

    def renumbered(self, version: int, rules: TrialRules, padding: int = 0) -> bytes:
        """Return the bundle with another version and trial rules.

        What is padded is the model's own file: nothing in it refers to what follows,
        but all of it is fetched, verified, stored, hashed and loaded.
        """
        model = self.content() + os.urandom(padding)
        described = replace(
            self.bundle.manifest.variant("only"),
            sha256=hashlib.sha256(model).hexdigest(),
            size=len(model),
        )
        manifest = replace(
            self.bundle.manifest, version=version, trial=rules, variants=(described,)
        )
        return render_bundle(manifest, {"only": model}, bytes(self.bundle.golden))


def models_folder() -> Path:
    """Return where public models would be."""
    default = Path(__file__).parent.parent.parent / "shared" / "models"
    return Path(os.environ.get("TINYWARD_MODELS", default)) / "mlperf-tiny"


def first_executor(kernels: Kernels = "xnnpack") -> Executor:
    """Return an executor of the most wanted runtime on this machine."""
    name, version = next(iter(available_engines().items()))
    engine: EngineName = "tflite" if name == "tflite" else "litert"
    return Executor(engine, kernels, 1, version)


@cache
def subject(name: str, version: int = 1) -> Subject:
    """Pack a public model, or the demo's in its place."""
    path = models_folder() / PUBLIC.get(name, DEMO_NAME)
    public = path.exists()
    if not public:
        path = DEMO / "int8.tflite"
    examiner = default_examiner()
    spec = examiner.contract(path.read_bytes()).inputs[0]
    random = np.random.default_rng(7)
    inputs = random.integers(-100, 100, (INPUTS, *spec.shape)).astype(spec.dtype)
    folder = Path(_FOLDER.name) / f"{name}-{version}"
    folder.mkdir(exist_ok=True)
    np.savez(folder / "samples.npz", samples=inputs)
    text = DESCRIPTION.format(
        name=name, version=version, file=path, task="classification"
    )
    described: PackDescription = parse_description(text.encode())
    content = pack(described, folder, examiner)
    bundle = open_bundle(content, max_bytes=len(content))
    return Subject(name, content, bundle, folder / "samples.npz", list(inputs), public)
