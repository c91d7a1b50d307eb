"""Labels: every answer is counted under some name, once."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.labels import OTHER, label_counts

names = st.sampled_from(["cat", "dog", "other", "2", ""])
words = st.lists(st.integers(min_value=0, max_value=9), max_size=6)


@given(st.lists(names, max_size=8), words)
def test_no_answer_is_lost(labels: list[str], counts: list[int]) -> None:
    """The named counts add up to the words, however labels repeat or lack."""
    assert sum(label_counts(labels, counts).values()) == sum(counts)


def test_the_last_word_is_other() -> None:
    """What lies beyond the block's words goes by ``other``, even with a label there."""
    assert label_counts(("cat", "dog"), (0, 7)) == {OTHER: 7}


def test_labels_of_one_word_are_summed() -> None:
    """Two labels that are spelled alike make one series, not a broken scrape."""
    assert label_counts(("cat", "cat"), (1, 2, 0)) == {"cat": 3}


def test_a_word_without_a_label_goes_by_its_number() -> None:
    """A model without labels is counted by index; labels never seen are left out."""
    assert label_counts((), (0, 5, 0, 0)) == {"1": 5}
