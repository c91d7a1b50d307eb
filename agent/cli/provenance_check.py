"""What a publisher's bundle says of its origin, checked before anyone signs it."""

from pathlib import Path

from agent.core.provenance import check_provenance, open_statement, refused
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.trust.bundle import Bundle
from agent.trust.statements import PublicKey, parse_key, require_signature


def read_key(path: Path) -> PublicKey:
    """Return the key in a certificate or public key file.

    Raises:
        SettingsError: It cannot be read, or holds no key.
    """
    try:
        return parse_key(path.read_bytes())
    except OSError as err:
        what = f"{path}: {err.strerror}"
        raise SettingsError(what, reason=Reason.SETTINGS) from err
    except SettingsError as err:
        raise SettingsError(f"{path}: {err}", reason=err.reason) from err


def read_provenance_key(path: Path | None) -> PublicKey | None:
    """Return the key of ``--provenance-key``, if it was given.

    Raises:
        SettingsError: It cannot be read, or holds no key.
    """
    return None if path is None else read_key(path)


def check_published(bundle: Bundle, key: PublicKey | None) -> None:
    """Check that a statement of origin is about this bundle's variants.

    Args:
        bundle: What is to be published; without a statement nothing is checked,
            unless a key is given.
        key: Who has to have signed the statement; None asks for no signature.

    Raises:
        BundleRefusedError: ``provenance`` or ``signature``.
    """
    if not bundle.provenance:
        if key is not None:
            raise refused("the bundle says nothing of its origin")
        return
    check_provenance(bundle.provenance, bundle.manifest)
    if key is not None:
        _, envelope = open_statement(bundle.provenance)
        require_signature(envelope, key, "provenance.json")
