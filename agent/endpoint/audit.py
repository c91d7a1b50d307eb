"""The log of receipts over HTTP: its newest checkpoint, proofs, records.

The rules this module keeps:
 * The disk is read in a thread, and no more of it than ``MAX_COUNT`` records at once.
 * What the log does not have, or has no more, is absent: 404.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from agent.endpoint.asks import Ask
from agent.endpoint.bodies import parse_number
from agent.endpoint.needs import KeptInputs, Ledger
from agent.endpoint.openapi_parts import of, operation
from agent.endpoint.problems import absent
from agent.endpoint.services import Services
from agent.endpoint.shapes import KeptList, LogGrowth, LogRecord, LogRecords
from agent.endpoint.state import Json
from agent.errors import RequestRefusedError

MAX_COUNT = 256  # records of one answer: 60 kB
MAX_KEPT = 4096  # numbers of one answer: 40 kB
MAX_SEQ = 10**15
SEQ = r"{seq:[0-9]{1,15}}"
TEXT: Json = {"text/plain": {"schema": {"type": "string"}}}
SEALED: Json = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
}
T = TypeVar("T")


class Receipts:
    """Answers the requests about the log."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def checkpoint(self, ask: Ask) -> web.Response:
        """Show the newest checkpoint, a signed note."""
        del ask
        return web.Response(text=await self._call(self._ledger().checkpoint))

    async def proof(self, ask: Ask) -> web.Response:
        """Prove one record."""
        index, ledger = int(ask.part("seq")), self._ledger()
        return web.Response(text=await self._call(lambda: ledger.prove(index)))

    async def consistency(self, ask: Ask) -> LogGrowth:
        """Prove that the log only grew."""
        old, new = (parse_number(ask.request, name) for name in ("from", "to"))
        ledger = self._ledger()
        found = await self._call(lambda: ledger.grow(old, new))
        return LogGrowth(old, found["to"], found["path"], found["checkpoint"])

    async def records(self, ask: Ask) -> LogRecords:
        """Show some records."""
        start, count = (parse_number(ask.request, name) for name in ("from", "count"))
        ledger, most = self._ledger(), min(count or MAX_COUNT, MAX_COUNT)
        found = await self._call(lambda: ledger.records(start, most))
        rows = [LogRecord(**row) for row in found["records"]]
        return LogRecords(found["first"], found["size"], rows)

    async def kept(self, ask: Ask) -> KeptList:
        """Show whose inputs are kept for audits."""
        first, end = (parse_number(ask.request, name) for name in ("from", "to"))
        kept = self._kept()
        found = await self._call(lambda: kept.seqs(first, end or MAX_SEQ))
        return KeptList(found[:MAX_KEPT])

    async def kept_input(self, ask: Ask) -> web.Response:
        """Show one, as it is sealed to the owner: nobody else can read it."""
        seq, kept = int(ask.part("seq")), self._kept()
        sealed = await self._call(lambda: kept.read(seq))
        if sealed is None:
            raise absent(f"the input of receipt {seq} is not kept", "")
        return web.Response(body=sealed, content_type="application/octet-stream")

    async def _call(self, call: Callable[[], T]) -> T:
        """Return what the disk says.

        Raises:
            AbsentError: It has no such thing.
        """
        try:
            return await asyncio.to_thread(call)
        except RequestRefusedError as err:
            raise absent(str(err), err.todo) from err

    def _kept(self) -> KeptInputs:
        """Return what is kept.

        Raises:
            AbsentError: This board keeps no inputs.
        """
        if self._services.kept is None:
            raise absent("this board keeps no inputs", "Set `audit.owner_key`.")
        return self._services.kept

    def _ledger(self) -> Ledger:
        """Return what proves the log.

        Raises:
            AbsentError: This board gives no receipts.
        """
        if self._services.ledger is None:
            raise absent("this board gives no receipts", "Set `audit.mode`.")
        return self._services.ledger


def describe_receipts() -> Json:
    """Return the paths, for the API's description."""
    return {
        "/v1/audit/checkpoint": {
            "get": operation("The log's newest checkpoint: a signed note.", {200: TEXT})
        },
        "/v1/audit/proof/{seq}": {
            "get": operation(
                "A record, and the proof that it is in the log (C2SP tlog-proof).",
                {200: TEXT},
                parameters=[_number("seq", "path")],
            )
        },
        "/v1/audit/consistency": {
            "get": operation(
                "The proof that the log only grew.",
                {200: of(LogGrowth)},
                parameters=[_number("from", "query"), _number("to", "query")],
            )
        },
        "/v1/audit/records": {
            "get": operation(
                "Records, oldest first.",
                {200: of(LogRecords)},
                parameters=[_number("from", "query"), _number("count", "query")],
            )
        },
        **_describe_kept(),
    }


def _describe_kept() -> Json:
    """Return the paths of kept inputs."""
    return {
        "/v1/audit/kept": {
            "get": operation(
                "Receipts whose inputs are kept, oldest first.",
                {200: of(KeptList)},
                parameters=[_number("from", "query"), _number("to", "query")],
            )
        },
        "/v1/audit/kept/{seq}": {
            "get": operation(
                "A kept input, sealed to the owner.",
                {200: SEALED},
                parameters=[_number("seq", "path")],
            )
        },
    }


def _number(name: str, where: str) -> Json:
    """Describe a number that is asked with."""
    schema: Json = {"type": "integer", "minimum": 0, "maximum": 10**15 - 1}
    needed: Json = {"required": True} if where == "path" else {}
    return {"name": name, "in": where, "schema": schema, **needed}
