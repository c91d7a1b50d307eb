"""``tinyward watermark trace``: the board that a leak is from, or nobody."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.watermark_book import open_book, warn_and_note
from agent.cli.watermark_runtime import quiet_arithmetic, require_libraries

if TYPE_CHECKING:
    from agent.cli.watermark_suspect import Endpoint
    from agent.publish.marks_book import MarkedVersion, MarksBook
    from agent.publish.watermark.secrets import VariantSecret
    from agent.publish.watermark.trace import Clues, Suspicion

HELP = """Name the board that SUSPECT, a .tflite file or a URL, is from.

\b
A file is compared with every copy in the book: its bytes; its head, whatever was done
to the rest; and what it answers to the triggers, in a locked process of its own.
A URL is asked. It has to take and give JSON:
    POST {"inputs": [[0.1, ...], ...]}   the model's input, real values, flat
      -> {"scores": [[...], ...]}        or {"classes": [3, ...]}

Whoever runs the URL sees the triggers, those for tracing too, which nobody but this
book had: it cannot be asked without. From then on they can be answered falsely, and
the book notes where they were shown. A file is never shown to anybody: trace that
where there is one.

A board is named if the chance that an innocent one looks like this, over all boards in
the book and all that was tried, is below one in a million: an upper bound, which counts
every codeword that may have been drawn for a board. Of several boards whose
copies were mixed more than one may be named. Exit code 1: nobody was named; somebody
who changed the head on purpose leaves nothing to find."""

_SHOWN = 5


class Options(TypedDict):
    """Options of the command."""

    book: Path
    soft: bool
    as_json: bool
    passphrase_files: Sequence[Path]


@click.command(help=HELP, short_help="Name the board that a leak is from.")
@click.argument("suspect")
@click.option(
    "--book",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("marks.db"),
    show_default=True,
    help="The book of marks.",
)
@click.option(
    "--soft/--hard",
    default=True,
    show_default=True,
    help="Whether scores count, where there are any, or only the first class.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of the book; without it you are asked.",
)
def command(suspect: str, **options: Unpack[Options]) -> None:
    """Look at the suspect in every way there is, and name boards.

    Raises:
        SettingsError: The book does not open, or the file cannot be read.
        DeviceError: The endpoint cannot be reached, or answers something else.
    """
    require_libraries()
    quiet_arithmetic()
    if _is_url(suspect):
        book = _open_and_note(suspect, options)
    else:
        book = open_book(options["book"], options["passphrase_files"])
    found = []
    for marked in book.versions():
        found += _judge(book, marked, suspect, options)
    found.sort(key=lambda pair: (pair[1].chance, -pair[1].score))
    show = _show_json if options["as_json"] else _show
    show(suspect, found)
    if not any(it.named for _, it in found):
        click.get_current_context().exit(1)


def _open_and_note(url: str, options: Options) -> "MarksBook":
    """Open the book, and write into it who is about to see all triggers.

    Before the first is sent: a note too many is better than one that is missing.

    Raises:
        SettingsError: The book does not open.
        DeviceError: It cannot be written, or another command is changing it.
    """
    from agent.cli.watermark_suspect import Endpoint
    from agent.publish.files import locked

    with locked(options["book"].absolute().parent):
        book = open_book(options["book"], options["passphrase_files"])
        for marked in list(book.versions()):
            warn_and_note(book, marked, Endpoint(url, len(marked.groups)).place)
    return book


def _judge(
    book: "MarksBook", marked: "MarkedVersion", suspect: str, options: Options
) -> "list[tuple[MarkedVersion, Suspicion]]":
    """Return the suspicions of one version's boards, most certain first."""
    import hashlib

    from agent.cli.watermark_suspect import Endpoint
    from agent.publish.watermark.secrets import VariantSecret
    from agent.publish.watermark.trace import Codebook, as_hard

    codebook = Codebook(list(book.copies(marked)), marked.bits)
    if not codebook.boards:
        return []
    secrets = {name: VariantSecret.parse(raw) for name, raw in marked.secrets.items()}
    if _is_url(suspect):
        # Of the model in the book that has most: it may be any of them.
        classes = max(len(it.groups) for it in book.versions())
        clues = _ask(marked, secrets, Endpoint(suspect, classes))
    else:
        content = _load(Path(suspect))
        same = codebook.same_bytes(hashlib.sha256(content).hexdigest())
        if same is not None:
            return [(marked, same)]
        clues = _look(marked, secrets, content)
    versions = len(list(book.versions()))
    if not options["soft"]:
        clues = [as_hard(it) for it in clues]
    return [(marked, it) for it in codebook.judge(clues, versions)[:_SHOWN]]


