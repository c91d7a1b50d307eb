"""Command line: help, errors, exit codes and completion, in real processes."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent import __version__
from agent.cli import COMMANDS, TopGroup, cli, report_unwritten
from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import AgentError, BundleRefusedError, DeviceError, SettingsError

ERRORS = [
    (SettingsError("no such key", reason=Reason.SETTINGS), 2),
    (DeviceError("disk is full", reason=Reason.DISK_FULL), 1),
    (BundleRefusedError("bad signature", reason=Reason.SIGNATURE, todo="Ask."), 1),
]


class FailingGroup(TopGroup):
    """Our group with one command that fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__("tinyward")
        self.only = click.Command("check", callback=lambda: throw(error))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the one command, whatever it is called."""
        del ctx, cmd_name
        return self.only


def throw(error: Exception) -> None:
    """Raise an error, for a lambda."""
    raise error


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_errors_say_reason_and_what_to_do(error: AgentError, code: int) -> None:
    """Two lines on stderr, nothing on stdout, the error's own exit code."""
    result = CliRunner().invoke(FailingGroup(error), ["check"])
    todo = error.todo or EXPLANATIONS[Reason(error.reason)].todo
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == f"error: {error} [{error.reason}]\nto do: {todo}\n"


def test_bugs_keep_their_trace() -> None:
    """What is no error of ours is not dressed up as one."""
    result = CliRunner().invoke(FailingGroup(ZeroDivisionError("bug")), ["check"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_help_lists_every_command() -> None:
    """Each command with its line, in the order of the table."""
    result = CliRunner().invoke(cli, ["--help"])
    places = [result.output.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert result.exit_code == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    """``tinyward NAME --help`` says what it does."""
    import_module(f"agent.cli.{name}")
    result = CliRunner().invoke(cli, [name, "--help"])
    assert (result.exit_code, "Usage: " in result.output) == (0, True)


def test_an_unknown_command_is_a_usage_error() -> None:
    """A misspelled command ends with exit code 2, as all usage errors."""
    result = CliRunner().invoke(cli, ["chekc"])
    assert (result.exit_code, "chekc" in result.stderr) == (2, True)


def test_the_module_is_the_command() -> None:
    """``python -m agent --version`` says the version."""
    ran = subprocess.run(
        [sys.executable, "-m", "agent", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"tinyward, version {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["--help"], ["check", os.devnull], ["inspect", __file__]],
    ids=["help", "check", "inspect"],
)
def test_a_full_output_is_an_error_and_no_trace(words: list[str]) -> None:
    """Nobody sees Python when the disk behind ``> FILE`` is full; exit code 1."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "agent", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = [line for line in ran.stderr.splitlines() if line[:7] != "warning"]
    assert (ran.returncode, said) == (
        1,
        [
            "error: standard output: No space left on device [disk_full]",
            "to do: Free space there, or write the output elsewhere.",
        ],
    )


def test_other_errors_of_the_system_keep_their_trace() -> None:
    """An ``OSError`` that nobody translated is a bug and is raised again."""
    bug = OSError(errno.ENOSPC, "No space left on device", "state.db")
    with pytest.raises(OSError, match=r"state\.db"):
        report_unwritten(bug)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    """Each shell has a script that calls us back."""
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert f"_TINYWARD_COMPLETE={shell}_complete" in result.output


def test_completion_knows_no_other_shell() -> None:
    """A shell click cannot complete in is a usage error."""
    assert CliRunner().invoke(cli, ["completion", "csh"]).exit_code == 2


COMPLETE = """
eval "$(tinyward completion bash)"
COMP_WORDS=({words}) COMP_CWORD={place}
_tinyward_completion tinyward
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(bash: Path, words: str, place: int) -> list[str]:
    """Return what a real bash would offer for a word."""
    programs = Path(sys.executable).parent
    ran = subprocess.run(
        [bash, "--norc", "-c", COMPLETE.format(words=words, place=place)],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.split()


def test_bash_completes_commands(require_tool: Callable[[str], Path]) -> None:
    """A first letter is enough where it is enough."""
    bash = require_tool("bash")
    assert complete(bash, "tinyward d", 1) == ["demo", "doctor"]
    assert complete(bash, "tinyward com", 1) == ["completion"]


def test_bash_completes_options_and_values(require_tool: Callable[[str], Path]) -> None:
    """Inside a command its own options and choices are offered."""
    bash = require_tool("bash")
    assert complete(bash, "tinyward doctor --j", 2) == ["--json"]
    assert complete(bash, "tinyward completion z", 2) == ["zsh"]
