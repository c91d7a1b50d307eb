"""One turn: what an answered sample leaves in the block, and in the sinks."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.histogram import bucket_index
from agent.core.statistics_block import (
    BUSY_SINCE_NS,
    MAX_LABELS,
    OK,
    SEQUENCE,
    section_start,
)
from agent.worker.turn import _build_record, build_emit, build_turn
from tests.fakes.worker_parts import Board, ListSink, sample, scripted_model

spans = st.integers(min_value=0, max_value=10**11)


@given(
    began=st.integers(1, 10**15),
    spent=st.lists(st.tuples(spans, spans, spans), min_size=1, max_size=5),
    index=st.integers(-1, 200),
    prepares=st.booleans(),
)
def test_durations_and_labels_are_recorded(
    *, began: int, spent: list[tuple[int, int, int]], index: int, prepares: bool
) -> None:
    """Each stage's sum and histogram are those of the times that were given.

    Samples that are tensors already have no preprocess stage.
    """
    if not prepares:
        spent = [(0, second, third) for _, second, third in spent]
    board = Board()
    board.writer.enter(1, 1)
    record = _build_record(board.writer.words, section_start(1), prepares=prepares)
    words = board.writer.words
    for first, second, third in spent:
        words[section_start(1) + 1] += 1  # received
        prepared = began + first
        record(began, prepared, prepared + second, prepared + second + third, index)
    section = board.block().sections[1]
    whole = [(*each, sum(each)) for each in spent]
    for stage, counts in enumerate(section.stages):
        times = [each[stage] for each in whole if stage or prepares]
        expected = [0] * len(counts.buckets)
        for time in times:
            expected[bucket_index(time)] += 1
        assert (counts.sum_ns, list(counts.buckets)) == (sum(times), expected)
    answered = len(spent)
    labels = [0] * (MAX_LABELS + 1)
    if index >= 0:
        labels[min(index, MAX_LABELS)] = answered
    assert list(section.labels) == labels
    assert section.outcomes[OK] == answered
    assert (words[BUSY_SINCE_NS], words[SEQUENCE] % 2) == (0, 0)


def test_a_prediction_line() -> None:
    """A line has what others depend on, in this order."""
    board, sink = Board(first_seq=41), ListSink()
    board.writer.enter(0, 1)
    model = scripted_model(1)
    emit = build_emit(model, "door", [(0, sink)], board.writer, lambda: 12.5)
    turn = build_turn(model, board.writer, section_start(0), emit)
    turn(sample(0))
    (line,) = sink.records
    assert list(line) == [
        *("seq", "t", "pipeline", "model", "version"),
        *("label", "score", "outputs"),
    ]
    assert (line["seq"], line["t"], line["pipeline"], line["version"]) == (
        *(41, 12.5),
        *("door", 1),
    )


def test_without_sinks_nothing_is_described() -> None:
    """The counting sink costs nothing: there is no emit."""
    assert build_emit(scripted_model(1), "p", [], Board().writer, lambda: 0.0) is None


def test_a_sample_in_flight_is_visible() -> None:
    """While a model answers, the block says since when."""
    board = Board()
    seen: list[tuple[int, int]] = []

    def look() -> None:
        block = board.block()
        seen.append((block.sections[0].in_flight, min(block.busy_since_ns, 1)))

    board.writer.enter(0, 1)
    model = scripted_model(1, look)
    turn = build_turn(model, board.writer, section_start(0), None)
    turn(sample(0))
    assert set(seen) == {(1, 1)}
    assert (board.block().sections[0].in_flight, board.block().busy_since_ns) == (0, 0)
