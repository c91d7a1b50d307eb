"""``tinyward watermark challenge``: ask a board, from afar, whose copy it runs."""

import io
import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.reach import Local, Remote, local_options, remote_options
from agent.cli.watermark_runtime import quiet_arithmetic

if TYPE_CHECKING:
    from agent.cli.board_link import BoardLink
    from agent.cli.challenging import Addressee
    from agent.cli.provenance_view import Shown
    from agent.publish.marks_book import MarkedVersion, MarksBook
    from agent.publish.watermark.trace import Suspicion
    from agent.trust.statements import PublicKey

NONCE_BYTES = 16
HELP = """Ask a board which board's copy of a marked model it runs.

\b
tinyward watermark challenge --board pi-7@10.0.0.7 --cert me.pem --ca fleet-ca.pem \\
    --book marks.db --verify pi-7.crt

The board is sent the activation triggers, which its bundle holds anyway, signed by the
key of the book's marks, and answers them by the model that runs, in a process of its
own: no sample, receipt or paid unit is counted. It takes one challenge in 5 seconds.
With --verify its answer has to be signed by its own key.

The triggers for tracing stay in the book: they are what still tells whose a leaked copy
is when a board's root has had the others removed. --spend-tracing sends them too, for
a board that answers the others too well; that board may keep them, so the next version
should be marked anew, and the book notes who was shown them.

A board whose root lies can answer by another copy. Exit code 0: it runs its own copy;
1: it runs another board's, or nobody's."""


class Options(Local, Remote):
    """Options of the command."""

    board: str | None
    pipeline: str | None
    book: Path
    key_file: Path | None
    spend_tracing: bool
    passphrase_files: Sequence[Path]


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(help=HELP, short_help="Ask a board whose copy of a model it runs.")
@local_options
@click.option(
    "--board", metavar="BOARD", help="Another board, over TLS: [NAME@]HOST[:PORT]."
)
@remote_options
@click.option("--pipeline", help="Which one, where several run marked models.")
@click.option(
    "--book",
    type=_file,
    default=Path("marks.db"),
    show_default=True,
    help="The book of marks.",
)
@click.option(
    "--verify",
    "key_file",
    metavar="FILE",
    type=_file,
    help="The board's certificate or public key (PEM), which has to have signed.",
)
@click.option(
    "--spend-tracing",
    is_flag=True,
    help="Also show this board the triggers for tracing, which nobody has seen.",
)
@click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=_file,
    help="File with the passphrase of the book; without it you are asked.",
)
def command(**options: Unpack[Options]) -> None:
    """Ask what runs, send triggers, and say whose copy answered.

    Raises:
        AgentError: The board cannot be asked or refuses, or what it says is not so.
    """
    quiet_arithmetic()
    from agent.cli.plain_text import plain
    from agent.cli.provenance_check import read_provenance_key
    from agent.cli.watermark_book import open_book, warn_and_note

    with _alone(options):
        book = open_book(options["book"], options["passphrase_files"])
        key = read_provenance_key(options["key_file"])
        link = _link(options)
        who = _choose(_running(link, key), options["pipeline"], key)
        if options["spend_tracing"]:
            warn_and_note(book, _version(book, who), plain(who.board))
        found = judge_board(book, link, who, spend_tracing=options["spend_tracing"])
    _show(who, found)
    if found is None or found.board != who.board:
        click.get_current_context().exit(1)


def _alone(options: Options) -> AbstractContextManager[None]:
    """Return what keeps others from the book while it is written, if it will be."""
    from agent.publish.files import locked

    if not options["spend_tracing"]:
        return nullcontext()
    return locked(options["book"].absolute().parent)


def _link(options: Options) -> "BoardLink":
    """Return the link to the board that the options name."""
    from agent.cli.reach import local_link, remote_links

    if options["board"] is None:
        return local_link(options["config"], options["socket"])
    return remote_links([options["board"]], options)[0]


