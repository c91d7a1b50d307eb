"""The models that came with the system: the last resort of a pipeline without any.

The rules this module keeps:
 * A slice is opened when its pipeline has no model at all, and not before.
 * Its signatures count, its age does not; nobody holds or pauses a last resort but the
   slice itself.
"""

from collections.abc import Callable, Iterable
from functools import partial

from agent.core.desired import Order, Situation, plan
from agent.core.installed import Slots
from agent.settings import UpdateSettings
from agent.update.intake import EXPECTED, Origin
from agent.update.ledger import Ledger
from agent.update.needs import Repository, Supply, Surroundings
from agent.update.sources import Files, Sources
from agent.update.threads import in_thread


class Factories:
    """Asks the slices that were shipped with the system.

    Attributes:
        settings: Table ``[update]``; may be changed.
    """

    def __init__(
        self,
        supply: Supply,
        settings: UpdateSettings,
        surroundings: Surroundings,
        sources: Sources,
        ledger: Ledger,
    ) -> None:
        self._supply = supply
        self.settings = settings
        self._around = surroundings
        self._sources = sources
        self._ledger = ledger
        # By what opens them: other settings bring another.
        self._opened: dict[Callable[[], Repository], Repository] = {}

    def lacking(self) -> list[str]:
        """Return the pipelines that have a slice and no model.

        Raises:
            DeviceError: The store cannot be read.
        """
        store = self._around.store
        return [it for it in self._supply.factories if store.slots(it).active is None]

    async def ask(self, name: str) -> tuple[Origin, Iterable[Order]]:
        """Return what a slice wants of its pipeline: nothing, where it is of no use."""
        subject = f"factory of {name}"
        if not self._ledger.memory.may_try(subject, ()):
            return Origin(()), ()
        try:
            opens = self._supply.factories[name]
            if opens not in self._opened:
                self._opened[opens] = await in_thread(opens)
            repository = self._opened[opens]
            files = await in_thread(partial(self._read, repository))
        except EXPECTED as err:
            self._ledger.count_trouble(subject, err)
            return Origin(()), ()
        for path, file in files:
            self._sources.judge(f"factory/{path}", file)
        now = max(self._around.clock(), repository.clock_floor)
        situation = Situation(self._sources.board_id(), now)
        origin = Origin((repository,), last_resort=True)
        return origin, plan(files, {name: Slots()}, situation).orders

    def _read(self, repository: Repository) -> Files:
        """Verify a slice and return its desired states; called in a thread."""
        repository.refresh(self._around.clock())
        return repository.desired(self.settings.groups, self._sources.board_id())
