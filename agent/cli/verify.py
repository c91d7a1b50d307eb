"""``tinyward verify``: what a board would believe about a bundle, step by step.

It runs the agent's own ``TrustedRepository`` with nothing remembered: an empty cache
in a directory that is thrown away, and floors in memory.
"""

import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.sealed_opening import (
    BoardKey,
    board_option,
    named_key,
    open_sealed,
    seal_key_option,
)
from agent.cli.verify_report import Report, show_report
from agent.core.reasons import Reason
from agent.core.targets import SignedTarget, sealed_of
from agent.errors import AgentError, BundleRefusedError, SettingsError

if TYPE_CHECKING:
    from agent.trust.bundle import Bundle
    from agent.trust.client import TrustedRepository
    from agent.trust.transport import Transport

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_BUNDLE = click.Path(exists=True, path_type=Path)
CONTAINER_MARK = b"PK"  # of any ZIP; ciphertexts begin with chance


class Files(TypedDict):
    """Files (PEM) for TLS to a repository's server, and a board's key."""

    ca: Path | None
    cert: Path | None
    key: Path | None
    seal_key: Path | None
    board: str | None


@dataclass(frozen=True, slots=True)
class Access:
    """By what the repository is reached, and sealed bundles are opened."""

    transport: "Transport | None" = None
    key: BoardKey | None = None


_NO_KEYS = Access()


