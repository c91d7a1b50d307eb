"""What a DDI server answers, parsed: polls, deployments, cancellations.

The rules this module keeps:
 * Everything here is untrusted. Parsers raise ``BundleRefusedError`` with reason
   ``protocol`` (or ``too_large``) that names the place, and nothing else.
 * Fields that we do not know are passed over: servers are newer than boards.
 * How long to sleep is never an error: a board that stops asking cannot be mended.

>>> parse_poll(b'{"config":{"polling":{"sleep":"00:10:00"}}}').sleep_s
600.0
>>> [parse_sleep(it) for it in ("00:00:05", "99:99:99", "-1:00:00", None, "47:00:00")]
[30.0, 300.0, 300.0, 300.0, 86400.0]

Source: hawkBit, "Direct Device Integration API" (release 1.1.0), json/model.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.core.ddi import ActionId, Mode
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

T = TypeVar("T")
MAX_POLL_BYTES = 65_536  # real ones have 300 bytes
MAX_DEPLOYMENT_BYTES = 262_144  # 64 chunks of 4 kB
DEFAULT_SLEEP_S = 300.0  # hawkBit's own default
MIN_SLEEP_S, MAX_SLEEP_S = 30.0, 86_400.0  # its least; and a day, as for Retry-After
_SLEEP = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d)", re.ASCII)
# The links that mean something to us, as the poll resource names them.
DEPLOYMENT, CANCEL = "deploymentBase", "cancelAction"
CONFIRMATION, INSTALLED = "confirmationBase", "installedBase"
CONFIG = "configData"
RELATIONS = (CONFIG, CANCEL, CONFIRMATION, DEPLOYMENT, INSTALLED)
# hawkBit names both where it serves both; the first one is TLS.
DOWNLOADS = ("download", "download-http")

Text = Annotated[str, Meta(max_length=512)]
Href = Annotated[str, Meta(max_length=2048)]


@dataclass(frozen=True, slots=True)
class Poll:
    """The answer to a poll.

    Attributes:
        sleep_s: Seconds to the next one, within the limits.
        links: Relation -> address, as the server wrote it.
    """

    sleep_s: float = DEFAULT_SLEEP_S
    links: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the server offers.

    Attributes:
        size: In bytes, as the server says.
        hashes: Algorithm -> digest, lower case hex; nobody trusts them.
        href: Where it is, as the server wrote it; empty if it does not say.
    """

    filename: str
    size: int
    hashes: dict[str, str]
    href: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part of a deployment.

    Attributes:
        target: What its metadata says under ``tuf.target``, else empty.
    """

    name: str
    target: str = ""
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a server wants; the same of a confirmation and of what is installed.

    Attributes:
        window_open: Its maintenance window is open, or there is none.
    """

    id: str
    download: Mode
    update: Mode
    window_open: bool
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancellation, and which action it is about."""

    id: str
    stop_id: str


def parse_sleep(value: object) -> float:
    """Return the seconds of ``HH:MM:SS``, within limits; nonsense is the default."""
    found = _SLEEP.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return DEFAULT_SLEEP_S
    hours, minutes, seconds = (int(part) for part in found.groups())
    sleep_s = hours * 3600.0 + minutes * 60.0 + seconds
    return min(max(sleep_s, MIN_SLEEP_S), MAX_SLEEP_S)


def parse_poll(raw: bytes) -> Poll:
    """Parse the answer to a poll.

    Raises:
        BundleRefusedError: ``protocol`` or ``too_large``.
    """
    said = _parse(raw, "poll", MAX_POLL_BYTES, _Poll)
    polling = said.config.get("polling") if isinstance(said.config, dict) else None
    sleep = polling.get("sleep") if isinstance(polling, dict) else None
    links = {
        name: _convert(said.links[name], f"poll: link {name}", _Link).href
        for name in RELATIONS
        if said.links and name in said.links
    }
    return Poll(parse_sleep(sleep), links)


def parse_deployment(
    raw: bytes, where: Literal["deploymentBase", "confirmationBase", "installedBase"]
) -> Deployment:
    """Parse what a server wants, wants to have confirmed, or believes installed.

    Raises:
        BundleRefusedError: ``protocol`` or ``too_large``.
    """
    said = _parse(raw, where, MAX_DEPLOYMENT_BYTES, _Document)
    body = said.confirmation if where == CONFIRMATION else said.deployment
    if body is None:
        raise _unclear(where, "says nothing of a deployment")
    return Deployment(
        id=_id(said.id, where),
        download=body.download,
        update=body.update,
        window_open=body.maintenance_window != "unavailable",
        chunks=tuple(_chunk(it, where) for it in body.chunks),
    )


def parse_cancel(raw: bytes) -> Cancel:
    """Parse a cancellation.

    Raises:
        BundleRefusedError: ``protocol`` or ``too_large``.
    """
    said = _parse(raw, CANCEL, MAX_POLL_BYTES, _Cancel)
    return Cancel(_id(said.id, CANCEL), _id(said.cancel_action.stop_id, CANCEL))


def is_document(raw: bytes) -> bool:
    """Return whether bytes are a JSON object at all: a portal's page is none."""
    try:
        return isinstance(msgspec.json.decode(raw), dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _chunk(said: "_Chunk", where: str) -> Chunk:
    """Return a chunk as it concerns us.

    Raises:
        BundleRefusedError: ``protocol``: it names two targets, or a link is none.
    """
    named = {it.value for it in said.metadata or () if it.key == "tuf.target"}
    if len(named) > 1:
        raise _unclear(where, f"chunk {said.name[:64]!r} names several targets")
    artifacts = tuple(_artifact(it, where) for it in said.artifacts or ())
    return Chunk(said.name, next(iter(named), ""), artifacts)


def _artifact(said: "_Artifact", where: str) -> Artifact:
    """Return an artifact as it concerns us."""
    hashes = {name: digest.lower() for name, digest in (said.hashes or {}).items()}
    href = ""
    for name in DOWNLOADS:
        if not href and said.links and name in said.links:
            what = f"{where}: link {name} of artifact {said.filename[:64]!r}"
            href = _convert(said.links[name], what, _Link).href
    return Artifact(said.filename, said.size, hashes, href)


def _id(said: object, where: str) -> str:
    """Return an id, which some servers write as a number.

    Raises:
        BundleRefusedError: ``protocol``: it could not be part of an address.
    """
    text = str(said) if isinstance(said, int) and not isinstance(said, bool) else said
    return _convert(text, f"{where}: id", ActionId)


# The wire's own shapes: only what is read, all of it with a limit.


class _Link(Struct):
    """HAL's link object."""

    href: Href


class _Poll(Struct):
    """The poll resource; what it says of polling is never an error."""

    config: object = None
    links: dict[str, object] | None = msgspec.field(default=None, name="_links")


class _Artifact(Struct):
    """A file."""

    filename: Text
    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    hashes: Annotated[dict[str, Text], Meta(max_length=16)] | None = None
    links: Annotated[dict[str, object], Meta(max_length=16)] | None = msgspec.field(
        default=None, name="_links"
    )


class _Pair(Struct):
    """One piece of metadata."""

    key: Text
    value: Annotated[str, Meta(max_length=4096)]


class _Chunk(Struct):
    """A software module."""

    name: Text = ""
    metadata: Annotated[list[_Pair], Meta(max_length=64)] | None = None
    artifacts: Annotated[list[_Artifact], Meta(max_length=64)] | None = None


class _Body(Struct):
    """What a deployment consists of."""

    download: Mode
    update: Mode
    chunks: Annotated[list[_Chunk], Meta(max_length=64)]
    maintenance_window: Literal["available", "unavailable"] | None = msgspec.field(
        default=None, name="maintenanceWindow"
    )


class _Document(Struct):
    """A resource around it."""

    id: object
    deployment: _Body | None = None
    confirmation: _Body | None = None


class _Stop(Struct):
    """Which action is to be stopped."""

    stop_id: object = msgspec.field(name="stopId")


class _Cancel(Struct):
    """The resource of a cancellation."""

    id: object
    cancel_action: _Stop = msgspec.field(name="cancelAction")


def _parse(raw: bytes, where: str, max_bytes: int, kind: type[T]) -> T:
    """Parse a resource.

    Raises:
        BundleRefusedError: ``protocol`` or ``too_large``.
    """
    if len(raw) > max_bytes:
        raise BundleRefusedError(
            f"{where} has {len(raw)} bytes, at most {max_bytes} allowed",
            reason=Reason.TOO_LARGE,
        )
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise _unclear(where, str(err)) from err


def _convert(said: object, where: str, kind: type[T]) -> T:
    """Convert one value.

    Raises:
        BundleRefusedError: ``protocol``.
    """
    try:
        return msgspec.convert(said, kind)
    except (msgspec.ValidationError, RecursionError) as err:
        raise _unclear(where, str(err)) from err


def _unclear(where: str, what: str) -> BundleRefusedError:
    """Return the error for what makes no sense."""
    return BundleRefusedError(f"{where}: {what[:300]}", reason=Reason.PROTOCOL)
