"""``tinyward seal``: encrypt a bundle once, for boards that are named by their keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from agent.cli.passphrase import ask_passphrases
from agent.cli.plain_text import bytes_text, plain
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.core.sealing_keys import PublicKey
    from agent.publish.encrypting import Wish
    from agent.publish.seal import Book
    from agent.publish.sealed_folder import Card
    from agent.trust.bundle import Bundle

DEFAULT_KEYS = Path("seal-keys")
_SHOWN_BOARDS = 5

HELP = """Seal a BUNDLE for boards: one ciphertext for all, one envelope for each.

\b
On each board:    tinyward identity seal > pi-0042.pub
At the owner's:   tinyward seal kws-8.bundle --to boards/*.pub
                  tinyward repo add REPO kws-8.sealed
For another one:  tinyward seal kws-8.sealed --to boards/pi-0043.pub
                  tinyward repo add REPO kws-8.sealed

The bundle is encrypted once. An envelope holds the content key (80 bytes), and the
board's own marks where a book of them is given; nobody but that board opens it. The
content key is kept for the owner's key in --keys, whose passphrase adds boards later.

Who takes a board's card gets its models if the board's key is on that card: in clear
(`tinyward install --with seal` alone), or encrypted by a key of the machine that lies
there, too. Only one that a TPM or secure element encrypts (`systemd-creds encrypt`; see
`tinyward doctor`) keeps models from who has the card. Without the board's key, a copied
repository, a stick or a backup of the models gives none. Who is root on
a running board reads its memory."""


class Options(TypedDict):
    """Options of the command."""

    boards: Sequence[Path]
    algorithm: "Wish"
    keys: Path
    marks: Path | None
    marks_passphrase_file: Path | None
    provenance_key: Path | None
    out: Path | None
    passphrase_files: Sequence[Path]
    forget_key: bool


@dataclass(frozen=True, slots=True)
class Named:
    """What the command line names: the bundle or folder, and the boards' keys."""

    source: Path
    boards: "Sequence[PublicKey]"


_FILE = click.Path(exists=True, path_type=Path)


@click.command(help=HELP, short_help="Encrypt a bundle, for boards by their keys.")
@click.argument("files", metavar="BUNDLE|FOLDER", nargs=-1, required=True, type=_FILE)
@click.option(
    "--to",
    "boards",
    metavar="BOARD.pub...",
    multiple=True,
    required=True,
    type=_FILE,
    help="Public keys of boards, as `tinyward identity seal` prints them.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["auto", "cobblestone-256", "chacha20-poly1305"]),
    default="auto",
    show_default=True,
    help="auto: Cobblestone-256 if every board says that its CPU computes AES.",
)
@click.option(
    "--keys",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_KEYS,
    show_default=True,
    help="Directory of the owner's key, which is made there if there is none.",
)
@click.option(
    "--forget-key", is_flag=True, help="Keep no content key: no board is added later."
)
@click.option(
    "--marks",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Book of marks: each board gets its own copy (`tinyward watermark`).",
)
@click.option(
    "--marks-passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the book's passphrase; without it you are asked.",
)
@click.option(
    "--provenance-key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public key or certificate that has to have signed its provenance.json.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    help="The new folder.  [default: MODEL-VERSION.sealed, here]",
)
@click.option(
    "--passphrase-file",
    "passphrase_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the passphrase of --keys; without it you are asked.",
)
def command(files: Sequence[Path], **options: Unpack[Options]) -> None:
    """Seal a bundle, or add boards to a folder that is sealed already.

    Raises:
        SettingsError: A file is not what it should be.
        BundleRefusedError: The bundle is damaged.
        DeviceError: The folder cannot be written.
    """
    named = _sorted_out(files, options["boards"])
    if named.source.is_dir():
        _add(named, options)
    else:
        _seal(named, options)


def _sorted_out(files: Sequence[Path], boards: Sequence[Path]) -> Named:
    """Tell the bundle from keys: of ``--to *.pub`` the shell makes many words.

    Raises:
        SettingsError: There is not one bundle, or a key is none.
    """
    # By their names alone, so that a bundle is never read as a key.
    keys = [*boards, *(path for path in files if path.suffix == ".pub")]
    sources = [path for path in files if path.suffix != ".pub"]
    if len(sources) != 1:
        raise SettingsError(
            f"{len(sources)} bundles or folders are named, instead of one",
            reason=Reason.SETTINGS,
            todo="`tinyward seal BUNDLE --to BOARD.pub...`; keys end in .pub.",
        )
    return Named(sources[0], [_public_key(path) for path in keys])


def _public_key(path: Path) -> "PublicKey":
    """Read a board's public key.

    Raises:
        SettingsError: It is none.
    """
    from agent.core.sealing_keys import MAX_LINE_BYTES, parse_public_key

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_LINE_BYTES + 1)
        return parse_public_key(raw.decode("ascii", "replace"))
    except OSError as err:
        said, todo = err.strerror or str(err), "Name a .pub file that you may read."
        raise SettingsError(
            f"{path}: {said}", reason=Reason.SETTINGS, todo=todo
        ) from err
    except SettingsError as err:
        what = f"{path}: {err}"
        raise SettingsError(what, reason=err.reason, todo=err.todo) from err


