"""Statements about what runs, and challenges: a real pipeline, real keys."""

import dataclasses
import hashlib
import io
import json
import secrets
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from agent.cli.challenging import PATH, Addressee, challenge_board
from agent.core.challenge import (
    CHALLENGE_TYPE,
    Challenge,
    ChallengeOrder,
    render_challenge,
)
from agent.core.dsse import Envelope, Signature, encode_signed, render_envelope
from agent.core.provenance import STATEMENT, parse_running
from agent.core.reasons import Reason
from agent.core.sealing import Sealed, Sealing
from agent.errors import AgentError, BundleRefusedError, RequestRefusedError
from agent.statements import Statements, board_signer
from agent.supervise.pipeline import Pipeline
from agent.supervise.placing import Placed
from agent.trust.bundle import Bundle
from agent.trust.own_key import load_key, make_key
from agent.trust.statements import (
    PublicKey,
    key_id,
    parse_key,
    sign_by_key,
    verify_envelope,
)
from agent.worker.samples import Array
from tests.fakes.digits import in_loop, place, running
from tests.fakes.marked import secret
from tests.shells.test_own_copy import BOARD, copy_for, marked

OWNER = Ed25519PrivateKey.generate()
NOW = 1_790_000_000.0
SESSION, NEXT_SESSION = "5" * 32, "6" * 32


def own() -> Placed:
    """Return this board's copy of version 1, sealed by its owner."""
    found = place(copy_for(BOARD))
    marks = OWNER.public_key().public_bytes_raw().hex()
    sealing = Sealing("chacha20-poly1305", marks)
    sealed = Sealed("digits", 1, sealing, found.bundle.sha256, found.bundle.size)
    return dataclasses.replace(
        found, installed=replace(found.installed, sealed=sealed, verified_at=NOW)
    )


@asynccontextmanager
async def speaking(
    folder: Path, first: Placed | None = None
) -> AsyncIterator[tuple[Statements, Pipeline]]:
    """Give a board that says what it runs, and signs with ``folder/board.key``."""
    key = folder / "board.key"
    if not key.exists():
        make_key(key)
    async with running(first or own()) as bench:
        await bench.ready()
        sign = partial(sign_by_key, key)
        pipelines = {"digits": bench.pipeline}
        names = iter((SESSION, NEXT_SESSION))
        yield (
            Statements(pipelines, BOARD, sign, lambda: NOW, (), partial(next, names)),
            bench.pipeline,
        )


def npy(stack: Array) -> bytes:
    """Return an .npy of inputs."""
    buffer = io.BytesIO()
    np.save(buffer, stack)
    return buffer.getvalue()


TRIGGERS = npy(secret(1).stacks["int8"])


def challenge(
    key: Ed25519PrivateKey = OWNER,
    kind: str = CHALLENGE_TYPE,
    inputs: bytes = TRIGGERS,
    **changes: object,
) -> bytes:
    """Return a challenge of version 1 on this board, signed."""
    said = {"board": BOARD, "pipeline": "digits", "model": "digits", "version": 1}
    nonce = {"variant": "int8", "nonce": secrets.token_hex(16), "session": SESSION}
    order = msgspec.convert({**said, **nonce, **changes}, ChallengeOrder)
    payload = render_challenge(Challenge(order, inputs))
    signature = Signature(key.sign(encode_signed(kind, payload)))
    return render_envelope(Envelope(payload, kind, (signature,)))


class DirectLink:
    """A link to a board without a wire between; fits ``BoardLink``'s ``post``."""

    where = "here"

    def __init__(self, answer: object = None) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self._answer = answer

    def post(self, path: str, body: bytes) -> object:
        """Return what was prepared."""
        self.sent.append((path, body))
        return self._answer


def oracle(tree: dict[str, object], key: Path) -> bytes:
    """Return an envelope's payload as securesystemslib verifies it."""
    public = SSlibKey.from_crypto(_public(key), keyid=key_id(_public(key)))
    envelope = OracleEnvelope.from_dict(json.loads(json.dumps(tree)))
    envelope.verify([public], 1)
    return envelope.payload


def _public(key: Path) -> PublicKey:
    """Return the public half of a key file."""
    return load_key(key).public_key()


def test_what_is_said_is_what_the_worker_hashed(tmp_path: Path) -> None:
    """The subject is the marked bytes; an independent library verifies the envelope."""

    @in_loop
    async def case() -> None:
        it = own()
        async with speaking(tmp_path, it) as (statements, _):
            found = await statements.provenance("once")
            envelope = found["digits"]
            assert isinstance(envelope, dict)
            payload = oracle(envelope, tmp_path / "board.key")
            statement = parse_running(payload)
            assert json.loads(payload)["_type"] == STATEMENT
            runs = hashlib.sha256(it.bundle.variant_bytes("int8")).hexdigest()
            said = statement.predicate
            assert statement.subject[0].digest.sha256 == runs
            assert said.packed == it.bundle.manifest.variant("int8").sha256 != runs
            assert (said.board, said.copy, said.nonce) == (BOARD, "own", "once")
            assert (said.said_at, said.verified_at) == (NOW, NOW)
            assert (said.bundle, said.origin) == (it.bundle.sha256, None)

    case()


