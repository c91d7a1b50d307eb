"""``tinyward fleet targets``: the inventory as Prometheus discovers it.

The rules this module keeps:
 * A file is replaced whole: Prometheus reads it the moment it changes.
 * Boards without a plain ``metrics`` address are scraped at their control listener,
   over TLS with a scraper's certificate.
 * ``instance`` is the board's id: series, alerts and dashboards speak of boards, and go
   on where an address changes.
"""

import json
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from agent.cli.fleet_boards import group_option, inventory_option
from agent.cli.reach import Remote, remote_options
from agent.core.reasons import Reason
from agent.errors import SettingsError

if TYPE_CHECKING:
    from agent.core.addresses import Place
    from agent.core.inventory import BoardTable

JOB = "tinyward"  # fleet-rules.yml looks for jobs that begin so
PAPERS = Path("/etc/prometheus/tinyward")
DEFAULT_FILE = PAPERS / "fleet.json"
DEFAULT_SERVER = "127.0.0.1:9798"  # the next beside a board's own 9797
ABOUT_PAPERS = (
    "For boards that are scraped at their control listener (https), with a",
    "certificate of `tinyward ca issue CA --role scraper`. Each board's own has to",
    "name its address: `tinyward identity init --dns NAME --ip IP`.",
)
HELP = """Write or serve what Prometheus should scrape.

\b
tinyward fleet targets                                   print it
tinyward fleet targets -o /etc/prometheus/tinyward/fleet.json
                                         file_sd: a file, read when it changes
tinyward fleet targets --serve 127.0.0.1:9798
                                         http_sd: follows the inventory by itself
tinyward fleet targets --config [--format http_sd]
                                         print what belongs into prometheus.yml

Each board is a target with the label `instance`, its id, with `groups` (",a,b,", for
groups=~".*,a,.*") and the labels of the inventory."""
Json = dict[str, object]


class Choices(Remote):
    """What to do with which inventory, as options say it."""

    inventory: Path
    form: str | None
    output: Path | None
    serve: str | None
    beyond_loopback: bool
    group: str
    config: bool


@click.command(help=HELP, short_help="Write what Prometheus should scrape.")
@inventory_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["file_sd", "http_sd"]),
    help="Which discovery --config shows; the JSON of both is the same.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here instead, whole or not at all.",
)
@click.option("--serve", metavar="HOST:PORT", help="Answer Prometheus over HTTP.")
@click.option(
    "--beyond-loopback",
    is_flag=True,
    help="Let --serve listen where other machines can read the inventory.",
)
@group_option
@click.option("--config", is_flag=True, help="Print a scrape_config instead.")
@remote_options
def command(**choices: Unpack[Choices]) -> None:
    """Print, write or serve the targets.

    Raises:
        AgentError: The inventory is wrong, or the output cannot be written.
        click.UsageError: Two options do not go together.
    """
    from agent.cli.fleet_boards import read_inventory

    inventory, group = choices["inventory"], choices["group"]
    place = _place(choices)

    def rendered() -> str:
        return render_targets(read_inventory(inventory).chosen(group))

    targets = rendered()
    if choices["config"]:
        write(scrape_config(_discovery(choices), choices), None)
    elif place is not None:
        from agent.cli.fleet_targets_server import serve_targets

        serve_targets(inventory, rendered, place)
    else:
        write(targets, choices["output"])


def _place(choices: Choices) -> "Place | None":
    """Return where to listen, None for nowhere.

    Raises:
        SettingsError: Not there.
        click.UsageError: Another option says otherwise.
    """
    if not choices["serve"]:
        return None
    if choices["output"]:
        raise click.UsageError("--serve and --output do not go together")
    if choices["form"] == "file_sd":
        raise click.UsageError("--serve is http_sd")
    return parse_listen(choices["serve"], beyond_loopback=choices["beyond_loopback"])


def _discovery(choices: Choices) -> str | Path:
    """Return where Prometheus finds the targets: a URL, or a file."""
    if choices["serve"] or choices["form"] == "http_sd":
        return f"http://{choices['serve'] or DEFAULT_SERVER}/"
    return (choices["output"] or DEFAULT_FILE).absolute()


def render_targets(boards: "Iterable[BoardTable]") -> str:
    """Return the JSON of file_sd and http_sd: targets by their labels."""
    targets = [
        {"targets": [str(board.scraped)], "labels": _labels(board)} for board in boards
    ]
    return json.dumps(targets, indent=1) + "\n"


def _labels(board: "BoardTable") -> dict[str, str]:
    """Return what Prometheus should know of a board."""
    labels = {"instance": board.id, **board.labels}
    if board.groups:
        # Commas around each: ``groups=~".*,a,.*"`` finds ``a`` and not ``aa``.
        labels["groups"] = f",{','.join(board.groups)},"
    if not board.metrics:
        labels["__scheme__"] = "https"
    return labels


def scrape_config(found: str | Path, papers: Remote) -> str:
    """Return what belongs into prometheus.yml.

    Args:
        found: The URL where targets are served, or the file where they are written.
        papers: A scraper's; names in Prometheus's own folder for those not given.
    """
    http = isinstance(found, str)
    discovery = "http_sd_configs" if http else "file_sd_configs"
    where = (
        f"url: {json.dumps(found)}" if http else f"files: [{json.dumps(str(found))}]"
    )
    certificate = papers["certificate"] or PAPERS / "scraper.crt"
    # PEM files may hold both; options say so by naming one.
    alone = papers["certificate"] if papers["key"] is None else None
    files = {
        "ca_file": papers["ca"] or PAPERS / "fleet-ca.crt",
        "cert_file": certificate,
        "key_file": papers["key"] or alone or PAPERS / "scraper.key",
    }
    named = (
        f"      {key}: {json.dumps(str(file.absolute()))}"
        for key, file in files.items()
    )
    return "\n".join(
        [
            "scrape_configs:",
            f"  - job_name: {JOB}",
            "    scrape_interval: 15s",
            f"    {discovery}:",
            f"      - {where}",
            *(f"    # {line}" for line in ABOUT_PAPERS),
            "    tls_config:",
            *named,
            "      min_version: TLS13",
            "",
        ]
    )


def write(text: str, output: Path | None) -> None:
    """Print text, or replace a file by it.

    Raises:
        DeviceError: It cannot be written; what was there is there still.
    """
    if output is None:
        click.echo(text, nl=False)
        return
    from agent.publish.files import write_durably

    write_durably(output, text.encode())
    click.echo(str(output), err=True)


def parse_listen(text: str, *, beyond_loopback: bool) -> "Place":
    """Return where to listen; port 0 asks for any that is free.

    Raises:
        SettingsError: ``settings``: it is no address, or other machines reach it.
    """
    from agent.core.addresses import Place, parse_place

    host, _, port = text.rpartition(":")
    try:
        free = parse_place(f"{host}:1") if port == "0" else None
        place = Place(free.host, 0) if free else parse_place(text)
    except ValueError as err:
        raise SettingsError(
            f"--serve: {err}",
            reason=Reason.SETTINGS,
            todo=f"Write HOST:PORT, such as {DEFAULT_SERVER}.",
        ) from err
    if not beyond_loopback and not _is_loopback(place.host):
        raise SettingsError(
            f"--serve: {place.host} can be reached by other machines, and nobody is "
            "asked who they are",
            reason=Reason.SETTINGS,
            todo="Serve on 127.0.0.1, or say --beyond-loopback.",
        )
    return place


def _is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
