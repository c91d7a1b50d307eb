"""What comes with a request: bodies within limits, and strict headers.

The rules this module keeps:
 * A length that is announced is checked before the first byte, one that is not while
   they come.
 * A body comes at ``MIN_BYTES_PER_S`` or more, or it is left: only the time that is
   spent waiting for the peer counts, not the time that our disk takes.
 * Nothing of what was received stands in an error.

>>> parse_range("bytes 0-9/20", 10)
Span(start=0, size=10, total=20)
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import NamedTuple, TypeVar

import msgspec
from aiohttp import web

from agent.core.reasons import Reason
from agent.errors import RequestRefusedError

MAX_NUMBER = 10**15 - 1  # of a query: exact in JavaScript, beyond any count of ours
GRACE_S = 5.0  # a satellite link's round trips before the first byte
MIN_BYTES_PER_S = 1024.0  # as `update.min_kbps`: a GPRS modem has 5 times that
MAX_BODY_BYTES = 64 * 1024  # 64 pipelines take 6 kB, a certificate chain 8 kB
MAX_PIECE_BYTES = 1024 * 1024  # of an upload in one request; the rest follows
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
# What msgspec repeats of its input in a message.
_ECHO = re.compile(r"(unknown field|[Ii]nvalid enum value|Invalid value) (`.*?`|'.*?')")
Parsed = TypeVar("Parsed")


class Span(NamedTuple):
    """Which bytes of an upload a body is: ``size`` bytes at ``start``, of ``total``."""

    start: int
    size: int
    total: int


async def read_pieces(
    request: web.Request, most: int = MAX_PIECE_BYTES
) -> AsyncIterator[bytes]:
    """Yield a body as it comes.

    Raises:
        RequestRefusedError: ``too_large``, ``too_slow`` or ``request``.
    """
    length = request.content_length
    if length is not None and length > most:
        raise _too_large(most)
    await _invite(request)
    loop = asyncio.get_running_loop()
    count, waited_s = 0, 0.0
    while not request.content.at_eof():
        began = loop.time()
        allowed_s = GRACE_S + count / MIN_BYTES_PER_S - waited_s
        piece = await _read_piece(request, allowed_s)
        waited_s += loop.time() - began
        count += len(piece)
        if count > most:
            raise _too_large(most)
        if piece:
            yield piece


async def read_body(request: web.Request, most: int = MAX_BODY_BYTES) -> bytes:
    """Return a whole small body.

    Raises:
        RequestRefusedError: ``too_large``, ``too_slow`` or ``request``.
    """
    return b"".join([piece async for piece in read_pieces(request, most)])


async def read_json(request: web.Request, kind: type[Parsed]) -> Parsed:
    """Return a small JSON body, parsed strictly.

    A browser cannot be made to send this media type to a board from another site
    without asking the board first, and the board says no.

    Raises:
        RequestRefusedError: ``request``, ``too_large`` or ``too_slow``.
    """
    if request.content_type != "application/json":
        raise _unclear("the body has to be application/json")
    return parse_json(await read_body(request), kind)


def parse_json(raw: bytes, kind: type[Parsed]) -> Parsed:
    """Parse JSON strictly; the message repeats nothing of it.

    Raises:
        RequestRefusedError: ``request``.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        what = "nested too deeply" if isinstance(err, RecursionError) else str(err)
        quiet = _ECHO.sub(r"\1", what)
        raise _unclear(f"the body: {quiet}") from err


def parse_number(request: web.Request, name: str) -> int:
    """Return a number of the query; 0 without it.

    Raises:
        RequestRefusedError: ``request``: it is no number.
    """
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= MAX_NUMBER):
        raise _unclear(f"`{name}` has to be a number")
    return int(text)


def parse_range(header: str | None, length: int | None) -> Span:
    """Say which bytes of an upload a body is.

    Args:
        header: ``Content-Range``; without it the body is the whole upload.
        length: ``Content-Length``; None where the body is chunked.

    Raises:
        RequestRefusedError: ``request`` or ``too_large``.
    """
    if header is None:
        if length is None:
            raise _unclear("Content-Length or Content-Range is needed")
        return _small(Span(0, length, length))
    found = _RANGE.fullmatch(header)
    if found is None:
        raise _unclear("Content-Range has to be `bytes FIRST-LAST/TOTAL`")
    first, last, total = (int(number) for number in found.groups())
    if not first <= last < total:
        raise _unclear("Content-Range contradicts itself")
    if length not in (None, last - first + 1):
        raise _unclear("Content-Range and Content-Length contradict each other")
    return _small(Span(first, last - first + 1, total))


def _small(span: Span) -> Span:
    """Check that one request carries one piece."""
    if span.size > MAX_PIECE_BYTES:
        raise _too_large(MAX_PIECE_BYTES)
    return span


async def _invite(request: web.Request) -> None:
    """Tell a client that waits for it to send its body, now that it may."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


async def _read_piece(request: web.Request, allowed_s: float) -> bytes:
    """Return what has come, waiting no longer than is left."""
    try:
        async with asyncio.timeout(max(0.0, allowed_s)):
            return await request.content.readany()
    except TimeoutError as err:
        raise RequestRefusedError(
            f"the body came slower than {MIN_BYTES_PER_S:.0f} bytes a second",
            reason=Reason.TOO_SLOW,
            todo="Send it again; an upload goes on where it stopped.",
        ) from err
    except web.RequestPayloadError as err:
        raise _unclear("the body is not what its headers announce") from err


def _too_large(most: int) -> RequestRefusedError:
    """Return the error for a body beyond its limit."""
    return RequestRefusedError(
        f"one request carries {most} bytes at most",
        reason=Reason.TOO_LARGE,
        todo="Send an upload in pieces, with Content-Range.",
    )


def _unclear(what: str) -> RequestRefusedError:
    """Return the error for a request that makes no sense."""
    return RequestRefusedError(what, reason=Reason.REQUEST)
