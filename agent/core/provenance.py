"""Provenance: an in-toto statement of where a model came from, and of what runs.

A bundle's ``provenance.json`` is such a statement about its variants, alone or inside
of a DSSE envelope. A board makes another one about the bytes it runs.

The rules this module keeps:
 * A statement is about bytes: its subjects are digests, and names are for people.
   Every variant of a bundle is a subject, and nothing else is.
 * Strict, beyond what in-toto asks for: unknown keys, duplicate keys and other types
   of statement are refused, with ``BundleRefusedError`` only, for any bytes.
 * Law: ``parse_statement(render_statement(s)) == s``.

Source: in-toto attestation framework, spec/v1/statement.md and envelope.md.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.core.dsse import Envelope, envelope_json, parse_envelope, parse_strictly
from agent.core.manifest import Manifest
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

MAX_PROVENANCE_BYTES = 256 * 1024  # 1,000 files of training data take 120 kB
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
ORIGIN: Final = "urn:tinyward:provenance:v1"
RUNNING: Final = "urn:tinyward:running:v1"

T = TypeVar("T", bound=Struct)
Text = Annotated[str, Meta(max_length=1000)]
Named = Annotated[str, Meta(min_length=1, max_length=1000)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
# Of git: SHA-1 or SHA-256.
Commit = Annotated[str, Meta(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$(?!\n)")]


class Strict(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Base: immutable, strict when parsed, spelt as in-toto spells its own keys."""


class DigestSet(Strict, frozen=True):
    """Digests of one thing; other algorithms than ours are refused."""

    sha256: Sha256


class Subject(Strict, frozen=True):
    """What a statement is about; the digest says it, ``name`` is for people."""

    name: Named
    digest: DigestSet


class Material(Strict, frozen=True):
    """Training data: one file, archive or table."""

    name: Named
    digest: DigestSet
    uri: Text = ""


class Code(Strict, frozen=True):
    """What trained the model: a commit of a repository."""

    commit: Commit
    repository: Text = ""


class Score(Strict, frozen=True):
    """One result of an evaluation: a metric on a set of data."""

    metric: Named
    value: float
    on: Text = ""


class Approver(Strict, frozen=True):
    """Who let it go out; ``at`` is a day or a moment, ISO 8601."""

    name: Named
    at: Annotated[str, Meta(max_length=40)] = ""


class Origin(Strict, frozen=True):
    """The predicate of a bundle's statement: where the model came from."""

    training_data: Annotated[tuple[Material, ...], Meta(min_length=1, max_length=2000)]
    code: Code
    evaluation: Annotated[tuple[Score, ...], Meta(min_length=1, max_length=1000)]
    approver: Approver


class Running(Strict, frozen=True):
    """The predicate of a board's statement: what runs here.

    Attributes:
        bundle: Digest of the target as it was signed and stored.
        variant: Which variant; ``packed`` its digest before any mark.
        copy: ``own`` or ``marked`` where this board's copy differs; see the snapshot.
        verified_at: Unix seconds of the last full verification.
        said_at: Unix seconds, when the board said this, by its own clock.
        nonce: What the asker wanted to see again, or empty.
        origin: The bundle's own ``provenance.json``, or None.
        origin_trouble: The reason where it has one that makes no sense, else empty.
        session: What a challenge to this board has to name: ``agent.core.challenge``.
    """

    board: Named
    pipeline: Named
    model: Named
    version: int
    variant: Named
    packed: Sha256
    executor: Named
    bundle: Sha256
    copy: Literal["", "marked", "own"]
    verified_at: float
    said_at: float
    nonce: Text = ""
    origin: dict[str, object] | None = None
    origin_trouble: Text = ""
    session: Text = ""


class OriginStatement(Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle says of its variants."""

    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[Subject, ...], Meta(min_length=1, max_length=64)]
    predicate_type: Literal["urn:tinyward:provenance:v1"] = msgspec.field(
        name="predicateType"
    )
    predicate: Origin


class RunningStatement(Struct, frozen=True, forbid_unknown_fields=True):
    """What a board says of the bytes that it runs."""

    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[Subject, ...], Meta(min_length=1, max_length=1)]
    predicate_type: Literal["urn:tinyward:running:v1"] = msgspec.field(
        name="predicateType"
    )
    predicate: Running


Statement = OriginStatement | RunningStatement


def state_origin(subjects: Iterable[Subject], origin: Origin) -> OriginStatement:
    """Return what a bundle says of its variants."""
    return OriginStatement(STATEMENT, tuple(subjects), ORIGIN, origin)


def state_running(sha256: str, running: Running) -> RunningStatement:
    """Return what a board says of the bytes with a digest, which it runs."""
    subject = Subject(f"{running.model}/{running.variant}", DigestSet(sha256))
    return RunningStatement(STATEMENT, (subject,), RUNNING, running)


def subjects_of(manifest: Manifest) -> tuple[Subject, ...]:
    """Return a manifest's variants as subjects."""
    return tuple(Subject(it.file, DigestSet(it.sha256)) for it in manifest.variants)


def render_statement(statement: Statement) -> bytes:
    """Return the one spelling of a statement: sorted keys, two spaces."""
    tree = msgspec.to_builtins(statement)
    return json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False).encode()


