"""What ``python -m tests.faults`` tells, and how tests and benchmarks hear it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.faults.oracle import Verdict
from tests.faults.parts import PARTS
from tests.faults.rooms import NAMESPACE

REPOSITORY = Path(__file__).resolve().parents[2]


class Begun(Struct, tag="begun"):
    """What comes now, and how many cases there are."""

    part: str
    line: int
    title: str
    scene: str
    cases: int


class Judged(Struct, tag="judged"):
    """What one case came to."""

    part: str
    scene: str
    verdict: Verdict


def hear(parts: Sequence[str], *, every: bool = False) -> Iterator[Begun | Judged]:
    """Run parts in a process of their own and yield what it tells.

    Raises:
        subprocess.CalledProcessError: It did not come to its end.
    """
    mounts = any(PARTS[name].mounts for name in parts)
    command = [
        *(NAMESPACE if mounts else ()),
        *(sys.executable, "-m", "tests.faults", *parts),
        *(["--every"] if every else ()),
    ]
    environment = _path()
    told = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, env=environment
    )
    decoder = msgspec.json.Decoder(Begun | Judged)
    with told:
        for line in told.stdout or ():
            yield decoder.decode(line)
    if told.returncode:
        raise subprocess.CalledProcessError(told.returncode, command)


def _path() -> dict[str, str]:
    """Return an environment in which ``mkfs`` and ``mount`` are found."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
