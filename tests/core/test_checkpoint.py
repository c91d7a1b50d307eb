"""Checkpoints: what a board says of its log, and how it is read."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.checkpoint import (
    Checkpoint,
    board_of,
    origin_of,
    parse_checkpoint,
    render_checkpoint,
)
from agent.core.merkle import EMPTY_ROOT
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError
from tests.fakes.audit_logs import refusal

HASHES = st.binary(min_size=32, max_size=32)
COUNTS = st.integers(0, 2**62)
WORDS = st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=64)
CHECKPOINTS = st.builds(
    Checkpoint,
    origin=st.builds(origin_of, WORDS, WORDS),
    size=st.integers(1, 2**62),
    root=HASHES,
    head=HASHES,
    inferences=COUNTS,
    lost=COUNTS,
    starts=COUNTS,
    boot=WORDS,
    monotonic_ns=COUNTS,
    time_s=COUNTS,
    runtime=WORDS,
    gaps=COUNTS,
)
# The specification's own example, which a log of strangers signed.
FOREIGN = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
"""


@given(CHECKPOINTS)
def test_what_is_said_comes_back(checkpoint: Checkpoint) -> None:
    """Law: parse_checkpoint(render_checkpoint(c)) == c."""
    assert checkpoint == parse_checkpoint(render_checkpoint(checkpoint))


@given(CHECKPOINTS)
def test_its_first_lines_are_those_of_any_log(checkpoint: Checkpoint) -> None:
    """Origin, size and root, as C2SP tlog-checkpoint has them; no line is empty."""
    lines = render_checkpoint(checkpoint).split("\n")
    assert [checkpoint.origin, str(checkpoint.size)] == lines[:2]
    assert lines[-1] == ""
    assert all(lines[:-1])


def test_a_foreign_logs_checkpoint_is_read() -> None:
    """The specification's example has no extension lines."""
    found = parse_checkpoint(FOREIGN)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert board_of(found.origin) == ""


def test_words_of_newer_boards_are_passed_over() -> None:
    """A line that is not known yet is no reason to refuse a log."""
    assert parse_checkpoint(f"{FOREIGN}drift 0.4\n").size == 20852163


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a b\n1\n" + "A" * 43 + "=\n",
        FOREIGN.replace("20852163", "020852163"),
        FOREIGN.replace("20852163", "-1"),
        FOREIGN.replace("20852163", "\u0661"),
        FOREIGN.replace("20852163", str(2**63)),
        FOREIGN.replace("Cs", "C"),
        FOREIGN.rstrip("\n"),
        FOREIGN + "\n",
        FOREIGN + "lost 1\nlost 2\n",
        FOREIGN + "lost many\n",
        FOREIGN + "head YQ==\n",
        "a\n0\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
    ],
)
def test_what_is_no_checkpoint_is_malformed(text: str) -> None:
    """Missing lines, numbers of other spellings, roots that cannot be."""
    with pytest.raises(BundleRefusedError) as caught:
        parse_checkpoint(text)
    assert caught.value.reason == Reason.MALFORMED


@given(st.text(max_size=300))
def test_strange_texts_are_malformed(text: str) -> None:
    """Fuzz: a text is a checkpoint, or raises one error and no other."""
    assert refusal(lambda: parse_checkpoint(text)) in ("", Reason.MALFORMED)


def test_an_empty_log_has_the_empty_root() -> None:
    """RFC 6962: the hash of nothing."""
    empty = Checkpoint("tinyward/pi/00", 0, EMPTY_ROOT, bytes(32))
    assert empty == parse_checkpoint(render_checkpoint(empty))
