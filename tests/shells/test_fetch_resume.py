"""Downloads that break: resumed where that is right, begun again where it is not.

The numbers are those of the attack list (ota.md, section 4).
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.trust import download
from agent.trust.download import Download, Signed
from agent.trust.fetcher import DirectoryFetcher
from agent.trust.http_fetcher import HttpFetcher
from agent.trust.refusals import reasons_for_target
from agent.trust.transport import Transport
from tests.fakes import toxic_server as toxic
from tests.fakes.kept_bytes import KeptBytes
from tests.fakes.toxic_server import Answer, Exchange, ToxicServer

BODY = hashlib.shake_256(b"a model").digest(700_000)
PATH = "targets/model.bundle"
# A window that an honest loopback server cannot miss, and that a test can wait for.
QUICK = Transport(min_kbps=1.0, window_s=1.0, connect_s=5.0, pause_s=0.001)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ToxicServer]:
    """Give a server that holds one target."""
    (tmp_path / "targets").mkdir()
    (tmp_path / PATH).write_bytes(BODY)
    with ToxicServer(tmp_path) as running:
        yield running


def signed(content: bytes = BODY) -> Signed:
    """Return what was signed about the target."""
    sha256 = hashlib.sha256(content).hexdigest()
    return Signed(PATH, PATH, len(content), {"sha256": sha256})


def fetch(
    server: ToxicServer,
    kept: KeptBytes,
    transport: Transport = QUICK,
    *,
    resumable: bool = True,
) -> int:
    """Fetch the target as a repository does."""
    fetcher = HttpFetcher(server.url, transport)
    resume = kept if resumable else None
    with reasons_for_target(PATH):
        return Download(fetcher, signed(), kept.write, resume, transport.pause_s).run()


def refusal(call: Callable[[], object]) -> str:
    """Return the reason why a call is refused."""
    with pytest.raises(BundleRefusedError) as caught:
        call()
    return caught.value.reason


def ranges(server: ToxicServer) -> list[str]:
    """Return the ranges that were asked for."""
    return [headers.get("range", "") for _, headers in server.asked]


def tag_of(content: bytes) -> str:
    """Return the ETag that the server gives to a content."""
    return f'"{hashlib.sha256(content).hexdigest()[:12]}"'


def test_a_whole_target_arrives_in_one_request(server: ToxicServer) -> None:
    """Nothing kept: one request without a range, and the tag is remembered."""
    kept = KeptBytes()
    assert fetch(server, kept) == 0
    assert bytes(kept.content) == BODY
    assert ranges(server) == [""]
    assert kept.tag == tag_of(BODY)
    assert server.asked[0][1]["accept-encoding"] == "identity"


def test_46_a_connection_that_breaks_is_resumed_within_the_call(
    server: ToxicServer,
) -> None:
    """Half a body, RST, then a close: three requests, each for the rest only."""
    server.script(PATH, toxic.cut(0.5), toxic.cut(0.5, Exchange.reset), toxic.honest)
    kept = KeptBytes()
    fetch(server, kept)
    assert bytes(kept.content) == BODY
    assert (kept.restarts, len(server.asked)) == (0, 3)
    assert ranges(server)[1] == f"bytes={len(BODY) // 2}-"
    assert {h["if-range"] for _, h in server.asked[1:]} == {tag_of(BODY)}


def test_46_a_stall_at_99_percent_is_left_and_goes_on_in_a_later_call(
    server: ToxicServer,
) -> None:
    """A silent server costs one window; the next call fetches one percent."""
    server.script(PATH, toxic.cut(0.99, toxic.stall), toxic.stall, toxic.honest)
    kept = KeptBytes()
    began = time.monotonic()
    # What the first connection brought was worth one more; that one brought nothing.
    assert refusal(lambda: fetch(server, kept)) == Reason.TOO_SLOW
    assert time.monotonic() - began < toxic.LONG_S / 2
    there = len(kept.content)
    assert there == int(len(BODY) * 0.99)
    assert fetch(server, kept) == there
    assert bytes(kept.content) == BODY
    assert ranges(server)[-1] == f"bytes={there}-"


def test_46_what_is_whole_already_needs_no_server(server: ToxicServer) -> None:
    """A power cut behind the last byte: it is hashed, and nothing is asked."""
    kept = KeptBytes(BODY, tag_of(BODY))
    assert fetch(server, kept) == len(BODY)
    assert server.asked == []


@pytest.mark.parametrize("there", [BODY[:-1] + b"x", b"x" * 1000])
def test_46_kept_bytes_that_are_wrong_are_dropped_once(
    server: ToxicServer, there: bytes
) -> None:
    """The digest runs over kept bytes, too: a disk may have lost some of them."""
    kept = KeptBytes(there, tag_of(BODY))
    assert fetch(server, kept) == 0
    assert bytes(kept.content) == BODY
    assert kept.restarts == 1


def test_46_a_target_that_is_wrong_itself_is_refused_after_one_restart(
    server: ToxicServer, tmp_path: Path
) -> None:
    """Begun again once, not for ever: then it is the server's file that is wrong."""
    wrong = BODY[:-1] + b"x"
    (tmp_path / PATH).write_bytes(wrong)
    kept = KeptBytes(BODY[:1000], tag_of(wrong))
    assert refusal(lambda: fetch(server, kept)) == Reason.DIGEST
    assert (kept.restarts, ranges(server)) == (1, ["bytes=1000-", ""])


