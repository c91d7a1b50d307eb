"""``tinyward fleet``: a small fleet without a server, by an inventory and its boards.

The rules this module keeps:
 * Each command is a module beside this one, imported when it is called.
"""

import click

from agent.cli import LazyGroup

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


class FleetGroup(LazyGroup):
    """The commands of the table."""

    table = COMMANDS
    modules = "agent.cli.fleet_"


@click.group("fleet", cls=FleetGroup, help=EXPLAINED)
def command() -> None:
    """Group the commands below."""
