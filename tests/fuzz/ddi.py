"""What a DDI server may write, and laws that hold whatever it writes.

The honest inputs are the answers of the simulator, which foreign clients drive too.
"""

import json
from urllib.parse import unquote, urlsplit

from agent.core.ddi_messages import (
    MAX_SLEEP_S,
    MIN_SLEEP_S,
    RELATIONS,
    parse_cancel,
    parse_deployment,
    parse_poll,
)
from agent.core.ddi_pointer import KEY, parse_pointer
from agent.core.targets import bundle_path
from agent.update.ddi_links import Controller
from tests.fakes.ddi_access import Access
from tests.fakes.ddi_actions import Actions, Artifact, Chunk
from tests.fakes.ddi_pages import deployment_page, poll_page

SERVER = "https://hawkbit.example"
ACCESS = Access()
BASE = f"{SERVER}/{ACCESS.tenant}/controller/v1/{ACCESS.controller}"
OURS = Controller(SERVER, ACCESS.tenant, ACCESS.controller)
TARGET = "models/kws/7.bundle"
_ACTIONS = Actions()
_CHUNK = Chunk(metadata={KEY: TARGET}, artifacts=[Artifact("kws.ptr", b"x" * 99)])
_FIRST = _ACTIONS.add([_CHUNK, Chunk()], window="unavailable")

POLL = json.dumps(poll_page(BASE, _ACTIONS, "00:05:00", curious=True)).encode()
DEPLOYMENT = json.dumps(deployment_page(BASE, _FIRST, 2, "deployment")).encode()
CANCEL = b'{"id": "11", "cancelAction": {"stopId": "11"}}'
_CPIO_HEAD = b"070702" + b"0" * 48 + b"%08x" + b"0" * 32 + b"%08x" + b"0" * 8
POINTERS = (
    json.dumps({KEY: TARGET}).encode(),
    TARGET.encode() + b"\n",
    # A cpio of one member: header, name, padding, content.
    _CPIO_HEAD % (len(TARGET), 14) + b"tinyward.json\0" + TARGET.encode(),
)
LINKS = (
    *(f"{BASE}/deploymentBase/5?c=-212", "deploymentBase/5", "/x/../y", "//other/x"),
    *("https://user:secret@hawkbit.example/x", "http://hawkbit.example/x", "#x", "?y"),
    f"{BASE}/deploymentBase/5#x",
    f"{BASE}/%2e%2e/pi-8/deploymentBase/5",
    f"{BASE}@other.example/deploymentBase/5",
    "https://hawkbit.example:443/default/controller/v1/pi-7/cancelAction/5",
)


def poll(raw: bytes) -> str:
    """A poll: whatever it says, the next one comes, not at once and not in a year.

    Raises:
        ValueError: The law is broken.
    """
    found = parse_poll(raw)
    if not MIN_SLEEP_S <= found.sleep_s <= MAX_SLEEP_S or set(found.links) - {
        *RELATIONS
    }:
        raise ValueError(f"{raw[:200]!r} was taken for {found}")
    return f"{len(found.links)} links"


def deployment(raw: bytes) -> str:
    """An order: what is read of it is what any parser reads.

    Raises:
        ValueError: The law is broken.
    """
    found = parse_deployment(raw, "deploymentBase")
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return "parsed, but for what was passed over"
    body = said["deployment"]
    same = (str(said["id"]), body["download"], body["update"], len(body["chunks"]))
    if same != (found.id, found.download, found.update, len(found.chunks)):
        raise ValueError(f"{raw[:200]!r} was taken for {found}")
    if found.window_open == (body.get("maintenanceWindow") == "unavailable"):
        raise ValueError(f"{body.get('maintenanceWindow')!r} opens a window")
    return "parsed"


def cancel(raw: bytes) -> str:
    """A cancellation."""
    parse_cancel(raw)
    return "parsed"


def pointer(raw: bytes) -> str:
    """A pointer: it names what is written in it.

    Raises:
        ValueError: The law is broken.
    """
    found = parse_pointer(raw)
    path = bundle_path(found.model, found.version)
    if path.encode() not in raw and json.loads(raw)[KEY] != path:
        raise ValueError(f"{raw[:200]!r} was taken for {path}")
    return "parsed"


def link(raw: bytes) -> str:
    """A link: what is asked for is ours, on our server, below our own path.

    Raises:
        ValueError: The law is broken.
    """
    text = raw.decode("latin-1")
    parts = urlsplit(OURS.own(text))
    words = unquote(parts.path).split("/")
    own = ["", ACCESS.tenant, "controller", "v1", ACCESS.controller]
    here = (parts.scheme, parts.netloc) == ("https", "hawkbit.example")
    same = [word.casefold() for word in words[:2]] == own[:2] and words[2:5] == own[2:]
    if not (here and same and not {".", ".."} & set(words)) or parts.fragment:
        raise ValueError(f"{text[:200]!r} leads to {parts}")
    return "ours"
