"""A request together with who sent it."""

from dataclasses import dataclass

from aiohttp import web

from agent.endpoint.peers import Peer


@dataclass(frozen=True, slots=True)
class Ask:
    """What a route answers.

    Attributes:
        request: The HTTP request; its body is not read yet.
        peer: Who sent it.
    """

    request: web.Request
    peer: Peer

    @property
    def operator(self) -> str:
        """Who asks, for the log."""
        return self.peer.name

    def part(self, name: str) -> str:
        """Return a part of the path, as its pattern let it through."""
        return self.request.match_info[name]
