"""What each start path loads: nothing that the command does not use."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from agent.cli import COMMANDS
from tests.architecture.sources import sources

HEAVY = {
    *("aiohttp", "ai_edge_litert", "cryptography", "msgspec", "numpy", "PIL"),
    *("prometheus_client", "psutil", "rich", "securesystemslib", "tflite_runtime"),
    "tuf",
}


def loaded_by(statement: str, repository: Path) -> set[str]:
    """Return the top-level packages loaded after a statement in a new Python."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(ran.stdout)}


def test_command_line_loads_click_only(repository: Path) -> None:
    """Help, completion and every command start without any heavy package."""
    loaded = loaded_by("import agent.__main__", repository)
    assert set() == loaded & HEAVY


def test_daemon_runs_without_numpy(repository: Path) -> None:
    """The daemon and the folders it is built from load neither numpy nor a runtime."""
    folders = (
        "supervise",
        "trust",
        "store",
        "update",
        "endpoint",
        "telemetry",
        "board",
    )
    modules = [
        source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for source in sources()
        if source.name.startswith(tuple(f"agent/{folder}/" for folder in folders))
    ]
    statement = f"import agent.daemon, agent.cli.run, {', '.join(modules)}"
    loaded = loaded_by(statement, repository)
    assert set() == loaded & {"numpy", "ai_edge_litert", "tflite_runtime", "PIL"}


def test_daemon_starts_without_tuf(repository: Path) -> None:
    """TUF, cryptography and rich are loaded when first needed, not at the start."""
    loaded = loaded_by("import agent.daemon, agent.cli.run", repository)
    assert set() == loaded & {"tuf", "securesystemslib", "cryptography", "rich"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists(name: str) -> None:
    """The table of commands and the modules beside it agree."""
    command = import_module(f"agent.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.get_short_help_str()
