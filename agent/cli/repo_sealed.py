"""``tinyward repo add FOLDER.sealed``: a sealed bundle and its envelopes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.plain_text import plain
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, SettingsError

if TYPE_CHECKING:
    from agent.core.manifest import Manifest
    from agent.publish.keyless import KeylessRepository


def is_sealed_folder(path: Path) -> bool:
    """Return whether `tinyward seal` has made this folder.

    Raises:
        SettingsError: It is a folder, and another one.
    """
    from agent.publish.sealed_folder import load_card

    if path.is_dir():
        load_card(path)
    return path.is_dir()


def check_asked(versions: Sequence[int], provenance_key: Path | None) -> None:
    """Check that nobody asks for what cannot be had of a sealed bundle.

    Raises:
        SettingsError: Somebody asks for deltas, or for what it says inside.
    """
    if versions:
        raise SettingsError(
            "a sealed bundle has no deltas: ciphertexts have nothing in common",
            reason=Reason.SETTINGS,
            todo="Leave out --delta-from; boards fetch sealed bundles whole.",
        )
    if provenance_key is not None:
        raise SettingsError(
            "what a sealed bundle says of its origin cannot be read here",
            reason=Reason.SETTINGS,
            todo="Check it where it is sealed: `tinyward seal --provenance-key`.",
        )


def check_unmarked(manifest: "Manifest") -> None:
    """Check that a bundle without a seal has no triggers: boards would have them too.

    Raises:
        BundleRefusedError: ``watermark``.
    """
    if manifest.watermark is not None:
        raise BundleRefusedError(
            "it has triggers, which would be published in clear, and no board's marks",
            reason=Reason.WATERMARK,
            todo="`tinyward seal MODEL.marked.bundle --to BOARD.pub --marks marks.db`, "
            "then add the folder; or add the bundle that it was made of.",
        )


def add_sealed(
    opened: "KeylessRepository", folder: Path, hardware: Sequence[str], min_agent: str
) -> None:
    """Stage a sealed bundle unless it is there already, and take its envelopes in.

    Raises:
        SettingsError: It is no sealed folder, or a field is not allowed.
        BundleRefusedError: ``digest``, ``mismatch`` or ``revoked``.
        DeviceError: It cannot be read or stored.
    """
    from agent.publish.envelopes import add_envelopes
    from agent.publish.sealed_folder import load_card, load_content, load_envelopes

    card, envelopes = load_card(folder), load_envelopes(folder)
    model, version = card.sealed.model, card.sealed.version
    there = opened.lists(model, version, card.sha256)
    if not there or hardware or min_agent:
        target = opened.add_sealed(
            load_content(folder, card),
            card.sealed,
            hardware=hardware,
            min_agent=min_agent,
        )
        click.echo(f"staged {target.path} ({target.length} bytes, sealed)")
    else:
        click.echo(f"{card.target} is there already: nothing to sign")
    new, withdrawn = add_envelopes(opened.path, model, version, envelopes)
    names = f": {_few(new)}" if new else ""
    click.echo(f"envelopes: {len(new)} new of {len(envelopes)}{names}")
    for board in withdrawn:
        click.echo(f"no envelope for {plain(board)}: the board was revoked")


def _few(boards: Sequence[str]) -> str:
    """Return the names of a few boards, and how many more there are."""
    shown = ", ".join(plain(board) for board in boards[:5])
    more = len(boards) - 5
    return f"{shown} and {more} more" if more > 0 else shown
