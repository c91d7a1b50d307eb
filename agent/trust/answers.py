"""What the headers of an HTTP answer say (RFC 9110), where a download depends on it.

Pure: everything here is untrusted text in, a value or a cautious default out.

>>> parse_content_range("bytes 5-9/10")
(5, 9, 10)
>>> strong_tag('"abc"'), strong_tag('W/"abc"')
('"abc"', '')
>>> parse_retry_after("120", 0.0)
120.0
"""

import re
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, quote, urljoin, urlsplit

# A server may ask for silence, but not put a board to sleep for good.
MAX_RETRY_AFTER_S = 86_400.0
_SETTLED_S = 2.0  # a second, and one for its rounding
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_STRONG = re.compile(r'"[\x21\x23-\x7e]{0,256}"', re.ASCII)
_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,256}"', re.ASCII)
# What may stand in a path as it is; a target path is a URL string already, so that
# an existing percent escape is left alone (TUF, section 4.5).
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_PATH = "/%:@!$&'()*+,;=~"


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """Return first byte, last byte and whole length (None: ``*``), or None."""
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        return None
    first, last, whole = found.groups()
    return int(first), int(last), None if whole == "*" else int(whole)


def strong_tag(text: str) -> str:
    """Return an ETag that stands for exact bytes, else an empty string."""
    return text if _STRONG.fullmatch(text) else ""


def any_tag(text: str) -> str:
    """Return an ETag that may stand in If-None-Match, else an empty string."""
    return text if _TAG.fullmatch(text) else ""


def parse_retry_after(text: str, now_s: float) -> float:
    """Return for how many seconds a server asks to be left alone, 0 if it does not.

    Args:
        text: Seconds, or a date (RFC 9110, 10.2.3).
        now_s: What time the date is compared with, Unix seconds.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text[:18])
    else:
        try:
            wait_s = parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, TypeError, OverflowError, IndexError):
            return 0.0
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def is_settled(last_modified: str, date: str) -> bool:
    """Tell whether an ETag made of a time in seconds stands for one content only.

    nginx makes its ETags of seconds and length. Of two publications within a second it
    would call the second one unchanged, so that a tag counts only when the file has
    been left alone for a moment (RFC 9110, 8.8.2.2, says the same of Last-Modified).
    """
    try:
        age = parsedate_to_datetime(date) - parsedate_to_datetime(last_modified)
    except (ValueError, TypeError, OverflowError, IndexError):
        return not last_modified  # who gives no time makes no tags of it
    return age.total_seconds() >= _SETTLED_S


def parse_length(text: str) -> int | None:
    """Return a Content-Length, None where there is none that makes sense."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def is_web_page(content_type: str, beginning: bytes) -> bool:
    """Tell whether somebody answers with a page for people: a captive portal.

    Both have to agree: a type alone may be a mirror's bad default, a ``<`` alone may
    begin anything.
    """
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _PAGES and beginning.lstrip().startswith(b"<")


def join_url(repository: str, path: str) -> str | None:
    """Return the address of a file below a repository; None if it leads out of it."""
    parts = path.split("/")
    if "\0" in path or not {"..", "."}.isdisjoint(parts):
        return None
    return f"{repository}/{quote(path.lstrip('/'), safe=_PATH)}"


def redirect_url(url: str, location: str) -> str | None:
    """Return where a redirect leads if that is the same server, else None.

    Same means scheme, host and port: another host has not been chosen by the operator,
    and one without TLS would show everybody what this board asks for.
    """
    try:
        target = urljoin(url, location)
        same = _origin(urlsplit(target)) == _origin(urlsplit(url))
    except ValueError:
        return None
    return target if same and location else None


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    """Return scheme, host and port."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port
