"""The page in a real browser: what it shows, that it lives, and who can use it.

Chromium runs headless, without a network, driven through Debian's own driver. Nothing
here waits for a time: tests look until a deadline.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as renew
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

from agent.core.events import Event
from agent.core.readings import BoardReadings
from agent.core.updates import Report
from agent.endpoint.local import LocalEndpoint
from agent.endpoint.peers import LOCAL
from agent.endpoint.routes import Api
from agent.endpoint.services import Services
from agent.endpoint.serving import Serving
from agent.endpoint.visits import Visits
from tests.conftest import find_tool
from tests.e2e.conftest import STEADY, MakeBoard
from tests.fakes.daemon_process import DaemonProcess
from tests.fakes.fleet import Fleet
from tests.fakes.operations import MemoryDesk
from tests.fakes.shown import (
    ASIDE,
    points_of,
    reports_of,
    shown_agent,
    shown_facts,
    shown_pipeline,
    shown_server,
)
from tests.fakes.snapshots import FixedFacts, agent, pipeline

PATIENCE_S = 60.0
LOOK_S = 0.05
DESK, PHONE = (1280, 900), (390, 844)
AA, AA_LARGE = 4.5, 3.0
LINE_PX = 28  # of a row of the overview: a chip and its padding
SHORT_PX = 3_500  # of a page with eight pipelines, of which one needs somebody
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"
Json = dict[str, Any]

# Every text on the page with its colour and what lies behind it, as painted.
CONTRASTS = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
const ground = (element) => { for (let at = element; at; at = at.parentElement) {
  const c = parse(getComputedStyle(at).backgroundColor);
  if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
const rows = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim();
  const element = walk.currentNode.parentElement;
  if (!text || !element.checkVisibility()) continue;
  if (element.closest("script,style,.sr,.skip")) continue;
  const style = getComputedStyle(element);
  const [one, two] = [light(parse(style.color)), light(ground(element))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  const large = parseFloat(style.fontSize) >= 24
    || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  rows.push([text.slice(0, 40), ratio, large]);
}
return rows;
"""


PRESS = """
[...document.querySelectorAll("button")]
  .find((it) => it.textContent === arguments[0]).click();
"""
CLOSED = "return !document.getElementById('ask').open"


