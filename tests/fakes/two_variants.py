"""The demo's model with two variants that say how accurate they are."""

import functools
from dataclasses import dataclass, fields

from agent.core.executors import Executor
from agent.core.installed import Installed, PassedOver
from agent.demo.owner import ASSETS
from agent.publish.description import parse_description
from agent.publish.pack import pack
from agent.supervise.placing import Placed
from agent.trust.bundle import Bundle, open_bundle
from agent.worker.examine import default_examiner
from tests.fakes.digits import executor

LARGE, SMALL = "float", "int8"
ACCURACY = {LARGE: 0.97, SMALL: 0.91}


@functools.cache
def two_variants(
    version: int = 1, more: str = "", large: float | None = ACCURACY[LARGE]
) -> Bundle:
    """Return a bundle whose variants ``float`` and ``int8`` say how accurate they are.

    Args:
        version: Its number.
        more: Further lines of its pack.toml.
        large: What ``float`` says; None for nothing.
    """
    folder = ASSETS / "digits-1"
    text = (folder / "pack.toml").read_text(encoding="utf-8")
    text = text.replace("version = 1\n", f"version = {version}\n", 1)
    for name, accuracy in ((LARGE, large), (SMALL, ACCURACY[SMALL])):
        said = "" if accuracy is None else f"accuracy = {accuracy}\n"
        line = f'file = "{name}.tflite"\n'
        assert line in text
        text = text.replace(line, line + said)
    described = parse_description(f"{text}{more}".encode())
    content = pack(described, folder, default_examiner())
    return open_bundle(content, max_bytes=len(content))


def place_large(
    version: int = 1, passed_over: tuple[PassedOver, ...] = (), threads: int = 2
) -> Placed:
    """Return it as committed: the large variant runs, others were passed over."""
    bundle = two_variants(version)
    installed = Installed(
        bundle.manifest.model,
        version,
        bundle.sha256,
        bundle.size,
        LARGE,
        on(threads),
        why="most accurate of 2 variants that keep the budgets, 0.97",
        passed_over=passed_over,
        p50_ms=2.0,
        ram_bytes=1_000_000,
    )
    return Placed(bundle, installed)


@dataclass(frozen=True, slots=True)
class Spoilt(Bundle):
    """A bundle of which a variant is not the bytes that were verified."""

    spoilt: tuple[str, ...] = ()

    def variant_bytes(self, name: str) -> memoryview:
        """Return a model, cut short if it is a spoilt one."""
        whole = Bundle.variant_bytes(self, name)
        return whole[:-1] if name in self.spoilt else whole


def spoil(placed: Placed, *names: str) -> Placed:
    """Return it with variants that no worker loads."""
    bundle = placed.bundle
    assert isinstance(bundle, Bundle)
    parts = {it.name: getattr(bundle, it.name) for it in fields(bundle)}
    return Placed(Spoilt(**parts, spoilt=names), placed.installed)


def on(threads: int) -> Executor:
    """Return the executor of these tests on so many threads."""
    plain = executor()
    return Executor(plain.engine, plain.kernels, threads)


def cheaper(threads: int = 1) -> PassedOver:
    """Return the small variant as preflight passed it over for being less accurate."""
    return PassedOver(
        SMALL, on(threads), "", "accuracy 0.91 against 0.97", 0.5, 500_000
    )


def calmer() -> PassedOver:
    """Return the large variant on one thread."""
    return PassedOver(LARGE, on(1), "", "1 ms slower", 3.0, 1_000_000)
