"""``delta``: bytes of an update by delta, and what making and applying one costs.

Models are made here: weights as trained networks have them (int8 that compress to 88 %,
float32 to 93 %), changed as releases change them; where public models are found, the
same is done to one of them. Each delta is applied in a child process, whose memory
nobody else uses.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.core.deltas import apply_bytes, is_worth
from agent.publish.deltas import compressed_bytes, make_delta
from benchmarks.rows import Row, median
from benchmarks.subjects import models_folder

MB = 1_000_000
MODEL_BYTES = 20 * MB
# Entropies of trained networks: int8 of a normal distribution, 7 of 8 bits; float32
# whose sign, exponent and 23 bits of mantissa take 29.6 of 32.
INT8_SPREAD, FLOAT_SPREAD = 32.0, 0.05
CHANGED_SHARE, LAST_LAYER_SHARE = 0.01, 0.05
CHANGED_PERCENT, LAYER_PERCENT, WHOLE_PERCENT = 4.0, 5.0, 100.0
STALL_MS = 50.0  # of the daemon's loop: a scrape waits no longer than that
PUBLIC = "vww_96_int8.tflite"
Make = Callable[[], tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Case:
    """Two versions of a model.

    Attributes:
        what: How they differ; ``make`` returns both.
        percent: What a board may fetch at most, of the bundle.
    """

    what: str
    make: Make
    percent: float


def run(rounds: int) -> list[Row]:
    """Return bytes, seconds and memory of each case."""
    rows: list[Row] = []
    for case in _cases():
        old, new = case.make()
        rows += _measure(case, old, new, rounds)
    return rows


def _cases() -> Iterator[Case]:
    """Yield the cases; the public model's where it is found."""
    yield Case("int8, 1 % of the weights changed", _int8_changed, CHANGED_PERCENT)
    yield Case("float32, last layer replaced", _float_layer, LAYER_PERCENT)
    yield Case("int8, trained from scratch", _int8_scratch, WHOLE_PERCENT)
    yield Case("float32, all weights moved", _float_moved, WHOLE_PERCENT)
    path = models_folder() / PUBLIC
    if path.exists():
        what = f"{PUBLIC}, 1 % of its bytes changed"
        yield Case(what, lambda: _changed(path.read_bytes()), CHANGED_PERCENT)


def _measure(case: Case, old: bytes, new: bytes, rounds: int) -> list[Row]:
    """Make the delta, weigh it, and apply it where a board would."""
    seconds, patch = [], b""
    for _ in range(rounds):
        began = time.perf_counter()
        patch = make_delta(old, new)
        seconds.append(time.perf_counter() - began)
    whole = compressed_bytes(new)
    worth = is_worth(len(patch), whole)
    fetched = len(patch) if worth else len(new)
    rows = [
        _row(case, "bytes fetched", 100 * fetched / len(new), "%", case.percent),
        Row("delta", f"of {case.what}: delta", 100 * len(patch) / len(new), "%"),
        Row("delta", f"of {case.what}: compressed", 100 * whole / len(new), "%"),
        _timed(case, "making the delta", seconds, "s"),
    ]
    return rows + (_applied(case, old, new, patch, rounds) if worth else [])


def _applied(
    case: Case, old: bytes, new: bytes, patch: bytes, rounds: int
) -> list[Row]:
    """Apply a delta in children, and return what it took."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("old", "patch", "new")]
        for path, content in zip(paths, (old, patch), strict=False):
            path.write_bytes(content)
        sha256 = hashlib.sha256(new).hexdigest()
        command = [sys.executable, "-m", "benchmarks.delta_child", *map(str, paths)]
        command += [str(len(new)), sha256]
        said = [
            json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            for _ in range(rounds)
        ]
    bound = apply_bytes(len(old), len(new)) / MB
    peaks = [each["peak_bytes"] / MB for each in said]
    return [
        _timed(case, "applying", [each["seconds"] for each in said], "s"),
        _timed(case, "applying: peak memory over base", peaks, "MB", bound),
        _timed(
            case,
            "applying: longest stall of the loop",
            [each["stall_s"] * 1e3 for each in said],
            "ms",
            STALL_MS,
        ),
    ]


def _row(
    case: Case, measure: str, value: float, unit: str, target: float | None = None
) -> Row:
    """Return a row of one case."""
    return Row("delta", f"{case.what}: {measure}", value, unit, target)


def _timed(
    case: Case,
    measure: str,
    values: list[float],
    unit: str,
    target: float | None = None,
) -> Row:
    """Return a row of several rounds."""
    middle, spread = median(values)
    return Row("delta", f"{case.what}: {measure}", middle, unit, target, spread=spread)


def _random(seed: int) -> np.random.Generator:
    """Return the same chance each time."""
    return np.random.default_rng(seed)


def _int8(seed: int) -> NDArray[np.int8]:
    """Return a model's weights, quantised."""
    drawn = _random(seed).normal(0, INT8_SPREAD, MODEL_BYTES)
    return np.clip(np.rint(drawn), -127, 127).astype(np.int8)


def _float(seed: int) -> NDArray[np.float32]:
    """Return a model's weights."""
    drawn = _random(seed).normal(0, FLOAT_SPREAD, MODEL_BYTES // 4)
    return drawn.astype(np.float32)


def _changed(old: bytes) -> tuple[bytes, bytes]:
    """Change single bytes anywhere."""
    new, random = bytearray(old), _random(3)
    count = int(len(old) * CHANGED_SHARE)
    for place in random.choice(len(old), count, replace=False):
        new[place] ^= int(random.integers(1, 256))
    return old, bytes(new)


def _int8_changed() -> tuple[bytes, bytes]:
    """Fine-tuning that moved a few weights."""
    return _changed(_int8(1).tobytes())


def _int8_scratch() -> tuple[bytes, bytes]:
    """Another training."""
    return _int8(1).tobytes(), _int8(2).tobytes()


def _float_layer() -> tuple[bytes, bytes]:
    """Transfer learning: the head alone is new."""
    old, other = _float(1), _float(2)
    new = old.copy()
    begin = int(len(new) * (1 - LAST_LAYER_SHARE))
    new[begin:] = other[begin:]
    return old.tobytes(), new.tobytes()


def _float_moved() -> tuple[bytes, bytes]:
    """Fine-tuning that moved all of them by a thousandth."""
    old = _float(1)
    noise = _random(2).normal(1, 1e-3, len(old)).astype(np.float32)
    return old.tobytes(), (old * noise).tobytes()