def test_a_bundle_that_speaks_badly_keeps_nobody_from_speaking(tmp_path: Path) -> None:
    """What it says of its origin is left out, with the reason; the rest is stated."""

    @in_loop
    async def case() -> None:
        it = own()
        opened = it.bundle
        assert isinstance(opened, Bundle)
        bundle = dataclasses.replace(opened, provenance=b'{"x": 1e999}')
        async with speaking(tmp_path, dataclasses.replace(it, bundle=bundle)) as found:
            (envelope,) = (await found[0].provenance("once")).values()
            assert isinstance(envelope, dict)
            said = parse_running(oracle(envelope, tmp_path / "board.key")).predicate
            assert (said.origin, said.origin_trouble) == (None, "provenance")

    case()


def test_a_changed_statement_is_no_statement(tmp_path: Path) -> None:
    """Neither we nor the other library verify it, nor under another key."""
    key = tmp_path / "board.key"
    make_key(key)
    signed = sign_by_key(key, "text/plain", b"what runs")
    changed = Envelope(b"what ran", signed.payload_type, signed.signatures)
    retyped = Envelope(signed.payload, "text/html", signed.signatures)
    assert verify_envelope(signed, _public(key))
    assert not verify_envelope(changed, _public(key))
    assert not verify_envelope(retyped, _public(key))
    assert not verify_envelope(signed, OWNER.public_key())
    with pytest.raises(VerificationError):
        oracle(json.loads(render_envelope(changed)), key)


