"""The command line: a table of commands, each imported when it is called.

The rules this folder keeps:
 * One module per command, which defines one click command or group ``command``.
 * Importing this folder imports click and the error tree and nothing else: ``tinyward
   run`` has a time budget, and shell completion runs this on every TAB.
 * An ``AgentError`` ends as ``error: <message> [<reason>]`` and a line on what to do,
   on stderr, with the error's own exit code; so does an output that takes no more.
   Anything else is a bug and shows its trace.
"""

import errno
import os
import sys
from collections.abc import Mapping
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from agent import __version__
from agent.errors import AgentError, DeviceError

# The line each command has in ``tinyward --help``, so that help imports none of them.
COMMANDS = {
    "demo": "See a signed model answer, be watched and be replaced under load.",
    "run": "Run the daemon with the pipelines of a settings file.",
    "check": "Check a settings file and show every effective value.",
    "status": "Show what should run, what does, and why not.",
    "update": "Ask the running daemon to look, to roll back or to import.",
    "events": "Show what happened on this board, and follow it.",
    "monitor": "Show what the drift monitors see, or let them begin anew.",
    "observe": "Write dashboards and alert rules for Grafana and Prometheus.",
    "install": "Run this slot as the board's service; upgrade it.",
    "uninstall": "Remove the service, and everything else if asked to.",
    "doctor": "Show what this board has, what is missing and how to get it.",
    "inspect": "Show what a bundle or a .tflite file is, and what would run here.",
    "pack": "Make a bundle from .tflite files and a description.",
    "profile": "Make a reference profile: what a model's input and output look like.",
    "repo": "Keep a TUF repository of bundles as plain files.",
    "seal": "Encrypt a bundle once for all boards, with an envelope for each.",
    "watermark": "Make each board's own copy of a classifier; name a leak's board.",
    "provenance": "Show what runs and where it came from, signed.",
    "push": "Send a repository slice to a board over TLS, and watch its update.",
    "fleet": "Update a small fleet in waves behind health gates, and watch it.",
    "identity": "Make and show this board's key, certificate and CSR.",
    "ca": "Keep a small fleet's own certificate authority.",
    "audit": "Show, prove and verify a board's log of receipts.",
    "meter": "Sell inferences to boards, redeem vouchers, see what is left.",
    "verify": "Verify a bundle against a repository, explaining every step.",
    "completion": "Print the completion script for a shell.",
}

# What a full disk behind `> FILE` says; of a closed pipe click takes care itself.
OUTPUT_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class LazyGroup(click.Group):
    """A group whose commands are modules in this folder, imported when called.

    Attributes:
        table: Name of a command -> its line in the help.
        modules: What the names of their modules begin with.
    """

    table: Mapping[str, str] = COMMANDS
    modules = "agent.cli."

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the table."""
        del ctx
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in self.table:
            return None
        command: click.Command = import_module(self.modules + cmd_name).command
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the table of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        """Complete a command's name without importing any."""
        named = [
            CompletionItem(name, help=text)
            for name, text in self.table.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)


class TopGroup(LazyGroup):
    """All commands; what ends them with an error is told in two lines."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of ours ends as two lines and its exit code."""
        try:
            return super().invoke(ctx)
        except AgentError as err:
            show_error(err)
            ctx.exit(err.exit_code)


def show_error(error: AgentError) -> None:
    """Write an error to stderr: the message, the reason, and what to do about it."""
    click.echo(f"error: {error} [{error.reason}]", err=True)
    todo = what_to_do(error)
    if todo:
        click.echo(f"to do: {todo}", err=True)


def what_to_do(error: AgentError) -> str:
    """Return what an error's reader can do: its own words, else its reason's."""
    from agent.core.explanations import EXPLANATIONS

    todos = {str(reason): known.todo for reason, known in EXPLANATIONS.items()}
    return error.todo or todos.get(error.reason, "")


def report_unwritten(error: OSError) -> int:
    """Say that standard output takes no more, and return the exit code.

    Raises:
        OSError: The same, where it is about something else: that is a bug.
    """
    from agent.core.reasons import Reason

    if error.errno not in OUTPUT_ERRNOS or error.filename is not None:
        raise error
    # What is still in Python's buffer would fail once more, with a trace, at the end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ else nowhere)
    os.close(nowhere)
    show_error(
        DeviceError(
            f"standard output: {error.strerror}",
            reason=Reason.DISK_FULL,
            todo="Free space there, or write the output elsewhere.",
        )
    )
    return DeviceError.exit_code


@click.group(cls=TopGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tinyward")
def cli() -> None:
    """Run verified TFLite models on this board, watched and updated over the air."""
