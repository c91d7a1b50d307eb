"""``tinyward doctor``: what this board has, what is missing, and how to get it."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from agent.cli.findings import Finding

HELP = """Show what this board has, what is missing and how to get it.

\b
ok    as it should be
note  Tinyward runs, but something is slower, weaker or not there
STOP  Tinyward cannot run before this is mended (exit code 1)

Where the service is installed, it is examined: /etc/tinyward/agent.toml, its state
directory, its user."""

MARKS = {"green": " ok ", "yellow": "note", "red": "STOP"}


@click.command(help=HELP, short_help="Show what this board has and lacks.")
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Another settings file: its state directory and delegates are meant.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.pass_context
def command(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Examine the board and print the findings.

    Raises:
        SettingsError: ``settings``: the settings file is wrong.
    """
    from agent.cli.symptoms import examine_board
    from agent.cli.symptoms_state import find_subject

    findings = examine_board(find_subject(config))
    stopped = any(finding.mark == "red" for finding in findings)
    if as_json:
        click.echo(json.dumps(describe(findings), indent=1))
    else:
        click.echo(render(findings))
    ctx.exit(1 if stopped else 0)


def describe(findings: Sequence[Finding]) -> dict[str, object]:
    """Return the findings for scripts: ``ok`` is false if anything is red."""
    return {
        "ok": all(finding.mark != "red" for finding in findings),
        "findings": [
            {"topic": f.topic, "mark": f.mark, "what": f.what, "todo": f.todo}
            for f in findings
        ],
    }


def render(findings: Sequence[Finding]) -> str:
    """Return the findings for people, one line each and one for what to do."""
    lines: list[str] = []
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        mark = click.style(f"[{MARKS[finding.mark]}]", fg=finding.mark, bold=True)
        lines.append(f"{mark} {finding.topic:<{width}}  {finding.what}")
        if finding.todo:
            lines.append(f"{'':<{width + 9}}-> {finding.todo}")
    return "\n".join(lines)
