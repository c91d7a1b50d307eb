"""Asking a suspect: a .tflite file in a locked child, or an endpoint over HTTP.

The simplest protocol that can be honest: ``POST URL`` with

    {"inputs": [[...], ...]}        real values, each input as one flat list

is answered ``{"scores": [[...], ...]}`` or ``{"classes": [...]}``, one for each input.
Whatever a suspect serves is put behind it with a few lines.

The rules this module keeps:
 * An endpoint may mean harm. It has so long for a whole request, however it spends it,
   and gets no more bytes read than honest answers take.
 * Every reply is of one kind, the same for all, with one answer for each input.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from agent.cli.watermark_words import Answered, RunThis
from agent.core.reasons import Reason
from agent.errors import DeviceError, TrialFailedError

RUN_S = 300.0  # 256 inputs of a model of one second each fit
ASK_S = 60.0  # one request: from the first byte sent to the last one read
TOGETHER = 32  # inputs of a request: a picture of 224 x 224 is 2 MB as text
SCORE_BYTES = 32  # a double takes 24 characters, and a comma with spaces
# What else a reply may say. It is more than any score needs, and as short lists it is
# still a few MB in memory: whoever is asked decides what is parsed here.
MORE_BYTES = 64 * 1024
READ_BYTES = 64 * 1024
Scores = NDArray[np.floating]


class Reply(Struct, frozen=True):
    """What an endpoint answers: one of the two."""

    scores: list[list[float]] | None = None
    classes: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is asked, and how much is taken from it.

    Attributes:
        url: Where.
        classes: How many the model has that it is suspected to be.
        ask_s: What one request may take in all.
    """

    url: str
    classes: int
    ask_s: float = ASK_S

    @property
    def max_bytes(self) -> int:
        """The longest reply that is read."""
        return TOGETHER * self.classes * SCORE_BYTES + MORE_BYTES

    @property
    def place(self) -> str:
        """What it may be called in messages: no password, and no key of a query.

        >>> Endpoint("https://me:secret@host:8443/v1?key=1", 10).place
        'https://host:8443/v1'
        """
        scheme, _, rest = self.url.partition("://")
        host, slash, path = rest.split("?")[0].split("#")[0].partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


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


def ask_url(endpoint: Endpoint, inputs: NDArray[np.float32]) -> Answers:
    """Ask an endpoint, some inputs at a time.

    Raises:
        DeviceError: It cannot be reached (``unreachable``), takes too long
            (``too_slow``), or answers something else (``protocol``).
    """
    scores: list[list[float]] = []
    classes: list[int] = []
    for start in range(0, len(inputs), TOGETHER):
        part = inputs[start : start + TOGETHER]
        reply = _ask(endpoint, part.reshape(len(part), -1))
        found = _one_kind(reply, len(part))
        scores += found.scores or []
        classes += found.classes or []
        if scores and classes:
            raise _confused("scores at one time and classes at another")
    if len({len(row) for row in scores}) > 1:
        raise _confused("scores of different numbers of classes")
    # As doubles: what is small or large in them is still told apart.
    return Answers(np.array(scores, np.float64) if scores else None, classes)


def _one_kind(reply: Reply, count: int) -> Reply:
    """Return a reply that answers every input, in one way.

    Raises:
        DeviceError: ``protocol``.
    """
    if (reply.scores is None) == (reply.classes is None):
        given = "neither" if reply.scores is None else "both"
        raise _confused(f"{given} of scores and classes")
    told = reply.scores if reply.scores is not None else reply.classes
    if told is None or len(told) != count:
        raise _confused(f"{len(told or ())} answers to {count} inputs")
    return reply


def _ask(endpoint: Endpoint, inputs: NDArray[np.float32]) -> Reply:
    """Ask once, and wait so long and no longer.

    A socket's timeout begins again with every byte, and headers are read before
    anybody could look at a clock: so a thread asks, and is left behind when it is late.

    Raises:
        DeviceError: As ``ask_url``.
    """
    body = json.dumps({"inputs": inputs.tolist()}).encode()
    late_s = time.monotonic() + endpoint.ask_s
    answered: SimpleQueue[bytes | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answered.put(_post(endpoint, body, late_s))
        except Exception as err:  # noqa: BLE001 - raised again by who waits
            answered.put(err)

    Thread(target=ask, name="asks a suspect", daemon=True).start()
    try:
        raw = answered.get(timeout=endpoint.ask_s)
    except Empty:
        raise _late(endpoint) from None
    if isinstance(raw, Exception):
        raise raw
    try:
        return msgspec.json.decode(raw, type=Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise _confused(str(err)) from err


def _post(endpoint: Endpoint, body: bytes, late_s: float) -> bytes:
    """Send a request; return its reply, read in pieces.

    Raises:
        DeviceError: As ``ask_url``.
    """
    import urllib3

    raw = bytearray()
    pool = urllib3.PoolManager(timeout=endpoint.ask_s, retries=False)
    headers = {"content-type": "application/json"}
    try:
        with (
            pool,
            pool.request(
                "POST", endpoint.url, body=body, headers=headers, preload_content=False
            ) as answer,
        ):
            if answer.status != 200:
                raise _confused(f"status {answer.status}")
            # Nothing is unpacked: a reply is as long as what came over the wire.
            while part := answer.read1(READ_BYTES, decode_content=False):
                raw += part
                if len(raw) > endpoint.max_bytes:
                    raise _confused(f"more than {endpoint.max_bytes} bytes")
                if time.monotonic() > late_s:
                    raise _late(endpoint)
    except urllib3.exceptions.HTTPError as err:
        what = f"{endpoint.place}: {err}".replace(endpoint.url, endpoint.place)
        raise DeviceError(what, reason=Reason.UNREACHABLE) from err
    return bytes(raw)


def _silent(why: str, reason: Reason) -> TrialFailedError:
    """Return the error for a file that does not answer."""
    return TrialFailedError(f"the suspect does not answer: {why}", reason=reason)


def _late(endpoint: Endpoint) -> DeviceError:
    """Return the error for an endpoint that does not come to an end."""
    return DeviceError(
        f"{endpoint.place} was not done with one request in {endpoint.ask_s:g} s",
        reason=Reason.TOO_SLOW,
        todo="Ask where it answers faster, or trace the file itself.",
    )


def _confused(what: str) -> DeviceError:
    """Return the error for an endpoint that speaks another language."""
    return DeviceError(
        f"the endpoint did not answer as asked: {what}",
        reason=Reason.PROTOCOL,
        todo='It has to answer {"scores": [[...]]} or {"classes": [...]}.',
    )