class Browser:
    """A page in headless Chromium."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, url: str, size: tuple[int, int] = DESK, scheme: str = "light"
    ) -> None:
        """Open a page on a screen of a size, light or dark."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._tell("Emulation.setDeviceMetricsOverride", {**screen, "mobile": False})
        media = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self._tell("Emulation.setEmulatedMedia", {"features": media})
        self.complaints()  # what an earlier page said is not ours
        self.driver.get(url)

    def _tell(self, command: str, what: Json) -> Json:
        """Send a command of the DevTools protocol."""
        told: Json = self.driver.execute_cdp_cmd(command, what)
        return told

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - JSON is
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str = "body") -> str:
        """Return what is seen of an element."""
        found = self.run(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector
        )
        return str(found)

    def until(self, what: Callable[[], object], said: str) -> None:
        """Look until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            if time.monotonic() > deadline:
                pytest.fail(f"not seen: {said}; the page says:\n{self.text()}")
            time.sleep(LOOK_S)

    def until_seen(self, words: str, selector: str = "body") -> None:
        """Look until some words are there."""
        self.until(lambda: words in self.text(selector), words)

    def complaints(self) -> list[str]:
        """Return what the browser's console says."""
        rows = self.driver.get_log("browser")  # type: ignore[no-untyped-call] # selenium's
        return [str(row["message"]) for row in rows]

    def nodes(self) -> list[tuple[str, str]]:
        """Return (role, name) of what assistive technology is told."""
        tree = self._tell("Accessibility.getFullAXTree", {})["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in tree
            if not node.get("ignored")
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a headless Chromium; skip, or fail in CI, where there is none."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(find_tool("chromium"))
    arguments = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        # It may reach this machine only, and asks nobody for updates.
        *("--disable-background-networking", "--no-first-run"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    )
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(str(find_tool("chromedriver")))
    driver = webdriver.Chrome(options=options, service=service)
    yield Browser(driver)
    driver.quit()


@asynccontextmanager
async def listening(
    facts: FixedFacts, services: Services, path: Path | None
) -> AsyncIterator[tuple[str, int]]:
    """Listen as the daemon does; without a path as a forwarded socket is seen."""
    if path is not None:
        endpoint = LocalEndpoint(facts, "127.0.0.1:0", path, None, services)
        await endpoint.open()
        bound = endpoint.bound()
        assert bound is not None
        yield bound
        await endpoint.close()
        return
    visits = Visits(lambda _: LOCAL, 16, 16)
    serving = Serving(Api(facts, services), visits, lambda _: None)
    serving.names = frozenset({"board"})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(await serving.open(), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[:2]
    server.close()
    await serving.close()


@contextmanager
def served(
    facts: FixedFacts, path: Path | None = None, desk: MemoryDesk | None = None
) -> Iterator[str]:
    """Serve a page on a free port: to readers, or without a path to an operator.

    ``ssh -L 9000:/run/tinyward/control.sock board`` makes a browser the operator.
    """
    services = Services(desk or MemoryDesk(done=reports_of(), aside=list(ASIDE)))
    opened, urls = threading.Event(), list[str]()
    loop, done = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with listening(facts, services, path) as (host, port):
            urls.append(f"http://{host}:{port}/")
            opened.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert opened.wait(PATIENCE_S)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def was_asked(desk: MemoryDesk, order: str) -> bool:
    """Say whether the operator at the socket asked for something."""
    return (order, "local") in desk.asked


def overflow(browser: Browser) -> int:
    """Return how many pixels a page is wider than its screen."""
    root = "document.documentElement"
    return int(browser.run(f"return {root}.scrollWidth - {root}.clientWidth"))


def test_everything_the_board_knows_is_on_the_page(
    browser: Browser, tmp_path: Path
) -> None:
    """What runs, how it was verified, figures, drift, updates, health, events."""
    with served(shown_facts(), tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("live", "#link")
        for words in (
            *("greenhouse-7", "digits 8", "int8 on litert 2.3.0 / xnnpack / 1"),
            "signed by the repository's targets role, bytes hashed again when loaded",
            *("1.46", "brightness", "+3.10", "\u22121.40"),
            *("whole sample", "six", "4,866 answers"),
            "The input has changed: it no longer looks like the data that the model",
            "Refused digits 9 for the pipeline digits: signature threshold 1 of 2.",
            "Installed digits 8 for the pipeline digits.",
            *("No update is under way.", "1500 MHz", "58.4 °C", "Refused digits 9: "),
            *("Raspberry Pi 4 Model B", "1.1 GB free, waited for", "12.0 GB free"),
            *("up to 30 % used", "synchronised"),
            *(
                "12 missed the budget",
                "source lag",
                "2.10 ms",
                "1500 MHz, not throttled",
            ),
        ):
            browser.until_seen(words)
        browser.until(
            lambda: (
                browser.run("return document.querySelectorAll('canvas').length") == 3
            ),
            "three charts",
        )
        assert browser.complaints() == []
        assert browser.run("return document.querySelectorAll('button').length") == 2
        assert (
            browser.run("return document.querySelector('button').checkVisibility()")
            is False
        )


def test_the_fleets_server_stands_beside_the_updates(
    browser: Browser, tmp_path: Path
) -> None:
    """Its address, its silence, its order, and at the top that it lets nobody in."""
    facts = shown_facts()
    update = replace(facts.shown.update, orchestrator="ddi", ddi=shown_server())
    facts.shown = replace(facts.shown, update=update)
    with served(facts, tmp_path / "s") as url:
        browser.open(url, PHONE)
        browser.until_seen("The fleet's orders cannot be followed", "#notices-box")
        for words in (
            *("https://fleet.example", "(10 min ago)", "2 reports"),
            "17, told download: download at once, install no",
            "does not accept this board's token or certificate. [unauthorized]",
        ):
            browser.until_seen(words, "#update-facts")
        assert overflow(browser) == 0
        assert browser.complaints() == []


def test_levels_are_told_by_words_and_can_be_filtered(
    browser: Browser, tmp_path: Path
) -> None:
    """Newest first; debug lines are there for who asks."""
    with served(shown_facts(), tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("Drift alarm", "#events")
        lines = [line for line in browser.text("#events").splitlines() if "." in line]
        assert lines[0] == "digits: Drift alarm."
        assert "Somebody knocked" not in browser.text("#events")
        for level, count in (("debug", 7), ("info", 6), ("warning", 3), ("error", 1)):
            browser.run(
                "const it = document.getElementById('events-level');"
                "it.value = arguments[0]; it.dispatchEvent(new Event('change'))",
                level,
            )
            shown = browser.run(
                "return [...document.querySelectorAll('#events li')]"
                ".filter((row) => !row.hidden).length"
            )
            assert shown == count
        assert "error" in browser.text("#events")


@pytest.mark.parametrize("count", [0, 1, 8])
@pytest.mark.parametrize("size", [DESK, PHONE, (320, 640)])
def test_no_screen_is_too_small(
    browser: Browser, tmp_path: Path, count: int, size: tuple[int, int]
) -> None:
    """Nothing is wider than the screen, with none, one and eight pipelines."""
    with served(shown_facts(count), tmp_path / "s") as url:
        browser.open(url, size)
        browser.until_seen("live", "#link")
        shown = "return document.querySelectorAll('.pipeline').length"
        browser.until(lambda: browser.run(shown) == count, "the pipelines")
        assert overflow(browser) == 0
        assert browser.complaints() == []
        overview = browser.run("return document.getElementById('overview').hidden")
        assert overview is (count < 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """WCAG 2.2 AA: 4.5 to 1, or 3 to 1 where letters are large; in both schemes."""
    with served(shown_facts(2), tmp_path / "s") as url:
        browser.open(url, scheme=scheme)
        browser.until_seen("Drift alarm", "#events")
        rows = browser.run(CONTRASTS)
        faint = [row for row in rows if row[1] < (AA_LARGE if row[2] else AA)]
        assert faint == []
        assert len(rows) > 100
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(14, 19, 24)") is (scheme == "dark")


def test_everything_has_a_role_and_a_name(browser: Browser, tmp_path: Path) -> None:
    """Landmarks, headings in order, and a name for every control and chart."""
    with served(shown_facts(2), tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("Drift alarm", "#events")
        nodes = browser.nodes()
        roles = {role for role, _ in nodes}
        assert {"banner", "main", "contentinfo", "heading", "table"} <= roles
        named = ("button", "combobox", "image", "link", "region", "article", "progress")
        assert [node for node in nodes if node[0] in named and not node[1]] == []
        charts = [name for role, name in nodes if role == "image" and "Latency" in name]
        assert len(charts) == 2
        assert "p99 0." in charts[0]
        levels = browser.run(
            "return [...document.querySelectorAll('h1,h2,h3,h4')]"
            ".filter((it) => it.checkVisibility()).map((it) => +it.tagName[1])"
        )
        assert levels[0] == 1
        steps = pairwise(levels)
        assert [pair for pair in steps if pair[1] > pair[0] + 1] == []
        ids = browser.run(
            "return [...document.querySelectorAll('[id]')].map((it) => it.id)"
        )
        assert len(ids) == len(set(ids))


def test_names_are_whole_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    """No name in the overview is broken into pieces; each row is one line."""
    with served(shown_facts(8), tmp_path / "s") as url:
        browser.open(url, PHONE)
        browser.until_seen("door 8", "#overview")
        heights = browser.run(
            "return [...document.querySelectorAll('#overview-rows tr')]"
            ".map((it) => it.getBoundingClientRect().height)"
        )
        assert max(heights) < 2 * LINE_PX
        assert overflow(browser) == 0


def test_with_many_pipelines_only_those_in_need_are_open(
    browser: Browser, tmp_path: Path
) -> None:
    """The overview is first, three notices follow, a calm card opens by its key."""
    with served(shown_facts(8), tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("door 8", "#overview")
        opened = (
            "return [...document.querySelectorAll('.pipeline details')]"
            ".map((it) => it.open)"
        )
        assert browser.run(opened) == [True, *[False] * 7]
        assert browser.text("#notices").count("warning") == 3
        assert browser.text("#notices-more") == "and 6 more"
        bottom = "getBoundingClientRect().bottom"
        assert browser.run(
            f"return document.getElementById('overview').{bottom}"
            f" < document.getElementById('notices').{bottom}"
        )
        assert browser.run("return document.body.scrollHeight") < SHORT_PX
        link = browser.driver.find_element("link text", "door 3")
        link.send_keys(Keys.ENTER)
        browser.until(lambda: browser.run(opened)[2], "the card of door 3")
        summaries = browser.driver.find_elements("css selector", ".pipeline summary")
        assert summaries[3].accessible_name == "Details of door 4"
        summaries[3].send_keys(Keys.ENTER)
        browser.until(lambda: browser.run(opened)[3], "the card of door 4")
        canvases = "return document.querySelectorAll('canvas').length"
        browser.until(lambda: browser.run(canvases) == 9, "charts of three cards")
        assert browser.complaints() == []


def test_one_truth_about_a_pipeline(browser: Browser, tmp_path: Path) -> None:
    """Overview, card and notices agree on drift and on failing samples."""
    facts = shown_facts(2)
    facts.points["door 2"] = [
        renew(it, failed=it.rate) for it in points_of(drifts=False)
    ]
    with served(facts, tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("door 2: 50 % of the last minute's samples", "#notices")
        cards = "return [...document.querySelectorAll('.pipeline h3 .chip')]"
        rows = "return [...document.querySelectorAll('#overview-rows .chip')]"
        for chips in (cards, rows):
            said = browser.run(f"{chips}.map((it) => it.innerText)")
            assert [text.lstrip("▲✕ ") for text in said] == ["drifts", "fails 50 %"]
        level = "return document.getElementById('overall').dataset.level"
        assert browser.run(level) == "error"


def test_phases_of_an_update_are_one_line(browser: Browser, tmp_path: Path) -> None:
    """The newest of them; name and fields stand behind the sentence."""
    facts = shown_facts()
    whose = {"pipeline": "digits", "model": "digits", "version": "9"}
    facts.logged += [
        Event(at, 10.0 + at, "info", "update.phase", {**whose, "phase": phase})
        for at, phase in enumerate(("FETCHING", "VERIFYING", "STAGING"), start=8)
    ]
    with served(facts, tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("digits 9 is written to the disk.", "#events")
        assert "is fetched" not in browser.text("#events")
        assert "phase=STAGING" not in browser.text("#events")
        browser.driver.find_element("css selector", "#events summary").click()
        browser.until_seen("phase=STAGING", "#events")
        browser.until_seen("update.phase", "#events")


def test_what_bundles_and_logs_say_is_text(browser: Browser) -> None:
    """Markup in a name, a label, a report, a reason or an event does nothing."""
    made = shown_pipeline()
    active = made.active
    assert active is not None
    counts = replace(made.counts[-1], model=HOSTILE, labels=(HOSTILE,) * 9)
    evil = replace(
        made,
        name=HOSTILE,
        active=renew(active, model=HOSTILE, variant=HOSTILE),
        counts=(counts,),
    )
    facts = shown_facts()
    facts.shown = replace(shown_agent(evil), board=HOSTILE, version=HOSTILE)
    facts.logged = [Event(1, 5.0, "error", HOSTILE, {HOSTILE: HOSTILE})]
    report = Report(
        1, HOSTILE, HOSTILE, 1, "ab", HOSTILE, 1, "refused", "digest", HOSTILE
    )
    desk = MemoryDesk(done=[report], aside=[renew(ASIDE[0], reason=HOSTILE)])
    with served(facts, desk=desk) as url:
        browser.open(url)
        browser.until_seen("onerror=", "#events")
        browser.until_seen("onerror=", "#reports")
        browser.until_seen("onerror=", ".pipeline")
        assert browser.run("return document.querySelectorAll('img').length") == 0
        assert browser.run("return document.querySelectorAll('script').length") == 3
        assert browser.run("return document.title.startsWith('owned')") is False
        assert browser.complaints() == []
        assert overflow(browser) == 0


def test_a_board_that_knows_nothing_yet_is_shown(
    browser: Browser, tmp_path: Path
) -> None:
    """No model, no sample, no sensor: words instead of empty places."""
    bare = replace(pipeline(ready=False, reason="no_model"), active=None, counts=())
    facts = FixedFacts(shown=agent(bare), board=BoardReadings())
    with served(facts, tmp_path / "s", MemoryDesk(done=[])) as url:
        browser.open(url)
        browser.until_seen("no model yet")
        for words in (
            "no model",
            "No answer yet",
            "is not watched",
            "No update has ended",
        ):
            browser.until_seen(words)
        assert "NaN" not in browser.text()
        assert "undefined" not in browser.text()
        assert browser.complaints() == []


def test_an_operator_presses_buttons_and_confirms(browser: Browser) -> None:
    """Each order asks first; Cancel orders nothing; a refusal is said."""
    facts = shown_facts()
    desk = MemoryDesk(pipelines=("digits",), done=reports_of(), aside=list(ASIDE))
    with served(facts, desk=desk) as url:
        browser.open(url)
        browser.until_seen("Roll back")
        browser.run(PRESS, "Look now")
        browser.until_seen("Look for updates now?", "#ask")
        focused = "return document.activeElement.id"
        assert browser.run(focused) == "ask-no"
        browser.run(PRESS, "Cancel")
        browser.until(lambda: browser.run(CLOSED), "the dialog is gone")
        assert desk.asked == []
        for text, asked in (
            ("Look now", "look"),
            ("New baseline", "commission digits"),
            ("Try again", "forgive"),
            ("Roll back", "rollback digits"),
        ):
            browser.run(PRESS, text)
            browser.until_seen("?", "#ask")
            browser.run(PRESS, "Do it")
            browser.until(partial(was_asked, desk, asked), asked)
            browser.until(lambda: browser.run(CLOSED), "the dialog is gone")
        browser.run(PRESS, "Roll back")
        browser.run(PRESS, "Do it")
        browser.until_seen("Not done: an update is in ROLLING_BACK", "#ask")
        refused = [it for it in browser.complaints() if "409" not in it]
        assert refused == []


def test_a_lost_board_is_said_and_found_again(browser: Browser, tmp_path: Path) -> None:
    """What is shown says how old it is; it lives again once the board does."""
    facts = shown_facts()
    with served(facts, tmp_path / "s") as url:
        browser.open(url)
        browser.until_seen("live", "#link")
    browser.until_seen("connection lost", "#link")
    assert "digits 8" in browser.text()
    assert (
        browser.run("return document.getElementById('link').dataset.level") == "error"
    )


def test_a_swap_is_seen_without_a_reload(
    browser: Browser, make_board: MakeBoard, fleet: Fleet
) -> None:
    """The real daemon: samples flow, a signed update arrives, the page follows it."""
    fleet.publish(1)
    board = make_board(source=STEADY, tables={"update": fleet.update_table(poll_s=0.2)})
    with board:
        board.wait_version(1)
        browser.open(page_of(board))
        browser.until_seen("digits 1", ".pipeline")
        browser.until_seen("live", "#link")
        browser.run("window.kept = true")
        browser.until(
            lambda: (
                browser.run("return document.querySelectorAll('canvas').length") >= 2
            ),
            "charts of what was answered",
        )
        fleet.publish(2)
        browser.until_seen("digits 2", ".pipeline")
        browser.until_seen("Installed digits 2", "#reports")
        browser.until_seen("update", "#events")
        assert browser.run("return window.kept") is True
        assert browser.complaints() == []


def page_of(board: DaemonProcess) -> str:
    """Return the address of a board's page."""
    host, port = board.address
    return f"http://{host}:{port}/"
