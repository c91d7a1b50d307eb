"""Statements of origin and of what runs, verified and laid out for people.

The rules this module keeps:
 * Nothing a board says is shown before its statement was parsed, its nonce compared
   and, where a key is given, its signature verified.
 * Words from elsewhere are shown as plain text.
 * A board's signature says that the board speaks. What the bundle says inside of that
   is somebody else's word, and is never called verified for the board's sake.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from agent.cli.board_link import BoardLink
from agent.cli.plain_text import plain
from agent.core.dsse import Envelope, parse_envelope
from agent.core.provenance import (
    MAX_PROVENANCE_BYTES,
    PAYLOAD_TYPE,
    Origin,
    OriginStatement,
    Running,
    check_provenance,
    open_statement,
    parse_running,
    parse_statement,
    refused,
)
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError, DeviceError
from agent.trust.bundle import Bundle
from agent.trust.statements import PublicKey, require_signature

COPIES = {
    "": "",
    "marked": "marked as this board's copy of",
    "own": "this board's own copy of",
}
WIDTH = 12


@dataclass(frozen=True, slots=True)
class Shown:
    """One statement to be shown.

    Attributes:
        name: Of the pipeline, or the bundle's path.
        tree: The statement as JSON's values.
        running: What runs; None for a bundle. ``sha256`` is its digest.
        origin: What is said of its origin, if anything.
        trouble: The reason where it is said in a way that makes no sense.
        key_ids: By which keys the board's statement, or the bundle's own where no board
            is asked, is said to be signed.
        origin_keys: By which keys the bundle's own inside of a board's is said to be.
        origin_verified: A key was given for that, and has signed it.
    """

    name: str
    tree: object
    running: Running | None
    sha256: str
    origin: Origin | None
    key_ids: Sequence[str]
    trouble: str = ""
    origin_keys: Sequence[str] = ()
    origin_verified: bool = False


def ask_running(
    link: BoardLink,
    nonce: str,
    key: PublicKey | None,
    origin_key: PublicKey | None = None,
) -> list[Shown]:
    """Return what a board says of every pipeline that runs something.

    Args:
        link: To the board.
        nonce: Never used before.
        key: Who has to have signed; None verifies no signature.
        origin_key: Who has to have signed what bundles say; None likewise.

    Raises:
        AgentError: It cannot be asked, or what it says does not hold.
    """
    found = link.read_all(f"/v1/provenance?nonce={nonce}")
    pipelines = found.get("pipelines") if isinstance(found, dict) else None
    if not isinstance(pipelines, dict):
        what = f"{link.where}: an answer that is not understood"
        raise DeviceError(what, reason=Reason.REQUEST)
    return [
        shown_running(name, it, nonce, key, origin_key)
        for name, it in pipelines.items()
    ]


def shown_running(
    name: str,
    found: object,
    nonce: str,
    key: PublicKey | None,
    origin_key: PublicKey | None = None,
) -> Shown:
    """Return what a board says of one pipeline, once it is believed.

    Args:
        name: Of the pipeline.
        found: The envelope as JSON's values.
        nonce: What was sent along: an older statement is none.
        key: Who has to have signed; None verifies no signature.
        origin_key: Who has to have signed what the bundle says; None likewise.

    Raises:
        BundleRefusedError: ``signature``, ``replayed`` or ``provenance``.
    """
    raw = msgspec.json.encode(found)
    envelope = parse_envelope(raw, 4 * MAX_PROVENANCE_BYTES, Reason.PROVENANCE)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise refused(f"an envelope of {plain(envelope.payload_type)!r}")
    if key is not None:
        require_signature(envelope, key, f"the statement about {plain(name)}")
    statement = parse_running(envelope.payload)
    said = statement.predicate
    if (said.nonce, said.pipeline) != (nonce, name):
        raise refused("the board repeats an older statement")
    origin, inner = _origin_of(said)
    if origin_key is not None:
        what = f"what the bundle that {plain(name)} runs says of its origin"
        require_signature(inner, origin_key, what)
    return Shown(
        name,
        msgspec.to_builtins(statement),
        said,
        statement.subject[0].digest.sha256,
        origin.predicate if origin else None,
        _keys(envelope),
        said.origin_trouble,
        _keys(inner) if inner else (),
        origin_key is not None,
    )


def shown_bundle(name: str, bundle: Bundle) -> Shown:
    """Return what a bundle says of its origin.

    Raises:
        BundleRefusedError: ``provenance``: nothing, or of other bytes.
    """
    if not bundle.provenance:
        raise refused("the bundle says nothing of its origin")
    statement = check_provenance(bundle.provenance, bundle.manifest)
    _, envelope = open_statement(bundle.provenance)
    return Shown(
        name,
        msgspec.to_builtins(statement),
        None,
        bundle.sha256,
        statement.predicate,
        _keys(envelope) if envelope else (),
    )


def of_bundle(shown: Sequence[Shown], bundle: Bundle, name: str) -> list[Shown]:
    """Return what of all that runs is out of a bundle.

    By the digest of the variant before any mark: one that was sealed, or that every
    board has its own copy of, counts as well.

    Raises:
        BundleRefusedError: ``mismatch``: nothing is.
    """
    packed = {it.sha256 for it in bundle.manifest.variants}
    found = [it for it in shown if it.running and it.running.packed in packed]
    if not found:
        what = f"nothing that runs there is out of {name}"
        raise BundleRefusedError(what, reason=Reason.MISMATCH)
    return found


def show_lines(shown: Sequence[Shown], *, verified: bool) -> Iterator[str]:
    """Yield the lines for people.

    Args:
        shown: What to show.
        verified: A key was given, and has signed everything.
    """
    if not shown:
        yield "nothing runs there"
    for one in shown:
        said = _signature(one, verified=verified)
        if one.running is None:
            yield plain(one.name)
            yield from _origin_lines(one)
            yield _line("signed", said)
        else:
            yield from _running_lines(one)
            yield _line("signed", f"the board's statement: {said}")
            yield from _origin_lines(one)
            yield from _origin_signature(one)


def _running_lines(one: Shown) -> Iterator[str]:
    """Yield what runs."""
    said = one.running
    if said is None:
        return
    what = f"{plain(said.model)} {said.version}  {plain(said.variant)}"
    yield f"{plain(one.name)}  {what} on {plain(said.executor)}"
    yield _line("runs", f"sha256 {one.sha256}")
    if COPIES[said.copy]:
        yield _line("", f"{COPIES[said.copy]} {said.packed}")
    yield _line("bundle", f"sha256 {said.bundle}")
    yield _line("board", f"{plain(said.board)}, verified {_moment(said.verified_at)}")


def _origin_lines(one: Shown) -> Iterator[str]:
    """Yield where it came from."""
    origin = one.origin
    if origin is None:
        made_no_sense = f"what the bundle says makes no sense [{plain(one.trouble)}]"
        silent = "the bundle does not say"
        yield _line("origin", made_no_sense if one.trouble else silent)
        return
    for at, data in enumerate(origin.training_data):
        words = f"{plain(data.name)}  sha256 {data.digest.sha256}"
        yield _line("" if at else "trained on", words)
    where = f" of {plain(origin.code.repository)}" if origin.code.repository else ""
    yield _line("code", f"{origin.code.commit}{where}")
    for at, score in enumerate(origin.evaluation):
        on = f" on {plain(score.on)}" if score.on else ""
        words = f"{plain(score.metric)} {score.value:g}{on}"
        yield _line("" if at else "evaluation", words)
    at_when = f", {plain(origin.approver.at)}" if origin.approver.at else ""
    yield _line("approved", f"{plain(origin.approver.name)}{at_when}")


def _origin_signature(one: Shown) -> Iterator[str]:
    """Say who has signed what the bundle says, and whether that was verified.

    A board passes it on as it is in the bundle, and checks no signature in there.
    """
    if one.origin is None:
        return
    if one.origin_verified:
        said = "yes, verified"
    elif not one.origin_keys:
        said = "no"
    else:
        named = ", ".join(plain(it)[:16] for it in one.origin_keys)
        said = f"by {named}, NOT checked: name the key with --origin-key"
    yield _line("signed", f"what the bundle says: {said}")


def _signature(one: Shown, *, verified: bool) -> str:
    """Say who has signed, and whether that was verified."""
    if verified:
        return "yes, verified"
    if not one.key_ids:
        return "no"
    named = ", ".join(plain(it)[:16] for it in one.key_ids)
    return f"by {named}, NOT verified: name the key with --verify"


def _origin_of(said: Running) -> tuple[OriginStatement | None, Envelope | None]:
    """Return the statement inside of a statement, if it is about what runs.

    Raises:
        BundleRefusedError: ``provenance``.
    """
    if said.origin is None:
        return None, None
    raw, envelope = open_statement(msgspec.json.encode(said.origin))
    statement = parse_statement(raw)
    if all(it.digest.sha256 != said.packed for it in statement.subject):
        raise refused("the bundle's own statement is about other bytes than run")
    return statement, envelope


def _keys(envelope: Envelope) -> list[str]:
    """Return by which keys an envelope says it is signed."""
    return [it.keyid or "an unnamed key" for it in envelope.signatures]


def _moment(seconds: float) -> str:
    """Return a moment for people, in UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):  # what no calendar holds
        return "at no time"


def _line(key: str, words: str) -> str:
    """Return one indented line."""
    return f"  {key:<{WIDTH}}{words}"
