"""``start``: from ``tinyward run`` to the first answer and to ``/readyz`` 200.

A model is committed and files are cached, as after the first boot; the repository is
there and is looked at after the first answer.
"""

import json
import time

from benchmarks.boards import RealBoard, real_board
from benchmarks.rows import Row, median
from benchmarks.subjects import subject

ANSWER_S, READY_S = 0.8, 1.0


def run(rounds: int) -> list[Row]:
    """Return both durations."""
    answers, readies = [], []
    with real_board(subject("kws")) as board:
        sink = f'{{kind = "file", path = "{board.here}/lines", max_mb = 1000.0}}'
        board.configure(rate=100.0, sinks=sink)
        board.start()
        board.until_ready(0.05)
        board.stop()
        for _ in range(rounds):
            answer_s, ready_s = _start(board)
            answers.append(answer_s)
            readies.append(ready_s)
    first, first_spread = median(answers)
    ready, ready_spread = median(readies)
    return [
        Row(
            "start",
            "kws: to the first answer",
            first,
            "s",
            ANSWER_S,
            spread=first_spread,
        ),
        Row("start", "kws: to /readyz 200", ready, "s", READY_S, spread=ready_spread),
    ]


def _start(board: RealBoard) -> tuple[float, float]:
    """Start once; return seconds to the first answer and to readiness."""
    lines = board.here / "lines"
    lines.unlink(missing_ok=True)
    began = time.time()  # noqa: TID251 - the prediction line carries wall-clock time
    board.start()
    board.until_ready()
    ready_s = time.time() - began  # noqa: TID251
    while not lines.exists() or not lines.read_bytes().count(b"\n"):
        time.sleep(0.01)
    first = json.loads(lines.read_bytes().splitlines()[0])
    board.stop()
    return first["t"] - began, ready_s
