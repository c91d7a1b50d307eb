"""``tinyward audit rerun``: compute some of a board's inferences anew, and compare."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.audit_board import Where, board_options, link_to
from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError

if TYPE_CHECKING:
    from agent.audit.verify import Asked
    from agent.cli.audit_rerun_models import Brought
    from agent.cli.rerun import Audit, Open
    from agent.cli.rerun_evidence import Evidence, Progress
    from agent.core.checkpoint import Checkpoint
    from agent.publish.marks_book import MarksBook

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MIN_SEED_BYTES = 8  # nobody tries 2**64 seeds to be asked for what suits him
HELP = """Compute inferences of a board's log anew, and compare with its receipts.

\b
  tinyward audit rerun --log card/audit --vkey board.vkey \\
      --owner-key owner-keys --bundle kws-8.bundle --samples 64
  tinyward audit rerun --board pi-0042 --vkey board.vkey ... over TLS

The board keeps one in so many inputs, sealed to you, the owner (audit.owner_key,
audit.keep_one_in). Of those before the newest checkpoint some are drawn by the seed:
let nobody know it before the checkpoint is signed. Each is opened, held against its
receipt, the receipt against the log, and its answer against what a locked process
computes from your own copy of the model: the same to the bit where this machine
computes as the board does, else as near as kernels agree on the golden samples.

Of a sealed model, name the plain bundle that you gave to `tinyward seal`. Where boards
run marked copies, name the bundle that `tinyward watermark instances` wrote, and its
book (--book marks.db): the copy of the board whose log it is is made in memory.

\b
Exit 0: all are right. Exit 1: one is not (reason `audit`). Exit 2: none could be
computed, as of a model that was not named: what ran is said by its digest.

