"""``python -m agent`` and the ``tinyward`` script: the way into the command line."""

from agent.cli import cli


def main() -> None:
    """Run the command line and leave with its exit code."""
    cli.main(prog_name="tinyward")


if __name__ == "__main__":
    main()
