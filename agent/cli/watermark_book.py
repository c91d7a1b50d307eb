"""Opening a book of marks, by a passphrase that is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.passphrase import ask_passphrases
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.publish.marks_book import MarksBook


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


def unusable(what: str, todo: str) -> SettingsError:
    """Return the error for a call that contradicts the book."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
