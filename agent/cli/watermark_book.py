"""Opening a book of marks, by a passphrase that is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.passphrase import ask_passphrases
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.publish.marks_book import MarkedVersion, MarksBook


def open_book(path: Path, files: Sequence[Path]) -> "MarksBook":
    """Open a book, or make it where there is none; the passphrase is asked for.

    Raises:
        SettingsError: The passphrase is another, or the file is no book.
        DeviceError: It cannot be written.
    """
    from agent.publish.marks_book import MarksBook

    new = not path.exists()
    ((_, passphrase),) = ask_passphrases([path], files[:1], new=new)
    return (MarksBook.create if new else MarksBook.open)(path, passphrase)


def warn_and_note(book: "MarksBook", marked: "MarkedVersion", place: str) -> None:
    """Say that somebody is about to see the tracing triggers, and write it down.

    They are the half of a mark that no board holds. Who has seen them can answer them
    as it likes, or train them away.

    Raises:
        DeviceError: The book cannot be written.
    """
    import time

    click.echo(
        f"warning: {place} is shown the tracing triggers of {marked.model} "
        f"{marked.version}, which only this book had: whoever is there can keep them, "
        "and answer them falsely from now on",
        err=True,
    )
    day = time.strftime("%Y-%m-%d", time.gmtime())
    book.note_shown(marked, f"{day} {place}")
    book.save()


def unusable(what: str, todo: str) -> SettingsError:
    """Return the error for a call that contradicts the book."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
