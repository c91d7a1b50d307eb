"""``unseal``: what a sealed bundle costs a board when it is opened, and its owner.

Each algorithm opens the same 50 MB in a child process, whose memory nobody else uses.
What counts as extra is its peak above the plain bundle's own bytes, which are in memory
anyhow once it is opened.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.core.sealing import Algorithm, Suite, hpke_context
from agent.core.targets import bundle_path
from agent.publish.encrypting import wrap
from agent.publish.pack import render_bundle
from agent.publish.seal import Order, seal_bundle
from agent.publish.sealed_folder import CONTENT, ENVELOPES
from agent.trust.seal_key import make_seal_key
from benchmarks.rows import Row, median
from benchmarks.unseal_child import BOARD
from tests.fakes.bundles import GOLDEN, manifest

MB = 1_000_000
PLAIN_BYTES = 50 * MB
UNSEAL_MS, EXTRA_MB = 60.0, 4.0
ALGORITHMS: tuple[Algorithm, ...] = ("cobblestone-256", "chacha20-poly1305")
SUITES: tuple[Suite, ...] = ("x25519", "mlkem768-x25519")
ENVELOPES_A_ROUND = 50


def run(rounds: int) -> list[Row]:
    """Return milliseconds and memory of both algorithms, and of envelopes."""
    content = hashlib.shake_128(b"weights").digest(PLAIN_BYTES - 10_000)
    variants = {"float": content}
    plain = render_bundle(manifest(variants), variants, GOLDEN)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for algorithm in ALGORITHMS:
            rows += _measure(Path(folder, algorithm), algorithm, plain, rounds)
        for suite in SUITES:
            rows += _wrapped(Path(folder, f"{suite}.key"), suite, rounds)
    return rows


def _measure(
    folder: Path, algorithm: Algorithm, plain: bytes, rounds: int
) -> list[Row]:
    """Seal once, and open in a child."""
    key = make_seal_key(folder / "key")
    order = Order("kws", 7, [key.public(BOARD)], algorithm)
    began = time.perf_counter()
    card = seal_bundle(plain, order, folder / "sealed")
    sealing_ms = 1e3 * (time.perf_counter() - began)
    sealed = folder / "sealed"
    (folder / "card").write_bytes(msgspec.json.encode(card.sealed))
    files = [sealed / CONTENT, sealed / ENVELOPES / BOARD, folder / "key"]
    command = [sys.executable, "-m", "benchmarks.unseal_child", str(rounds)]
    command += [str(path) for path in (*files, folder / "card")]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    said = json.loads(raw)
    extra = said["extra_bytes"] / MB

    def times(call: str, kind: str = "wall") -> list[float]:
        return [each[call][kind] for each in said["taken_ms"]]

    return [
        _row(f"{algorithm}: 50 MB into a memfd", times("unseal"), "ms", UNSEAL_MS),
        _row(f"{algorithm}: of that on a processor", times("unseal", "cpu"), "ms"),
        _row(f"{algorithm}: memory beyond the bundle", [extra], "MB", EXTRA_MB),
        _row(f"{algorithm}: until the bundle is opened", times("open"), "ms"),
        _row(f"{algorithm}: the same, where it is not sealed", times("plain"), "ms"),
        _row(f"{algorithm}: sealing 50 MB, durably", [sealing_ms], "ms"),
        _row(f"{algorithm}: longer by", [card.size - card.sealed.plain_bytes], "bytes"),
    ]


def _wrapped(path: Path, suite: Suite, rounds: int) -> list[Row]:
    """Make and open envelopes of one suite."""
    key = make_seal_key(path, suite)
    public = key.public(BOARD)
    info = hpke_context(BOARD, bundle_path("kws", 7), 7)
    envelope = wrap(bytes(32), public, info)
    sealing = [_each_ms(lambda: wrap(bytes(32), public, info)) for _ in range(rounds)]
    opening = [_each_ms(lambda: key.unwrap(envelope, info)) for _ in range(rounds)]
    return [
        _row(f"envelope, {suite}: seal", sealing, "ms"),
        _row(f"envelope, {suite}: open", opening, "ms"),
        _row(f"envelope, {suite}: length", [len(envelope)], "bytes"),
    ]


def _each_ms(call: Callable[[], object]) -> float:
    """Return how long a call takes, over many."""
    began = time.perf_counter()
    for _ in range(ENVELOPES_A_ROUND):
        call()
    return 1e3 * (time.perf_counter() - began) / ENVELOPES_A_ROUND


def _row(
    measure: str, values: list[float], unit: str, target: float | None = None
) -> Row:
    """Return a row of several rounds."""
    middle, spread = median(values)
    return Row("unseal", measure, middle, unit, target, spread=spread)
