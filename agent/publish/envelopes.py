"""Envelopes of a repository: unsigned files, and the boards that get none any more.

The rules this module keeps:
 * An envelope lies at ``REPO/envelopes/MODEL/VERSION/BOARD``. Nothing signed names it:
   adding a board to a published version needs no key and no publication.
 * A withdrawn board's envelopes are removed, and none is taken in again. What it has
   fetched already it keeps; new versions it cannot open.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from agent.core.reasons import Reason
from agent.core.sealing import envelope_path
from agent.core.targets import BoardId, SignedTarget
from agent.errors import SettingsError
from agent.publish.files import locked, owners_disk, write_durably, write_many
from agent.publish.staging import require

_FOLDER = "envelopes"
_WITHDRAWN = "withdrawn.json"  # beside staged.json: for the owner, not for boards


def add_envelopes(
    repository: Path, model: str, version: int, envelopes: Mapping[str, bytes]
) -> tuple[list[str], list[str]]:
    """Take envelopes in; return the boards whose ones are new, and who gets none.

    Raises:
        SettingsError: The list of withdrawn boards is damaged.
        DeviceError: A file cannot be written, or another command runs.
    """
    with locked(repository):
        withdrawn = load_withdrawn(repository)
        folder = repository / envelope_path(model, version, "")
        new = {
            board: envelope
            for board, envelope in envelopes.items()
            if board not in withdrawn and not _holds(folder / board, envelope)
        }
        if new:
            write_many(folder, new)
    return list(new), sorted(withdrawn & envelopes.keys())


def envelope_boards(repository: Path, model: str, version: int) -> list[str]:
    """Return the boards that have an envelope of a version, sorted.

    Raises:
        DeviceError: The folder cannot be read.
    """
    folder = repository / envelope_path(model, version, "")
    with owners_disk():
        found = [path.name for path in folder.glob("*") if path.is_file()]
    # What a crash left of a file in the making begins with a dot.
    return sorted(name for name in found if not name.startswith("."))


def count_envelopes(
    repository: Path, bundles: Iterable[SignedTarget]
) -> dict[str, int]:
    """Return how many boards have an envelope of each sealed bundle, by path.

    Raises:
        DeviceError: A folder cannot be read.
    """
    sealed = [(it.path, it.fields) for it in bundles if it.fields.sealed is not None]
    return {
        path: len(envelope_boards(repository, fields.model, fields.version))
        for path, fields in sealed
    }


def chosen_envelopes(
    repository: Path, bundles: Iterable[tuple[str, int]], boards: Collection[str]
) -> Iterator[Path]:
    """Yield the envelopes of versions for these boards, for all where none is named.

    Raises:
        DeviceError: A folder cannot be read.
    """
    for model, version in bundles:
        for board in envelope_boards(repository, model, version):
            if not boards or board in boards:
                yield repository / envelope_path(model, version, board)


def withdraw_boards(
    repository: Path, boards: Collection[str], *, undo: bool = False
) -> list[Path]:
    """Give boards no envelope any more; return those that were removed.

    Args:
        repository: Its directory.
        boards: Their ids.
        undo: Take that back: their envelopes may be added again.

    Raises:
        SettingsError: An id is none; or one to take back was never withdrawn.
        DeviceError: A file cannot be changed, or another command runs.
    """
    for board in boards:
        require(board, BoardId, "board {}: 1 to 64 of A-Z, a-z, 0-9, -, _ and .")
    with locked(repository):
        known = load_withdrawn(repository)
        if undo and (strangers := set(boards) - known):
            raise SettingsError(
                f"{', '.join(sorted(strangers))} was never withdrawn",
                reason=Reason.SETTINGS,
                todo="See `tinyward repo status` for the boards that are.",
            )
        after = known - set(boards) if undo else known | set(boards)
        # First the list, then the files: after a crash between, none comes back.
        write_durably(repository / _WITHDRAWN, msgspec.json.encode(sorted(after)))
        return [] if undo else _removed(repository, boards)


def load_withdrawn(repository: Path) -> set[str]:
    """Return the boards that get no envelope any more.

    Raises:
        SettingsError: The file is damaged.
    """
    path = repository / _WITHDRAWN
    try:
        return msgspec.json.decode(path.read_bytes(), type=set[BoardId])
    except FileNotFoundError:
        return set()
    except (OSError, msgspec.MsgspecError) as err:
        raise SettingsError(
            f"{path}: {err}",
            reason=Reason.SETTINGS,
            todo="Restore it from a copy, or name the boards again.",
        ) from err


def _removed(repository: Path, boards: Collection[str]) -> list[Path]:
    """Remove all envelopes of these boards."""
    with owners_disk():
        found = sorted((repository / _FOLDER).glob("*/*/*"))
        gone = [path for path in found if path.name in boards]
        for path in gone:
            path.unlink(missing_ok=True)
    return gone


def _holds(place: Path, envelope: bytes) -> bool:
    """Return whether a file is this envelope already."""
    with owners_disk():
        return place.is_file() and place.read_bytes() == envelope
