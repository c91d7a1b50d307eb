"""How ``tinyward status`` shows the fleet's server that orders about a board."""

from collections.abc import Iterator

from rich.text import Text

from agent.cli.ages import Clock
from agent.cli.board_answers import ServerAnswer
from agent.cli.plain_text import plain, span_text

TERMS = {
    "skip": "no",
    "attempt": "when it suits this board",
    "forced": "at once",
}


def server_facts(server: ServerAnswer, clock: Clock) -> Iterator[tuple[str, Text]]:
    """Yield what is known of the server, and of the order that is open."""
    yield "server", Text(f"{plain(server.url or '', 80)}, {_polls(server, clock)}")
    if server.action:
        yield "order", Text(_order(server))
    waiting = server.outbox or 0
    if waiting:
        what = "one thing" if waiting == 1 else f"{waiting} things"
        yield "untold", Text(f"{what} that the server has not taken yet", "yellow")


def _polls(server: ServerAnswer, clock: Clock) -> str:
    """Say when the server answered, and when it is asked again."""
    last, following = server.last_poll or 0.0, server.next_poll or 0.0
    before = f"answered {clock.noted(last)}" if last else "no answer yet"
    ahead = f"asked in {span_text(max(0.0, following - clock.now))}"
    return f"{before}, {ahead if following else 'being asked'}"


def _order(server: ServerAnswer) -> str:
    """Say what the open action may do, and what the server was told of it."""
    download, update = server.download or "", server.update or ""
    parts = [
        f"{plain(server.action or '', 64)}: told {plain(server.said or 'nothing', 20)}",
        f"download {TERMS.get(download, plain(download, 20))}",
        f"install {TERMS.get(update, plain(update, 20))}",
    ]
    if not server.window_open:
        parts.append("its maintenance window is closed")
    if server.held:
        parts.append(f"this board waits [{plain(server.held, 32)}]")
    return ", ".join(parts)
