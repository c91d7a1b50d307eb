"""``tinyward audit key``: the public key by which this board's log is verified."""

from pathlib import Path

import click

from agent.core.reasons import Reason
from agent.errors import DeviceError

HELP = """Print the public key by which this board's log of receipts is verified.

A verifier key (name+id+key), as tools for transparency logs take it; --pem prints the
bare key. The private one never leaves the board. Run this as the daemon's user."""


@click.command(help=HELP, short_help="Print the public key of this board's log.")
@click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The daemon's settings file.  [default: /etc/tinyward/agent.toml]",
)
@click.option("--pem", is_flag=True, help="Print the bare key as PEM.")
def command(config: Path | None, *, pem: bool) -> None:
    """Print the key.

    Raises:
        DeviceError: There is none yet, or this user may not read it.
    """
    from agent.audit.files import Folder
    from agent.audit.key import load_audit_key, render_pem
    from agent.audit.opening import LOG_FOLDER
    from agent.audit.reading import read_identity
    from agent.cli.places import read_settings, state_directory
    from agent.cli.reach import DEFAULT_CONFIG
    from agent.core.note import render_key
    from agent.proofs import key_place

    settings = read_settings(config or DEFAULT_CONFIG)
    state_dir, audit = state_directory(settings), settings.audit
    path, _ = key_place(audit.key, audit.credential, state_dir)
    key = load_audit_key(path, may_make=False)
    if pem:
        click.echo(render_pem(key.public), nl=False)
        return
    identity = read_identity(Folder(state_dir / LOG_FOLDER))
    if identity is None:
        raise DeviceError(
            "this board has no log yet",
            reason=Reason.LOG,
            todo="Set `audit.mode` and start the daemon once, or use --pem.",
        )
    click.echo(render_key(key.named(identity.origin)))
