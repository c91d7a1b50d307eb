"""Asking a suspect: a .tflite file in a locked child, or an endpoint over HTTP.

The simplest protocol that can be honest: ``POST URL`` with

    {"inputs": [[...], ...]}        real values, each input as one flat list

is answered ``{"scores": [[...], ...]}`` or ``{"classes": [...]}``, one for each input.
Whatever a suspect serves is put behind it with a few lines.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.cli.watermark_words import Answered, RunThis
from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError

RUN_S = 300.0  # 256 inputs of a model of one second each fit
ASK_S = 60.0  # one request
TOGETHER = 32  # inputs of a request: a picture of 224 x 224 is 2 MB as text
MAX_REPLY_BYTES = 64 * 1024 * 1024
Scores = NDArray[np.float32]


class Reply(Struct, frozen=True):
    """What an endpoint answers."""

    scores: list[list[float]] = []
    classes: list[int] = []


@dataclass(frozen=True, slots=True)
class Answers:
    """What a suspect answered: scores where it gives them, else classes."""

    scores: Scores | None
    classes: list[int]


def ask_file(content: bytes, inputs: NDArray[np.float32]) -> Answers:
    """Run a suspect's file over real inputs, in a child that may die of it.

    Raises:
        TrialFailedError: It cannot be run on these inputs, or kills its child.
    """
    question = RunThis(content, np.ascontiguousarray(inputs).tobytes(), len(inputs))
    command = [sys.executable, "-I", "-m", "agent.cli.watermark_child"]
    try:
        ended = subprocess.run(
            [*command, str(os.getpid())],
            input=msgspec.msgpack.encode(question),
            capture_output=True,
            timeout=RUN_S,
            check=False,
        )
        reply = msgspec.msgpack.decode(ended.stdout, type=Answered)
    except subprocess.TimeoutExpired as err:
        raise _silent("it gave no answer", Reason.HANG) from err
    except msgspec.MsgspecError as err:
        raise _silent("it killed the process that ran it", Reason.CRASH) from err
    if reply.error:
        raise _silent(reply.error, Reason.INVOKE)
    scores: Scores = np.frombuffer(reply.outputs, np.float32)
    return Answers(scores.reshape(len(inputs), -1), [])


def ask_url(url: str, inputs: NDArray[np.float32]) -> Answers:
    """Ask an endpoint, some inputs at a time.

    Raises:
        DeviceError: It cannot be reached (``unreachable``), or answers something else
            (``protocol``).
    """
    import urllib3

    pool = urllib3.PoolManager(timeout=ASK_S, retries=False)
    scores: list[list[float]] = []
    classes: list[int] = []
    for start in range(0, len(inputs), TOGETHER):
        part = inputs[start : start + TOGETHER]
        reply = _post(pool, url, part.reshape(len(part), -1))
        scores += reply.scores
        classes += reply.classes
        if max(len(scores), len(classes)) != start + len(part):
            raise _confused(f"{len(scores) or len(classes)} answers")
    if scores and len({len(row) for row in scores}) != 1:
        raise _confused("scores of different numbers of classes")
    return Answers(np.array(scores, np.float32) if scores else None, classes)


def _post(pool: Any, url: str, inputs: NDArray[np.float32]) -> Reply:  # noqa: ANN401 - urllib3 is imported late
    """Ask once."""
    import urllib3

    body = json.dumps({"inputs": inputs.tolist()}).encode()
    headers = {"content-type": "application/json"}
    try:
        answer = pool.request(
            "POST", url, body=body, headers=headers, preload_content=False
        )
        raw = answer.read(MAX_REPLY_BYTES + 1)
        answer.release_conn()
    except urllib3.exceptions.HTTPError as err:
        raise DeviceError(f"{url}: {err}", reason=Reason.UNREACHABLE) from err
    if answer.status != 200 or len(raw) > MAX_REPLY_BYTES:
        raise _confused(f"status {answer.status}, {len(raw)} bytes")
    try:
        return msgspec.json.decode(raw, type=Reply)
    except msgspec.MsgspecError as err:
        raise _confused(str(err)) from err


def _silent(why: str, reason: Reason) -> TrialFailedError:
    """Return the error for a file that does not answer."""
    return TrialFailedError(f"the suspect does not answer: {why}", reason=reason)


def _confused(what: str) -> DeviceError:
    """Return the error for an endpoint that speaks another language."""
    return DeviceError(
        f"the endpoint did not answer as asked: {what}",
        reason=Reason.PROTOCOL,
        todo='It has to answer {"scores": [[...]]} or {"classes": [...]}.',
    )
