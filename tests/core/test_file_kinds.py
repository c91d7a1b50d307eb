"""What a path is: each kind of inode(7) has its words, and only a file has none."""

import stat

from hypothesis import given
from hypothesis import strategies as st

from agent.core.file_kinds import kind_of, no_file


@given(st.integers(min_value=0, max_value=0o177777))
def test_only_a_file_is_one(mode: int) -> None:
    """Any mode has words, and they are empty exactly for a regular file."""
    assert (no_file(mode) == "") == stat.S_ISREG(mode) == (kind_of(mode) == "a file")


def test_what_no_kernel_says_has_words_too() -> None:
    """A kind without a name is nothing to be opened."""
    assert no_file(0o150000) == "it is something else, not a file"
