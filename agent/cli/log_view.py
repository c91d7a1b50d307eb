"""The log of receipts, as a row of ``tinyward status``."""

from rich.text import Text

from agent.cli.board_answers import LogAnswer
from agent.cli.plain_text import plain
from agent.core.log_view import say_log


def log_text(log: LogAnswer) -> Text:
    """Say how the log is: red where somebody has to look at it."""
    wrong = bool(log.lost or log.aside or log.trouble)
    return Text(plain(say_log(log)), "red" if wrong else "yellow" if log.gaps else "")
