"""Taking an aborted rollout's version back, where no rollout is at work any more."""

from pathlib import Path

import click
from rich.console import Console

from agent.cli.fleet_boards import choose_papers, link_boards, read_inventory
from agent.cli.fleet_crew import Crew
from agent.cli.fleet_return import is_ours
from agent.cli.fleet_runner import Runner
from agent.cli.fleet_sight import Reader
from agent.cli.fleet_state import Kept, StateFile
from agent.cli.fleet_stop import await_end, clock
from agent.cli.fleet_threads import threads
from agent.cli.fleet_view import RolloutView
from agent.cli.patience import Patience
from agent.cli.reach import Remote
from agent.core.reasons import Reason
from agent.core.waves import Plan, Standing, Wave
from agent.errors import DeviceError, SettingsError


def take_all_back(inventory: Path, options: Remote, file: StateFile) -> Kept:
    """Let all boards of an aborted rollout run again what ran before.

    Raises:
        AgentError: A file cannot be used, or a board of the rollout is not known.
    """
    patience = Patience()
    with file.held():
        kept = file.load()
        if kept is None:
            raise SettingsError(f"{file.path}: it is gone", reason=Reason.ROLLOUT)
        known = read_inventory(inventory)
        boards = [it for it in known.board if it.id in kept.course.boards]
        if len(boards) < len(kept.course.boards):
            raise SettingsError(
                "the inventory lacks boards of this rollout",
                reason=Reason.ROLLOUT,
                todo="Put them back into the inventory.",
            )
        papers = choose_papers(known.papers, inventory, options)
        links = link_boards(boards, papers, patience.pause)
        named = {board.id: link for board, link in zip(boards, links, strict=True)}
        reader = Reader(kept.assign, by_push=kept.mode == "push")
        crew = Crew(named, reader, None, patience.pause)
        waves = tuple(Wave(*wave) for wave in kept.waves)
        plan = Plan(waves, known.rollout.gate, known.rollout.at_once)
        console = Console(stderr=True, highlight=False)
        view = RolloutView(console, kept.title(), plan, crew.notes, clock())
        with threads(plan.at_once, links, patience) as pool, view:
            runner = Runner(plan, kept, file, crew, view, pool, clock, back=True)
            runner.run()
        return runner.kept


def wait_for(file: StateFile) -> Kept:
    """Wait until the process that works on a rollout has taken its boards back.

    Raises:
        AgentError: It does not end, or the file cannot be used.
    """
    click.echo("waiting for the process that rolled it out: it takes boards back")
    kept = await_end(file)
    if kept is None:
        raise DeviceError(
            f"{file.path}: the process that works on it has not ended",
            reason=Reason.DEADLINE,
            todo="It goes on. Run this again to see what came of it.",
        )
    return kept


def left_behind(kept: Kept) -> list[str]:
    """Return the boards that were told, and could not be taken back."""
    boards, by_push = kept.course.boards.items(), kept.mode == "push"
    return [name for name, board in boards if is_ours(board, by_push=by_push)]


def show_back(kept: Kept) -> None:
    """Say how many boards went back, and which did not."""
    boards = kept.course.boards
    back = sum(board.standing is Standing.BACK for board in boards.values())
    click.echo(f"{back} {'board' if back == 1 else 'boards'} rolled back")
    for name in left_behind(kept):
        board = boards[name]
        why = f"{board.detail} [{board.reason}]" if board.reason else "nobody asked it"
        click.echo(f"{name}: not rolled back: {why}")