def _seal(named: Named, options: Options) -> None:
    """Seal a plain bundle into a new folder, and say what came of it.

    What it says of its origin is checked here: nobody can when it is published.
    """
    from agent.cli.provenance_check import check_published, read_provenance_key
    from agent.cli.repo_delta import Bar
    from agent.publish.seal import Order, check_boards, seal_bundle
    from agent.publish.sealed_folder import default_folder

    check_boards(named.boards)  # before anybody types a passphrase for nothing
    content, bundle = _opened(named.source)
    check_published(bundle, read_provenance_key(options["provenance_key"]))
    manifest = bundle.manifest
    if manifest.watermark is not None and options["marks"] is None:
        raise SettingsError(
            f"{named.source} has triggers: boards run it only as their own copy",
            reason=Reason.SETTINGS,
            todo="Name the book that the copies are in: --marks marks.db.",
        )
    order = Order(
        manifest.model,
        manifest.version,
        named.boards,
        options["algorithm"],
        owner=None if options["forget_key"] else _owner(options),
        book=_book(options),
    )
    out = options["out"] or default_folder(manifest.model, manifest.version)
    with Bar(f"sealing {manifest.model} {manifest.version}", len(content)) as bar:
        card = seal_bundle(content, order, out, bar.show)
    _show(out, card, named.boards)
    if options["forget_key"]:
        click.echo("  the content key is not kept: no board can be added later")
    else:
        click.echo(
            f"  the content key is kept for the owner's key in {options['keys']}"
        )
    click.echo(f"next: tinyward repo add REPO {out}")


def _add(named: Named, options: Options) -> None:
    """Make envelopes for more boards of a folder."""
    from agent.publish.seal import add_boards
    from agent.publish.seal_owner import open_owner
    from agent.publish.sealed_folder import load_card, load_envelopes

    folder = named.source
    load_card(folder)  # before anybody types a passphrase for nothing
    before = load_envelopes(folder)
    passphrases = options["passphrase_files"][:1]
    unwrap = open_owner(*ask_passphrases([options["keys"]], passphrases)[0])
    card = add_boards(folder, named.boards, unwrap, _book(options))
    _show(folder, card, named.boards)
    again = [it.board for it in named.boards if it.board in before]
    if again:
        click.echo(f"  replaced: {_few(again)} had one already")
    click.echo(f"next: tinyward repo add REPO {folder}")


def _opened(path: Path) -> "tuple[bytes, Bundle]":
    """Read a plain bundle.

    Raises:
        SettingsError: It cannot be read.
        BundleRefusedError: A board would refuse it.
    """
    from agent.trust.bundle import open_bundle

    try:
        content = path.read_bytes()
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror}",
            reason=Reason.SETTINGS,
            todo="Name a bundle made by `tinyward pack`, or a sealed folder.",
        ) from err
    return content, open_bundle(content, max_bytes=len(content))


def _owner(options: Options) -> "PublicKey":
    """Return the owner's key, made where there is none."""
    from agent.publish.seal_owner import has_owner, load_owner, make_owner

    keys = options["keys"]
    public = load_owner(keys)
    if public is None:
        new, passphrases = not has_owner(keys), options["passphrase_files"][:1]
        public = make_owner(*ask_passphrases([keys], passphrases, new=new)[0])
        if new:
            words = f"made the owner's key in {keys}: keep a copy, and the passphrase"
        else:
            words = f"wrote the public half of the owner's key in {keys} again"
        click.echo(words)
    return public


def _book(options: Options) -> "Book | None":
    """Open the book of marks, if one is named.

    Raises:
        SettingsError: It is none, or the passphrase is another.
    """
    path, file = options["marks"], options["marks_passphrase_file"]
    if path is None:
        return None
    from agent.publish.marks_book import MarksBook

    return MarksBook.open(*ask_passphrases([path], [file] if file else [])[0])


def _show(folder: Path, card: "Card", boards: "Sequence[PublicKey]") -> None:
    """Say what was sealed for whom."""
    from agent.publish.sealed_folder import load_envelopes

    sealed, envelopes = card.sealed, load_envelopes(folder)
    marked = ", each with its own marks" if sealed.sealing.marks else ""
    sizes = sorted({len(envelopes[public.board]) for public in boards})
    span = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    click.echo(f"{folder}  {sealed.model} {sealed.version}  {sealed.sealing.algorithm}")
    click.echo(
        f"  {bytes_text(sealed.plain_bytes)} sealed once in {bytes_text(card.size)} "
        f"({card.size - sealed.plain_bytes:,} bytes more)"
    )
    click.echo(
        f"  sealed for {_few([public.board for public in boards])}: an envelope of "
        f"{span} bytes for each{marked}"
    )
    if len(envelopes) > len(boards):
        click.echo(f"  {len(envelopes)} boards have one altogether")


def _few(boards: Sequence[str]) -> str:
    """Return the names of a few boards, and how many more there are."""
    shown = ", ".join(plain(board) for board in boards[:_SHOWN_BOARDS])
    more = len(boards) - _SHOWN_BOARDS
    return f"{shown} and {more} more" if more > 0 else shown
