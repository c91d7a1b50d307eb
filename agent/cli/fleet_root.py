"""Is a file the first root.json of a repository? Asked before a board trusts it."""

from agent.core.reasons import Reason
from agent.errors import SettingsError


def check_root(content: bytes, path: str) -> None:
    """Check that a root.json is one: it parses, and signs itself by its own threshold.

    Its age does not count: a board follows the chain of later ones.

    Raises:
        SettingsError: ``metadata`` or ``threshold``.
    """
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root
    from tuf.api.serialization import DeserializationError

    todo = "Name the repository's own metadata/1.root.json."
    try:
        root = Metadata[Root].from_bytes(content)
        if not isinstance(root.signed, Root):
            raise SettingsError(
                f"{path} is no root.json", reason=Reason.METADATA, todo=todo
            )
        root.verify_delegate(Root.type, root)
    except (DeserializationError, ValueError) as err:
        raise SettingsError(
            f"{path} is no root.json: {err}", reason=Reason.METADATA, todo=todo
        ) from err
    except RepositoryError as err:
        raise SettingsError(
            f"{path} does not sign itself: {err}", reason=Reason.THRESHOLD, todo=todo
        ) from err
