"""What headers and clocks make of a download, without a network."""

from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.trust import answers
from agent.trust.fetcher import TransportError
from agent.trust.pace import Pace
from agent.trust.transport import Transport

TEXT = st.text(max_size=60) | st.from_regex(r"(bytes |W/|\")?[-0-9/*\" a-z]{0,40}")


@given(TEXT)
@example("bytes 1-" + "9" * 30 + "/*")
@example("Sat, 99 Foo 99999 99:99:99 +9999")
@example("\u0661\u0662")
def test_no_header_is_more_than_refused(text: str) -> None:
    """Law: whatever stands in a header, it parses to a value or to nothing."""
    found = answers.parse_content_range(text)
    assert found is None or all(part is None or part >= 0 for part in found)
    assert 0.0 <= answers.parse_retry_after(text, 0.0) <= answers.MAX_RETRY_AFTER_S
    length = answers.parse_length(text)
    assert length is None or length >= 0
    for tag in (answers.strong_tag(text), answers.any_tag(text)):
        assert tag in {text, ""}
        assert "\n" not in tag
        assert "\r" not in tag
    assert answers.is_settled(text, text) in {True, False}


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_content_range_parses_to_itself(first: int, last: int, whole: int) -> None:
    """What servers send is what is read."""
    text = f"bytes {first}-{last}/{whole}"
    assert answers.parse_content_range(text) == (first, last, whole)
    text = f"bytes {first}-{last}/*"
    assert answers.parse_content_range(text) == (first, last, None)


@given(st.text(max_size=40))
def test_25_no_path_leads_out_of_the_repository(path: str) -> None:
    """Law: below the address, one line, no query and no fragment."""
    url = answers.join_url("https://a.example/r", path)
    if url is not None:
        assert url.startswith("https://a.example/r/")
        below = url.removeprefix("https://a.example/r/")
        assert not set(below) & set("?#\\ \r\n\t")
        assert not {"..", "."} & set(below.split("/"))


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a/./b", "a\0b", ".."])
def test_25_paths_that_climb_are_refused(path: str) -> None:
    """A segment of dots is nobody's file."""
    assert answers.join_url("https://a.example/r", path) is None


def test_a_quoted_role_stays_quoted() -> None:
    """A target path is a URL string already: an escape is not escaped again."""
    url = answers.join_url("https://a.example", "metadata/1.%2Fx.json")
    assert url == "https://a.example/metadata/1.%2Fx.json"


@given(st.text(max_size=40))
def test_43_a_redirect_stays_at_home_or_leads_nowhere(location: str) -> None:
    """Law: what is followed has the scheme, the host and the port that were named."""
    onward = answers.redirect_url("https://a.example:8443/r/x", location)
    assert onward is None or onward.startswith("https://a.example:8443")


@pytest.mark.parametrize(
    ("age_s", "settled"), [(0, False), (1, False), (2, True), (86_400, True)]
)
def test_a_tag_of_seconds_counts_after_seconds(age_s: int, *, settled: bool) -> None:
    """A file that was changed just now may change again within the same second."""
    date = formatdate(1e9 + age_s, usegmt=True)
    assert answers.is_settled(formatdate(1e9, usegmt=True), date) is settled


@pytest.mark.parametrize(
    ("modified", "date", "settled"),
    [
        ("", "", True),
        (formatdate(1e9, usegmt=True), "", False),
        (formatdate(1e9, usegmt=True), "soon", False),
        ("soon", formatdate(1e9, usegmt=True), False),
    ],
)
def test_a_tag_without_a_date_counts_if_it_is_not_made_of_one(
    modified: str, date: str, *, settled: bool
) -> None:
    """Who does not say when a file changed does not make its tag of that."""
    assert answers.is_settled(modified, date) is settled


@pytest.mark.parametrize(
    ("kind", "beginning", "page"),
    [
        ("text/html", b"<html>", True),
        ("Text/HTML; charset=utf-8", b"\n <!doctype", True),
        ("text/html", b'{"signed"', False),
        ("application/json", b"<html>", False),
        ("", b"<html>", False),
    ],
)
def test_49_a_web_page_is_told_from_a_file(
    kind: str, beginning: bytes, *, page: bool
) -> None:
    """A portal's page has both the type and the look of one."""
    assert answers.is_web_page(kind, beginning) is page


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def drive(pace: Pace, clock: Clock, per_s: list[int]) -> int:
    """Let so many bytes arrive in each second; return how many seconds it was let."""
    for second, count in enumerate(per_s):
        clock.now_s += 1.0
        try:
            pace.check(1.0, count)
        except TransportError as err:
            return second + 1 if err.reason == Reason.TOO_SLOW else -1
    return len(per_s)


RULES = Transport(min_kbps=1.0, window_s=10.0, deadline_s=100.0)


@pytest.mark.parametrize(
    ("per_s", "let_s"),
    [
        ([1] * 60, 10),  # a byte a second: one window
        ([0] * 60, 10),
        ([1000] * 60, 60),  # just enough
        ([999] * 60, 10),
        ([10_000] + [0] * 60, 11),  # one burst pays for one window, no longer
        ([100_000] * 30 + [0] * 60, 40),  # and a fast start not for a slow end
        ([0] * 9 + [20_000] + [0] * 60, 20),
        ([0, 0, 0, 0, 4000] * 12, 10),  # 0.8 kB/s in bursts is 0.8 kB/s
        ([0, 0, 0, 0, 5000] * 12, 60),
    ],
)
def test_45_the_speed_is_that_of_the_last_window(per_s: list[int], let_s: int) -> None:
    """The window slides: neither a burst nor a good beginning hides a slow server."""
    clock = Clock()
    assert drive(Pace(RULES, clock), clock, per_s) == let_s


def test_45_a_deadline_counts_from_the_beginning_of_each_exchange() -> None:
    """However fast, an exchange ends; the next one has its own time."""
    clock = Clock()
    pace = Pace(RULES, clock)
    assert drive(pace, clock, [10**6] * 200) == 101
    pace.begin(lambda: None)
    assert drive(pace, clock, [10**6] * 200) == 101


def test_a_slow_disk_is_not_the_servers_fault() -> None:
    """Only waiting for bytes counts for the speed, not what happens in between."""
    clock = Clock()
    pace = Pace(RULES, clock)
    for _ in range(4):
        clock.now_s += 20.0  # the disk syncs
        pace.check(0.01, 64_000)


@given(st.lists(st.integers(1000, 10**6), max_size=80))
def test_who_keeps_the_least_speed_is_never_left(per_s: list[int]) -> None:
    """Law: at or above the least speed in each second, only the deadline ends it."""
    clock = Clock()
    assert drive(Pace(RULES, clock), clock, per_s) == len(per_s)


def test_nobody_waits_for_what_nobody_wants() -> None:
    """Each look at the clock asks whether the rest is wanted."""

    class EnoughError(Exception):
        pass

    def stop() -> None:
        raise EnoughError

    pace = Pace(RULES, Clock())
    pace.begin(stop)
    with pytest.raises(EnoughError):
        pace.check(0.0, 1)
    pace.begin(lambda: None)
    pace.check(0.0, 1)
