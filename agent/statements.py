"""What a board says of the copies it runs, signed: their provenance, and challenges.

The rules this module keeps:
 * A statement is about the digest that the process that runs the bytes was told to
   check, never about what a file on the disk is called.
 * A challenge is answered for the key that the owner's signed metadata names, and for
   nobody else; one at a time, and not often.
 * A challenge is answered once: its nonce is known, or it is of another session. A
   session ends with the process, or when its nonces are too many to be remembered.
 * Neither inputs nor answers are logged: only that somebody has asked.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from agent.core.challenge import (
    ANSWERS_TYPE,
    CHALLENGE_TYPE,
    MAX_CHALLENGE_BYTES,
    MAX_INPUTS,
    Challenge,
    ChallengeAnswers,
    ChallengeOrder,
    name_inputs,
    parse_challenge,
)
from agent.core.dsse import Envelope, envelope_json, parse_envelope
from agent.core.executors import DelegateFile
from agent.core.installed import Installed
from agent.core.opened_bundle import OpenedBundle
from agent.core.provenance import (
    PAYLOAD_TYPE,
    Running,
    read_origin,
    render_statement,
    state_running,
)
from agent.core.reasons import Reason
from agent.core.snapshot import PipelineSnapshot
from agent.errors import BundleRefusedError, RequestRefusedError
from agent.settings import Settings
from agent.supervise.asking import Asked, ask_model
from agent.supervise.pipeline import Pipeline
from agent.trust.identity import Identity
from agent.trust.statements import sign_by_key, sign_by_text, verify_by_hex

log = logging.getLogger(__name__)
# Each takes a second of a core; 256 answers in 5 s are 4 million a day, and
# only for whoever holds the key of the marks.
ASK_ANEW = "Ask again: `tinyward watermark challenge` makes a new one each time."
PAUSE_S = 5.0
DEADLINE_S = 60.0  # 256 inputs of 100 ms each, in a tenth of a core, and a start
NONCES = 1024  # of one session: it takes an hour and a half at the least
Sign = Callable[[str, bytes], Envelope]


@dataclass(frozen=True, slots=True)
class RunningCopy:
    """What a pipeline runs at one moment."""

    bundle: OpenedBundle
    installed: Installed
    seen: PipelineSnapshot


class Speaker(Protocol):
    """Whose statements these are; satisfied by ``agent.proofs.Proofs``."""

    @property
    def settings(self) -> Settings:
        """The settings, as they were at the start."""

    @property
    def board_id(self) -> str:
        """This board's id."""

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """By name; they may be added later."""

    def signing_key(self) -> tuple[Path, bool] | None:
        """Return where the audit key is, and whether it may be made; None if off."""


def build_statements(
    speaker: Speaker, identity: Identity | None
) -> "Statements | None":
    """Return what makes this board's statements; None where nothing can sign them."""
    sign = board_signer(identity, speaker.signing_key())
    if sign is None:
        return None
    return Statements(
        speaker.pipelines,
        speaker.board_id,
        sign,
        time.time,  # noqa: TID251 - as the daemon, whose part this is
        speaker.settings.delegate,
    )


def board_signer(
    identity: Identity | None, audit: tuple[Path, bool] | None
) -> Sign | None:
    """Return what signs for this board; None where it has no key.

    Args:
        identity: Its certificate: whoever knows the fleet's CA can verify its key.
        audit: Where the key of its log is, and whether it may be made; used where
            there is no certificate.
    """
    if identity is not None:
        return partial(sign_by_key, identity.key)
    if audit is None:
        return None
    path, may_make = audit

    def sign(payload_type: str, payload: bytes) -> Envelope:
        from agent.audit.key import load_audit_key

        key = load_audit_key(path, may_make=may_make)
        return sign_by_text(key.sign, key.public, payload_type, payload)

    return sign