It finds other models, wrong kernels and failing memory. Whoever controls a board down
to its worker knows which inputs are kept, and can answer those rightly."""


class Options(Where):
    """Options of the command."""

    log: Path | None
    kept: Path | None
    vkey: str
    owner_key: Path
    passphrase_files: tuple[Path, ...]
    bundle: tuple[Path, ...]
    tflite: tuple[Path, ...]
    book: Path | None
    samples: int
    since: int
    seed: str
    as_json: bool


@click.command(help=HELP, short_help="Compute kept inferences anew, and compare.")
@click.option("--log", type=_PATH, help="A log's folder.  [default: ask a board]")
@click.option("--kept", type=_PATH, help="Kept inputs.  [default: audit-kept beside]")
@board_options
@click.option("--vkey", required=True, help="What `audit key` printed, or its file.")
@click.option(
    "--owner-key",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="The owner's directory of keys, or a private sealing key's file.",
)
@click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=_FILE,
    help="File with the passphrase of the directory, a second one with the book's; one "
    "alone opens both. Without any you are asked.",
)
@click.option(
    "--bundle",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    required=True,
    help="What the board ran: plain, and marked where it runs a marked copy.",
)
@click.option(
    "--book", type=_FILE, help="The book of marks, which makes the board's own copy."
)
@click.option(
    "--tflite", type=_FILE, multiple=True, help="The board's own copy, without a book."
)
@click.option(
    "--samples", type=click.IntRange(1, 100_000), default=64, show_default=True
)
@click.option("--since", type=click.IntRange(0), default=0, help="Not those before it.")
@click.option("--seed", default="", help="Hex; drawn and shown if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(**options: Unpack[Options]) -> None:
    """Verify, choose, compute, conclude.

    Raises:
        SettingsError: ``settings``: an option does not fit, or no model is what ran.
        AgentError: The log is not what was signed, or a model does not run here.
        DeviceError: ``audit``: an inference is not what its receipt says.
    """
    from agent.cli.audit_rerun_models import gather_models, read_bundles
    from agent.cli.rerun import Demand, perform_audit
    from agent.cli.rerun_evidence import whose
    from agent.cli.rerun_view import RerunView

    seed = _seed(options["seed"])
    # All that can be wrong with what was typed, before a log of hours is read.
    brought = read_bundles(options["bundle"])
    opener, book = _open_secrets(options)
    asked = _asked(options["vkey"])
    with RerunView() as view:
        evidence = _evidence(options, asked, view.verified)
        models = gather_models(brought, options["tflite"], book, whose(evidence))
        demand = Demand(seed, options["samples"], options["since"], opener, models)
        audit = perform_audit(evidence, demand, view.computed)
    _tell(audit, evidence.checkpoint, seed, as_json=options["as_json"])
    _judge(audit, brought, options)


def _evidence(options: Options, asked: "Asked", progress: "Progress") -> "Evidence":
    """Return the log that options name, verified: a folder, or a board that runs.

    Raises:
        AgentError: It is not what was signed, or the board cannot be asked.
    """
    from agent.cli.rerun_board import BoardEvidence
    from agent.cli.rerun_evidence import FolderEvidence

    if (log := options["log"]) is not None:
        kept = options["kept"] or log.parent / "audit-kept"
        return FolderEvidence(log, kept, asked, progress)
    link = link_to(options)
    whole = (asked.public, asked.board, options["since"])
    return BoardEvidence(link, *whole, progress)


def _tell(
    audit: "Audit", checkpoint: "Checkpoint", seed: bytes, *, as_json: bool
) -> None:
    """Print what came of it."""
    from agent.cli.rerun_view import print_audit, print_json

    show = print_json if as_json else print_audit
    show(audit, checkpoint, seed)


def _judge(audit: "Audit", brought: "Sequence[Brought]", options: Options) -> None:
    """Say by the exit code what came of it.

    Raises:
        DeviceError: ``audit``: an inference is not what its receipt says.
        SettingsError: ``settings``: none could be computed, by which nothing is said.
    """
    wrong = [it for it in audit.verdicts if it.reason]
    if wrong:
        seqs = ", ".join(str(it.seq) for it in wrong[:5])
        more = ", ..." if len(wrong) > 5 else ""
        what = f"{len(wrong)} of {len(audit.verdicts)} are not right: {seqs}{more}"
        raise DeviceError(what, reason=Reason.AUDIT)
    if not audit.is_good:
        raise _uncomputed(audit, brought, options)


def _uncomputed(
    audit: "Audit", brought: "Sequence[Brought]", options: Options
) -> SettingsError:
    """Return what to bring, where nothing could be computed."""
    if not audit.verdicts:
        todo = "Ask again after the next checkpoint."
        return _wrong("the quota removed what was kept before this checkpoint", todo)
    if not audit.absent:
        todo = "Audit a model whose state is fed back; such state is kept with inputs."
        return _wrong("the model itself remembers earlier samples", todo)
    digests = ", ".join(it.hex() for it, _ in audit.absent.most_common(3))
    what = "none of what you named is what ran: nothing was computed"
    if any(it.is_marked for it in brought) and not (
        options["book"] or options["tflite"]
    ):
        todo = f"Each board runs its own copy of a marked model, this one {digests}: "
        return _wrong(what, f"{todo}name the book that makes it, --book marks.db.")
    return _wrong(
        what,
        f"Bring the bundle that ran: its model's digest is {digests}. If no model of "
        "yours has it, the board ran another one: keep the log as evidence.",
    )


def _seed(text: str) -> bytes:
    """Return the seed that is named, or another.

    Raises:
        SettingsError: ``settings``: it is no hex, or short enough to be guessed.
    """
    if not text:
        return secrets.token_bytes(32)
    try:
        seed = bytes.fromhex(text)
    except ValueError as err:
        raise _wrong(f"--seed: {err}", "Give hexadecimal digits.") from err
    if not MIN_SEED_BYTES <= len(seed) <= 255:
        raise _wrong(
            f"--seed: {len(seed)} bytes",
            f"Give {2 * MIN_SEED_BYTES} hexadecimal digits at least.",
        )
    return seed


def _asked(key: str) -> "Asked":
    """Return by which key the log is verified; its name says whose that has to be.

    Raises:
        SettingsError: ``settings``: it is no key.
    """
    from agent.audit.key import parse_public
    from agent.audit.verify import Asked
    from agent.core.checkpoint import board_of
    from agent.errors import BundleRefusedError

    try:
        is_key = key.count("+") >= 2
        text = key if is_key else Path(key).read_text(encoding="utf-8")
        return Asked(parse_public(text.strip()), board_of(text.partition("+")[0]))
    except (OSError, UnicodeDecodeError, BundleRefusedError) as err:
        todo = "`tinyward audit key` on the board prints it."
        raise _wrong(f"--vkey: {err}", todo) from err


def _open_secrets(options: Options) -> "tuple[Open, MarksBook | None]":
    """Return what opens what was sealed to the owner, and the book of marks.

    Raises:
        SettingsError: A passphrase is another.
        DeviceError: ``seal_key``: the key's file cannot be used.
    """
    from agent.cli.passphrase import ask_passphrases

    key, book, files = (
        options["owner_key"],
        options["book"],
        options["passphrase_files"],
    )
    places = [key] if key.is_dir() else []
    places += [book] if book else []
    if len(files) == 1:  # whoever has one passphrase for both writes it down once
        files = files * len(places)
    passphrases = dict(ask_passphrases(places, files))
    opener = _opener(key, passphrases.get(key, b""))
    if book is None:
        return opener, None
    from agent.publish.marks_book import MarksBook

    return opener, MarksBook.open(book, passphrases[book])


def _opener(key: Path, passphrase: bytes) -> "Open":
    """Return what opens what was sealed to the owner.

    Args:
        key: The owner's directory of keys, or a private sealing key's file.
        passphrase: Of the directory.

    Raises:
        SettingsError: The passphrase does not open the key.
        DeviceError: ``seal_key``: the file cannot be used.
    """
    from cryptography.exceptions import InvalidTag

    if key.is_dir():
        from agent.publish.seal_owner import open_owner

        unwrap = open_owner(key, passphrase)
    else:
        from agent.trust.seal_key import load_seal_key

        unwrap = load_seal_key(key).unwrap

    def opener(sealed: bytes, context: bytes) -> bytes | None:
        try:
            return unwrap(sealed, context)
        except (InvalidTag, SettingsError):
            return None

    return opener


def _wrong(what: str, todo: str) -> SettingsError:
    """Return the error for an option that does not fit."""
    return SettingsError(what, reason=Reason.SETTINGS, todo=todo)
