"""Fixtures: one booted Debian with the service on it, for all tests of this folder.

The rules this folder keeps:
 * It makes a root by debootstrap and boots it, which takes root, a mirror and minutes:
   it runs where ``TINYWARD_SERVICE=1`` asks for it.
 * One machine serves all tests. Each begins with ``restore``: one that fails does not
   take the next one with it.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, missing
from tests.service.board import PROGRAM, SLOT, ServiceBoard, fill_slot, listing
from tests.service.container import Container
from tests.service.debian import TOOLS, workshop
from tests.service.fleet import Owner

HERE = Path(__file__).parent
FIRST_S = 900  # a slow mirror, and then a slow disk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whichever test comes first the time to make the machine; end with the end.

    However they are named on the command line, nothing is left after an uninstall.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(FIRST_S))
    items.sort(key=lambda item: item.path == HERE / "test_uninstall.py")


@pytest.fixture(scope="session")
def machine() -> Iterator[Container]:
    """Give a booted Debian with wheels at /srv/wheels, and nothing of ours yet."""
    if os.environ.get("TINYWARD_SERVICE") != "1":
        pytest.skip("boots a Debian: set TINYWARD_SERVICE=1, as root (5 minutes)")
    if os.geteuid() != 0:
        missing("the right to boot containers (root)")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            missing(f"the program {tool} (apt install debootstrap systemd-container)")
    made_before = os.environ.get("TINYWARD_SERVICE_ROOT")
    with workshop(REPOSITORY, Path(made_before) if made_before else None) as made:
        machine = Container(made.root)
        try:
            machine.boot()
            yield machine
        finally:
            machine.cut_power()


@dataclass(frozen=True, slots=True)
class Installation:
    """What the installation said and did.

    Attributes:
        untouched: All paths before anything of ours came.
        dry_run: What ``install --dry-run`` said; ``after_dry_run`` all paths then.
        first: What ``install`` said; ``second`` what it said when called again.
        board: The board; its settings are the shipped ones.
    """

    untouched: set[str]
    dry_run: str
    after_dry_run: set[str]
    first: str
    second: str
    board: ServiceBoard


@pytest.fixture(scope="session")
def installation(machine: Container) -> Installation:
    """Install the agent as the README says, from the wheels at hand."""
    untouched = listing(machine.root)
    fill_slot(machine, SLOT)
    filled = listing(machine.root)
    program = f"{SLOT}/bin/tinyward"
    dry = machine.run(program, "install", "--dry-run")
    after_dry = listing(machine.root) - (filled - untouched)
    first = machine.run(program, "install")
    second = machine.run(PROGRAM, "install")
    board = ServiceBoard(machine)
    board.settings = board.read_settings()
    said = [done.stdout + done.stderr for done in (dry, first, second)]
    return Installation(untouched, said[0], after_dry, said[1], said[2], board)


@pytest.fixture(scope="session")
def owner(installation: Installation) -> Owner:
    """Give the owner of a fleet, whose repository lies on the board."""
    owner = Owner(installation.board.machine)
    owner.found()
    return owner


@pytest.fixture
def board(installation: Installation) -> ServiceBoard:
    """Give the board with shipped settings, running and answering."""
    installation.board.restore()
    return installation.board
