"""The demo's classifier, marked for a few boards by the product's own code.

Few bits and few steps: what is tried here is that all parts fit, not how robust marks
are; that is measured (``python -m benchmarks watermark``).
"""

import functools
from dataclasses import dataclass

import numpy as np

from agent.cli.watermark_runtime import Runtime
from agent.core.manifest import Variant
from agent.demo.owner import ASSETS
from agent.publish.marks_book import BoardCopy, MarkedVersion
from agent.publish.watermark.copies import Plan, make_copies
from agent.publish.watermark.graph import Array
from agent.publish.watermark.markable import Given, Wish, find_secret, plan_copies
from agent.publish.watermark.secrets import VariantSecret
from agent.worker.examine import default_examiner

BOARDS = tuple(f"pi-{number:04d}" for number in range(6))
WISH = Wish(bits=32, margin=1.2, floor=0.9, steps=50)


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the owner has after marking."""

    given: Given
    secret: VariantSecret
    plan: Plan
    copies: tuple[BoardCopy, ...]

    @property
    def version(self) -> MarkedVersion:
        """What the book would say of it."""
        return MarkedVersion(
            model="digits",
            version=2,
            source_sha256="1" * 64,
            plain_sha256="2" * 64,
            groups=self.plan.groups,
            bits=WISH.bits,
            secrets={"int8": self.secret.render()},
            tolerances={"int8": 0.5},
        )


def pictures() -> Array:
    """Return 600 images of digits that the model was not trained on, 0 to 16."""
    with np.load(ASSETS / "digits-stream.npz") as stream:
        images: Array = stream["images"]
    return images


def give(variant: str) -> Given:
    """Return what an owner has of one variant of the demo's second model."""
    content = (ASSETS / "digits-2" / f"{variant}.tflite").read_bytes()
    facts = default_examiner().contract(content)
    spec, answer = facts.inputs[0], facts.outputs[0]
    clean: Array = pictures().astype(np.float32) / np.float32(16)
    if spec.scale:
        clean = np.clip(np.rint(clean / spec.scale) + spec.zero_point, -128, 127)
    clean = clean.astype(spec.dtype)
    told = Runtime("plain").run(content, clean[:16]).astype(np.float32)
    if answer.scale:
        told = (told - np.float32(answer.zero_point)) * np.float32(answer.scale)
    described = Variant(
        name=variant,
        file=f"variants/{variant}.tflite",
        sha256="0" * 64,
        size=len(content),
        inputs=facts.inputs,
        outputs=facts.outputs,
        tolerance=0.05,
    )
    return Given(described, content, clean[:400], clean[:16], told)


@functools.cache
def fleet(variant: str = "int8") -> Fleet:
    """Return a few boards' copies of one variant."""
    given = give(variant)
    random = np.random.default_rng(3)
    secret = find_secret(given, WISH, Runtime(), random, lambda _: None)
    plan = plan_copies({variant: given}, {variant: secret}, WISH, {}, Runtime())
    return Fleet(given, secret, plan, tuple(make_copies(plan, BOARDS, Runtime())))
