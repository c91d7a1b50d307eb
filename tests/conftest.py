"""Fixtures for all tests: public models, and tools that a board need not have.

The rules this module keeps:
 * Public models lie beside the repository or where ``TINYWARD_MODELS`` says; tests that
   use them skip without, always.
 * A missing tool skips its tests, but fails them where ``TINYWARD_CI=1`` promises that
   all tools are there.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
# Tests import each other's fakes as ``tests.fakes``; behind everything else, so that
# after a plain install it is the installed package that is tested.
sys.path.append(str(REPOSITORY))
# A runner in the background hands down an ignored Ctrl-C, which daemons would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may depend on speed: boards and shared machines are slow now and then.
settings.register_profile(
    "tinyward", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tinyward")


def missing(what: str) -> NoReturn:
    """Skip the test for want of a tool; fail it where all tools are promised."""
    if os.environ.get("TINYWARD_CI") == "1":
        pytest.fail(f"{what} is missing, and TINYWARD_CI=1 promises it")
    pytest.skip(f"{what} is missing")


def find_tool(name: str) -> Path:
    """Return the path of a program; without it, skip or fail."""
    found = shutil.which(name)
    if found is None:
        missing(f"the program {name}")
    return Path(found)


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], Path]:
    """Give a function that finds a program, or skips (fails with TINYWARD_CI=1)."""
    return find_tool


@pytest.fixture(scope="session")
def repository() -> Path:
    """Give the root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def models() -> Path:
    """Give the folder of public models, or skip."""
    named = os.environ.get("TINYWARD_MODELS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "models"
    if not folder.is_dir():
        pytest.skip(f"no public models in {folder} (TINYWARD_MODELS)")
    return folder


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a unix socket's, which has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tw-") as name:
        yield Path(name)
