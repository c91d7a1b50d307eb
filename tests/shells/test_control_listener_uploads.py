"""Uploads over the control listener: in pieces, resumed, bounded."""

import asyncio
import gzip
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.endpoint.bodies import MAX_BODY_BYTES, MAX_PIECE_BYTES
from agent.endpoint.local import LocalEndpoint
from agent.endpoint.services import Services
from tests.fakes.control_bench import Bench, Peer, Reply, bench, listening, request, run
from tests.fakes.operations import MemoryDesk, MemoryInbox
from tests.fakes.snapshots import FixedFacts

PATH = "targets/models/kws/2.bundle"
CONTENT = bytes(range(256)) * 2_000  # 512,000 bytes: several pieces and blocks


def named(content: bytes, path: str = PATH) -> str:
    """Return what an upload of these bytes asks for."""
    return f"PUT /v1/uploads/{hashlib.sha256(content).hexdigest()}?path={path}"


def span(first: int, last: int, total: int) -> dict[str, str]:
    """Return the header that says which bytes a piece is."""
    return {"Content-Range": f"bytes {first}-{last}/{total}"}


async def put(
    made: Bench,
    content: bytes,
    piece: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Upload a piece of some content, or all of it."""
    body = content if piece is None else piece
    return await made.ask(made.operator, named(content), body, headers)


def test_a_file_is_uploaded_at_once(tmp_path: Path) -> None:
    """One PUT without a range: the whole file, verified, in its place."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            reply = await put(made, CONTENT)
            assert (reply.status, reply.json) == (
                200,
                {"offset": len(CONTENT), "complete": True},
            )
            assert made.inbox.placed == {PATH: CONTENT}

    run(story)


def test_a_file_is_uploaded_in_pieces(tmp_path: Path) -> None:
    """Each piece says where it belongs; the board says where to go on."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            total, offset = len(CONTENT), 0
            while offset < total:
                piece = CONTENT[offset : offset + 200_000]
                where = span(offset, offset + len(piece) - 1, total)
                reply = await put(made, CONTENT, piece, where)
                offset = reply.json["offset"]
                assert reply.json["complete"] == (offset == total)
                asked = named(CONTENT).replace("PUT", "GET").partition("?")[0]
                assert (await made.ask(made.observer, asked)).json["offset"] == offset
            assert made.inbox.placed == {PATH: CONTENT}

    run(story)


@pytest.mark.parametrize("came", [1, 50_000, 300_000])
def test_46_an_upload_goes_on_where_it_broke_off(came: int, tmp_path: Path) -> None:
    """A connection that is cut in a piece loses none of the bytes that came."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            digest = hashlib.sha256(CONTENT).hexdigest()
            whole = request(named(CONTENT), CONTENT)
            for pause_s in (0.05, 0.5, 5.0):
                peer = await made.peer(made.operator)
                await peer.send(whole[: len(whole) - len(CONTENT) + came])
                # What nobody has read when a connection ends is lost with it.
                await asyncio.sleep(pause_s)
                peer.close()
                while len(made.endpoint.visits):  # noqa: ASYNC110 - plain state
                    await asyncio.sleep(0.01)
                if made.inbox.offset(digest) == came:
                    break
            assert made.inbox.offset(digest) == came
            here = (await made.ask(made.observer, f"GET /v1/uploads/{digest}")).json
            rest = CONTENT[here["offset"] :]
            where = span(here["offset"], len(CONTENT) - 1, len(CONTENT))
            reply = await put(made, CONTENT, rest, where)
            assert (reply.status, made.inbox.placed) == (200, {PATH: CONTENT})

    run(story)


def test_a_piece_whose_answer_was_lost_is_sent_again(tmp_path: Path) -> None:
    """Bytes that are here are skipped, also those of a file that is whole."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            total = len(CONTENT)
            first = CONTENT[:200_000]
            for _ in range(2):
                reply = await put(made, CONTENT, first, span(0, 199_999, total))
                assert reply.json == {"offset": 200_000, "complete": False}
            overlapping = CONTENT[100_000:]
            where = span(100_000, total - 1, total)
            assert (await put(made, CONTENT, overlapping, where)).json["complete"]
            last = await put(
                made, CONTENT, CONTENT[-1:], span(total - 1, total - 1, total)
            )
            assert last.json == {"offset": total, "complete": True}
            assert made.inbox.placed == {PATH: CONTENT}

    run(story)


def test_a_piece_that_leaves_a_gap_is_refused(tmp_path: Path) -> None:
    """The inbox decides what the next byte is; nothing of the piece is kept."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            where = span(100, 199, len(CONTENT))
            reply = await put(made, CONTENT, CONTENT[100:200], where)
            assert (reply.status, reply.json["reason"]) == (400, Reason.REQUEST)
            assert made.inbox.partial == {}

    run(story)


def test_2_other_bytes_than_announced_are_refused(tmp_path: Path) -> None:
    """The digest in the path is what counts; the upload is gone, a right one works."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            reply = await put(made, CONTENT, b"x" * len(CONTENT))
            assert (reply.status, reply.json["reason"]) == (400, Reason.DIGEST)
            assert (made.inbox.partial, made.inbox.placed) == ({}, {})
            assert (await put(made, CONTENT)).json["complete"]

    run(story)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-9"},
        {"Content-Range": "bytes 0-9/*"},
        {"Content-Range": "bytes 9-0/20"},
        {"Content-Range": "bytes 0-9/9"},
        {"Content-Range": "bytes 0-8/20"},
        {"Content-Range": "bytes -1-8/20"},
        {"Content-Range": "bytes 0-9/1e3"},
        {"Content-Range": "items 0-9/20"},
        {"Content-Range": "bytes 0-9/" + "9" * 40},
        {"Content-Range": "bytes \u0660-\u0669/20"},
    ],
    ids=lambda headers: headers["Content-Range"][:20],
)
def test_47_a_range_that_makes_no_sense(
    headers: dict[str, str], tmp_path: Path
) -> None:
    """Anything but FIRST-LAST/TOTAL that fits the body is refused."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            reply = await put(made, CONTENT, b"x" * 10, headers)
            assert (reply.status, reply.json["reason"]) == (400, Reason.REQUEST)
            assert made.inbox.partial == {}

    run(story)


def test_52_a_piece_that_is_too_large(tmp_path: Path) -> None:
    """413 by its headers, before a byte is read; what to do is said."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            size = MAX_PIECE_BYTES + 1
            length = {"Content-Length": str(size)}
            for headers in (length, length | span(0, size - 1, size)):
                peer = await made.peer(made.operator)
                await peer.send(request(named(CONTENT), b"", headers))
                reply = await peer.reply()
                assert (reply.status, reply.json["reason"]) == (413, Reason.TOO_LARGE)
                assert "Content-Range" in reply.json["todo"]
                peer.close()
            assert made.inbox.partial == {}

    run(story)


@pytest.mark.parametrize(
    "asked", ["PUT /v1/desired", "PUT /v1/identity/certificate", "POST /v1/rollback"]
)
def test_52_a_body_that_is_announced_too_large(asked: str, tmp_path: Path) -> None:
    """413 before any of it is waited for."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(MAX_BODY_BYTES + 1),
            }
            peer = await made.peer(made.operator)
            await peer.send(request(asked, b"", headers))
            reply = await peer.reply()
            assert (reply.status, reply.json["reason"]) == (413, Reason.TOO_LARGE)
            peer.close()

    run(story)