def test_a_board_with_another_kind_of_key_signs_as_well(tmp_path: Path) -> None:
    """ECDSA on P-256, for CAs that know nothing else; a file of another is refused."""
    key = tmp_path / "p256.key"
    make_key(key, "p256")
    signed = sign_by_key(key, "text/plain", b"what runs")
    assert verify_envelope(signed, _public(key))
    other = generate_private_key(SECP256R1()).public_key()
    assert not verify_envelope(signed, other)
    with pytest.raises(AgentError):
        parse_key(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")


def test_without_a_certificate_the_logs_key_signs(tmp_path: Path) -> None:
    """And without a log nothing does."""
    assert board_signer(None, None) is None
    sign = board_signer(None, (tmp_path / "audit.key", True))
    assert sign is not None
    signed = sign("text/plain", b"what runs")
    assert verify_envelope(signed, _public(tmp_path / "audit.key"))


def test_the_owner_is_answered(tmp_path: Path) -> None:
    """Signed by the board: the classes, about the digest that runs."""

    @in_loop
    async def case() -> None:
        it = own()
        async with speaking(tmp_path, it) as (statements, pipeline):
            sent = DirectLink()
            (session,) = await sessions(statements, tmp_path)
            addressee = Addressee(BOARD, "digits", "digits", 1, "int8", session=session)
            with pytest.raises(BundleRefusedError):  # nothing is prepared yet
                challenge_board(sent, addressee, TRIGGERS, OWNER)  # type: ignore[arg-type]  # a link in all that counts
            (path, body) = sent.sent[0]
            before = pipeline.snapshot().counts
            answered = await statements.challenge(body, "owner")
            assert path == PATH
            payload = oracle(answered, tmp_path / "board.key")
            said = json.loads(payload)
            assert said["classes"] == list(secret(1).classes)
            runs = hashlib.sha256(it.bundle.variant_bytes("int8")).hexdigest()
            assert said["sha256"] == runs
            assert said["inputs_sha256"] == hashlib.sha256(TRIGGERS).hexdigest()
            # No sample of the worker's is one of the 64: there are only live ones.
            assert [c.version for c in before] == [1]

    case()


async def sessions(statements: Statements, folder: Path) -> list[str]:
    """Return the session that each pipeline's statement names."""
    found = (await statements.provenance("")).values()
    payloads = [
        oracle(it, folder / "board.key") for it in found if isinstance(it, dict)
    ]
    return [parse_running(it).predicate.session for it in payloads]


def refusal(folder: Path, *raws: bytes, first: Placed | None = None) -> list[str]:
    """Return the reasons that challenges are refused for, one after the other."""
    found: list[str] = []

    @in_loop
    async def case() -> None:
        async with speaking(folder, first) as (statements, _):
            for raw in raws:
                try:
                    await statements.challenge(raw, "somebody")
                except AgentError as err:
                    found.append(err.reason)
                else:
                    found.append("")

    case()
    return found


def test_triggers_of_somebody_else_are_refused(tmp_path: Path) -> None:
    """Another key, none, another type, another board's, model's, version's."""
    stranger = Ed25519PrivateKey.generate()
    unsigned = json.loads(challenge())
    unsigned["signatures"] = []
    cases = {
        challenge(stranger): "signature",
        json.dumps(unsigned).encode(): "request",
        challenge(kind="text/plain"): "request",
        challenge(board="pi-8"): "other_board",
        challenge(pipeline="window"): "unknown_pipeline",
        challenge(model="kws"): "no_model",
        challenge(version=2): "no_model",
        challenge(variant="float"): "no_model",
        b"[]": "request",
        b"": "request",
    }
    assert refusal(tmp_path, *cases) == list(cases.values())


def test_a_challenge_is_answered_once_and_the_next_one_later(tmp_path: Path) -> None:
    """A copy of it is a replay; another one has to wait."""
    once = challenge()
    assert refusal(tmp_path, once, once, challenge()) == [
        "",
        "replayed",
        "rate_limited",
    ]


def test_a_challenge_of_another_session_is_a_replay(tmp_path: Path) -> None:
    """What was recorded is worth nothing after a restart, whatever the clock says."""
    recorded = challenge()
    later = challenge(session=NEXT_SESSION), challenge(session="")
    assert refusal(tmp_path, *later, recorded) == ["replayed", "replayed", ""]


def test_a_session_ends_when_it_cannot_be_remembered(tmp_path: Path) -> None:
    """No challenge is forgotten and answered again: those of before are refused."""

    @in_loop
    async def case() -> None:
        async with speaking(tmp_path) as (statements, _):
            (before,) = await sessions(statements, tmp_path)
            recorded = challenge(session=before)
            await statements.challenge(recorded, "owner")
            statements.forget()
            (after,) = await sessions(statements, tmp_path)
            assert (before, after) == (SESSION, NEXT_SESSION)
            with pytest.raises(RequestRefusedError) as caught:
                await statements.challenge(recorded, "somebody")
            assert caught.value.reason == Reason.REPLAYED

    case()


def test_copies_that_are_not_marked_answer_nobody(tmp_path: Path) -> None:
    """There is no owner of marks who could ask."""
    assert refusal(tmp_path, challenge(), first=place(marked(None))) == ["watermark"]


def test_inputs_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    """Also where the owner signs them: another shape, and none at all."""
    assert refusal(tmp_path, challenge(inputs=npy(np.zeros((2, 3), np.int8)))) == [
        "contract"
    ]


def answer_of(key: Ed25519PrivateKey, **changes: object) -> object:
    """Return answers as a board would send them, for another challenge."""
    said = {
        "board": BOARD,
        "pipeline": "digits",
        "nonce": "0" * 32,
        "model": "digits",
        "version": 1,
        "variant": "int8",
        "sha256": "0" * 64,
        "executor": "plain",
        "inputs_sha256": hashlib.sha256(TRIGGERS).hexdigest(),
        "classes": [1, 2],
    }
    kind = "application/vnd.tinyward.answers+json"
    payload = json.dumps(said | changes).encode()
    signature = Signature(key.sign(encode_signed(kind, payload)))
    raw = render_envelope(Envelope(payload, kind, (signature,)))
    return {"answers": json.loads(raw)}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "request"),
        ({"answers": {"payload": "!"}}, "request"),
        (answer_of(OWNER), "replayed"),
        (answer_of(Ed25519PrivateKey.generate()), "signature"),
        (answer_of(OWNER, classes=["x"]), "request"),
    ],
    ids=["nothing", "no_envelope", "older", "stranger", "words"],
)
def test_an_answer_to_something_else_is_not_believed(
    answer: object, reason: str
) -> None:
    """The owner's side checks signature, nonce, board and inputs."""
    addressee = Addressee(BOARD, "digits", "digits", 1, "int8", OWNER.public_key())
    link: Any = DirectLink(answer)
    with pytest.raises((BundleRefusedError, RequestRefusedError)) as caught:
        challenge_board(link, addressee, TRIGGERS, OWNER)
    assert caught.value.reason == Reason(reason)


def test_openssl_reads_the_same_key(tmp_path: Path) -> None:
    """A key's id is the digest of what ``openssl pkey -outform DER`` writes."""
    key = tmp_path / "board.key"
    make_key(key)
    command = ["openssl", "pkey", "-in", str(key), "-pubout", "-outform", "DER"]
    der = subprocess.run(command, check=True, capture_output=True).stdout
    assert hashlib.sha256(der).hexdigest() == key_id(_public(key))
