"""Upgrades into the other slot: taken when ready, left when not, whatever happens."""

import re
from pathlib import Path

import pytest

from tests.service.board import FALLBACK, SERVICE, ServiceBoard

OPT = "/opt/tinyward"
# Whole to all who look at it, the installer included; it is running that it cannot.
DIES = """

async def _die(self):
    raise RuntimeError("this version never gets ready")

Daemon.run = _die
"""


class Slots:
    """The two slots of a board, filled by copying the one that runs.

    Args:
        board: The board.
    """

    def __init__(self, board: ServiceBoard) -> None:
        self._board = board
        self._folder = board.machine.root / OPT.lstrip("/")

    @property
    def current(self) -> str:
        """The slot that runs, or is to run at the next start."""
        return (self._folder / "current").readlink().name

    @property
    def other(self) -> str:
        """The slot that an upgrade fills."""
        return "b" if self.current == "a" else "a"

    def on_trial(self) -> bool:
        """Whether the current version has not been ready yet."""
        return (self._folder / "trial").exists()

    def fill(self, version: str, *, dies: bool = False) -> str:
        """Fill the other slot with this agent under another number.

        A virtual environment knows its own path: in the scripts' first lines and in
        pyvenv.cfg, as pip and venv wrote them.
        """
        old, new = f"{OPT}/{self.current}", f"{OPT}/{self.other}"
        self._board.machine.run("rm", "-rf", new)
        self._board.machine.run("cp", "-a", old, new)
        scripts = self._folder / self.other / "bin"
        for path in (scripts / "tinyward", scripts.parent / "pyvenv.cfg"):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(old, new), encoding="utf-8")
        package = self._package(self.other)
        named = package / "__init__.py"
        text = re.sub(r"(?<=__version__ = )\S+", repr(version), named.read_text())
        named.write_text(text, encoding="utf-8")
        if dies:
            with (package / "daemon.py").open("a", encoding="utf-8") as daemon:
                daemon.write(DIES)
        return f"{new}/bin/tinyward"

    def _package(self, slot: str) -> Path:
        """Return the agent's package in a slot."""
        (found,) = (self._folder / slot / "lib").glob("python3*/site-packages/agent")
        return found

    def accept(self) -> None:
        """Let an upgrade that was cut short go on, as its operator would."""
        self._board.machine.run(f"{OPT}/{self.current}/bin/tinyward", "install")


@pytest.fixture
def slots(board: ServiceBoard) -> Slots:
    """Give the slots of a board that answers."""
    return Slots(board)


def test_an_upgrade_takes_over_and_keeps_the_state(
    board: ServiceBoard, slots: Slots
) -> None:
    """The other slot answers with the model that was committed before."""
    digest = board.pipeline()["active"]["sha256"]
    verified_at = board.pipeline()["active"]["verified_at"]
    before = slots.current
    program = slots.fill("0.9.1")
    board.machine.run(program, "install")
    board.wait_answers()
    assert before != slots.current
    assert not slots.on_trial()
    assert board.state()["version"] == "0.9.1"
    active = board.pipeline()["active"]
    assert (digest, verified_at) == (active["sha256"], active["verified_at"])


def test_a_version_that_never_gets_ready_makes_way(
    board: ServiceBoard, slots: Slots
) -> None:
    """``install`` fails with its last words, and the slot before answers again."""
    before = slots.current
    done = board.machine.run(slots.fill("0.9.2", dies=True), "install", check=False)
    assert done.returncode == 1
    assert "never gets ready" in done.stderr
    board.wait_answers()
    assert before == slots.current
    assert not slots.on_trial()


def test_a_bad_version_makes_way_by_itself_after_a_power_cut(
    board: ServiceBoard, slots: Slots
) -> None:
    """Its installer was cut from power: after the boot nobody but systemd is there."""
    before = slots.current
    program = slots.fill("0.9.3", dies=True)
    installing = board.machine.spawn(program, "install")
    board.wait_for(lambda: slots.current != before, "the other slot is on trial")
    board.machine.cut_power()
    installing.wait()
    assert slots.on_trial()
    board.machine.boot()
    board.wait_for(lambda: slots.current == before, "the slot before")
    board.wait_answers()
    assert not slots.on_trial()
    assert "go" in board.said(FALLBACK)


@pytest.mark.parametrize("moment", ["trial", "current"])
def test_power_cut_during_an_upgrade_leaves_one_that_runs(
    board: ServiceBoard, slots: Slots, moment: str
) -> None:
    """Cut before or after the switch: after the boot one of the two answers."""
    before = slots.current
    installing = board.machine.spawn(slots.fill(f"0.9.4+{moment}"), "install")
    moved = {
        "trial": slots.on_trial,
        "current": lambda: slots.current != before,
    }
    board.wait_for(moved[moment], moment)
    board.machine.cut_power()
    installing.wait()
    board.machine.boot()
    board.wait_answers()
    slots.accept()
    board.wait_answers()
    assert not slots.on_trial()
    assert board.shows("ActiveState", SERVICE) == "active"
