"""Looks at what [fleet.ddi] names: for ``tinyward check`` and ``tinyward doctor``."""

import os
from collections.abc import Iterator

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.settings import Settings

Absence = tuple[str, str, Reason]


def check_address(settings: Settings) -> None:
    """Check the server's address as the daemon does.

    Raises:
        SettingsError: ``settings``: it is none, or unencrypted.
    """
    if settings.update.orchestrator == "ddi":
        from agent.update.ddi_links import Controller

        ddi = settings.fleet.ddi
        Controller(ddi.url, ddi.tenant, ddi.controller or "board")


def find_token_trouble(settings: Settings) -> Iterator[Absence]:
    """Yield (key, what is wrong, reason) of the board's papers for its server."""
    from agent.trust.token import read_token, token_place

    ddi = settings.fleet.ddi
    if settings.update.orchestrator != "ddi":
        return
    if not (ddi.token_credential or ddi.token_file or ddi.certificate):
        what = "neither a token nor a certificate: its server will hardly let it in"
        yield "fleet.ddi", what, Reason.UNAUTHORIZED
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if ddi.token_credential and not credentials:
        return  # systemd gives it to the service, and to nobody else
    key = "token_credential" if ddi.token_credential else "token_file"
    try:
        place = token_place(ddi.token_credential, ddi.token_file, credentials)
        if place is not None:
            read_token(place)
    except DeviceError as err:
        text = str(err).removeprefix("fleet.ddi: ")
        yield f"fleet.ddi.{key}", f"{text} -> {err.todo}", Reason(err.reason)
