"""Advice where signed things are checked by hand: it is not the repository's."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.audit.key import verify_ed25519
from agent.audit.log_files import LogFaultError
from agent.core.checkpoint import Checkpoint
from agent.core.dsse import Envelope, Signature
from agent.core.explanations import EXPLANATIONS
from agent.core.log_proof import judge_growth
from agent.core.note import NoteKey, open_note, sign_note
from agent.core.reasons import Reason
from agent.errors import AgentError
from agent.trust.statements import require_signature
from tests.fakes.vouchers import BOARD, VENDOR

KEY = NoteKey("tinyward/pi/1", VENDOR.public)


def checkpoint(size: int) -> Checkpoint:
    """Return a checkpoint of a log of so many records."""
    return Checkpoint("tinyward/pi/1", size, bytes(32), bytes(32))


def open_anothers() -> None:
    """Open what another board's log has signed."""
    note = sign_note("said\n", KEY, VENDOR.private.sign)
    open_note(note.encode(), NoteKey(KEY.name, BOARD), verify_ed25519)


def open_forged() -> None:
    """Open what bears a key's name, and not its signature."""
    note = sign_note("said\n", KEY, lambda _: bytes(64))
    open_note(note.encode(), KEY, verify_ed25519)


def require_of_another() -> None:
    """Require the signature of somebody else."""
    signed = Envelope(b"said", "text/plain", (Signature(bytes(64)),))
    require_signature(signed, Ed25519PrivateKey.generate().public_key(), "it")


def refuse_log(reason: Reason) -> None:
    """Refuse a log that is verified."""
    raise LogFaultError("so it is", reason)


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (open_anothers, Reason.SIGNATURE),
        (open_forged, Reason.SIGNATURE),
        (require_of_another, Reason.SIGNATURE),
        (lambda: require_signature(None, BOARD, "it"), Reason.SIGNATURE),  # type: ignore[arg-type] # not looked at
        (lambda: judge_growth(checkpoint(9), checkpoint(8), ()), Reason.REPLAYED),
        *(
            (lambda reason=reason: refuse_log(reason), reason)
            for reason in (Reason.SIGNATURE, Reason.REPLAYED, Reason.LOG)
        ),
    ],
)
def test_what_to_do_is_about_what_was_checked(
    check: Callable[[], None], reason: Reason
) -> None:
    """Neither a repository's keys nor a mirror have anything to do with it."""
    with pytest.raises(AgentError) as refused:
        check()
    assert refused.value.reason == reason
    assert refused.value.todo not in {"", EXPLANATIONS[reason].todo}