class Statements:
    """Makes and signs statements; satisfies the endpoint's Provenance and Challenges.

    Args:
        pipelines: By name.
        board: This board's id.
        sign: Signs a payload of a type; blocks.
        clock: Unix seconds.
        delegates: Libraries that a model may load.
        new_session: Returns what a session is called, never the same again.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        board: str,
        sign: Sign,
        clock: Callable[[], float],
        delegates: Sequence[DelegateFile] = (),
        new_session: Callable[[], str] = secrets.token_hex,
    ) -> None:
        self._pipelines = pipelines
        self._board = board
        self._sign = sign
        self._clock = clock
        self._delegates = delegates
        self._new_session = new_session
        self._session = new_session()
        self._nonces: set[str] = set()
        self._turn = asyncio.Lock()
        self._not_before_s = 0.0

    async def provenance(self, nonce: str) -> dict[str, object]:
        """Return pipeline -> an envelope about the bytes that it runs.

        Pipelines that run nothing are left out.

        Raises:
            DeviceError: The board's key cannot be used.
        """
        said = {
            name: self._state(name, copy, nonce)
            for name in self._pipelines
            if (copy := self._running(name)) is not None
        }
        sign = partial(self._sign, PAYLOAD_TYPE)
        return {
            name: envelope_json(await asyncio.to_thread(sign, payload))
            for name, payload in said.items()
        }

    async def challenge(self, raw: bytes, operator: str) -> dict[str, object]:
        """Answer an owner's challenge.

        Args:
            raw: A DSSE envelope; see ``agent.core.challenge``.
            operator: Who asks, for the log.

        Raises:
            BundleRefusedError: ``signature``, or it makes no sense, or its inputs are
                not the model's.
            RequestRefusedError: ``busy``, ``rate_limited``, ``replayed``,
                ``other_board``, ``unknown_pipeline``, ``no_model`` or ``watermark``.
            TrialFailedError: The model did not answer.
            DeviceError: ``memory``, or the board's key cannot be used.
        """
        # In a thread, as some megabytes of base64 and of what is signed take a while.
        envelope, challenge = await asyncio.to_thread(_open, raw)
        copy = self._addressed(challenge)
        await asyncio.to_thread(_check_signed, envelope, copy.installed)
        if self._turn.locked():
            raise _not_now("another challenge is being answered", Reason.BUSY)
        async with self._turn:
            self._admit(challenge.order)
            answers = await self._answer(challenge, copy)
        facts = {"pipeline": challenge.order.pipeline, "operator": operator}
        log.info("watermark.challenged", extra=facts)
        payload = msgspec.json.encode(answers)
        return envelope_json(await asyncio.to_thread(self._sign, ANSWERS_TYPE, payload))

    def forget(self) -> None:
        """Begin a new session: what was asked in the one before is answered no more."""
        self._session = self._new_session()
        self._nonces.clear()

    def _running(self, name: str) -> RunningCopy | None:
        """Return what a pipeline runs now; None where nothing answers."""
        pipeline = self._pipelines[name]
        placed, seen = pipeline.answering, pipeline.snapshot()
        if placed is None:
            return None
        # What stands in for it is another variant of the same bundle.
        return RunningCopy(placed.bundle, seen.stand_in or placed.installed, seen)

    def _state(self, name: str, copy: RunningCopy, nonce: str) -> bytes:
        """Return the statement about what a pipeline runs."""
        installed, manifest = copy.installed, copy.bundle.manifest
        origin, trouble = _origin_of(copy.bundle)
        running = Running(
            board=self._board,
            pipeline=name,
            model=installed.model,
            version=installed.version,
            variant=installed.variant,
            packed=manifest.variant(installed.variant).sha256,
            executor=installed.executor.describe(),
            bundle=installed.sha256,
            copy=copy.seen.copy,
            verified_at=installed.verified_at,
            said_at=self._clock(),
            nonce=nonce,
            origin=origin,
            origin_trouble=trouble,
            session=self._session,
        )
        runs = copy.bundle.variant_sha256(installed.variant)
        return render_statement(state_running(runs, running))

    def _addressed(self, challenge: Challenge) -> RunningCopy:
        """Return what a challenge is about, if it is about this board.

        Raises:
            RequestRefusedError: ``other_board``, ``unknown_pipeline``, ``no_model``.
        """
        order = challenge.order
        if order.board != self._board:
            raise _not_now("the challenge is for another board", Reason.OTHER_BOARD)
        if order.pipeline not in self._pipelines:
            raise _not_now("there is no such pipeline", Reason.UNKNOWN_PIPELINE)
        copy = self._running(order.pipeline)
        if copy is None:
            raise _not_now("nothing answers there now", Reason.NO_MODEL)
        runs = copy.installed
        found = (runs.model, runs.version, runs.variant)
        if found != (order.model, order.version, order.variant):
            what = f"{runs.model} {runs.version} {runs.variant} runs there"
            raise _not_now(what, Reason.NO_MODEL)
        return copy

    def _admit(self, order: ChallengeOrder) -> None:
        """Take note of a challenge that is answered now.

        Raises:
            RequestRefusedError: ``replayed`` or ``rate_limited``.
        """
        if order.session != self._session:
            what = "this challenge is of another session: ask what runs, then anew"
            raise _not_now(what, Reason.REPLAYED, ASK_ANEW)
        if order.nonce in self._nonces:
            what = "this challenge was answered before"
            raise _not_now(what, Reason.REPLAYED, ASK_ANEW)
        now_s = time.monotonic()
        if now_s < self._not_before_s:
            wait_s = self._not_before_s - now_s
            raise _not_now(f"ask again in {wait_s:.0f} s", Reason.RATE_LIMITED)
        self._not_before_s = now_s + PAUSE_S
        self._nonces.add(order.nonce)
        if len(self._nonces) >= NONCES:
            self.forget()

    async def _answer(
        self, challenge: Challenge, copy: RunningCopy
    ) -> ChallengeAnswers:
        """Let a copy of what runs answer."""
        installed = copy.installed
        asked = Asked(
            copy.bundle, installed.variant, installed.executor, self._delegates
        )
        inputs = name_inputs(installed.variant, challenge.inputs)
        classes = await ask_model(asked, inputs, most=MAX_INPUTS, deadline_s=DEADLINE_S)
        return ChallengeAnswers(
            board=self._board,
            pipeline=challenge.order.pipeline,
            nonce=challenge.order.nonce,
            model=installed.model,
            version=installed.version,
            variant=installed.variant,
            sha256=copy.bundle.variant_sha256(installed.variant),
            executor=installed.executor.describe(),
            inputs_sha256=sha256(challenge.inputs).hexdigest(),
            classes=classes,
        )


def _origin_of(bundle: OpenedBundle) -> tuple[dict[str, object] | None, str]:
    """Return what a bundle says of its origin, and why that is left out.

    What one bundle says badly keeps no other pipeline from being stated.
    """
    try:
        return read_origin(bundle.provenance), ""
    except BundleRefusedError as err:
        return None, err.reason


def _not_now(what: str, reason: Reason, todo: str = "") -> RequestRefusedError:
    """Return the error for a challenge that is not answered as things are."""
    return RequestRefusedError(what, reason=reason, todo=todo)


def _open(raw: bytes) -> tuple[Envelope, Challenge]:
    """Return a challenge and the envelope it came in, not verified.

    Raises:
        BundleRefusedError: It makes no sense.
    """
    envelope = parse_envelope(raw, MAX_CHALLENGE_BYTES, Reason.REQUEST)
    if envelope.payload_type != CHALLENGE_TYPE:
        raise BundleRefusedError("this is no challenge", reason=Reason.REQUEST)
    return envelope, parse_challenge(envelope.payload)


def _check_signed(envelope: Envelope, installed: Installed) -> None:
    """The owner of the marks asks, whose key the signed metadata names.

    Raises:
        RequestRefusedError: ``watermark``: nobody marks this model's copies.
        BundleRefusedError: ``signature``.
    """
    sealed = installed.sealed
    if sealed is None or not sealed.sealing.marks:
        raise _not_now("copies of this model are not marked", Reason.WATERMARK)
    if not verify_by_hex(envelope, sealed.sealing.marks):
        what = "the challenge is not signed by the key of this model's marks"
        todo = "Ask with the book of marks that this version was sealed with: --book."
        raise BundleRefusedError(what, reason=Reason.SIGNATURE, todo=todo)