def endless(exchange: Exchange) -> None:
    """Send chunks until the other side has had enough."""
    exchange.head("200 OK", Transfer_Encoding="chunked")
    while not exchange.closed.is_set():
        exchange.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")


def bare(body: bytes) -> Answer:
    """Send a body that ends with the connection, as HTTP/1.0 servers do."""
    return toxic.raw(b"HTTP/1.0 200 OK\r\n\r\n" + body)


HALF_CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(toxic.status("200 OK", BODY[:-1]), Reason.LENGTH, id="04-shorter"),
        pytest.param(
            toxic.status("200 OK", BODY + b"x"), Reason.LENGTH, id="03-longer"
        ),
        pytest.param(endless, Reason.LENGTH, id="03-endless"),
        pytest.param(bare(BODY + b"x"), Reason.LENGTH, id="03-longer-without-length"),
        pytest.param(bare(b""), Reason.LENGTH, id="04-empty"),
        pytest.param(HALF_CHUNKED, Reason.UNREACHABLE, id="04-short-chunks"),
        pytest.param(
            toxic.status("200 OK", BODY[:-1] + b"y"), Reason.DIGEST, id="02-flipped"
        ),
        pytest.param(
            toxic.status("200 OK", BODY, Content_Encoding="gzip"),
            Reason.UNREACHABLE,
            id="47-gzip",
        ),
        pytest.param(
            toxic.status("200 OK", b"<html>Pay here</html>", Content_Type="text/html"),
            Reason.UNREACHABLE,
            id="49-portal",
        ),
        pytest.param(
            toxic.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Pay here"
            ),
            Reason.UNREACHABLE,
            id="49-portal-without-length",
        ),
        pytest.param(toxic.status("404 Not Found"), Reason.MISSING_TARGET, id="48-404"),
        pytest.param(toxic.status("403 Forbidden"), Reason.MISSING_TARGET, id="48-403"),
        pytest.param(toxic.status("410 Gone"), Reason.MISSING_TARGET, id="48-410"),
        pytest.param(toxic.status("401 Who"), Reason.UNREACHABLE, id="48-401"),
        pytest.param(toxic.status("429 Slow"), Reason.UNREACHABLE, id="48-429"),
        pytest.param(toxic.status("500 Oh"), Reason.UNREACHABLE, id="48-500"),
        pytest.param(toxic.status("503 Later"), Reason.UNREACHABLE, id="48-503"),
        pytest.param(toxic.status("304 Same"), Reason.UNREACHABLE, id="48-304-unasked"),
        pytest.param(toxic.rest(0), Reason.UNREACHABLE, id="47-206-unasked"),
        pytest.param(toxic.raw(b"nonsense\r\n\r\n"), Reason.UNREACHABLE, id="46-noise"),
        pytest.param(toxic.raw(b""), Reason.UNREACHABLE, id="46-silence"),
        pytest.param(
            toxic.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000),
            Reason.UNREACHABLE,
            id="46-header-line-without-end",
        ),
        pytest.param(
            toxic.raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"
            ),
            Reason.UNREACHABLE,
            id="46-chunk-size-nonsense",
        ),
    ],
)
def test_an_answer_that_is_not_the_target_is_refused(
    server: ToxicServer, answer: Answer | bytes, reason: Reason
) -> None:
    """Whatever is sent, the call ends with a reason, and the next one succeeds."""
    server.script(PATH, toxic.raw(answer) if isinstance(answer, bytes) else answer)
    kept = KeptBytes()
    assert reason == refusal(lambda: fetch(server, kept))
    assert len(server.asked) <= download.RETRIES + 1
    server.script(PATH, toxic.honest)
    fetch(server, kept)
    assert bytes(kept.content) == BODY


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(toxic.status("200 OK", BODY), id="200-for-a-range"),
        pytest.param(toxic.status("416 No"), id="416"),
        pytest.param(toxic.rest(0), id="206-from-zero"),
        pytest.param(toxic.rest(99_999), id="206-overlapping"),
        pytest.param(toxic.rest(100_001), id="206-with-a-gap"),
        pytest.param(toxic.rest(100_000, ETag='"other"'), id="206-of-another-file"),
        pytest.param(toxic.rest(100_000, ETag='W/"weak"'), id="206-with-a-weak-tag"),
        pytest.param(
            toxic.rest(100_000, Content_Range="bytes 100000-100009/700000"),
            id="206-that-ends-early",
        ),
        pytest.param(
            toxic.rest(100_000, Content_Range="bytes 100000-699999/800000"),
            id="206-of-a-longer-file",
        ),
        pytest.param(
            toxic.rest(100_000, Content_Range="items 100000-699999/700000"),
            id="206-in-another-unit",
        ),
    ],
)
def test_47_another_answer_to_a_range_begins_again(
    server: ToxicServer, answer: Answer
) -> None:
    """Only the exact rest of the same bytes is put behind what is kept."""
    server.script(PATH, answer, toxic.honest)
    kept = KeptBytes(BODY[:100_000], tag_of(BODY))
    assert fetch(server, kept) == 0
    assert bytes(kept.content) == BODY
    assert kept.restarts == 1


