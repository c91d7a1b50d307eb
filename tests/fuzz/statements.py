"""Statements of origin, challenges and triggers, as others may send them."""

import numpy as np

from agent.core.challenge import (
    Challenge,
    ChallengeOrder,
    name_inputs,
    parse_challenge,
    render_challenge,
)
from agent.core.container import parse_container
from agent.core.dsse import Envelope, Signature, parse_envelope, render_envelope
from agent.core.provenance import (
    PAYLOAD_TYPE,
    Approver,
    Code,
    DigestSet,
    Material,
    Origin,
    Score,
    check_provenance,
    open_statement,
    parse_statement,
    read_origin,
    render_statement,
    state_origin,
    subjects_of,
)
from agent.publish.watermark.secrets import render_arrays
from agent.worker.asked import parse_inputs
from tests.fakes.bundles import SPEC_IN, manifest

_ORIGIN = Origin(
    (Material("recordings.tar", DigestSet("1" * 64)),),
    Code("a" * 40),
    (Score("accuracy", 0.93),),
    Approver("A. Person"),
)
STATEMENT = render_statement(state_origin(subjects_of(manifest()), _ORIGIN))
ENVELOPE = render_envelope(
    Envelope(STATEMENT, PAYLOAD_TYPE, (Signature(b"s" * 64, "k"),))
)
TRIGGERS = render_arrays({"int8": np.zeros((4, *SPEC_IN.shape), np.int8)})
_INPUTS = bytes(parse_container(memoryview(TRIGGERS))["int8.npy"])
CHALLENGE = render_challenge(
    Challenge(
        ChallengeOrder("pi-7", "door", "kws", 8, "int8", "0" * 32, "0" * 32), _INPUTS
    )
)


def statement(raw: bytes) -> str:
    """A bundle's provenance.json: what is accepted is written and read again."""
    read_origin(raw)
    found = check_provenance(raw, manifest())
    if parse_statement(render_statement(found)) != found:
        raise ValueError("it is another one when written")
    return "signed" if open_statement(raw)[1] else "bare"


def envelope(raw: bytes) -> str:
    """A DSSE envelope: what is accepted is written and read again."""
    found = parse_envelope(raw, 64 * 1024)
    if parse_envelope(render_envelope(found), 64 * 1024) != found:
        raise ValueError("it is another one when written")
    return "parsed"


def challenge(raw: bytes) -> str:
    """A challenge and the inputs in it, as a child would read them."""
    found = parse_challenge(raw)
    return triggers(name_inputs("int8", found.inputs))


def triggers(raw: bytes) -> str:
    """Inputs that an asked child is given."""
    stack = parse_inputs(raw, "int8", SPEC_IN)
    if stack.shape[1:] != SPEC_IN.shape or str(stack.dtype) != SPEC_IN.dtype:
        raise ValueError(f"{stack.shape} of {stack.dtype} were taken for inputs")
    return "parsed"
