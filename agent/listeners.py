"""What the daemon listens on: loopback, its unix socket, and operators' TLS if wanted.

The rules this module keeps:
 * When ``open`` returns everything listens that can: an address in use is told at the
   start, and the daemon is not ready before.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.facts import AgentFacts
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.endpoint.services import Services


@dataclass(frozen=True, slots=True)
class Listeners:
    """Opens them.

    Attributes:
        settings: Of ``[local]`` and ``[control]``, as they were at the start.
        socket: Path of the unix socket.
        facts: What they show.
        announce: Called with what listens: a line for people.
    """

    settings: Settings
    socket: Path
    facts: AgentFacts
    announce: Callable[[str], None]

    async def open_locally(
        self, services: "Services", group: asyncio.TaskGroup
    ) -> None:
        """Listen on loopback and on the unix socket; answer in ``group``.

        Raises:
            DeviceError: ``address``: one of them cannot be used.
        """
        from agent.endpoint.local import LocalEndpoint

        endpoint = LocalEndpoint(
            self.facts, self.settings.local.listen, self.socket, services=services
        )
        await endpoint.open()
        bound = endpoint.bound()
        self.announce(f"http://{bound[0]}:{bound[1]}" if bound else str(self.socket))
        group.create_task(endpoint.run())

    async def open_to_operators(
        self,
        services: "Services",
        group: asyncio.TaskGroup,
        clock: Callable[[], float],
        earliest: Callable[[], float],
    ) -> None:
        """Listen for operators and fleet servers, if the settings want that.

        Args:
            services: What they may ask for.
            group: Where they are answered.
            clock: What time it is for certificates.
            earliest: What time it is at least.

        Raises:
            DeviceError: ``address``: it cannot be used, now or later; ``certificate``.
        """
        control = self.settings.control
        if not control.listen:
            return
        from agent.endpoint.control import ControlEndpoint

        endpoint = ControlEndpoint(
            self.facts, services, control, clock, earliest=earliest
        )
        await endpoint.open()
        running = endpoint.run(
            lambda host, port: self.announce(f"https://{host}:{port} for operators")
        )
        group.create_task(running)
