"""Generated answers and orders: whatever a DDI server says, in whatever order.

The whole update side in one process, without sockets: Hypothesis draws what the
operator does, and where an answer is damaged; the oracle is that of
``test_ddi_hostile``.
"""

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.ddi import MAX_OUTBOX
from agent.core.ddi_messages import MAX_SLEEP_S
from agent.update.ddi_needs import Answer
from tests.fakes.ddi_bench import MODEL, URL, DdiBench, truth
from tests.fakes.update_bench import BUNDLES
from tests.fuzz.json_text import damaged, render

ROOT = f"{URL}/default/controller/v1/board-1"
STATUSES = (200, 204, 301, 304, 400, 401, 403, 404, 409, 410, 418, 429, 500, 503)
# A poll, four links read, told twice what waits.
MAX_REQUESTS = 2 * MAX_OUTBOX + 8


class Liar:
    """Twists answers as a seed says; repeats itself from the seed."""

    def __init__(self, seed: int, share: float) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - repeatable
        self._share = share

    def __call__(self, kind: str, answer: Answer) -> Answer:
        """Tell the truth, or not."""
        del kind
        chance = self._chance
        if chance.random() > self._share:
            return answer
        if chance.random() < 0.3:
            said = {"retry-after": str(chance.choice((-1, 0, 5, 10**12, "x")))}
            return Answer(chance.choice(STATUSES), said, answer.body)
        if not answer.body or chance.random() < 0.1:
            return Answer(200, {}, chance.randbytes(chance.randrange(99)))
        raw = render(damaged(json.loads(answer.body), chance))
        return Answer(200, answer.headers, raw)


orders = st.lists(
    st.sampled_from(
        ("deploy 1", "deploy 2", "deploy 3", "deploy 99", "cancel", "end", "window")
    ),
    max_size=5,
)


def act(bench: DdiBench, word: str) -> None:
    """Do what an operator may do."""
    verb, _, version = word.partition(" ")
    actions = bench.shown.actions
    due = actions.due()
    if verb == "deploy":
        for action in actions.every:
            actions.cancel(action)
        bench.deploy(int(version))
    elif due and verb == "window":
        due.window = "available" if due.window == "unavailable" else "unavailable"
    elif due:
        actions.cancel(due, at_once=verb == "end")


def check_sound(bench: DdiBench, floor: int) -> int:
    """O1, O2, and nobody else was asked; return the floor."""
    for pipeline in bench.poller.models:
        slots = bench.store.slots(pipeline)
        assert slots.active is not None
        content = bytes(bench.store.open_object(slots.active.sha256))
        assert content == BUNDLES[MODEL, slots.active.version]
        # Admissible is what is not below the floor, or the durable previous one.
        assert slots.active.version >= floor or slots.previous is not None
    assert {url[: len(ROOT)] for _, url in bench.simulated.asked} == {ROOT}
    found = bench.store.version_floor(MODEL)
    assert found >= floor
    return found


@given(
    st.lists(st.tuples(orders, st.integers(0, 2**32)), min_size=1, max_size=4),
    st.sampled_from((0.0, 0.2, 0.6, 1.0)),
    st.booleans(),
)
@settings(max_examples=120)
def test_35_54_55_56_whatever_is_said_in_whatever_order(
    script: list[tuple[list[str], int]],
    share: float,
    restart: bool,  # noqa: FBT001 - drawn
) -> None:
    """Sound after each round, a bounded number of requests, and well in the end."""
    with DdiBench() as bench:
        floor = check_sound(bench, 1)
        for words, seed in script:
            bench.simulated.twist = Liar(seed, share)
            for word in words:
                act(bench, word)
            before = len(bench.simulated.asked)
            (pause,) = bench.rounds()
            assert 1 <= pause <= 1.1 * MAX_SLEEP_S
            assert len(bench.simulated.asked) - before <= MAX_REQUESTS
            floor = check_sound(bench, floor)
        bench.simulated.twist = truth
        if restart:
            bench.start()
        act(bench, "deploy 3")
        bench.settle(bench.shown.actions.every[-1], "FINISHED")
        assert bench.versions()[0] == 3
        check_sound(bench, floor)
