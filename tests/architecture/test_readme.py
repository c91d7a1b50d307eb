"""The README says what the code does: its tables are rendered, its commands run."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from tests.architecture.promises import PROMISES, numbered_tests
from tests.architecture.readme_tables import BLOCKS, README, find_block, renew

RUN = re.compile(r"<!-- run -->\n```sh\n(?P<commands>.*?)```", re.DOTALL)
COMMANDS = [found["commands"] for found in RUN.finditer(README.read_text())]


@pytest.mark.parametrize("name", BLOCKS)
def test_table_is_what_the_code_says(name: str) -> None:
    """Each marked table equals the one rendered from code."""
    assert find_block(README.read_text(), name) == BLOCKS[name]()


def test_renewing_changes_only_the_tables() -> None:
    """A spoiled table is put right and everything around it stays."""
    readme = README.read_text()
    spoiled = readme.replace(find_block(readme, "metrics"), "| x |\n")
    assert spoiled != readme
    assert renew(spoiled) == readme


def test_every_reason_is_explained() -> None:
    """Each word that may stand in a reason has a row in the table."""
    assert set(EXPLANATIONS) == set(Reason) - {Reason.NONE}


def test_every_promise_has_a_test_and_every_numbered_test_a_promise() -> None:
    """The lines of the table of attacks and faults are those in the tests' names."""
    assert set(numbered_tests()) == set(PROMISES)


def test_there_are_commands_to_run() -> None:
    """The README marks commands that a test can run."""
    assert COMMANDS


@pytest.mark.parametrize("commands", COMMANDS)
def test_commands_run(
    commands: str, tmp_path: Path, require_tool: Callable[[str], Path]
) -> None:
    """Each marked block of commands succeeds in an empty directory."""
    programs = Path(sys.executable).parent
    ran = subprocess.run(
        [require_tool("bash"), "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
