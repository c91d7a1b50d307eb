"""The passphrase of signing keys: from a prompt or a file, never from an argument.

Arguments stand in process lists, environments in ``/proc`` and crash reports.
"""

from pathlib import Path

import click

from agent.core.reasons import Reason
from agent.errors import SettingsError

_MAX_BYTES = 4096  # a file this long is not a passphrase but the wrong file

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the keys; without it you are asked.",
)


def ask_passphrase(file: Path | None, *, new: bool = False) -> bytes:
    """Return the passphrase; a new one is asked for twice.

    Raises:
        SettingsError: It is empty, or the file cannot be a passphrase.
    """
    if file is None:
        answer = click.prompt(
            "Passphrase of the keys",
            hide_input=True,
            confirmation_prompt=new,
            err=True,  # stdout stays free for what the command says
        )
        return str(answer).encode()
    try:
        raw = file.read_bytes()
    except OSError as err:
        raise SettingsError(f"{file}: {err}", reason=Reason.SETTINGS) from err
    # Editors end a file with a newline; nobody means it as part of the passphrase.
    passphrase = raw.rstrip(b"\r\n")
    if not passphrase or len(passphrase) > _MAX_BYTES:
        raise SettingsError(
            f"{file} holds no passphrase of 1 to {_MAX_BYTES} bytes",
            reason=Reason.SETTINGS,
        )
    return passphrase
