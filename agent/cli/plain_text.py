"""Words from elsewhere, made safe and short for a terminal.

The rules this module keeps:
 * What a board or a server says may hold anything; control characters, which could
   move the cursor or retitle the window, are shown as ``?``.

>>> plain("kws" + chr(27) + "[2J")
'kws?[2J'
"""

MAX_CHARS = 2000  # a reason's detail is a sentence or two
KILO = 1000


def plain(text: object, limit: int = MAX_CHARS) -> str:
    """Return text that a terminal only prints, on one line."""
    words = " ".join(str(text).split())
    # Not printable are also C1 controls, and what turns the direction of writing.
    shown = "".join(c if c.isprintable() else "?" for c in words)
    return shown if len(shown) <= limit else shown[: limit - 1] + "\u2026"


def bytes_text(count: float) -> str:
    """Return bytes in units of 1,000.

    >>> bytes_text(999), bytes_text(1_234_567)
    ('999 B', '1.2 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < KILO or unit == "GB":
            break
        count /= KILO
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


def span_text(seconds: float) -> str:
    """Return a span in its two largest units; one that is negative keeps its sign.

    >>> span_text(8.4), span_text(200), span_text(7260), span_text(200_000)
    ('8 s', '3 min 20 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds <= -1:
        return f"-{span_text(-seconds)}"
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(
        f"{count} {unit}" for count, unit in parts[:2] if count or unit == parts[0][1]
    )
