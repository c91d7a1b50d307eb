"""63, 64: the power is cut, and with it goes what was not synced.

Other mount options, and a kernel that writes early what it need not write yet, are for
``python -m benchmarks faults``.
"""

import pytest

from tests.faults.conftest import Prove, wrong

pytestmark = pytest.mark.usefixtures("power")


def test_64_every_image_of_one_update(prove: Prove) -> None:
    """Each distinct image that the card held, its journal replayed: whole, goes on."""
    verdicts = prove("power-1-calm")
    assert wrong(verdicts) == []
    assert len(verdicts) > 20


def test_63_one_missing_fsync_shows_here_and_not_to_kill_9(prove: Prove) -> None:
    """The control: an object that is named but not synced is caught by power cuts."""
    assert wrong(prove("unsynced-killed")) == []
    caught = wrong(prove("unsynced-cut"))
    assert caught
    assert all(first.startswith("O1 version 2") for _, (first, *_) in caught)


def test_64_every_image_of_a_sealed_update(prove: Prove) -> None:
    """With a bundle its envelope is on the card, or neither is used."""
    verdicts = prove("power-sealed")
    assert wrong(verdicts) == []
    assert len(verdicts) > 20
