"""What is paid for, as a row of ``tinyward status``."""

from rich.text import Text

from agent.cli.board_answers import MeterAnswer
from agent.cli.plain_text import plain
from agent.core.meter_status import say_meter


def paid_text(meter: MeterAnswer) -> Text:
    """Say what may still be answered: red where nothing may."""
    out = not (meter.left or meter.unlimited)
    said = say_meter(
        meter.left, meter.owed, unlimited=meter.unlimited, trouble=plain(meter.trouble)
    )
    return Text(said, "red" if out or meter.trouble else "")
