"""Models for stores in tests: bytes that are as many as their version says."""

import hashlib
import random
from pathlib import Path

from agent.core.executors import Executor
from agent.core.installed import Installed
from agent.store import Store


def content(version: int, size: int = 5000) -> bytes:
    """Return the bytes of a version, always the same ones."""
    return random.Random(version).randbytes(size)  # noqa: S311 - not for secrets


def installed(version: int, size: int = 5000) -> Installed:
    """Return a version as COMMIT would write it."""
    sha256 = hashlib.sha256(content(version, size)).hexdigest()
    executor = Executor("litert", "xnnpack")
    return Installed("kws", version, sha256, size, "int8", executor)


def bring_in(store: Store, version: int, size: int = 5000) -> Installed:
    """Stage, in two pieces or what is missing, and commit a version for ``door``."""
    model = installed(version, size)
    with store.stage(model.sha256, size) as staging:
        body = memoryview(content(version, size))[len(staging.kept) :]
        staging.write(body[: size // 2])
        staging.write(body[size // 2 :])
        staging.commit()
    store.commit("door", model)
    store.collect()
    return model


def check_whole(store: Store) -> int:
    """Check every committed object and return the active version, 0 for none."""
    slots = store.slots("door")
    for kept in (slots.active, slots.previous, slots.factory):
        if kept is not None:
            assert bytes(store.open_object(kept.sha256)) == content(
                kept.version, kept.size
            )
    return slots.active.version if slots.active else 0


def list_files(state_dir: Path) -> list[str]:
    """Return the objects and parts on disk, ``obj/..`` and ``part/..``."""
    return sorted(
        f"{folder}/{path.name}"
        for folder in ("obj", "part")
        for path in (state_dir / folder).iterdir()
    )
