"""``tinyward audit verify``: a whole log, or one proof, by the board's key alone."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.core.disk_reasons import disk_error
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, SettingsError

if TYPE_CHECKING:
    from agent.audit.verify import Verified
    from agent.core.log_proof import Proven

HELP = """Verify a log of receipts, or one proof, with the board's public key alone.

\b
LOG     the folder `audit` of a state directory, on the board or copied off it
PROOF   what `tinyward audit proof` wrote
KEY     what `tinyward audit key` printed, or a file with it, or with a PEM key

Of a log every byte is looked at: a record that was changed, a segment that was taken
out, an event that says something else. What else lies in the folder is named, and not
looked at. With --last-seen a checkpoint that was kept
elsewhere has to be the beginning of it: a card that was restored (`replayed`), or went
on after that (`forked`), is evident, and both signed notes are printed as evidence.
Where the quota has removed what it ended with it cannot be compared any more: exit 1.

\b
Exit 0: it is what the key signed. Exit 1: `log`, `signature`, `replayed`, `forked` or
`malformed`."""
SHOWN_NAMES = 5
_PATH = click.Path(exists=True, path_type=Path)


@click.command(help=HELP, short_help="Verify a log or a proof with the board's key.")
@click.argument("subject", metavar="LOG|PROOF", type=_PATH)
@click.option("--key", required=True, help="The board's public key, or its file.")
@click.option(
    "--last-seen",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint of this log that was kept: `tinyward audit head -o FILE`.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(subject: Path, key: str, last_seen: Path | None, *, as_json: bool) -> None:
    """Verify, and say what was verified.

    Raises:
        BundleRefusedError: It is not what the key signed.
        SettingsError: The key is none.
    """
    public, board = _read_key(key)
    seen = last_seen.read_text("utf-8", "replace") if last_seen else ""
    try:
        if subject.is_dir():
            verified = _verify_log(subject, public, board, seen, quiet=as_json)
            click.echo(_log_json(verified) if as_json else _describe_log(verified))
        else:
            proven = _verify_proof(subject, public, seen)
            click.echo(_proof_json(proven) if as_json else _describe_proof(proven))
    except OSError as err:
        raise disk_error(err, {}) from err


def _read_key(key: str) -> tuple[bytes, str]:
    """Return a raw key that was given as such, or as a file, and whose it is.

    Raises:
        SettingsError: It is neither.
    """
    from agent.audit.key import parse_public
    from agent.core.checkpoint import board_of

    try:
        typed = key.count("+") >= 2
        text = key if typed else Path(key).read_text(encoding="utf-8")
        return parse_public(text), board_of(text.partition("+")[0])
    except (OSError, UnicodeDecodeError, BundleRefusedError) as err:
        raise SettingsError(
            f"--key {key[:200]}: neither a verifier key nor a file with one",
            reason=Reason.SETTINGS,
            todo="`tinyward audit key` on the board prints it.",
        ) from err


def _verify_log(
    path: Path, public: bytes, board: str, seen: str, *, quiet: bool
) -> "Verified":
    """Verify a log under a progress bar; print the evidence where it is at fault.

    Raises:
        LogFaultError: It is not what the key signed.
    """
    from rich.console import Console
    from rich.progress import Progress

    from agent.audit.verify import Asked, LogFaultError, verify_log

    asked = Asked(public, board, seen)
    console = Console(stderr=True, quiet=quiet)
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("records")

        def show(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of)

        try:
            return verify_log(path, asked, show)
        except LogFaultError as err:
            for note in filter(None, err.evidence):
                click.echo(f"evidence:\n{note}", err=True)
            raise


def _verify_proof(path: Path, public: bytes, seen: str) -> "Proven":
    """Verify a proof.

    Raises:
        BundleRefusedError: It proves nothing.
        DeviceError: It cannot be read.
    """
    from agent.audit.key import verify_ed25519
    from agent.core.log_proof import MAX_PROOF_BYTES, judge_proof, parse_proof
    from agent.core.note import NoteKey

    if seen:
        raise SettingsError(
            "--last-seen is about a whole log, not about a proof",
            reason=Reason.SETTINGS,
        )
    with path.open("rb") as file:
        proof = parse_proof(file.read(MAX_PROOF_BYTES + 1))
    origin = proof.note.partition("\n")[0]
    return judge_proof(proof, NoteKey(origin, public), verify_ed25519)


def _describe_log(found: "Verified") -> str:
    """Return what was verified, for people."""
    from agent.core.checkpoint import say_starts

    checkpoint = found.checkpoint
    lost = checkpoint.lost if checkpoint else 0
    lines = [
        f"log       {found.origin}",
        f"records   {found.first} to {found.size - 1}, each in chain and tree",
        f"verified  {found.checkpoints} checkpoints, {found.events} events",
    ]
    if checkpoint:
        lines.append(f"starts    {say_starts(checkpoint)}")
    if lost:
        lines.append(f"lost      {lost} records, by what the log says itself")
    if found.first:
        lines.append(f"removed   the first {found.first}, by quota; their roots fit")
    if found.unsigned:
        lines.append(f"unsigned  {found.unsigned} records behind the last checkpoint")
    if found.strangers:
        lines.append(f"besides   {_list_names(found.strangers)}: not looked at")
    return "\n".join([*lines, "the log is what this key signed"])


def _list_names(names: list[str]) -> str:
    """Return the first of some names of files, which anybody may have made."""
    from agent.cli.plain_text import plain

    more = ", ..." if len(names) > SHOWN_NAMES else ""
    return ", ".join(plain(it) for it in names[:SHOWN_NAMES]) + more


def _log_json(found: "Verified") -> str:
    """Return the same for programs."""
    checkpoint = found.checkpoint
    return json.dumps(
        {
            "origin": found.origin,
            "size": found.size,
            "first": found.first,
            "checkpoints": found.checkpoints,
            "events": found.events,
            "unsigned": found.unsigned,
            "lost": checkpoint.lost if checkpoint else 0,
            "starts": checkpoint.starts if checkpoint else 0,
            "gaps": checkpoint.gaps if checkpoint else 0,
            "inferences": checkpoint.inferences if checkpoint else 0,
            "root": checkpoint.root.hex() if checkpoint else "",
            "besides": found.strangers,
        }
    )


def _describe_proof(proven: "Proven") -> str:
    """Return what was proven, for people."""
    from agent.cli.plain_text import plain

    receipt, checkpoint = proven.receipt, proven.checkpoint
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint.time_s))
    said = plain(proven.event.decode("utf-8", "replace"))
    told = [f"event     {said}"] if said else []
    lines = [
        f"log       {plain(checkpoint.origin)}",
        f"record    {receipt.seq} of {checkpoint.size}, signed {at} (board's clock)",
        f"model     {receipt.model.hex()}",
        # An event has no input at all.
        *([] if said else [f"input     {_hash_text(receipt.input, 'chain')}"]),
        f"output    {_hash_text(receipt.output, 'count')}",
    ]
    return "\n".join([*lines, *told, "it is in the log"])


def _hash_text(digest: bytes, mode: str) -> str:
    """Return a digest, or that nobody has made one: so many zeros are none."""
    return digest.hex() if any(digest) else f"not hashed (mode {mode})"


def _proof_json(proven: "Proven") -> str:
    """Return the same for programs."""
    receipt = proven.receipt
    return json.dumps(
        {
            "origin": proven.checkpoint.origin,
            "size": proven.checkpoint.size,
            "seq": receipt.seq,
            "sample": receipt.sample,
            "monotonic_ns": receipt.monotonic_ns,
            "flags": receipt.flags,
            "model": receipt.model.hex(),
            "input": receipt.input.hex(),
            "output": receipt.output.hex(),
            "event": proven.event.decode("utf-8", "replace"),
        }
    )
