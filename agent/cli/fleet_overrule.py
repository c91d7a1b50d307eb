"""A rollout by percent at work: what others publish pauses it."""

from msgspec.structs import replace

from agent.cli.fleet_publish import Files, OverruledError, Publisher
from agent.cli.fleet_runner import Runner
from agent.cli.fleet_stop import clock
from agent.cli.fleet_view import RolloutView
from agent.core.reasons import Reason
from agent.core.waves import Act, Decision, carry_out


def carry(runner: Runner, view: RolloutView, opener: Publisher | None) -> None:
    """Let a runner work; what others publish over it pauses the rollout.

    Raises:
        AgentError: A file cannot be written, or a publication failed.
    """

    def note(files: Files) -> None:
        runner.kept = replace(runner.kept, files=files)
        runner.file.save(runner.kept)

    if opener is not None:
        opener.note = note
    try:
        runner.run()
    except OverruledError as err:
        now = clock()
        decision = Decision(Act.PAUSE, reason=Reason.ROLLOUT, why=str(err))
        course = carry_out(runner.kept.course, decision, now)
        runner.kept = replace(runner.kept, course=course)
        runner.file.save(runner.kept)
        view.decided(course, decision, now)
        if opener is not None:
            opener.close(course)
