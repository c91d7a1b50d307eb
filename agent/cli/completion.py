"""``tinyward completion``: the script that teaches a shell to complete our commands."""

import click
from click.shell_completion import get_completion_class

from agent.core.reasons import Reason
from agent.errors import SettingsError

HELP = """Print the completion script for SHELL.

\b
bash: tinyward completion bash > ~/.local/share/bash-completion/completions/tinyward
      (make the directory first; needs the package bash-completion), or
      echo 'eval "$(tinyward completion bash)"' >> ~/.bashrc
zsh:  echo 'eval "$(tinyward completion zsh)"' >> ~/.zshrc
fish: tinyward completion fish > ~/.config/fish/completions/tinyward.fish

Then open a new shell."""


@click.command(help=HELP, short_help="Print the completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print what click generates for the shell.

    Raises:
        SettingsError: click cannot complete in this shell (``settings``).
    """
    from agent.cli import cli

    found = get_completion_class(shell)
    if found is None:
        raise SettingsError(
            f"there is no completion for {shell}", reason=Reason.SETTINGS
        )
    click.echo(found(cli, {}, "tinyward", "_TINYWARD_COMPLETE").source())
