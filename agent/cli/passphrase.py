"""The passphrase of signing keys: from a prompt or a file, never from an argument.

Arguments stand in process lists, environments in ``/proc`` and crash reports.
"""

import sys
from pathlib import Path

import click

from agent.core.reasons import Reason
from agent.errors import SettingsError

_MIN_BYTES = 8  # of a new one: scrypt slows guessing down, it does not stop it
_MAX_BYTES = 4096  # a file this long is not a passphrase but the wrong file

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the keys; without it you are asked.",
)


def ask_passphrase(file: Path | None, *, new: bool = False) -> bytes:
    """Return the passphrase; a new one is asked for twice.

    Raises:
        SettingsError: It is empty, or too short for new keys, the file cannot be a
            passphrase, or nobody is there to type one.
    """
    passphrase = _type_passphrase(new=new) if file is None else _read_passphrase(file)
    if new and len(passphrase) < _MIN_BYTES:
        raise SettingsError(
            f"the passphrase has {len(passphrase)} bytes, at least {_MIN_BYTES} needed",
            reason=Reason.SETTINGS,
            todo="Take a longer one, such as five random words.",
        )
    return passphrase


def _type_passphrase(*, new: bool) -> bytes:
    """Ask for the passphrase at the terminal."""
    if not sys.stdin or not sys.stdin.isatty():
        raise SettingsError(
            "there is no terminal to type the passphrase at",
            reason=Reason.SETTINGS,
            todo="Put it into a file of your own and name it with --passphrase-file.",
        )
    answer = click.prompt(
        "Passphrase of the keys",
        hide_input=True,
        confirmation_prompt=new,
        err=True,  # stdout stays free for what the command says
    )
    return str(answer).encode()


def _read_passphrase(file: Path) -> bytes:
    """Read the passphrase from its file."""
    todo = "Name a file that holds the passphrase alone, on one line."
    try:
        raw = file.read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{file}: {err}", reason=Reason.SETTINGS, todo=todo
        ) from err
    # Editors end a file with a newline; nobody means it as part of the passphrase.
    passphrase = raw.rstrip(b"\r\n")
    if not passphrase or len(passphrase) > _MAX_BYTES:
        raise SettingsError(
            f"{file} holds no passphrase of 1 to {_MAX_BYTES} bytes",
            reason=Reason.SETTINGS,
            todo=todo,
        )
    return passphrase