def test_52_a_compressed_body_is_not_unpacked(tmp_path: Path) -> None:
    """A kilobyte that would become a gigabyte stays a kilobyte, and is no JSON."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            packed = gzip.compress(b'{"pipeline": "door"}' + b" " * 10_000_000)
            headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
            asked = "POST /v1/rollback"
            reply = await made.ask(made.operator, asked, packed, headers)
            assert (reply.status, reply.json["reason"]) == (400, Reason.REQUEST)
            assert made.desk.asked == []

    run(story)


async def send_endless(peer: Peer, most: int) -> int:
    """Send chunks without an end until the other side has enough; return how many."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0
    try:
        while sent < most and not peer.writer.is_closing():
            await peer.send(chunk)
            await asyncio.sleep(0)  # or asyncio would write on to a dead socket
            sent += len(chunk)
    except (ConnectionError, OSError):
        pass
    return sent


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ("PUT /v1/desired", MAX_BODY_BYTES),
        ("POST /v1/updates", 0),
        (named(CONTENT), MAX_PIECE_BYTES),
        ("PUT /v1/identity/certificate", MAX_BODY_BYTES),
    ],
    ids=["desired", "doorbell", "upload", "certificate"],
)
def test_52_a_body_without_end(asked: str, limit: int, tmp_path: Path) -> None:
    """Chunked and endless: it is cut off, and nothing of it fills the memory."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            peer = await made.peer(made.operator)
            lines = [f"{asked} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"]
            if limit == MAX_PIECE_BYTES:
                lines.append("Content-Range: bytes 0-511999/512000")
            lines.append("Content-Type: application/json")
            await peer.send("\r\n".join([*lines, "", ""]).encode())
            most = 200_000_000
            async with asyncio.timeout(60):
                assert await send_endless(peer, most) < most
            assert sum(map(len, made.inbox.partial.values())) <= limit
            peer.close()
            assert (await made.ask(made.operator, "GET /v1/state")).status == 200

    run(story)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "../state.db",
        "/etc/passwd",
        "metadata/../../state.db",
        "metadata/..%2f..%2fstate.json",
        "metadata/root.json/",
        "metadata/a/root.json",
        "targets/../metadata/1.root.json",
        "targets//x",
        "targets/.hidden",
        "targets/a%00b",
        "targets/a%5cb",
        "targets/a%0ab",
        "targets/" + "a" * 300,
        "targets/" + "a/" * 20 + "b",
        "keys/root.json",
        "metadata/%C3%A4.json",
    ],
)
def test_53_a_path_that_no_slice_has(path: str, tmp_path: Path) -> None:
    """Traversal, absolute, hidden, deep or odd: refused before a byte is taken."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            reply = await made.ask(made.operator, named(CONTENT, path), CONTENT)
            assert (reply.status, reply.json["reason"]) == (400, Reason.REQUEST)
            assert (made.inbox.partial, made.inbox.placed) == ({}, {})

    run(story)


