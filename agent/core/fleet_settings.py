"""Table ``[fleet]`` of agent.toml: who orchestrates the fleet from outside.

Source: hawkBit, "Direct Device Integration API" and "Authentication".
"""

from typing import Annotated

from msgspec import Meta, Struct

# What hawkBit takes for a controller's id less what would be another path (``/``), and
# what proxies in front of it read in their own ways (``%``, ``\\``, ``;``, blanks).
CONTROLLER_PATTERN = r"^[A-Za-z0-9_.:@~+=-]{0,128}$(?!\n)"


class DdiSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """[fleet.ddi]: a server that speaks hawkBit's Direct Device Integration API.

    It is asked only where ``update.orchestrator`` is ``ddi``, and never for content:
    it names a signed bundle, which comes from ``update.repository`` like any other.

    Attributes:
        url: ``https://host[:port]/path`` below which ``/{tenant}/controller`` lies;
            plain ``http://`` only to loopback.
        tenant: As the server calls it.
        controller: This board's name there (a serial number, a MAC address, a URN):
            one segment of a path; empty means the board's id.
        token_credential: Name of the systemd credential that holds this board's token
            (``TargetToken``).
        token_file: The same as a file that only the daemon's user may read.
        gateway_token: The token is the whole tenant's (``GatewayToken``).
        ca: CAs (PEM) that may vouch for the server; empty means the system's.
        certificate: This board's client certificate (PEM), where a proxy in front of
            the server asks for one.
        key: The private key of that certificate (PEM).
        window: When ``attempt`` may begin, ``HH:MM-HH:MM[ local]``; empty: any time.
        confirm: Answer for the user where the server asks for a confirmation.
        attempts: After so many failures that may pass, an order has failed.
    """

    url: str = ""
    tenant: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$(?!\n)")] = "default"
    controller: Annotated[str, Meta(pattern=CONTROLLER_PATTERN)] = ""
    token_credential: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}$(?!\n)")] = ""
    token_file: str = ""
    gateway_token: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    window: Annotated[str, Meta(max_length=32)] = ""
    confirm: bool = True
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 12  # some hours, by full jitter


class FleetSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """[fleet]: who orchestrates the fleet, where it is not the repository itself.

    Attributes:
        ddi: Table ``[fleet.ddi]``.
    """

    ddi: DdiSettings = DdiSettings()
