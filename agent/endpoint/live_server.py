"""What the page says of the fleet's server: its address, its order, what is wrong.

The rules this module keeps:
 * Sentences are made here; times are left as moments, for the page counts them itself.
 * No token is known here, and an address that carries a password never gets this far
   (``agent.update.ddi_links``).
"""

from agent.core.server_words import explain_server
from agent.core.snapshot import ServerSnapshot
from agent.endpoint.live_words import as_sentence
from agent.endpoint.state import Json

_TERMS = {"skip": "no", "attempt": "when it suits this board", "forced": "at once"}
MAX_URL = 200  # longer ones push what matters from a phone's screen


def describe_shown_server(server: ServerSnapshot | None) -> Json | None:
    """Return what the page shows of the fleet's server; None where there is none."""
    if server is None:
        return None
    return {
        "url": server.url[:MAX_URL],
        "last_poll": server.last_poll,
        "next_poll": server.next_poll,
        "order": say_order(server),
        "untold": say_untold(server.outbox),
        "trouble": "" if server.trouble is None else say_trouble(server.trouble),
    }


def say_order(server: ServerSnapshot) -> str:
    """Return the order that is open, what it allows, and what was said of it last.

    >>> say_order(ServerSnapshot("", action="17", download="forced", update="skip"))
    '17, told nothing yet: download at once, install no'
    """
    if not server.action:
        return ""
    download = _TERMS.get(server.download, server.download)
    update = _TERMS.get(server.update, server.update)
    parts = [f"download {download}", f"install {update}"]
    if not server.window_open:
        parts.append("its maintenance window is closed")
    if server.held:
        parts.append(f"this board waits [{server.held}]")
    said = server.said or "nothing yet"
    return f"{server.action}, told {said}: {', '.join(parts)}"


def say_untold(count: int) -> str:
    """Return how much the server has not taken yet; nothing where it knows all.

    >>> say_untold(1), say_untold(3), say_untold(0)
    ('1 report', '3 reports', '')
    """
    return f"{count} report{'s' if count > 1 else ''}" if count else ""


def say_trouble(trouble: tuple[str, str]) -> str:
    """Return what a round with the server stumbled over, and what that means."""
    reason, message = trouble
    meaning, _ = explain_server(reason)
    return f"{as_sentence(message)}{f' {meaning}' if meaning else ''} [{reason}]"
