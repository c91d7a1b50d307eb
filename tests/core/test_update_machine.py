"""The update machine's table: complete, and its laws hold on every road through it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.update_machine import (
    TRANSITIONS,
    Action,
    Event,
    Phase,
    Step,
    render_diagram,
    step,
)
from agent.errors import IllegalTransitionError

PAIRS = [(phase, event) for phase in Phase for event in Event]
ROAD = [
    Event.ORDERED,
    Event.FETCHED,
    Event.VERIFIED,
    Event.STAGED,
    Event.EXAMINED,
    Event.SHADOWED,
    Event.TRIAL_PASSED,
    Event.COMMITTED,
]
ACTIONS_UP = [
    Action.FETCH,
    Action.VERIFY,
    Action.STAGE,
    Action.EXAMINE,
    Action.SHADOW,
    Action.SWAP_IN,
    Action.WATCH,
    Action.COMMIT,
]


def walk(events: list[Event]) -> tuple[list[Phase], list[Action]]:
    """Take legal events from IDLE and leave out the others."""
    phases = [Phase.IDLE]
    actions: list[Action] = []
    for event in events:
        taken = TRANSITIONS.get((phases[-1], event))
        if taken is not None:
            phases.append(taken.phase)
            actions.extend(taken.actions)
    return phases, actions


@pytest.mark.parametrize(("phase", "event"), PAIRS)
def test_every_pair_is_a_row_or_our_mistake(phase: Phase, event: Event) -> None:
    """Each pair of phase and event has a row, or is an IllegalTransitionError."""
    row = TRANSITIONS.get((phase, event))
    if row is None:
        with pytest.raises(IllegalTransitionError, match=f"{event} while {phase}"):
            step(phase, event)
    else:
        assert row == step(phase, event)


def test_the_way_up() -> None:
    """The whole road performs each action once, in the order that trust needs."""
    phases, actions = walk(ROAD)
    assert phases == [
        Phase.IDLE,
        Phase.FETCHING,
        Phase.VERIFYING,
        Phase.STAGING,
        Phase.PREFLIGHT,
        Phase.SHADOWING,
        Phase.PROBATION,
        Phase.COMMITTING,
        Phase.IDLE,
    ]
    assert [*ACTIONS_UP, Action.ADOPT, Action.DISCARD] == actions


@pytest.mark.parametrize("length", range(1, 6))
def test_a_failure_before_the_swap_only_discards(length: int) -> None:
    """Up to SHADOWING nothing answers, so there is nothing to take back."""
    phases, actions = walk([*ROAD[:length], Event.FAILED])
    assert phases[-1] == Phase.IDLE
    assert [*ACTIONS_UP[:length], Action.DISCARD] == actions


@pytest.mark.parametrize("length", [6, 7])
@pytest.mark.parametrize("end", [Event.RESTORED, Event.FAILED])
def test_a_failure_after_the_swap_restores_first(length: int, end: Event) -> None:
    """From SWAP_IN on the active model answers again before anything is discarded."""
    phases, actions = walk([*ROAD[:length], Event.FAILED, end])
    assert phases[-2:] == [Phase.ROLLING_BACK, Phase.IDLE]
    assert actions[-2:] == [Action.SWAP_BACK, Action.DISCARD]


@pytest.mark.parametrize("phase", Phase)
def test_a_restart_never_swaps_in(phase: Phase) -> None:
    """RESTARTED is legal in every phase; it tidies up, or finishes a COMMIT."""
    expected = (
        Step(Phase.COMMITTING, (Action.COMMIT,))
        if phase is Phase.COMMITTING
        else Step(Phase.IDLE, (Action.DISCARD,))
    )
    assert expected == step(phase, Event.RESTARTED)


@given(st.lists(st.sampled_from(Event), max_size=60))
def test_commit_ends_the_whole_road(events: list[Event]) -> None:
    """Whatever happens in whatever order, COMMIT follows all that earns it."""
    phases, actions = walk(events)
    since: list[Action] = []
    for action in actions:
        if action in {Action.DISCARD, Action.SWAP_BACK, Action.ADOPT}:
            since = []
            continue
        since.append(action)
        if action is Action.COMMIT:
            again = since.count(Action.COMMIT) - 1  # a restart does it once more
            assert ACTIONS_UP + [Action.COMMIT] * again == since
    assert set(phases) <= set(Phase)


@given(st.lists(st.sampled_from(Event), max_size=60))
def test_every_way_leads_home(events: list[Event]) -> None:
    """From wherever a walk ends, at most two more events lead back to IDLE."""
    phases, _ = walk(events)
    ways_home, _ = walk([*events, Event.FAILED, Event.RESTORED])
    assert phases[-1] is Phase.IDLE or ways_home[-1] is Phase.IDLE


def test_discard_is_the_last_action_of_every_way_home() -> None:
    """Nothing runs any more of what DISCARD removes."""
    home = [row.actions[-1] for row in TRANSITIONS.values() if row.phase is Phase.IDLE]
    assert {Action.DISCARD} == set(home)


def test_the_diagram_shows_every_row() -> None:
    """Arrows and the note together are the table, and nothing else."""
    diagram = render_diagram()
    arrows = {
        (Phase(source), Event(event)): Step(
            Phase(target), tuple(Action(word) for word in actions.split(", "))
        )
        for source, target, event, actions in re.findall(
            r"(\w+) --> (\w+): (\w+) / (.+)", diagram
        )
    }
    noted = diagram.splitlines()[-2].strip().split(", ")
    home = Step(Phase.IDLE, (Action.DISCARD,))
    restarts = {(Phase(phase), Event.RESTARTED): home for phase in noted}
    assert dict(TRANSITIONS) == arrows | restarts
    assert diagram[: diagram.index("IDLE") + 5] == "stateDiagram-v2\n    [*] --> IDLE\n"
