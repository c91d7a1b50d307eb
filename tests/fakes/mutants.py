"""Random damage, the same for the same seed."""

import hashlib
import random
from collections.abc import Callable

from msgspec.structs import replace

from agent.publish.pack import render_bundle
from tests.fakes.fleet import opened_bundle, variants


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return other bytes: flipped, overwritten, cut, repeated, or moved."""
    while True:
        changed = chance.choice(_DAMAGE)(bytearray(content), chance)
        if bytes(changed) != content:
            return bytes(changed)


def resealed(content: bytes, chance: random.Random, version: int) -> bytes:
    """Return a bundle whose models or golden samples are damaged, and rightly sealed.

    Everything that a publisher computes is computed anew: digests, sizes, container.
    Only what is inside is nonsense.
    """
    opened = opened_bundle(content)
    models, golden = variants(opened), bytes(opened.golden)
    if chance.random() < 0.2:
        golden = mutated(golden, chance)
    else:
        models = {name: _damaged_model(raw, chance) for name, raw in models.items()}
    stated = opened.manifest
    sealed = tuple(
        replace(
            variant,
            sha256=_sha256(models[variant.name]),
            size=len(models[variant.name]),
        )
        for variant in stated.variants
    )
    return render_bundle(
        replace(stated, variants=sealed, version=version), models, golden
    )


def _damaged_model(content: bytes, chance: random.Random) -> bytes:
    """Flip a few bits: most such models still load, which is what makes them bad."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        _flip(changed, chance)
    return bytes(changed)


def _sha256(content: bytes) -> str:
    """Return the digest in hex."""
    return hashlib.sha256(content).hexdigest()


def _flip(content: bytearray, chance: random.Random) -> bytearray:
    """Change one bit."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def _overwrite(content: bytearray, chance: random.Random) -> bytearray:
    """Replace a run of bytes by random ones."""
    start = chance.randrange(len(content))
    run = chance.randbytes(chance.randint(1, 64))
    content[start : start + len(run)] = run
    return content


def _cut(content: bytearray, chance: random.Random) -> bytearray:
    """Drop the end."""
    del content[chance.randrange(1, len(content)) :]
    return content


def _repeat(content: bytearray, chance: random.Random) -> bytearray:
    """Insert a copy of a run."""
    start = chance.randrange(len(content))
    content[start:start] = content[start : start + chance.randint(1, 64)]
    return content


def _move(content: bytearray, chance: random.Random) -> bytearray:
    """Copy a run over another place."""
    source, target = (chance.randrange(len(content)) for _ in range(2))
    length = min(chance.randint(1, 256), len(content) - max(source, target))
    content[target : target + length] = content[source : source + length]
    return content


_DAMAGE: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _flip,
    _overwrite,
    _cut,
    _repeat,
    _move,
)