def test_53_a_percent_sign_stays_one(tmp_path: Path) -> None:
    """TUF quotes odd role names: the quoted name is the file's name, not a path."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            path = "metadata/1.%252E%252E%252Fx.json"
            reply = await made.ask(made.operator, named(b"{}", path), b"{}")
            assert (reply.status, [*made.inbox.placed]) == (
                200,
                ["metadata/1.%2E%2E%2Fx.json"],
            )

    run(story)


@pytest.mark.parametrize("digest", ["ab", "AB" * 32, "ab" * 33, "..", "zz" * 32])
def test_53_a_name_that_is_no_digest(digest: str, tmp_path: Path) -> None:
    """The path of the request knows digests only."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            asked = f"PUT /v1/uploads/{digest}?path={PATH}"
            assert (await made.ask(made.operator, asked, b"x")).status == 404

    run(story)


def test_a_full_inbox_says_so(tmp_path: Path) -> None:
    """507 with ``quota``; a file larger than all of it is 413."""

    async def story() -> None:
        made = bench(tmp_path, inbox=MemoryInbox(quota_bytes=600_000))
        async with listening(made):
            assert (await put(made, CONTENT)).status == 200
            other = CONTENT[::-1]
            full = await put(made, other)
            assert (full.status, full.json["reason"]) == (507, Reason.QUOTA)
            where = span(0, 9, 600_001)
            huge = await put(made, other, other[:10], where)
            assert (huge.status, huge.json["reason"]) == (413, Reason.TOO_LARGE)
            cleared = await made.ask(made.operator, "DELETE /v1/uploads")
            assert cleared.status == 204
            assert (await put(made, other)).status == 200

    run(story)


