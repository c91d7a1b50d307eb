"""The storm: so many damaged inputs, each judged, in slices that repeat from a seed.

The rules this module keeps:
 * An input is its seed, kind and number; what goes wrong can be shown again alone.
 * Whatever leaves the code under test and is no ``AgentError`` of the right branch is
   an escape: here nothing is forgiven, and nothing ends the storm.
 * Now and then the board is shown an honest publication, which it has to believe.
"""

import logging
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.toxic_server import ToxicServer
from tests.fuzz.answers import Line, damaged_answer
from tests.fuzz.board import HONEST, FuzzedBoard
from tests.fuzz.fleet import Fleet, Publication
from tests.fuzz.inputs import KINDS
from tests.fuzz.parsers import PARSERS, judge

SLICE = 1_000  # inputs that share a board's life; a failure is found again in seconds
ANSWERS, ANSWERS_SHARE = "answers of servers", 3
HONEST_EVERY = 50
REBOOT_EVERY = 20
MEMORY = Path("/dev/shm")  # noqa: S108 - a disk that syncs in no time, where there is one


@dataclass(slots=True)
class Report:
    """What came of inputs.

    Attributes:
        words: (kind, what came of it) -> number.
        wrong: What must never be, in words, each with how to show it again.
        honest: Honest publications in between, all of which were believed.
    """

    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    honest: int = 0

    @property
    def inputs(self) -> int:
        """How many inputs were judged."""
        return self.words.total()

    def add(self, other: "Report") -> None:
        """Take in what another slice came to."""
        self.words += other.words
        self.wrong += other.wrong
        self.honest += other.honest


def slices(inputs: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """Yield (seed, number, inputs) of each slice."""
    for number in range(-(-inputs // SLICE)):
        yield seed, number, min(SLICE, inputs - number * SLICE)


def run_slice(seed: int, number: int, inputs: int) -> Report:
    """Judge the inputs of one slice."""
    report = Report()
    with _silence(), _storm() as storm:
        for index, kind in enumerate(_kinds(seed, number, inputs)):
            name = f"{seed}/{number}/{index}"
            chance = random.Random(name)  # noqa: S311 - a seeded storm
            try:
                word, wrong = storm.one(kind, chance)
            except Exception as err:  # noqa: BLE001 - an escape is what is looked for
                word, wrong = "escaped", f"{type(err).__name__}: {err}"
                storm.begin_again()
            report.words[kind, word] += 1
            if wrong:
                report.wrong.append(f"{kind} {name}: {wrong[:300]}")
            if index % HONEST_EVERY == 0:
                report.honest += 1
                report.wrong += storm.show_honest(name)
    return report


@contextmanager
def _silence() -> Iterator[None]:
    """Log nothing meanwhile: refusals are expected, a hundred thousand of them."""
    root = logging.getLogger()
    level, mute = root.level, logging.NullHandler()
    root.addHandler(mute)
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(mute)


class Storm:
    """What a slice's inputs are thrown at."""

    def __init__(self, home: Path, server: ToxicServer) -> None:
        self._fleet = Fleet(home / "repository")
        self._board = FuzzedBoard(home, self._fleet)
        self._line, self._server = Line(server), server
        self._shown = 0

    def one(self, kind: str, chance: random.Random) -> tuple[str, str]:
        """Make an input of a kind, and judge it."""
        if kind == ANSWERS:
            raw = damaged_answer(chance)
            return self._line.ask(raw, ranged=chance.random() < 0.5), ""
        if kind in PARSERS:
            parser = PARSERS[kind]
            return judge(parser, parser.damage(chance.choice(parser.seeds), chance)), ""
        self._shown += 1
        # A poller remembers which order was refused, and need not fetch it again.
        if "bundle" in kind or self._shown % REBOOT_EVERY == 0:
            self._board.reboot()
        found = self._board.show(KINDS[kind][0](self._fleet, chance))
        return str(found.word), found.wrong

    def show_honest(self, name: str) -> list[str]:
        """Publish honestly; return what is wrong if that is not believed."""
        self._board.reboot()
        found = self._board.show(Publication(self._fleet.seal()))
        fine = found.word == HONEST and not found.wrong
        return [] if fine else [f"{name}: an honest publication is {found}"]

    def begin_again(self) -> None:
        """Go on after an escape, with a board that has not seen it."""
        self._board.restart(afresh=True)
        self._line = Line(self._server)

    def close(self) -> None:
        """End."""
        self._board.close()


@contextmanager
def _storm() -> Iterator[Storm]:
    """Give a storm, and a folder that is gone afterwards."""
    place = MEMORY if MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="tinyward-fuzz-", dir=place) as home,
        ToxicServer(Path(home)) as server,
        closing(Storm(Path(home), server)) as storm,
    ):
        yield storm


def _kinds(seed: int, number: int, inputs: int) -> list[str]:
    """Return the kinds of a slice's inputs, drawn by their shares."""
    shares = {name: float(share) for name, (_, share) in KINDS.items()}
    shares |= {name: parser.share for name, parser in PARSERS.items()}
    shares[ANSWERS] = ANSWERS_SHARE
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - a seeded storm
    return chance.choices(list(shares), list(shares.values()), k=inputs)