def _look(
    marked: "MarkedVersion",
    secrets: "dict[str, VariantSecret]",
    content: bytes,
) -> "list[Clues]":
    """Return what a file says by its head, and by what it answers."""
    from agent.errors import TrialFailedError
    from agent.publish.watermark.trace import clues_of_head

    clues = clues_of_head(content, secrets)
    try:
        return clues + _ask(marked, secrets, content)
    except TrialFailedError as err:
        # Of another model, or damaged: its head may still tell.
        click.echo(f"not run: {err}", err=True)
        return clues


def _ask(
    marked: "MarkedVersion",
    secrets: "dict[str, VariantSecret]",
    suspect: "Endpoint | bytes",
) -> "list[Clues]":
    """Return what a suspect answers to the triggers of each variant."""
    from agent.cli.watermark_suspect import ask_file, ask_url
    from agent.publish.watermark.trace import clues_of_classes, clues_of_scores

    clues = []
    for name, secret in secrets.items():
        if isinstance(suspect, bytes):
            answers = ask_file(suspect, secret.real)
        else:
            answers = ask_url(suspect, secret.real)
        if answers.scores is not None:
            clue = clues_of_scores(name, answers.scores, marked.groups)
        else:
            clue = clues_of_classes(name, answers.classes, marked.groups)
        if clue is not None:
            clues.append(clue)
    return clues


def _is_url(suspect: str) -> bool:
    """Return whether a suspect is to be asked over HTTP."""
    return suspect.startswith(("http://", "https://"))


def _load(path: Path) -> bytes:
    """Read a suspect's file.

    Raises:
        SettingsError: It cannot be read.
    """
    from agent.core.reasons import Reason
    from agent.errors import SettingsError

    try:
        return path.read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror or err}",
            reason=Reason.SETTINGS,
            todo="Name a .tflite file, or a URL that begins with http.",
        ) from err


def _show(suspect: str, found: "Sequence[tuple[MarkedVersion, Suspicion]]") -> None:
    """Say who it is, or that it is nobody."""
    named = [(marked, it) for marked, it in found if it.named]
    for marked, it in named:
        click.echo(f"{it.board}  {marked.model} {marked.version}  {_evidence(it)}")
    for note in sorted({note for marked, _ in named for note in marked.shown}):
        click.echo(f"  its tracing triggers are known elsewhere: shown {note}")
    if not named:
        click.echo(f"no board: nothing ties {suspect} to a copy in the book")
        for _, it in found[:1]:
            click.echo(f"  nearest is {_evidence(it)}: that is nothing")


def _evidence(it: "Suspicion") -> str:
    """Say what speaks against a board."""
    if it.way == "bytes":
        return "the very bytes of its copy"
    told = f", score {it.score:.1f}" if it.score else ""
    return (
        f"by its {it.way} ({it.variant}): {it.errors} of {it.bits} bits differ{told}; "
        f"an innocent board looks like this with a chance of {it.chance:.1e}"
    )


def _show_json(
    suspect: str, found: "Sequence[tuple[MarkedVersion, Suspicion]]"
) -> None:
    """Print everything for scripts."""
    from dataclasses import asdict

    boards = [
        {
            **asdict(it),
            "named": it.named,
            "model": marked.model,
            "version": marked.version,
            "tracing_shown": marked.shown,
        }
        for marked, it in found
    ]
    named = sorted({it.board for _, it in found if it.named})
    click.echo(json.dumps({"suspect": suspect, "named": named, "boards": boards}))
