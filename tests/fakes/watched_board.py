"""A board under attack, held to the oracle of ota.md section 4 by every test alike.

The rules this module keeps:
 * O1, O3: ``undisturbed`` compares the model that answers before and after, and no
   sample is lost, no process dies meanwhile.
 * O5: ``refused`` finds the reason in ``/v1/state`` and in ``/metrics``.
 * O2, O4: ``clean`` publishes the next honest version, which has to become active.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from click.testing import CliRunner, Result
from msgspec.structs import replace

from agent.cli import cli
from agent.core.targets import GroupFile, Wanted, group_path
from agent.publish.staging import load_staged, save_staged
from tests.fakes.daemon_process import NAME, DaemonProcess, Json
from tests.fakes.fleet import GROUP, Fleet

SOURCE = group_path(GROUP)  # who orders models here
MORE_SAMPLES = 50  # after which a board is believed to go on answering


class WatchedBoard:
    """A fleet of one board.

    Attributes:
        fleet: Its owner; ``board`` the daemon.
        good: The honest version that was published last.
    """

    def __init__(self, fleet: Fleet, board: DaemonProcess) -> None:
        self.fleet = fleet
        self.board = board
        self.good = 0
        self._last = 0

    def clean(self) -> None:
        """O4: the next honest version becomes active; O2: it is above all floors."""
        self.good = self.next()
        self.fleet.publish(self.good)
        self.board.wait_version(self.good)
        self.board.wait_for(lambda: self.decision()["state"] == "runs", "it runs")
        self.refusals_forgotten()

    def next(self) -> int:
        """Return a version that was never used."""
        self._last += 1
        return self._last

    def stage(self, state: GroupFile) -> None:
        """Stage a desired state that ``assign`` would refuse to write, and publish."""
        repository = self.fleet.spoiled.repository
        staged = load_staged(repository.path)
        groups = {**staged.groups, GROUP: state}
        save_staged(repository.path, replace(staged, groups=groups))
        self.fleet.sign()

    def desired(self) -> GroupFile:
        """Return what is published as the group's desired state."""
        return self.fleet.spoiled.repository.status().groups[GROUP]

    def want(self, model: str, version: int, pipeline: str = NAME) -> None:
        """Publish a desired state with one more wish, known or not."""
        before = self.desired()
        wishes = {**before.pipelines, pipeline: Wanted(model, version)}
        generation = before.generation + 1
        self.stage(replace(before, generation=generation, pipelines=wishes))

    # --- looking

    def decision(self, pipeline: str = NAME) -> Json:
        """Return what was decided about a pipeline."""
        decisions = self.board.state()["update"]["decisions"]
        found: list[Json] = [it for it in decisions if it["pipeline"] == pipeline]
        return found[0] if found else {"state": "", "reason": "", "generation": 0}

    def wait_decision(self, state: str, reason: str, pipeline: str = NAME) -> None:
        """Wait for a decision."""

        def decided() -> bool:
            decision = self.decision(pipeline)
            return (decision["state"], decision["reason"]) == (state, reason)

        self.board.wait_for(decided, f"{pipeline} {state} [{reason}]")

    def ended(self, reason: str, result: str = "refused") -> int:
        """Return how many updates ended so in this life, as the state says."""
        rows = self.board.state()["update"]["results"]
        key = (result, reason)
        found = [it["count"] for it in rows if (it["result"], it["reason"]) == key]
        return int(sum(found))

    def refusals_forgotten(self) -> None:
        """What runs as wanted is no longer in trouble."""
        self.board.wait_for(
            lambda: self.board.state()["update"]["trouble"] is None, "no trouble"
        )

    @contextmanager
    def refused(self, reason: str, result: str = "refused") -> Iterator[None]:
        """O1, O3, O5: what is done here is refused, and leaves the board as it was."""
        before = self.ended(reason, result)
        with self.undisturbed():
            yield
            self.board.wait_for(
                lambda: self.ended(reason, result) > before, f"{result} [{reason}]"
            )
            name = f'tinyward_updates_total{{reason="{reason}",result="{result}"}}'
            assert self.board.metrics()[name] == self.ended(reason, result)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """O1, O3: the same model answers before, during and after; nobody died."""
        before = self._standing()
        self.answers()
        yield
        self.answers()
        assert self._standing() == before

    def answers(self) -> None:
        """O3: samples flow, and all of them are answered."""
        begun = self.board.samples()["ok"]
        self.board.wait_for(
            lambda: self.board.samples()["ok"] >= begun + MORE_SAMPLES, "samples"
        )
        sums = self.board.samples()
        assert (sums["failed"], sums["dropped"]) == (0, 0)
        assert sums["in"] - sums["ok"] in (0, 1)

    def _standing(self) -> Json:
        """Return what an attack must not change."""
        pipeline = self.board.pipeline()
        return {
            "daemon": self.board.pid,
            "active": pipeline["active"],
            "ready": pipeline["ready"],
            "worker": pipeline["worker"]["pid"],
            "restarts": pipeline["restarts"],
        }

    # --- the operator's commands

    def say(self, *words: str, options: tuple[str, ...] = ()) -> Result:
        """Run a command of the board's own operator."""
        return tinyward(*words, "--socket", str(self.board.socket), *options)

    def ring(self) -> None:
        """Ask for a look now: who failed for a while looks less often."""
        self.say("update", "now", options=("--no-wait",))

    def status(self) -> str:
        """Return what ``tinyward status`` prints."""
        result = self.say("status")
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())


def tinyward(*words: str) -> Result:
    """Run ``tinyward ...``."""
    return CliRunner().invoke(cli, words, env={"COLUMNS": "300"})
