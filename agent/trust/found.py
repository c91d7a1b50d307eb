"""What a signed entry of a target says about itself: its digest, and its length."""

from typing import TYPE_CHECKING

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile


def sha256_of(found: "TargetFile") -> str:
    """Return the signed SHA-256 of a target.

    Raises:
        BundleRefusedError: ``metadata``: none was signed.
    """
    if "sha256" not in found.hashes:
        raise BundleRefusedError(f"{found.path} has no sha256", reason=Reason.METADATA)
    return found.hashes["sha256"]


def check_size(path: str, length: int, max_bytes: int) -> None:
    """Refuse what is too large before anything of it is read.

    Raises:
        BundleRefusedError: ``too_large``.
    """
    if length > max_bytes:
        raise BundleRefusedError(
            f"{path}: {length} bytes, at most {max_bytes} allowed",
            reason=Reason.TOO_LARGE,
        )