class ForgottenNotes:
    """Notes that nobody reads again."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_note(self, key: str) -> bytes | None:
        """Return what was saved under a key."""
        return self._kept.get(key)

    def save_note(self, key: str, value: bytes) -> None:
        """Keep a value until the command ends."""
        self._kept[key] = value


@click.command("verify")
@click.argument("bundle", metavar="BUNDLE", type=_BUNDLE)
@click.option(
    "--repository",
    required=True,
    help="Directory or https:// address of the repository.",
)
@click.option("--root", required=True, type=_FILE, help="The board's root.json.")
@click.option(
    "--ca", type=_FILE, help="CA of the server (PEM).  [default: the system's]"
)
@click.option(
    "--cert", type=_FILE, help="Client certificate for the server, if it asks for one."
)
@click.option("--key", type=_FILE, help="Its private key (PEM), if not in --cert.")
@seal_key_option
@board_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    bundle: Path, repository: str, root: Path, *, as_json: bool, **files: Unpack[Files]
) -> None:
    """Verify a bundle against a repository, explaining every step.

    Ends with 1 and the reason at the first step that does not hold.

    A sealed bundle is FOLDER.sealed or the file `bundle` in it. What is signed about it
    can be checked by anybody; with --seal-key it is opened, too, as that board does it.
    """
    from agent.trust.transport import Transport

    now = time.time()  # noqa: TID251 - a command is its own composition root
    report = Report()
    ca, cert = str(files["ca"] or ""), str(files["cert"] or "")
    transport = Transport(ca, cert, str(files["key"] or cert))
    access = Access(transport, named_key(files["seal_key"], files["board"]))
    try:
        verify(_read(bundle), repository, _read(root), now, report, access)
    except BundleRefusedError as err:
        report.fail(err)
    if as_json:
        click.echo(report.render())
    else:
        show_report(report, bundle)
    if report.reason:
        raise click.exceptions.Exit(AgentError.exit_code)


def verify(
    content: bytes,
    repository: str,
    root: bytes,
    now: float,
    report: Report,
    access: Access = _NO_KEYS,
) -> None:
    """Check a bundle as a board without a past would, noting every step.

    Raises:
        BundleRefusedError: The first step that does not hold.
        SettingsError: ``repository`` is neither a directory nor such an address.
        DeviceError: ``certificate``: a file for TLS cannot be used.
    """
    from agent.trust.client import TrustedRepository

    with tempfile.TemporaryDirectory(prefix="tinyward-verify-") as cache:
        trusted = TrustedRepository(
            metadata_dir=Path(cache, "metadata"),
            repository=repository,
            root=root,
            notes=ForgottenNotes(),
            build_time=0.0,
            explain=report.note,
            transport=access.transport,
        )
        trusted.refresh(now)
        sha256 = hashlib.sha256(content).hexdigest()
        target = trusted.find_digest(sha256)
        if target is None:
            raise _unlisted(content, trusted)
        bases = sorted(it.fields.from_version for it in trusted.deltas(target))
        deltas = "".join(f", a delta from {version}" for version in bases)
        report.note("listed", f"{target.path}, sha256 {sha256}{deltas}")
        trusted.fetch(target, lambda _: None, max_bytes=len(content))
        report.note("content", f"{target.length} bytes, digest as signed")
        bundle, opened = _open(content, target, trusted, access.key)
    named = f"{target.fields.model} {target.fields.version}"
    if bundle is None:
        report.unopened = True
        report.note("container", opened)
        report.note("fields", f"{named}; its manifest is sealed")
        return
    variants = ", ".join(variant.name for variant in bundle.manifest.variants)
    report.note("container", f"{opened}manifest, golden samples, variants {variants}")
    _check_fields(target, bundle.manifest.model, bundle.manifest.version)
    report.note("fields", named)


def _open(
    content: bytes,
    target: SignedTarget,
    trusted: "TrustedRepository",
    key: BoardKey | None,
) -> "tuple[Bundle | None, str]":
    """Open a bundle, unless it is sealed and no key is at hand; and say how.

    Raises:
        BundleRefusedError: A board would refuse it.
        DeviceError: ``seal_key``.
    """
    from agent.trust.bundle import open_bundle

    sealed = sealed_of(target)
    if sealed is None:
        return open_bundle(content, max_bytes=len(content)), ""
    how = f"sealed with {sealed.sealing.algorithm}"
    how += ", each board's copy marked" if sealed.sealing.marks else ""
    if key is None:
        return None, f"{how}; --seal-key opens it"

    def fetch(board: str) -> bytes | None:
        return trusted.envelope(sealed.model, sealed.version, board)

    bundle = open_sealed(content, target.sha256, sealed, key, fetch)
    return bundle, f"{how}, opened as {key.board}: "


def _unlisted(content: bytes, trusted: "TrustedRepository") -> BundleRefusedError:
    """Say why no signed target has this content: changed, or never signed.

    The bundle is not trusted; what it says of itself only chooses the words.
    """
    from agent.trust.bundle import open_bundle

    try:
        manifest = open_bundle(content, max_bytes=len(content)).manifest
    except BundleRefusedError as err:
        harm = "cut short" if err.reason == Reason.TRUNCATED else "damaged"
        if not content.startswith(CONTAINER_MARK):
            harm += ", or sealed and not published"
        return BundleRefusedError(
            f"the file is {harm}, no signed bundle has these bytes: {err}",
            reason=Reason.DIGEST,
        )
    try:
        target = trusted.find(manifest.model, manifest.version)
    except BundleRefusedError as err:
        return err
    if target.length != len(content):
        return BundleRefusedError(
            f"{target.path}: {len(content)} bytes, {target.length} signed",
            reason=Reason.LENGTH,
        )
    return BundleRefusedError(
        f"{target.path}: the signed digest is {target.sha256}", reason=Reason.DIGEST
    )


def _check_fields(target: SignedTarget, model: str, version: int) -> None:
    """Refuse a manifest that contradicts the signed fields."""
    signed = (target.fields.model, target.fields.version)
    if signed != (model, version):
        raise BundleRefusedError(
            f"signed as {signed[0]} {signed[1]}, its manifest says {model} {version}",
            reason=Reason.MISMATCH,
        )


def _read(path: Path) -> bytes:
    """Read a file the user named; of a sealed folder, the ciphertext in it."""
    try:
        return (path / "bundle" if path.is_dir() else path).read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name a file that you may read.",
        ) from err
