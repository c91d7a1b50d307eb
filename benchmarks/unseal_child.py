"""The child of ``unseal``: opens a sealed bundle as a board does, says what that took.

``python -m benchmarks.unseal_child ROUNDS CONTENT ENVELOPE KEY SEALED``; the ciphertext
is mapped as the store maps it.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.core.sealing import Sealed
from agent.store.staging import map_file
from agent.trust.bundle import open_bundle
from agent.trust.envelope import open_envelope
from agent.trust.seal_key import load_seal_key
from agent.trust.unseal import Unsealer, unseal_into

BOARD = "pi-7"


def main(rounds: int, files: list[Path]) -> None:
    """Open ``rounds`` times; print milliseconds, and one opening's peak memory."""
    content, envelope = files[0], files[1].read_bytes()
    key, sealed = files[2], msgspec.json.decode(files[3].read_bytes(), type=Sealed)
    unsealer = Unsealer(BOARD, lambda: load_seal_key(key))
    unsealer.open(_mapped(content), "", sealed, envelope)  # code, too, is memory once
    gc.collect()
    mapped, before = _mapped(content), _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
    bundle = unsealer.open(mapped, "", sealed, envelope)
    extra = _memory("VmHWM") - before - len(bundle.variant_bytes("float"))
    content_key = open_envelope(envelope, load_seal_key(key), BOARD, sealed).key

    def unsealed() -> memoryview:
        descriptor = os.memfd_create("unseal")
        unseal_into(descriptor, _mapped(content), content_key, sealed)
        plain = map_file(descriptor, sealed.plain_bytes)
        os.close(descriptor)
        return plain

    plain = unsealed()
    calls: dict[str, Callable[[], object]] = {
        "unseal": unsealed,
        "open": lambda: unsealer.open(_mapped(content), "", sealed, envelope),
        "plain": lambda: open_bundle(plain, max_bytes=len(plain)),
    }
    taken = [
        {name: _taken(call) for name, call in calls.items()} for _ in range(rounds)
    ]
    sys.stdout.write(json.dumps({"extra_bytes": extra, "taken_ms": taken}))


def _taken(call: Callable[[], object]) -> dict[str, float]:
    """Return how long a call takes, and how much of that on a processor."""
    began, at_work = time.perf_counter(), time.process_time()
    call()
    at_work, waited = time.process_time() - at_work, time.perf_counter() - began
    return {"wall": 1e3 * waited, "cpu": 1e3 * at_work}


def _mapped(path: Path) -> memoryview:
    """Return a file's bytes as the store gives them."""
    with path.open("rb") as file:
        return map_file(file.fileno(), path.stat().st_size)


def _memory(field: str) -> int:
    """Return a field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


if __name__ == "__main__":
    main(int(sys.argv[1]), [Path(it) for it in sys.argv[2:]])
