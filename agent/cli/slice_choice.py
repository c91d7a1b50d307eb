"""Which files of a slice one board needs, and in which order they go there.

The rules this module keeps:
 * Nothing here is believed: metadata is read only to leave out what the board would
   not ask for. What cannot be read that way is sent whole.
 * A delta goes there only in the stead of a bundle that the slice does not hold, to a
   board that runs what it leads from.
 * Of the envelopes of sealed bundles only the board's own go there.
 * Bundles go first and the largest last among them; metadata follows, and what makes
   it count, timestamp.json, comes at the very end: a slice that is cut off is no slice.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import quote

import msgspec
from msgspec import Struct

from agent.core.deltas import delta_path
from agent.core.sealing import envelope_path
from agent.core.targets import (
    REVOKED_PATH,
    GroupFile,
    bundle_path,
    device_path,
    group_path,
)

TIMESTAMP = "metadata/timestamp.json"
_ROOT = re.compile(r"metadata/(\d{1,9})\.root\.json")
_BUNDLE = re.compile(r"models/([^/]+)/(\d{1,10})\.bundle")
# Of a bundle, as a target or where it lies: with its digest in its name or without.
_PLACE = re.compile(
    r"(?:targets/)?models/([^/]+)/(?:[0-9a-f]{64}\.)?(\d{1,10})\.bundle"
)
Wanted = tuple[str, str, int]  # pipeline, model, version


@dataclass(frozen=True, slots=True)
class Needs:
    """What is known about the board.

    Attributes:
        models: Pipeline -> the model that its settings name.
        running: Pipeline -> SHA-256 of the bundle that is active.
        wanted: What an operator wants, beside what the slice itself says.
        board: Its id; empty if it does not say it.
        every_version: Somebody else will choose among all versions.
        everything: Send all there is.
    """

    models: Mapping[str, str]
    running: Mapping[str, str] = field(default_factory=dict)
    wanted: frozenset[Wanted] = frozenset()
    board: str = ""
    every_version: bool = False
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What to send.

    Attributes:
        paths: In this order.
        absent: Targets that are wanted, and are not in the slice.
        envelopes: Where this board's would be, of versions that concern it and may be
            sealed.
    """

    paths: tuple[str, ...]
    absent: tuple[str, ...] = ()
    envelopes: tuple[str, ...] = ()


class _Version(Struct):
    version: int = 1


class _Target(Struct):
    hashes: dict[str, str] = {}


class _Signed(Struct):
    meta: dict[str, _Version] = {}
    targets: dict[str, _Target] = {}


class _Envelope(Struct):
    signed: _Signed


def choose_files(
    sizes: Mapping[str, int], read: Callable[[str], bytes], needs: Needs
) -> Choice:
    """Return what a board needs of a slice.

    Args:
        sizes: Path -> bytes, of all files.
        read: Returns a file's content; only metadata and desired states are read.
        needs: The board.
    """
    if needs.everything:
        return _all_of(sizes, needs)
    try:
        metadata, targets = _follow(sizes, read)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError):
        return _all_of(sizes, needs)
    places = {path: _place(path, target, sizes) for path, target in targets.items()}
    states = [path for path in places if _is_state(path, needs.board)]
    there = [places[path] for path in states if places[path] in sizes]
    wanted = needs.wanted.union(*(_wanted_by(read(place)) for place in there))
    bundles = _bundles(targets, wanted, needs)
    missing = {path for path in bundles if places.get(path) not in sizes}
    held = {path for path, place in places.items() if place in sizes}
    deltas = {path: it for path, it in _deltas(targets, missing, needs) if it in held}
    absent = missing - deltas.keys()
    # Revocations concern every board, whatever it runs.
    chosen = {*states, *bundles, *deltas.values(), REVOKED_PATH} & places.keys()
    paths = metadata | {places[path] for path in chosen}
    # Also of what runs already: a board may have got another key since.
    concern = {(it[1], it[2]) for it in wanted if needs.models.get(it[0]) == it[1]}
    return Choice(
        _in_order(paths & sizes.keys(), sizes),
        tuple(sorted(absent)),
        _envelopes(concern | _versions(bundles), needs),
    )


def _all_of(sizes: Mapping[str, int], needs: Needs) -> Choice:
    """Return everything; of envelopes only those that are this board's."""
    envelopes = _envelopes(_versions(set(sizes)), needs)
    return Choice(_in_order(set(sizes), sizes), envelopes=envelopes)


def _versions(paths: Iterable[str]) -> set[tuple[str, int]]:
    """Return (model, version) of the bundles among files or targets."""
    found = (_PLACE.fullmatch(path) for path in paths)
    return {(match[1], int(match[2])) for match in found if match is not None}


