"""What reasons mean where they are about the fleet's server."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.core.server_words import explain_server


def test_a_server_out_of_reach_is_no_repository() -> None:
    """The usual words would send people to another cable."""
    for reason in ("unreachable", "tls", "redirect", "too_slow", "permission"):
        words = " ".join(explain_server(reason))
        assert "repository" not in words
        assert "update." not in words


@given(st.sampled_from(Reason))
def test_law_every_reason_has_the_words_it_has_anywhere(reason: Reason) -> None:
    """What is known of a reason elsewhere is never silence here."""
    assert all(explain_server(str(reason))) or reason not in EXPLANATIONS


def test_reasons_of_newer_boards_have_no_words() -> None:
    """They are shown as they are."""
    assert explain_server("of_a_newer_board") == ("", "")
