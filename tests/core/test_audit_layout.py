"""How a log lies on the disk: frames, events, names, what is cut short."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.audit_events import (
    MAX_FACTS,
    event_record,
    is_kept,
    parse_event,
    render_event,
)
from agent.core.audit_layout import (
    KINDS,
    MAX_EVENT_BYTES,
    SEGMENT_RECORDS,
    Frame,
    file_of,
    frames_bytes,
    pack_event_line,
    pack_frame,
    pack_sealed_key,
    parse_event_lines,
    parse_file_name,
    parse_frames,
    parse_sealed_keys,
    segment_of,
)
from agent.core.ratchet import is_mac, key_at, mac_of, next_key
from agent.core.receipts import EVENT, parse_receipt

FRAMES = st.lists(
    st.builds(
        Frame,
        st.binary(min_size=1, max_size=60),
        st.integers(0, 2**64 - 1),
        st.binary(min_size=32, max_size=32),
    ),
    max_size=5,
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)
KEYS = st.binary(min_size=32, max_size=32)


@given(FRAMES, st.data())
def test_whole_frames_are_read_however_the_last_was_torn(
    frames: list[Frame], data: st.DataObject
) -> None:
    """Law: of any beginning those frames come back that are whole."""
    raw = b"".join(pack_frame(it) for it in frames)
    assert frames == parse_frames(raw)
    cut = data.draw(st.integers(0, len(raw)))
    found = parse_frames(raw[:cut])
    assert frames[: len(found)] == found
    assert frames_bytes(found) <= cut
    assert len(found) == len(frames) or frames_bytes(frames[: len(found) + 1]) > cut
    torn = raw[:cut] + bytes(len(raw) - cut)
    assert frames[: len(parse_frames(torn))] == parse_frames(torn)


@given(FRAMES.filter(bool), st.data())
def test_a_flipped_bit_ends_the_frames(
    frames: list[Frame], data: st.DataObject
) -> None:
    """What was changed is no frame any more, nor is what follows."""
    raw = bytearray(b"".join(pack_frame(it) for it in frames))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = parse_frames(bytes(raw))
    assert len(found) < len(frames)
    assert frames[: len(found)] == found


@given(st.binary(max_size=200))
def test_strange_bytes_are_no_frames(raw: bytes) -> None:
    """Fuzz: whatever lies there, parsing ends, and never beyond the end."""
    assert frames_bytes(parse_frames(raw)) <= len(raw)
    ends = [it[2] for it in parse_event_lines(raw)]
    assert ends == sorted(ends)
    assert all(it <= len(raw) for it in ends)


@given(st.text(min_size=1, max_size=40), st.dictionaries(st.text(), PLAIN, max_size=30))
def test_an_event_is_short_and_one_line(name: str, facts: dict[str, object]) -> None:
    """Whatever is said, it fits its place, comes back, and its record is an event."""
    text = render_event(name, 12.5, facts)
    assert len(text) <= MAX_EVENT_BYTES
    assert b"\n" not in text
    found = parse_event(text)
    assert (name[:80], 12.5) == (found.event, found.time_s)
    assert len(found.facts) <= MAX_FACTS
    line = pack_event_line(7, text)
    assert [(7, text, len(line))] == list(parse_event_lines(line + b"8 torn"))
    assert parse_receipt(event_record(text, 5)).flags == EVENT


@pytest.mark.parametrize("text", [b"", b"[]", b"{" * 5000, b"\xff", b"{}"])
def test_what_is_no_event_is_a_value_error(text: bytes) -> None:
    """And nothing else."""
    with pytest.raises(ValueError, match="event"):
        parse_event(text)


def test_what_happens_to_models_is_kept_and_chatter_is_not() -> None:
    """Commits, refusals and orders are in the log; looks and phases are not."""
    kept = ["update.committed", "update.refused", "operator.rollback", "meter.redeemed"]
    assert kept == [
        it for it in [*kept, "update.phase", "agent.stopping"] if is_kept(it)
    ]


@given(st.integers(0, 2**40), st.sampled_from(KINDS))
def test_files_are_known_by_their_names(size: int, kind: str) -> None:
    """Law: parse_file_name(file_of(...)) is the same; a full segment ends its log."""
    segment = segment_of(size)
    name = file_of(segment, kind)  # type: ignore[arg-type]  # one of KINDS
    assert (segment, kind) == parse_file_name(name)
    assert None is parse_file_name(f"{name}.tmp")
    assert (
        segment * SEGMENT_RECORDS < size <= (segment + 1) * SEGMENT_RECORDS or not size
    )


@given(KEYS, st.integers(0, 50), st.binary(max_size=50))
def test_the_ratchet_goes_forward_alone(key: bytes, steps: int, note: bytes) -> None:
    """Law: key_at(first, n) is n steps; a MAC is of one key, epoch and note."""
    later = key
    for _ in range(steps):
        later = next_key(later)
    assert later == key_at(key, steps)
    mac = mac_of(key, 3, note)
    assert is_mac(key, 3, note, mac)
    assert not is_mac(next_key(key), 3, note, mac)
    assert not is_mac(key, 4, note, mac)
    assert not is_mac(key, 3, note + b"x", mac)


@given(st.dictionaries(st.integers(1, 2**40), st.binary(max_size=80), max_size=3))
def test_sealed_keys_come_back_or_are_damaged(keys: dict[int, bytes]) -> None:
    """Law: parse_sealed_keys of the lines is the same; a changed line is an error."""
    raw = b"".join(pack_sealed_key(epoch, it) for epoch, it in keys.items())
    assert keys == parse_sealed_keys(raw)
    for at in range(0, len(raw), 7):
        spoilt = bytearray(raw)
        spoilt[at] ^= 4
        with pytest.raises(ValueError):  # noqa: PT011 - of whatever is wrong with it
            parse_sealed_keys(bytes(spoilt))
