"""What is wrong with an operator's own certificate, as far as its files tell.

In TLS 1.3 a board judges it after our side of the handshake is over, and closes without
a word: who asks can often see by the files why.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.plain_text import plain

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def find_fault(certificate: Path, ca: Path, now: float | None = None) -> str:
    """Return why a board of the CA would not take a certificate.

    Args:
        certificate: PEM, with what stands between it and the CA behind it.
        ca: PEM of one or more CAs.
        now: Unix seconds; this machine's clock without.

    Returns:
        An empty string where the files show no fault: a board knows more, such as
        what was revoked.
    """
    from cryptography.x509 import load_pem_x509_certificates

    try:
        own, *between = load_pem_x509_certificates(certificate.read_bytes())
        vouching = load_pem_x509_certificates(ca.read_bytes())
    except (OSError, ValueError):
        return ""
    moment = time.time() if now is None else now  # noqa: TID251 - an operator's machine
    ends, begins = own.not_valid_after_utc, own.not_valid_before_utc
    if ends.timestamp() < moment:
        return f"{certificate} ended on {ends:%Y-%m-%d}"
    if begins.timestamp() > moment:
        return f"{certificate} begins only on {begins:%Y-%m-%d %H:%M} UTC"
    if not _leads_to(own, between, vouching):
        issuer = plain(own.issuer.rfc4514_string(), 60)
        return f"{certificate} is issued by {issuer}, not by --ca {ca}"
    return ""


def _leads_to(
    own: "Certificate",
    between: "Sequence[Certificate]",
    vouching: "Sequence[Certificate]",
) -> bool:
    """Return whether somebody vouches for a certificate, step by step."""
    here = own
    # Each step takes another certificate of the file: no chain is longer than that.
    for _ in range(len(between) + 1):
        if any(_issued(here, ca) for ca in vouching):
            return True
        above = [one for one in between if one is not here and _issued(here, one)]
        if not above:
            return False
        here = above[0]
    return False


def _issued(certificate: "Certificate", issuer: "Certificate") -> bool:
    """Return whether one certificate is signed by another."""
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
