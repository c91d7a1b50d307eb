"""Quarantine: whose fault a failed trial was, and after how many of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.quarantine import (
    EXCUSED,
    MAX_ATTEMPTS,
    PASSING,
    deserves_quarantine,
)
from agent.core.reasons import Reason
from agent.core.update_machine import Job
from agent.errors import AgentError, BundleRefusedError, DeviceError, TrialFailedError

JOB = Job("door", "kws", 2, "a" * 64)
REASONS = st.sampled_from(Reason)


def failed(reason: str) -> TrialFailedError:
    """Return what a trial says."""
    return TrialFailedError("no", reason=reason)


@pytest.mark.parametrize(
    "reason", [Reason.GOLDEN, Reason.NOT_FINITE, Reason.CONTRACT, Reason.AGREEMENT]
)
def test_38_a_wrong_model_is_tried_once(reason: Reason) -> None:
    """What is the model's own is not tried again, wherever the trial stood."""
    assert deserves_quarantine(JOB, failed(reason), 1, rolled_back=False)
    assert deserves_quarantine(JOB, failed(reason), 1, rolled_back=True)


@pytest.mark.parametrize("reason", sorted(PASSING))
def test_39_what_may_pass_is_tried_three_times(reason: str) -> None:
    """Before it answers, a busy board may be to blame; after a rollback it is not."""
    tries = [
        deserves_quarantine(JOB, failed(reason), number, rolled_back=False)
        for number in range(1, MAX_ATTEMPTS + 1)
    ]
    assert tries == [False, False, True]
    assert deserves_quarantine(JOB, failed(reason), 1, rolled_back=True)


def test_a_last_resort_is_never_given_up_for_being_slow() -> None:
    """Without any other model a slow one is better than none; a wrong one is not."""
    factory = replace(JOB, factory=True)
    for reason in PASSING:
        assert not deserves_quarantine(factory, failed(reason), 99, rolled_back=False)
    assert deserves_quarantine(factory, failed(Reason.GOLDEN), 1, rolled_back=False)


@given(reason=REASONS, attempts=st.integers(1, 9), rolled_back=st.booleans())
def test_only_trials_blame_a_model(
    reason: Reason, attempts: int, *, rolled_back: bool
) -> None:
    """Bytes that never came, a full disk, an operator: nothing is set aside."""
    for error in (
        BundleRefusedError("no", reason=reason),
        DeviceError("no", reason=reason),
    ):
        told: AgentError = error
        assert not deserves_quarantine(JOB, told, attempts, rolled_back=rolled_back)


@given(reason=REASONS, attempts=st.integers(1, 9), rolled_back=st.booleans())
def test_what_was_committed_once_is_not_blamed(
    reason: Reason, attempts: int, *, rolled_back: bool
) -> None:
    """An operator's rollback that fails leaves ``previous`` what it is."""
    back = replace(JOB, rollback=True)
    assert not deserves_quarantine(
        back, failed(reason), attempts, rolled_back=rolled_back
    )


@pytest.mark.parametrize("reason", sorted(EXCUSED))
def test_what_the_board_lacks_is_not_the_models_fault(reason: str) -> None:
    """Other settings would have let it pass: they may come."""
    assert not deserves_quarantine(JOB, failed(reason), 9, rolled_back=False)


@given(reason=REASONS, rolled_back=st.booleans(), attempts=st.integers(1, 8))
def test_more_attempts_never_acquit(
    reason: Reason, *, rolled_back: bool, attempts: int
) -> None:
    """Who is set aside after some attempts is set aside after more of them."""
    fewer = deserves_quarantine(JOB, failed(reason), attempts, rolled_back=rolled_back)
    more = deserves_quarantine(
        JOB, failed(reason), attempts + 1, rolled_back=rolled_back
    )
    assert fewer <= more
