"""``tinyward inspect``: what is this bundle or model, and what would run here?"""

from pathlib import Path

import click

from agent.core.reasons import Reason
from agent.errors import AgentError, SettingsError

HELP = """Show what FILE is: a bundle, or a .tflite model.

\b
Shows the tensor contract, operators, sizes, and what this board would try to
run it on. With --run it is tried as an update would try it: in a preflight
child, with golden samples (a .tflite alone: with drawn inputs), timed.
Exit 1, with the reason, where a board like this one would refuse it.

No model runs in the process that you started. A bundle carries no signature:
who made it is told by `tinyward verify`."""


@click.command(help=HELP, short_help="Show what a bundle or a .tflite file is.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", is_flag=True, help="Try it in a preflight child.")
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
def command(file: Path, run: bool, as_json: bool, threads: int, kernels: str) -> None:  # noqa: FBT001 - click passes them by name
    """Find out, print what was found out, and end with the refusal if there is one.

    Raises:
        SettingsError: The file cannot be read (``settings``).
        AgentError: A board like this one would refuse it.
    """
    from agent.cli import what_to_do
    from agent.cli.inspection import Refusal, Wish, begin_report, fill_report
    from agent.settings import UpdateSettings

    max_bytes = int(UpdateSettings().max_bundle_mb * 1_000_000)
    content = read_limited(file, max_bytes)
    report = begin_report(str(file), content)
    refusal: AgentError | None = None
    try:
        fill_report(report, content, Wish(run, threads, kernels, max_bytes))
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
            todo="Name a .bundle or a .tflite file.",
        ) from err
