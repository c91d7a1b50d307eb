"""``tinyward inspect``: what is this bundle or model, and what would run here?"""

from pathlib import Path
from typing import TypedDict, Unpack

import click

from agent.cli.sealed_opening import board_option, named_key, seal_key_option
from agent.core.reasons import Reason
from agent.errors import AgentError, SettingsError

HELP = """Show what FILE is: a bundle, or a .tflite model.

\b
Shows the tensor contract, operators, sizes, and what this board would try to
run it on. With --run it is tried as an update would try it: in a preflight
child, with golden samples (a .tflite alone: with drawn inputs), timed.
Exit 1, with the reason, where a board like this one would refuse it.

Of a sealed bundle (FOLDER.sealed), shows what anybody may know, and whom it is sealed
for; with --seal-key it is opened as that board does it, and shown as any other.

No model runs in the process that you started. A bundle carries no signature:
who made it is told by `tinyward verify`."""


class Options(TypedDict):
    """Options of the command."""

    run: bool
    threads: int
    kernels: str
    seal_key: Path | None
    board: str | None


@click.command(help=HELP, short_help="Show what a bundle or a .tflite file is.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", is_flag=True, help="Try it in a preflight child.")
@seal_key_option
@board_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="As `threads` of a pipeline.",
)
@click.option(
    "--kernels",
    type=click.Choice(["auto", "xnnpack", "plain", "reference"]),
    default="auto",
    show_default=True,
    help="As `kernels` of a pipeline.",
)
def command(file: Path, *, as_json: bool, **options: Unpack[Options]) -> None:
    """Find out, print what was found out, and end with the refusal if there is one.

    Raises:
        SettingsError: The file cannot be read (``settings``).
        AgentError: A board like this one would refuse it.
    """
    from agent.cli import what_to_do
    from agent.cli.inspection import Refusal, Wish, begin_report, fill_report
    from agent.settings import UpdateSettings

    max_bytes = int(UpdateSettings().max_bundle_mb * 1_000_000)
    wish = Wish(options["run"], options["threads"], options["kernels"], max_bytes)
    content = read_limited(_file_in(file), max_bytes)
    report = begin_report(str(file), content)
    refusal: AgentError | None = None
    try:
        if file.is_dir():
            from agent.cli.inspection_sealed import fill_from_sealed

            key = named_key(options["seal_key"], options["board"])
            fill_from_sealed(report, file, content, wish, key)
        else:
            fill_report(report, content, wish)
    except AgentError as err:
        report.refused = Refusal(err.reason, str(err), what_to_do(err))
        refusal = err
    if as_json:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        click.echo(text.decode())
    else:
        from agent.cli.bundle_view import print_report

        print_report(report)
    if refusal is not None:
        raise refusal


def _file_in(path: Path) -> Path:
    """Return the file to look at; of a sealed folder, the ciphertext.

    Raises:
        SettingsError: It is another folder.
    """
    if not path.is_dir():
        return path
    from agent.publish.sealed_folder import CONTENT, load_card

    load_card(path)
    return path / CONTENT


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes, one more than the limit at most.

    Raises:
        SettingsError: It cannot be read (``settings``).
    """
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as err:
        raise SettingsError(
            f"{path}: {err.strerror or err}",
            reason=Reason.SETTINGS,
            todo="Name a .bundle, a .tflite file, or a folder of `tinyward seal`.",
        ) from err
