"""``python -m agent`` and the ``tinyward`` script: the way into the command line."""

from agent.cli import cli, report_unwritten


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        cli.main(prog_name="tinyward")
    except OSError as err:
        raise SystemExit(report_unwritten(err)) from None


if __name__ == "__main__":
    main()