def test_an_invitation_comes_only_for_a_body_that_is_wanted(tmp_path: Path) -> None:
    """``Expect: 100-continue``: asked for, or refused before the body is sent."""

    async def story() -> None:
        async with listening(bench(tmp_path)) as made:
            headers = {"Expect": "100-continue", "Content-Length": "512000"}
            peer = await made.peer(made.operator)
            await peer.send(request(named(CONTENT), b"", headers))
            assert (await peer.reply()).status == 100
            await peer.send(CONTENT)
            assert (await peer.reply()).json["complete"]
            peer.close()
            refused = await made.peer(made.observer)
            await refused.send(request(named(CONTENT), b"", headers))
            assert (await refused.reply()).status == 403
            refused.close()

    run(story)


def test_one_thread_touches_the_inbox(tmp_path: Path) -> None:
    """Two operators upload at once: their pieces come one after the other."""
    inside = threading.Lock()

    def enter(count: int) -> None:
        assert count > 0
        assert inside.acquire(blocking=False), "two at once"
        time.sleep(0.005)  # a disk takes its time: long enough for the other one
        inside.release()

    async def story() -> None:
        made = bench(tmp_path, inbox=MemoryInbox(on_append=enter))
        async with listening(made), asyncio.TaskGroup() as group:
            other = CONTENT[::-1]
            tasks = [group.create_task(put(made, it)) for it in (CONTENT, other)]
        assert [task.result().status for task in tasks] == [200, 200]

    run(story)


@asynccontextmanager
async def on_socket(tmp_path: Path, services: Services) -> AsyncIterator[Path]:
    """Open the local endpoint with something behind it; give its socket."""
    path = tmp_path / "control.sock"
    endpoint = LocalEndpoint(FixedFacts(), "", path, services=services)
    async with asyncio.timeout(60):
        await endpoint.open()
        try:
            yield path
        finally:
            await endpoint.close()


def test_the_socket_takes_the_same_orders(tmp_path: Path) -> None:
    """Its user is the operator ``local``: uploads and orders, without a certificate."""
    desk, inbox = MemoryDesk(), MemoryInbox()

    async def story() -> None:
        async with on_socket(tmp_path, Services(desk, inbox)) as path:
            peer = Peer(*await asyncio.open_unix_connection(str(path)))
            for asked, body, status in (
                (named(CONTENT), CONTENT, 200),
                ("POST /v1/updates", b"", 202),
                ("GET /v1/openapi.json", b"", 200),
                ("GET /v1/identity", b"", 404),
            ):
                await peer.send(request(asked, body))
                assert (await peer.reply()).status == status
            peer.close()
        assert desk.asked == [("look", "local")]
        assert inbox.placed == {PATH: CONTENT}

    run(story)


def test_the_address_takes_no_orders(tmp_path: Path) -> None:
    """Plain TCP knows neither the orders nor their paths."""
    desk = MemoryDesk()

    async def story() -> None:
        path = tmp_path / "control.sock"
        endpoint = LocalEndpoint(
            FixedFacts(), "127.0.0.1:0", path, services=Services(desk)
        )
        await endpoint.open()
        bound = endpoint.bound()
        assert bound is not None
        peer = Peer(*await asyncio.open_connection(*bound))
        await peer.send(request("POST /v1/updates"))
        assert (await peer.reply()).status == 404
        peer.close()
        await endpoint.close()
        assert desk.asked == []

    run(story)
