"""``tinyward fleet``: a small fleet without a server, by an inventory and its boards.

The rules this module keeps:
 * Each command is a module beside this one, imported when it is called.
"""

from importlib import import_module

import click
from click.shell_completion import CompletionItem

EXPLAINED = """Update and watch a small fleet by an inventory, without any server.

\b
tinyward fleet status                     what every board runs, and why not more
tinyward fleet rollout --assign door=kws@8 --repository REPO
                                          waves, each behind a health gate
tinyward fleet pause                      the rollout goes no further for now
tinyward fleet abort --back               end it, and take back what it brought
tinyward fleet targets                    what Prometheus should scrape

\b
fleet.toml names the boards; paths are beside it:
  [papers]
  cert = "me.crt"
  key = "me.key"
  ca = "fleet-ca.crt"
  [rollout]
  waves = ["group:canary", "10%", "all"]
  at_once = 8
  [rollout.gate]
  soak_s = 300
  failed_share = 0.0
  [[board]]
  id = "door-01"
  address = "10.0.0.11:8443"
  groups = ["canary"]
"""

# The line each command has in ``tinyward fleet --help``; help imports none of them.
COMMANDS = {
    "status": "Show what every board runs, how it does, and why not more.",
    "rollout": "Bring versions to the boards in waves, behind health gates.",
    "pause": "Let the rollout go no further until it is run again.",
    "abort": "End the rollout; take its version back with --back.",
    "targets": "Write what Prometheus should scrape.",
}


class FleetGroup(click.Group):
    """The commands of the table, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"agent.cli.fleet_{cmd_name}").command
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the table of commands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        """Complete a command's name without importing any."""
        named = [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)


@click.group("fleet", cls=FleetGroup, help=EXPLAINED)
def command() -> None:
    """Group the commands below."""
