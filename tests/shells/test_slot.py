"""The slot: an exchange is seen between two samples, and waits no longer than told."""

import threading

from agent.core.statistics_block import GAP_NS, NEXT_SEQ
from agent.worker.control import candidate_builder
from agent.worker.slot import Candidate, ModelSlot
from tests.fakes.worker_parts import Board, scripted_model


def candidate(board: Board, version: int, section: int) -> Candidate:
    """Return a candidate that is bound to a section."""
    build = candidate_builder("p", [], board.writer, lambda: 0.0)
    return build(scripted_model(version), section)


def test_an_exchange_that_nobody_takes() -> None:
    """A loop that is stuck does not take the candidate: the answer is no."""
    board = Board()
    slot = ModelSlot(board.writer)
    assert not slot.exchange(candidate(board, 1, 0), 0.001)


def test_an_exchange_ends_when_the_loop_has_entered() -> None:
    """The control thread goes on once the new section counts, and not before."""
    board = Board(first_seq=9)
    slot = ModelSlot(board.writer)
    taken: list[bool] = []
    new = candidate(board, 3, 1)
    thread = threading.Thread(target=lambda: taken.append(slot.exchange(new, 60)))
    thread.start()
    while slot.wanted is None:
        slot.pause(0.01)
    assert callable(slot.enter(new))
    thread.join()
    block = board.block()
    assert taken == [True]
    assert (block.active, block.sections[1].generation) == (1, 3)
    assert slot.first_seq == board.writer.words[NEXT_SEQ] == 9


def test_an_earlier_entry_is_no_answer() -> None:
    """Each exchange waits for its own entry."""
    board = Board()
    slot = ModelSlot(board.writer)
    slot.enter(candidate(board, 1, 0))
    assert not slot.exchange(candidate(board, 2, 1), 0.001)


def test_a_stop_ends_a_pause() -> None:
    """Nobody waits out a pause that a stop has ended."""
    slot = ModelSlot(Board().writer)
    slot.stop()
    slot.pause(600)
    assert not slot.running


def test_each_watch_begins_anew() -> None:
    """The longest pause is that of one swap, and is published at its end."""
    board = Board()
    slot = ModelSlot(board.writer)
    slot.watch()
    slot.longest_pause_ns = 77
    assert (slot.unwatch(), board.writer.words[GAP_NS]) == (77, 77)
    slot.watch()
    assert (slot.unwatch(), slot.watching) == (0, False)
