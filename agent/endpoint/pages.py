"""``GET /``: the board's own page, one answer that needs nothing from anywhere.

Markup, style, script and the chart library (uPlot) lie in ``page/`` and are put into
one document, so that a board without a network, behind whatever tunnel, shows it whole.

The rules this module keeps:
 * No script or style runs but those of the document: the policy names their hashes, and
   forbids frames, forms, plug-ins and every connection but back to the board.
 * What the board says never becomes markup: the script writes text only, and the policy
   (Trusted Types) makes browsers refuse anything else.
 * It is built when it is first asked for.
"""

from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from aiohttp import web

ASSETS = Path(__file__).with_name("page")
# Where each part goes in page.html; comments, so that the file alone is a valid page.
PARTS = {
    "<!-- library.css -->": ("style", "uPlot.min.css"),
    "<!-- page.css -->": ("style", "page.css"),
    "<!-- library.js -->": ("script", "uPlot.iife.min.js"),
    "<!-- charts.js -->": ("script", "charts.js"),
    "<!-- page.js -->": ("script", "page.js"),
}
READER = 'data-role="reader"'
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Page:
    """The document and the policy that goes with it."""

    body: bytes
    policy: str


def answer_page(*, operator: bool) -> web.Response:
    """Return the page; only an operator's has buttons."""
    page = build_page(operator=operator)
    headers = {**HEADERS, "Content-Security-Policy": page.policy}
    return web.Response(body=page.body, headers=headers)


@cache
def build_page(*, operator: bool) -> Page:
    """Return the document with everything in it."""
    document = (ASSETS / "page.html").read_text("utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for mark, (tag, name) in PARTS.items():
        text = (ASSETS / name).read_text("utf-8")
        hashes[tag].append(_hash(text))
        document = document.replace(mark, f"<{tag}>{text}</{tag}>")
    if operator:
        document = document.replace(READER, 'data-role="operator"')
    policy = POLICY.format(**{tag: " ".join(found) for tag, found in hashes.items()})
    return Page(document.encode(), policy)


def _hash(text: str) -> str:
    """Return what a policy calls an inline script or style (CSP level 3, 2.3.1)."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