def _running(link: "BoardLink", key: "PublicKey | None") -> "list[Shown]":
    """Return what the board says, signed, that it runs."""
    from agent.cli.provenance_view import ask_running

    return ask_running(link, secrets.token_hex(NONCE_BYTES), key)


def _choose(
    shown: "Sequence[Shown]", pipeline: str | None, key: "PublicKey | None"
) -> "Addressee":
    """Return whom to ask: the one pipeline that runs a marked copy, or is named.

    Raises:
        SettingsError: None does, or several do.
    """
    from agent.cli.challenging import Addressee
    from agent.cli.plain_text import plain

    running = [it.running for it in shown if it.running is not None]
    fits = [
        it for it in running if it.pipeline == pipeline or (not pipeline and it.copy)
    ]
    if len(fits) != 1:
        named = ", ".join(plain(it.pipeline) for it in running) or "nothing"
        raise _unusable(f"--pipeline has to name one of what runs there: {named}")
    (it,) = fits
    runs = it.model, it.version, it.variant
    return Addressee(it.board, it.pipeline, *runs, key, it.session)


def judge_board(
    book: "MarksBook",
    link: "BoardLink",
    who: "Addressee",
    *,
    spend_tracing: bool = False,
) -> "Suspicion | None":
    """Return whose copy answers; None where it is nobody's of the book.

    Args:
        book: With the triggers, and the key that signs them.
        link: To the board.
        who: What runs there, as it says.
        spend_tracing: Also send the triggers that no board has seen.

    Raises:
        SettingsError: The book knows nothing of what runs there.
        AgentError: The board refuses, or its answer does not hold.
    """
    import numpy as np

    from agent.cli.challenging import challenge_board
    from agent.core.reasons import Reason
    from agent.errors import BundleRefusedError
    from agent.publish.watermark.secrets import VariantSecret
    from agent.publish.watermark.trace import Codebook, clues_of_classes

    marked = _version(book, who)
    secret = VariantSecret.parse(marked.secrets[who.variant])
    inputs = io.BytesIO()
    sent = secret.triggers if spend_tracing else secret.triggers[: marked.bits]
    np.save(inputs, sent, allow_pickle=False)
    answers = challenge_board(link, who, inputs.getvalue(), book.private_key())
    if len(answers.classes) != len(sent):
        what = f"{len(answers.classes)} answers to {len(sent)} triggers"
        raise BundleRefusedError(what, reason=Reason.REQUEST)
    clue = clues_of_classes(who.variant, answers.classes, marked.groups)
    codebook = Codebook(list(book.copies(marked)), marked.bits)
    if clue is None or not codebook.boards:
        return None
    likely = codebook.judge([clue])[0]
    return likely if likely.named else None


def _version(book: "MarksBook", who: "Addressee") -> "MarkedVersion":
    """Return what the book has of what runs.

    Raises:
        SettingsError: Nothing.
    """
    marked = book.version(who.model, who.version)
    if marked is None or who.variant not in marked.secrets:
        raise _unusable(f"{book.path} has no {who.model} {who.version} {who.variant}")
    return marked


def _show(who: "Addressee", found: "Suspicion | None") -> None:
    """Say whose copy answered."""
    from agent.cli.plain_text import plain

    what = f"{plain(who.board)}: {plain(who.pipeline)} runs {who.model} {who.version},"
    if found is None:
        click.echo(f"{what} and nobody's copy of it")
        return
    whose = "its own copy" if found.board == who.board else f"{found.board}'s copy"
    click.echo(f"{what} {whose}: {found.errors} of {found.bits} bits differ")
    if who.key is None:
        click.echo("  the answer is NOT verified: name the board's key with --verify")


def _unusable(what: str) -> Exception:
    """Return the error for a call that does not fit the board or the book."""
    from agent.core.reasons import Reason
    from agent.errors import SettingsError

    return SettingsError(what, reason=Reason.SETTINGS)
