"""What tests of reference profiles share: small data, a packed model, made profiles."""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.profile_held_out import HeldOut, find_held_out
from agent.cli.profile_making import Made, Making, make_profile
from agent.core.manifest import Manifest
from agent.demo.owner import ASSETS
from agent.publish.pack import render_bundle
from agent.trust.bundle import open_bundle
from agent.worker.samples import Array
from tests.fakes import tiny_models
from tests.fakes.digits import digits

STREAM = ASSETS / "digits-stream.npz"


class NoView:
    """A view that notes which stages there were, and how far each came."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}
        self._what = ""

    def begin(self, what: str, total: int | None) -> None:
        """Begin a stage."""
        del total
        self._what = what
        self.stages[what] = 0

    def move(self, done: int) -> None:
        """Note how far it is."""
        self.stages[self._what] = done


def tinyward(*arguments: str | Path) -> Result:
    """Run the command line in this process; models run in children all the same."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def stream() -> Mapping[str, Array]:
    """Return the demo's held-out digits: ``images``, ``labels`` and ``writers``."""
    with np.load(STREAM, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def tiny_bundle(name: str, samples: Array, **changes: object) -> bytes:
    """Return a bundle of one of the models of tests/data."""
    stated: Manifest = tiny_models.manifest(name, **changes)
    manifest, golden = tiny_models.record(stated, [samples[:4]])
    return render_bundle(manifest, {name: tiny_models.content(name)}, golden)


@functools.cache
def made_digits() -> Made:
    """Return the profile of one variant of the demo's second model, made by a child."""
    held_out = find_held_out(STREAM, "images", "writers", "labels")
    return make_profile(making(held_out), NoView())


def making(held_out: HeldOut, **changes: object) -> Making:
    """Return what makes a profile of the demo's second model."""
    bundle = digits(2)
    chosen = {
        "bundle": bundle,
        "variants": bundle.manifest.variants[:1],
        "held_out": held_out,
        "kind": "image",
        "shifts": True,
        **changes,
    }
    return Making(**chosen)  # type: ignore[arg-type] # names of its own fields


def tiny_making(name: str, samples: Array, data: Path, **changes: object) -> Making:
    """Return what makes a profile of one of the models of tests/data."""
    np.save(data, samples)
    content = tiny_bundle(name, samples)
    bundle = open_bundle(content, max_bytes=len(content))
    held_out = find_held_out(data, "", "", "")
    chosen = {"bundle": bundle, "variants": bundle.manifest.variants, **changes}
    return Making(held_out=held_out, **chosen)  # type: ignore[arg-type] # names of its own fields
