"""The passphrase of signing keys: from a prompt or a file, never from an argument.

Arguments stand in process lists, environments in ``/proc`` and crash reports.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from agent.core.reasons import Reason
from agent.errors import SettingsError

_MIN_BYTES = 8  # of a new one: scrypt slows guessing down, it does not stop it
_MAX_BYTES = 4096  # a file this long is not a passphrase but the wrong file

# For what has one directory of keys, and no --keys.
one_passphrase_option = click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the CA's key; without it you are asked.",
)
passphrase_option = click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the keys, one for each --keys in their order; "
    "without any you are asked.",
)


def ask_passphrases(
    places: Sequence[Path], files: Sequence[Path], *, new: bool = False
) -> list[tuple[Path, bytes]]:
    """Return each directory of keys with its passphrase; new ones are typed twice.

    Args:
        places: Directories of keys, each of one holder.
        files: A file with the passphrase for each, in this order; or none at all.
        new: Keys are to be made there.

    Raises:
        SettingsError: The files do not fit the directories, or a passphrase cannot be
            one, is too short for new keys, or nobody is there to type it.
    """
    if len(set(places)) < len(places):
        raise SettingsError(
            "one directory is named twice",
            reason=Reason.SETTINGS,
            todo="Name every directory of keys once, with --keys.",
        )
    if files and len(files) != len(places):
        raise SettingsError(
            f"{len(places)} directories of keys, but {len(files)} of --passphrase-file",
            reason=Reason.SETTINGS,
            todo="Name one --passphrase-file for each --keys, in the same order.",
        )
    given: Sequence[Path | None] = files or [None] * len(places)
    pairs = zip(places, given, strict=True)
    return [(place, _passphrase(place, file, new=new)) for place, file in pairs]


def _passphrase(place: Path, file: Path | None, *, new: bool) -> bytes:
    """Return the passphrase of one directory of keys."""
    passphrase = _read(file) if file else _type(place, new=new)
    if new and len(passphrase) < _MIN_BYTES:
        raise SettingsError(
            f"the passphrase has {len(passphrase)} bytes, at least {_MIN_BYTES} needed",
            reason=Reason.SETTINGS,
            todo="Take a longer one, such as five random words.",
        )
    return passphrase


def _type(place: Path, *, new: bool) -> bytes:
    """Ask for the passphrase at the terminal."""
    if not sys.stdin or not sys.stdin.isatty():
        raise SettingsError(
            "there is no terminal to type the passphrase at",
            reason=Reason.SETTINGS,
            todo="Put it into a file of your own and name it with --passphrase-file.",
        )
    answer = click.prompt(
        f"Passphrase of the keys in {place}",
        hide_input=True,
        confirmation_prompt=new,
        err=True,  # stdout stays free for what the command says
    )
    return str(answer).encode()


def _read(file: Path) -> bytes:
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
