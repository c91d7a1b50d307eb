"""The page as a document: whole, small, locked down, and for whom it has buttons."""

import asyncio
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.endpoint.origins import is_own_name, own_names
from agent.endpoint.pages import ASSETS, PARTS, build_page
from tests.fakes.control_bench import Reply, bench, listening

MOST_BYTES = 150_000
PAGE = build_page(operator=False)
ORDERS = ("POST /v1/rollback", "POST /v1/updates", "DELETE /v1/uploads")


class Outline(HTMLParser):
    """Collects what a document fetches, and its inline scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.inline: list[tuple[str, str]] = []
        self.events: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag fetches or runs."""
        self._inside = tag if tag in {"script", "style"} else ""
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action"}:
                self.fetched.append(value or "")
            if name.startswith("on") or name == "style":
                self.events.append(name)

    def handle_data(self, data: str) -> None:
        """Note inline text."""
        if self._inside:
            self.inline.append((self._inside, data))
            self._inside = ""


def outline() -> Outline:
    """Return the outline of the page."""
    found = Outline()
    found.feed(PAGE.body.decode())
    return found


def test_the_page_is_small_and_needs_nothing_else() -> None:
    """One answer below 150 kB that fetches nothing, from nowhere."""
    assert len(PAGE.body) <= MOST_BYTES
    outside = [it for it in outline().fetched if not it.startswith(("data:", "#", "/"))]
    assert outside == []
    assert not re.search(rb"@import|url\(", PAGE.body)


def test_the_policy_names_the_hash_of_every_part() -> None:
    """Nothing inline runs that the policy does not know, and nothing by attribute."""
    found = outline()
    assert [tag for tag, _ in found.inline] == ["style"] * 2 + ["script"] * 3
    for tag, text in found.inline:
        digest = b64encode(sha256(text.encode()).digest()).decode()
        rule = next(it for it in PAGE.policy.split("; ") if it.startswith(f"{tag}-src"))
        assert f"'sha256-{digest}'" in rule
    assert found.events == []
    assert "unsafe" not in PAGE.policy
    for rule in ("default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"):
        assert rule in PAGE.policy
    assert "require-trusted-types-for 'script'" in PAGE.policy


def test_the_script_writes_text_only() -> None:
    """No way from a string to markup or code is used."""
    ways = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\("
        r"|createContextualFragment|srcdoc|javascript:"
    )
    for name in ("page.js", "charts.js", "uPlot.iife.min.js"):
        assert ways.findall((ASSETS / name).read_text("utf-8")) == []


def test_every_part_is_there_with_its_licence() -> None:
    """The chart library is shipped as published, with the licence it asks for."""
    assert all((ASSETS / name).is_file() for _, name in PARTS.values())
    assert "MIT License" in (ASSETS / "uPlot.LICENSE").read_text("utf-8")
    assert "v1.6.32" in (ASSETS / "uPlot.iife.min.js").read_text("utf-8")[:100]
    assert b"<!-- page" not in PAGE.body


def test_every_element_the_script_asks_for_is_there() -> None:
    """A name that is misspelled on one side is found here, not on a board."""
    script = (ASSETS / "page.js").read_text("utf-8")
    markup = (ASSETS / "page.html").read_text("utf-8")
    ids = set(re.findall(r'byId\("([a-z-]+)"\)', script))
    fields = set(re.findall(r"this\.f\.([a-z0-9]+)", script))
    assert {it for it in ids if f'id="{it}"' not in markup} == set()
    assert {it for it in fields if f'data-f="{it}"' not in markup} == set()


def test_only_operators_get_buttons(tmp_path: Path) -> None:
    """Observers and scrapers read; who may not read gets no page."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            operator = await made.ask(made.operator, "GET /")
            observer = await made.ask(made.observer, "GET /")
            scraper = await made.ask(made.scraper, "GET /")
            head = await made.ask(made.operator, "HEAD /")
            assert b'data-role="operator"' in operator.body
            assert b'data-role="reader"' in observer.body
            assert (scraper.status, head.status) == (403, 200)
            assert int(head.headers["Content-Length"]) == len(operator.body)
            assert operator.headers["Content-Security-Policy"] == PAGE.policy
            assert operator.headers["X-Frame-Options"] == "DENY"

    asyncio.run(story())


@pytest.mark.parametrize("order", ORDERS)
def test_orders_come_from_no_other_site(tmp_path: Path, order: str) -> None:
    """A browser with a certificate sends it for anybody; we look who made it ask."""
    host = {"Host": "board.example:9800", "Content-Type": "application/json"}
    foreign = (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "https://board.example:9801"},
        {"Origin": "null"},
        {"Origin": "https://["},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    )
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "https://board.example:9800"}

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:

            async def ask(more: dict[str, str]) -> Reply:
                return await made.ask(made.operator, order, b"{}", {**host, **more})

            for headers in foreign:
                assert (await ask(headers)).status == 403
            assert made.desk.asked == []
            assert (await ask(own)).status in (202, 204)
            made.desk.phase = "IDLE"
            assert (await ask({})).status in (202, 204)

    asyncio.run(story())


@given(st.text(max_size=40), st.sampled_from(["", ":80", ":x", ":99999"]))
def test_no_other_name_is_our_own(name: str, port: str) -> None:
    """Only addresses, localhost and our names pass, whatever stands in the header."""
    plain = name.lower().rstrip(".")
    if plain in {"localhost", "pi", "pi.local"} or re.search(r"[:\d/?#@\[\]]", plain):
        return  # spelled so it may be ours, or an address
    assert not is_own_name(name + port, own_names("pi"))


def test_own_names_and_addresses_are_known() -> None:
    """Ports, brackets, capitals and mDNS do not matter; tricks do."""
    names = own_names("Greenhouse-7.lan.example")
    for host in ("127.0.0.1", "[::1]:9797", "10.0.0.7:80", "LOCALHOST:1", "localhost."):
        assert is_own_name(host, names)
    for host in ("greenhouse-7", "greenhouse-7.local:9797", "greenhouse-7.lan.example"):
        assert is_own_name(host, names)
    for other in ("localhost.evil.example", "127.0.0.1.nip.io", "", None, "[::1"):
        assert not is_own_name(other, names)