def open_statement(raw: bytes) -> tuple[bytes, Envelope | None]:
    """Return a statement's bytes, and the envelope they came in, if any.

    No signature is verified here.

    Raises:
        BundleRefusedError: ``too_large`` or ``provenance``.
    """
    if len(raw) > 2 * MAX_PROVENANCE_BYTES:  # base64 and signatures of an envelope
        raise _too_large(len(raw))
    if b'"payloadType"' not in raw:
        return raw, None
    envelope = parse_envelope(raw, MAX_PROVENANCE_BYTES, Reason.PROVENANCE)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise refused(f"an envelope of {envelope.payload_type!r}")
    return envelope.payload, envelope


def parse_statement(raw: bytes) -> OriginStatement:
    """Parse what a bundle says of its origin.

    Raises:
        BundleRefusedError: ``too_large`` or ``provenance``.
    """
    return _parse(raw, OriginStatement, MAX_PROVENANCE_BYTES, ORIGIN)


def parse_running(raw: bytes) -> RunningStatement:
    """Parse what a board says of what it runs.

    Raises:
        BundleRefusedError: ``too_large`` or ``provenance``.
    """
    return _parse(raw, RunningStatement, 4 * MAX_PROVENANCE_BYTES, RUNNING)


def check_provenance(raw: bytes, manifest: Manifest) -> OriginStatement:
    """Parse a bundle's provenance.json and check that it is about these variants.

    Raises:
        BundleRefusedError: ``too_large``, or ``provenance``: it makes no sense, is
            about other bytes, or leaves a variant out.
    """
    statement = parse_statement(open_statement(raw)[0])
    said = [it.digest.sha256 for it in statement.subject]
    packed = {it.sha256: it.name for it in manifest.variants}
    for sha256 in said:
        if sha256 not in packed:
            raise refused(
                f"it is about {sha256[:12]}..., which is none of the variants"
            )
    for sha256, name in packed.items():
        if said.count(sha256) != 1:
            raise refused(f"variant {name!r} is its subject {said.count(sha256)} times")
    return statement


def read_origin(raw: bytes) -> dict[str, object] | None:
    """Return a bundle's provenance.json as JSON's values; None where there is none.

    Of an envelope, members that DSSE does not know are left out: nobody has signed
    them, and a board signs what it passes on.

    Raises:
        BundleRefusedError: ``provenance`` or ``too_large``: it is no statement that
            ``parse_statement`` takes, or no JSON that can be passed on.
    """
    if not raw:
        return None
    payload, envelope = open_statement(raw)
    parse_statement(payload)
    if envelope is not None:
        return envelope_json(envelope)
    return msgspec.convert(parse_strictly(payload), dict[str, object])


def refused(what: str) -> BundleRefusedError:
    """Return the error for a statement that is none, or not about this model."""
    return BundleRefusedError(f"provenance: {what}", reason=Reason.PROVENANCE)


def _parse(raw: bytes, kind: type[T], max_bytes: int, predicate: str) -> T:
    """Parse a statement of one kind, with one type of predicate."""
    if len(raw) > max_bytes:
        raise _too_large(len(raw))
    try:
        tree = parse_strictly(raw)
        # Half a character is no text, and 1e999 no number.
        json.dumps(tree, ensure_ascii=False, allow_nan=False).encode()
        _check_predicate(tree, predicate)
        return msgspec.convert(tree, kind)
    except (ValueError, msgspec.ValidationError) as err:
        raise refused(str(err)) from err


def _check_predicate(tree: object, taken: str) -> None:
    """Name what is taken where a whole statement is of another type: SLSA's, say.

    Raises:
        ValueError: It is.
    """
    found = tree.get("predicateType") if isinstance(tree, dict) else None
    if isinstance(found, str) and found != taken:
        raise ValueError(
            f"its predicateType is {found[:100]!r}; {taken!r} alone is taken, whose "
            "form `tinyward pack --help` shows"
        )


def _too_large(size: int) -> BundleRefusedError:
    """Return the error for a statement beyond its limit."""
    what = f"provenance: {size} bytes, at most {MAX_PROVENANCE_BYTES} allowed"
    return BundleRefusedError(what, reason=Reason.TOO_LARGE)
