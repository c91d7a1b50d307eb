"""What a hostile DDI server may answer: one function for each lie.

Each takes the request and a function that gives the honest answer, and answers as it
likes. None of them waits for the client: one that hangs up ends the lie.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fakes.ddi_server import Honest, Lie, hang_up

Tree = dict[str, Any]
DRIP_S = 1.0  # between two bytes: what the issue names
ENDLESS_CHUNK = b" " * 65_536


def text(body: str | bytes, status: int = 200, **headers: str) -> Lie:
    """Answer with any body."""
    raw = body.encode() if isinstance(body, str) else body
    said = {name.replace("_", "-"): value for name, value in headers.items()}

    async def lie(request: web.Request, honest: Honest) -> web.StreamResponse:
        del request, honest
        kind = {"Content-Type": "application/json"}
        return web.Response(body=raw, status=status, headers=kind | said)

    return lie


def status(code: int, **headers: str) -> Lie:
    """Answer with a status and nothing else."""
    return text(b"", code, **headers)


def edited(change: Callable[[Tree], object]) -> Lie:
    """Answer with the honest tree after a change (in place, or as a new tree)."""

    async def lie(request: web.Request, honest: Honest) -> web.StreamResponse:
        del request
        response = honest()
        if response.status != 200 or not isinstance(response.body, bytes):
            return response
        tree = json.loads(response.body)
        changed = change(tree)
        return web.json_response(tree if changed is None else changed)

    return lie


def redirect(url: str, code: int = 302) -> Lie:
    """Send elsewhere, with the path that was asked for."""

    async def lie(request: web.Request, honest: Honest) -> web.StreamResponse:
        del honest
        where = url + request.path_qs
        return web.Response(status=code, headers={"Location": where})

    return lie


def promised(length: int) -> Lie:
    """Say a length that is not that of the body, and hang up after it."""

    async def lie(request: web.Request, honest: Honest) -> web.StreamResponse:
        raw = honest().body or b"{}"
        response = web.StreamResponse(headers={"Content-Length": str(length)})
        await response.prepare(request)
        assert isinstance(raw, bytes)
        await response.write(raw[:length])
        hang_up(request)
        return response

    return lie


async def cut(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Hang up at once."""
    del honest
    return hang_up(request)


async def half(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Send half of the honest body and hang up."""
    raw = honest().body or b'{"config": {}}'
    assert isinstance(raw, bytes)
    response = web.StreamResponse(headers={"Content-Length": str(len(raw))})
    await response.prepare(request)
    await response.write(raw[: len(raw) // 2])
    hang_up(request)
    return response


async def dripped(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Send the honest body, one byte a second."""
    raw = honest().body or b"{}"
    assert isinstance(raw, bytes)
    response = web.StreamResponse(headers={"Content-Length": str(len(raw))})
    await response.prepare(request)
    for byte in raw:
        await response.write(bytes([byte]))
        await asyncio.sleep(DRIP_S)
    return response


async def endless(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Send JSON that does not end."""
    del honest
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"config": ')
    while True:
        await response.write(ENDLESS_CHUNK)
        await asyncio.sleep(0)


async def silent(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Never answer."""
    del request
    honest()
    await asyncio.Event().wait()
    raise AssertionError


async def twice(request: web.Request, honest: Honest) -> web.StreamResponse:
    """Do what was asked twice, as a proxy that repeats a request, and answer last."""
    del request
    honest()
    return honest()


def taken_but_lost(word: str) -> Lie:
    """Take every post, and lose the first answer to one that says a word."""
    lost = False

    async def lie(request: web.Request, honest: Honest) -> web.StreamResponse:
        nonlocal lost
        response = honest()
        if lost or word not in await request.text():
            return response
        lost = True
        return hang_up(request)

    return lie


def sleep(word: object) -> Lie:
    """Say any time to wait before the next poll."""
    return edited(lambda tree: tree["config"]["polling"].update(sleep=word))


def links(url: str) -> Lie:
    """Lead every link elsewhere, with the honest path behind the new beginning."""

    def change(tree: Tree) -> None:
        for link in _links_of(tree):
            _, _, rest = link["href"].partition("//")
            link["href"] = url + "/" + rest.partition("/")[2]

    return edited(change)


def without(*keys: str) -> Lie:
    """Leave keys out, wherever they are."""

    def change(tree: Tree) -> None:
        for node in _objects(tree):
            for key in keys:
                node.pop(key, None)

    return edited(change)


def replaced(key: str, value: object) -> Lie:
    """Give a key another value, wherever it is."""

    def change(tree: Tree) -> None:
        for node in _objects(tree):
            if key in node:
                node[key] = value

    return edited(change)


def _objects(tree: object) -> list[Tree]:
    """Return all objects of a tree, the outermost first."""
    if isinstance(tree, list):
        return [found for entry in tree for found in _objects(entry)]
    if not isinstance(tree, dict):
        return []
    inner = [found for entry in list(tree.values()) for found in _objects(entry)]
    return [tree, *inner]


def _links_of(tree: Tree) -> list[Tree]:
    """Return all links of a tree."""
    return [node for node in _objects(tree) if "href" in node]
