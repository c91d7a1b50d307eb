"""One turn: what an answered sample leaves in the block, and in the sinks."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.histogram import bucket_index
from agent.core.statistics_block import (
    BUSY_SINCE_NS,
    MAX_LABELS,
    SEQUENCE,
    section_start,
)
from agent.core.statistics_block import OK as OK_OUTCOME
from agent.worker.turn import _build_record, build_emit, build_turn
from tests.fakes.scripted_eye import (
    S_NS,
    ListReporter,
    ScriptedEye,
    Times,
    scripted_watcher,
)
from tests.fakes.worker_parts import (
    BAD,
    EMIT,
    ENGINE,
    OK,
    OUTPUT,
    STRANGE,
    WARMING,
    Board,
    ListSink,
    sample,
    scripted_model,
)

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
    assert section.outcomes[OK_OUTCOME] == answered
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


WORDS = st.lists(
    st.sampled_from([OK, BAD, STRANGE, WARMING, ENGINE, OUTPUT, EMIT]), max_size=40
)


@given(words=WORDS, interval=st.integers(1, 5), broken=st.integers(1, 60))
def test_watching_changes_nothing(words: list[int], interval: int, broken: int) -> None:
    """With a watcher, without one, and with one that breaks, the same is counted."""
    blocks, lines = [], []
    for watched in (False, True):
        board, sink, times = Board(), ListSink(), Times()
        eye = ScriptedEye(interval=interval, broken={broken})
        watcher = scripted_watcher(eye, ListReporter(), times) if watched else None
        board.writer.enter(0, 1)
        model = scripted_model(1)
        emit = build_emit(model, "p", [(0, sink)], board.writer, lambda: 0.0)
        turn = build_turn(model, board.writer, section_start(0), emit, watcher)
        for word in words:
            times.now_ns += S_NS
            turn(sample(word))
        section = board.block().sections[0]
        blocks.append((section.received, section.outcomes, section.labels))
        lines.append(sink.records)
        answered = [n for n, word in enumerate(words, 1) if word == OK]
        assert set(eye.looked) <= set(answered)
    assert blocks[0] == blocks[1]
    assert lines[0] == lines[1]


def test_a_watched_sample_was_answered_counted_and_passed_on_before() -> None:
    """The look is part of no duration, and its failure is no sample's."""
    board, sink, times = Board(), ListSink(), Times()
    seen: list[tuple[int, int, int]] = []

    def look() -> None:
        block = board.block()
        section = block.sections[0]
        seen.append((section.outcomes[0], block.busy_since_ns, len(sink.records)))
        raise ValueError("a bug of ours")

    eye = ScriptedEye(cost=look)
    watcher = scripted_watcher(eye, ListReporter(), times)
    board.writer.enter(0, 1)
    model = scripted_model(1)
    emit = build_emit(model, "p", [(0, sink)], board.writer, lambda: 0.0)
    turn = build_turn(model, board.writer, section_start(0), emit, watcher)
    for _ in range(3):
        times.now_ns += S_NS
        turn(sample(OK))
    assert seen == [(1, 0, 1)]
    assert board.block().sections[0].outcomes[0] == 3


def test_failed_samples_are_told_to_the_watcher() -> None:
    """What was wrong with the input counts; failures of the runtime do not."""
    board, reporter = Board(), ListReporter()
    watcher = scripted_watcher(ScriptedEye(), reporter, Times())
    board.writer.enter(0, 1)
    model = scripted_model(1)
    turn = build_turn(model, board.writer, section_start(0), None, watcher)
    for word in (BAD, OUTPUT, ENGINE, STRANGE, WARMING, BAD):
        turn(sample(word))
    watcher.finish()
    # The script's InputError does not say what is wrong; its OutputError is NaN.
    assert reporter.monitored[-1].invalid == {"shape": 2, "nan": 1}