def _envelopes(versions: Iterable[tuple[str, int]], needs: Needs) -> tuple[str, ...]:
    """Return where a board's envelopes of these versions would be."""
    pairs = sorted(set(versions)) if needs.board else []
    return tuple(envelope_path(*pair, needs.board) for pair in pairs)


def find_listed(
    sizes: Mapping[str, int], read: Callable[[str], bytes]
) -> dict[str, tuple[str, str]]:
    """Return target path -> (SHA-256, place in the slice), by what the slice says.

    Raises:
        LookupError: Metadata is not there, or too long to be read.
        msgspec.MsgspecError: It is not understood.
    """
    _, targets = _follow(sizes, read)
    return {
        path: (target.hashes.get("sha256", ""), _place(path, target, sizes))
        for path, target in targets.items()
    }


def _follow(
    sizes: Mapping[str, int], read: Callable[[str], bytes]
) -> tuple[set[str], dict[str, _Target]]:
    """Return the metadata that counts and all targets it lists."""
    named = {TIMESTAMP, *(path for path in sizes if _ROOT.fullmatch(path))}
    targets: dict[str, _Target] = {}
    pending = list(_parse(read(TIMESTAMP)).meta.items())
    while pending:
        name, version = pending.pop()
        path = _metadata_path(name, version.version, sizes)
        if path in named:  # files that name each other in a circle
            continue
        named.add(path)
        signed = _parse(read(path))
        pending += signed.meta.items()
        targets |= signed.targets
    return named, targets


def _parse(raw: bytes) -> _Signed:
    """Read what matters here of a metadata file."""
    return msgspec.json.decode(raw, type=_Envelope).signed


def _metadata_path(name: str, version: int, sizes: Mapping[str, int]) -> str:
    """Return where a metadata file lies, with its version in its name or without.

    Raises:
        LookupError: Nowhere.
    """
    role = quote(name.removesuffix(".json"), safe="")
    for path in (f"metadata/{version}.{role}.json", f"metadata/{role}.json"):
        if path in sizes:
            return path
    raise LookupError(name)


def _place(path: str, target: _Target, sizes: Mapping[str, int]) -> str:
    """Return where a target lies: with its digest in its name, or without."""
    folder, _, name = path.rpartition("/")
    prefixed = f"{target.hashes.get('sha256', '')}.{name}"
    place = f"targets/{folder}/{prefixed}" if folder else f"targets/{prefixed}"
    return place if place in sizes else f"targets/{path}"


def _is_state(path: str, board: str) -> bool:
    """Return whether a target is a desired state that may concern this board."""
    if path.startswith(device_path("")):
        return not board or path == device_path(board)
    return path.startswith(group_path(""))


def _wanted_by(raw: bytes) -> set[Wanted]:
    """Return what a desired state names; nothing where it cannot be read."""
    try:
        file = msgspec.json.decode(raw, type=GroupFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return set()
    return {(name, w.model, w.version) for name, w in file.pipelines.items()}


def _bundles(
    targets: Mapping[str, _Target], wanted: frozenset[Wanted], needs: Needs
) -> set[str]:
    """Return the bundles that the board would fetch."""
    listed = (_BUNDLE.fullmatch(path) for path in targets)
    every = (
        (pipeline, match[1], int(match[2]))
        for match in listed
        if match is not None and needs.every_version
        for pipeline in needs.models
    )
    found: set[str] = set()
    for pipeline, model, version in chain(wanted, every):
        path = bundle_path(model, version)
        digest = targets[path].hashes.get("sha256", "") if path in targets else ""
        runs = bool(digest) and needs.running.get(pipeline) == digest
        if needs.models.get(pipeline) == model and not runs:
            found.add(path)
    return found


def _deltas(
    targets: Mapping[str, _Target], missing: set[str], needs: Needs
) -> Iterator[tuple[str, str]]:
    """Yield bundles that are not there, each with a delta from what the board runs."""
    for path in missing & targets.keys():
        digest = targets[path].hashes.get("sha256", "")
        for base in needs.running.values():
            yield path, delta_path(base, digest)


def _in_order(paths: set[str], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return files in the order in which they are sent."""

    def rank(path: str) -> tuple[int, int, str]:
        if not path.startswith("metadata/"):
            return (0, sizes[path], path)
        root = _ROOT.fullmatch(path)
        if root is not None:
            return (1, int(root[1]), path)
        return (3 if path == TIMESTAMP else 2, 0, path)

    return tuple(sorted(paths, key=rank))
