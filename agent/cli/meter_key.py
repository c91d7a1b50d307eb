"""``tinyward meter key``: the vendor's key, made once."""

from collections.abc import Sequence
from pathlib import Path

import click

from agent.cli.passphrase import ask_passphrases

passphrase_option = click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the vendor's key; without it you are asked.",
)


@click.command("key", short_help="Make the vendor's key.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@passphrase_option
def command(file: Path, passphrase_files: Sequence[Path]) -> None:
    """Make the Ed25519 key that signs vouchers, encrypted, and FILE.pub beside it.

    The public half goes onto boards: `[meter] vendor_key`. Keep two copies of FILE, of
    tinyward.salt beside it, and of the book that `vouchers` keeps: whoever has the key
    makes vouchers, and without it nobody sells to these boards again.
    """
    from agent.publish.vouchers import make_vendor_key, public_path

    ((_, passphrase),) = ask_passphrases([file], passphrase_files, new=True)
    make_vendor_key(file, passphrase)
    click.echo(f"made {file} and {public_path(file)}")
    click.echo(f'on boards: [meter] vendor_key = "/etc/tinyward/{file.name}.pub"')