def test_47_a_file_that_changed_is_not_mixed(
    server: ToxicServer, tmp_path: Path
) -> None:
    """If-Range: bytes of two files never meet, and the new file is what was signed."""
    (tmp_path / PATH).write_bytes(b"old" + BODY[3:])
    server.script(PATH, toxic.cut(0.5), toxic.stall)
    kept = KeptBytes()
    assert refusal(lambda: fetch(server, kept)) == Reason.TOO_SLOW
    (tmp_path / PATH).write_bytes(BODY)
    server.script(PATH, toxic.honest)
    assert fetch(server, kept) == 0
    assert bytes(kept.content) == BODY


@pytest.mark.parametrize(
    "tag", ["", 'W/"weak"', "bare", '"a"b"', '"' + "x" * 300 + '"']
)
def test_47_without_a_strong_tag_nothing_is_resumed(
    server: ToxicServer, tag: str
) -> None:
    """A weak ETag stands for a meaning, not for bytes."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\nETag: {tag}\r\n\r\n"
    ends = toxic.raw(head.encode() + BODY[:300_000])
    server.script(PATH, ends, toxic.honest)
    kept = KeptBytes()
    fetch(server, kept)
    assert ranges(server) == ["", ""]
    assert bytes(kept.content) == BODY


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (
            toxic.status("200 OK", b"<html>Pay</html>", Content_Type="text/html"),
            Reason.UNREACHABLE,
        ),
        (
            toxic.raw(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Pay here"
            ),
            Reason.UNREACHABLE,
        ),
        (toxic.status("200 OK", b"Pay here"), Reason.LENGTH),
    ],
    ids=["with-length", "without-length", "plain-text"],
)
def test_49_a_portals_page_does_not_cost_what_is_kept(
    server: ToxicServer, page: Answer, reason: Reason
) -> None:
    """A page, or a file of another length, drops nothing that is kept."""
    server.script(PATH, page)
    kept = KeptBytes(BODY[:500_000], tag_of(BODY))
    assert refusal(lambda: fetch(server, kept)) == reason
    assert (kept.restarts, len(kept.content)) == (0, 500_000)
    server.script(PATH, toxic.honest)
    assert fetch(server, kept) == 500_000


def test_45_a_dripped_body_is_left_within_a_window(server: ToxicServer) -> None:
    """Twenty bytes a second never let a read time out, and are too slow still."""
    server.script(PATH, toxic.drip(skip=40))
    kept = KeptBytes()
    began = time.monotonic()
    assert refusal(lambda: fetch(server, kept)) == Reason.TOO_SLOW
    assert time.monotonic() - began < toxic.LONG_S / 2
    assert len(server.asked) == 1


def test_45_a_dripped_header_is_left_within_a_window(server: ToxicServer) -> None:
    """A header that never ends is no better than a body that does not."""
    server.script(PATH, toxic.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 4000))
    assert refusal(lambda: fetch(server, KeptBytes())) == Reason.TOO_SLOW


def test_45_a_deadline_ends_what_is_just_fast_enough(server: ToxicServer) -> None:
    """A server that keeps to the least speed does not hold a connection for ever."""
    server.script(PATH, toxic.drip(skip=40))
    patient = Transport(min_kbps=0.001, window_s=10.0, deadline_s=0.5)
    with pytest.raises(BundleRefusedError, match=r"not done after 0\.5 s") as caught:
        fetch(server, KeptBytes(), patient)
    assert caught.value.reason == Reason.TOO_SLOW


def test_48_no_loop_is_endless(server: ToxicServer) -> None:
    """A server that breaks each connection after a byte is left after a few."""

    def one_byte(exchange: Exchange) -> None:
        toxic.cut(2 / len(exchange.content))(exchange)

    server.script(PATH, one_byte)
    kept = KeptBytes()
    assert refusal(lambda: fetch(server, kept)) == Reason.UNREACHABLE
    assert len(server.asked) == download.RETRIES + 1


def test_48_progress_earns_more_connections(server: ToxicServer) -> None:
    """A line that breaks again and again, but brings something, is used to the end."""
    server.script(PATH, toxic.cut(0.4), toxic.cut(0.7), toxic.cut(0.0))
    assert refusal(lambda: fetch(server, KeptBytes())) == Reason.UNREACHABLE
    assert len(server.asked) == 2 + download.RETRIES + 1


def test_without_a_place_to_begin_again_nothing_is_written_twice(
    server: ToxicServer,
) -> None:
    """A caller that only takes bytes gets each of them once, or an error."""
    server.script(PATH, toxic.cut(0.5), toxic.honest)
    kept = KeptBytes()
    reason = refusal(lambda: fetch(server, kept, resumable=False))
    assert reason == Reason.UNREACHABLE
    assert BODY.startswith(bytes(kept.content))


def test_whoever_writes_can_end_a_stalled_download(server: ToxicServer) -> None:
    """A fetch that nobody wants any more ends although not a byte arrives."""
    server.script(PATH, toxic.cut(0.5, toxic.stall))
    kept = KeptBytes()
    patient = Transport(window_s=600.0, pause_s=0.001)
    caught: list[BaseException] = []

    def run() -> None:
        try:
            fetch(server, kept, patient)
        except DeviceError as err:
            caught.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    while len(kept.content) < len(BODY) // 2:
        time.sleep(0.01)
    kept.stop = DeviceError("enough", reason=Reason.REQUESTED)
    thread.join(toxic.LONG_S / 2)
    assert not thread.is_alive()
    assert [str(error) for error in caught] == ["enough"]


@settings(max_examples=60)
@given(data=st.data())
def test_any_cut_anywhere_ends_with_the_signed_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Law: whatever is kept, and however a file changes between calls, what arrives
    is what was signed, and the count says how much of it was here before.
    """
    root = tmp_path_factory.mktemp("disk")
    (root / "targets").mkdir()
    body = data.draw(st.binary(min_size=1, max_size=40))
    (root / PATH).write_bytes(body)
    source = DirectoryFetcher(root)
    with source.open_part(PATH) as part:
        tag = data.draw(st.sampled_from([part.tag, "another", ""]))
    share = data.draw(st.integers(0, len(body) + 1))
    there = (body + b"!")[:share]
    if data.draw(st.booleans()) and there:
        there = bytes([there[0] ^ 1]) + there[1:]
    kept = KeptBytes(there, tag)
    reused = Download(source, signed(body), kept.write, kept).run()
    assert bytes(kept.content) == body
    # What is whole already is hashed without asking whose it is.
    fits = (tag == part.tag or (tag and there == body)) and body.startswith(there)
    assert reused == (len(there) if fits else 0)
