"""``python -m tests.faults [--every] PART...``: faults, as JSON lines.

First a line ``{part, line, title, scene, cases}``, then one ``{part, scene, verdict}``
for each case. Exit code 0 means that all were told, not that all is well.
"""

import logging
import signal
import sys

import msgspec
from msgspec import Struct

from tests.faults.oracle import Verdict, check_order
from tests.faults.parallel import die_with_parent, run_all
from tests.faults.parts import BOTH, PARTS, Part
from tests.faults.scenes import Scene, make_scenes, scratch
from tests.faults.telling import Begun, Judged


def main() -> None:
    """Do the named parts."""
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit("stopped"))
    every = "--every" in sys.argv
    # Refusals are expected here; what they come to is in the verdicts.
    logging.getLogger().addHandler(logging.NullHandler())
    with scratch() as folder:
        scenes = make_scenes(folder)
        for name in sys.argv[1:]:
            if name in PARTS:
                part = PARTS[name]
                for scene in BOTH if every and not part.only else part.scenes:
                    _do(name, part, scenes[scene], every=every)


def _do(name: str, part: Part, scene: Scene, *, every: bool) -> None:
    """Do one part to one scene, and tell."""
    cases = list(part.build(scene, every))
    _tell(Begun(name, part.line, part.title, scene.name, len(cases)))
    found: list[Verdict] = []
    for verdicts in run_all(cases):
        for verdict in verdicts:
            # Told one behind: the last one may still turn out to be wrong.
            found.append(verdict)
            if part.ordered and len(found) > 1:
                check_order(found[-2], verdict)
            if len(found) > 1:
                _tell(Judged(name, scene.name, found[-2]))
    if part.ordered and found[-1].found != scene.goal:
        found[-1].wrong.append(f"O2 {found[-1].found} is what stayed of {scene.goal}")
    _tell(Judged(name, scene.name, found[-1]))


def _tell(line: Struct) -> None:
    """Print one JSON line, at once: somebody draws a progress bar."""
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
