"""What a repository will say once everything that is staged is published."""

from collections.abc import Mapping

from agent.core.reasons import Reason
from agent.core.targets import BoardId, GroupFile
from agent.errors import SettingsError
from agent.publish.contents import DEVICES, Contents
from agent.publish.staging import Staged, require

# Every board downloads 134 bytes for each of them; more than that is DDI's job.
MAX_DEVICES = 500


def planned_bundles(contents: Contents, staged: Staged) -> dict[str, str]:
    """Return the digests of the bundles that will be listed, by path."""
    listed = {path: file.hashes["sha256"] for path, file in contents.bundles().items()}
    for path in staged.unlisted:
        listed.pop(path, None)
    return {**listed, **{path: b.sha256 for path, b in staged.bundles.items()}}


def planned_states(
    contents: Contents, staged: Staged, folder: str
) -> dict[str, GroupFile]:
    """Return the desired states in a folder as they will be, by name."""
    states: dict[str, GroupFile | None] = {**contents.states(folder)}
    for path, file in staged.states().items():
        if path.startswith(folder):
            states[path.removeprefix(folder)] = file
    return {name: file for name, file in states.items() if file is not None}


def check_device(path: str, known: Mapping[str, GroupFile]) -> None:
    """Refuse an id that is none, and one device too many.

    Args:
        path: Of a desired state.
        known: The devices that have one.

    Raises:
        SettingsError: See above.
    """
    board = path.removeprefix(DEVICES)
    require(board, BoardId, "device {}: 1 to 64 of A-Z, a-z, 0-9, -, _ and .")
    if board not in known and len(known) >= MAX_DEVICES:
        raise SettingsError(
            f"{len(known)} devices have a desired state of their own, at most "
            f"{MAX_DEVICES} may",
            reason=Reason.SETTINGS,
            todo="End some with `tinyward repo remove REPO device:ID`, or put boards "
            "into groups.",
        )
