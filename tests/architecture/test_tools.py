"""Linters run as tests, so that one command checks everything."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOOLS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "."),
    "mypy": ("-m", "mypy"),
    "lint-imports": (
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ),
}


@pytest.mark.parametrize("name", TOOLS)
def test_tool_has_nothing_to_say(name: str, repository: Path) -> None:
    """The linter finds nothing."""
    if name == "mypy" and np.__version__.startswith("1."):
        pytest.skip("types are checked against those of numpy 2")
    ran = subprocess.run(
        [sys.executable, *TOOLS[name]],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
