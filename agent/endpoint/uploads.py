"""Uploads over HTTP: files of a repository slice, in pieces that may be sent again.

The rules this module keeps:
 * One thread touches the inbox, one piece after the other; a piece is taken as it
   comes, so memory holds ``PIECE_BYTES`` of it and not the whole.
 * Bytes that are here already are skipped: a piece whose answer was lost is sent again.
 * A path that no slice has is refused before its bytes are taken.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import ParamSpec, TypeVar

from aiohttp import web

from agent.core.reasons import Reason
from agent.endpoint.asks import Ask
from agent.endpoint.bodies import Span, parse_range, read_pieces
from agent.endpoint.needs import Uploads
from agent.endpoint.problems import absent
from agent.endpoint.services import Services
from agent.endpoint.shapes import UploadOffset, UploadState
from agent.errors import RequestRefusedError

PIECE_BYTES = 128 * 1024  # fewer, larger writes: a hop to the thread costs 0.1 ms
# The same whitelist as the inbox has, here to refuse a path before its bytes come.
_PART = "[0-9A-Za-z_%+@=,~-][0-9A-Za-z_%+@=,~.-]{0,199}"
PATH_PATTERN = (
    rf"^(metadata/{_PART}[.]json|targets(/{_PART}){{1,8}}|envelopes(/{_PART}){{3}})$"
)
_PATH = re.compile(PATH_PATTERN)
Args = ParamSpec("Args")
Result = TypeVar("Result")


class Intake:
    """Answers the requests about uploads."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def offset(self, ask: Ask) -> UploadOffset:
        """Say how much of an upload is here."""
        sha256 = ask.part("sha256")
        return UploadOffset(await self._in_thread(self._inbox().offset, sha256))

    async def put(self, ask: Ask) -> UploadState:
        """Take a piece of an upload, or all of it; give what is whole its place.

        Raises:
            RequestRefusedError: ``request``, ``too_large`` or ``too_slow``, beside what
                ``Uploads`` raises.
        """
        inbox = self._inbox()
        sha256, path = ask.part("sha256"), _path(ask.request)
        header = ask.request.headers.get("Content-Range")
        span = parse_range(header, ask.request.content_length)
        offset = await self._append(ask.request, sha256, span)
        if offset == span.total:
            await self._in_thread(inbox.place, sha256, span.total, path)
        return UploadState(offset, complete=offset == span.total)

    async def clear(self, ask: Ask) -> None:
        """Remove everything that was uploaded."""
        del ask
        await self._in_thread(self._inbox().clear)

    async def _append(self, request: web.Request, sha256: str, span: Span) -> int:
        """Append what is new of a body; return how much of the upload is here."""
        inbox = self._inbox()
        offset = await self._in_thread(inbox.offset, sha256)
        async for at, block in _blocks(request, span):
            known = max(0, offset - at)
            if known < len(block):
                offset = await self._in_thread(
                    inbox.append, sha256, span.total, at + known, block[known:]
                )
        return offset

    def _inbox(self) -> Uploads:
        """Return where uploads go.

        Raises:
            AbsentError: This board takes none.
        """
        if self._services.uploads is None:
            raise absent("this board takes no uploads", "Set `update.root`.")
        return self._services.uploads

    async def _in_thread(
        self, call: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs
    ) -> Result:
        """Call what blocks, in the one thread for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._services.clerk, lambda: call(*args, **kwargs)
        )


async def _blocks(request: web.Request, span: Span) -> AsyncIterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of a body, the last block also if the peer is lost.

    Raises:
        RequestRefusedError: ``request``: it is longer or shorter than announced, and
            what ``read_pieces`` raises.
    """
    at, block = span.start, bytearray()
    try:
        async for piece in read_pieces(request):
            if at + len(block) + len(piece) > span.start + span.size:
                raise _contradiction()
            block += piece
            if len(block) >= PIECE_BYTES:
                yield at, bytes(block)
                at, block = at + len(block), bytearray()
    except (ConnectionError, RequestRefusedError):
        if block:
            yield at, bytes(block)  # on a slow link this took half a minute
        raise
    if at + len(block) != span.start + span.size:
        raise _contradiction()
    if block:
        yield at, bytes(block)


def _path(request: web.Request) -> str:
    """Return the path an upload gets in its slice.

    Raises:
        RequestRefusedError: ``request``.
    """
    path = request.query.get("path", "")
    if not _PATH.fullmatch(path):
        raise RequestRefusedError(
            "`path` has to be metadata/*.json, targets/... or envelopes/...",
            reason=Reason.REQUEST,
        )
    return path


def _contradiction() -> RequestRefusedError:
    """Return the error for a body longer or shorter than it says."""
    return RequestRefusedError(
        "the body is not as long as its headers announce", reason=Reason.REQUEST
    )
