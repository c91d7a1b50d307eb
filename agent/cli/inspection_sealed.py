"""What ``tinyward inspect`` finds out about a sealed folder, with a key or without."""

from pathlib import Path

from agent.cli.inspection import Report, SealedFacts, Wish, fill_from_bundle
from agent.cli.sealed_opening import BoardKey, open_sealed
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from agent.publish.sealed_folder import load_card, load_envelopes


def fill_from_sealed(
    report: Report, folder: Path, content: bytes, wish: Wish, key: BoardKey | None
) -> None:
    """Find out what anybody may know; and with a key, everything.

    Raises:
        SettingsError: It is no sealed folder.
        AgentError: Its board would refuse it; the report is filled so far.
    """
    card, envelopes = load_card(folder), load_envelopes(folder)
    sealed = card.sealed
    report.kind = "sealed"
    report.sealed = SealedFacts(
        sealed.model,
        sealed.version,
        sealed.sealing.algorithm,
        sealed.plain_bytes,
        tuple(envelopes),
        bool(sealed.sealing.marks),
    )
    if report.sha256 != card.sha256:
        raise BundleRefusedError(
            f"{folder / 'bundle'} is not what was sealed", reason=Reason.DIGEST
        )
    if key is None:
        return
    bundle = open_sealed(content, card.sha256, sealed, key, envelopes.get)
    report.sealed.opened = True
    fill_from_bundle(report, bundle, wish)
