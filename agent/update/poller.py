"""The task that looks at repositories and takes in what they ask for.

The rules this module keeps:
 * One look: refresh, plan, consider each order. Where all runs as wanted, that is all.
 * The next look comes after ``poll_s`` or when someone pokes; after failures later.
 * The factory slice is asked only for a pipeline without any model.
"""

import asyncio
import logging
from functools import partial
from typing import NoReturn

from agent.core.desired import check_dates, plan
from agent.core.installed import Slots
from agent.core.snapshot import UpdateSnapshot
from agent.core.targets import GroupFile
from agent.errors import BundleRefusedError
from agent.settings import Settings
from agent.update.intake import EXPECTED, Intake, Origin
from agent.update.needs import Repository, Supply, Surroundings
from agent.update.pace import Pace
from agent.update.threads import in_thread

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000
REPOSITORY = "repository"  # the subject of troubles that concern no one pipeline


class UpdatePoller:
    """Follows the desired state of a fleet."""

    def __init__(
        self, settings: Settings, supply: Supply, surroundings: Surroundings
    ) -> None:
        self._settings = settings.update
        self._supply = supply
        self._around = surroundings
        self._store = surroundings.store
        self._models = {table.name: table.model for table in settings.pipeline}
        limit = int(settings.update.max_bundle_mb * MEGABYTE)
        self._intake = Intake(self._models, limit, surroundings)
        self._pace = Pace(settings.update.poll_s, surroundings.draw)
        self._factories: dict[str, Repository] = {}
        self._poked = asyncio.Event()
        self._recovered = False

    async def recover(self) -> None:
        """Tidy up after the last life; call it before the first worker starts.

        What is active may change here: a COMMIT that power loss interrupted is done.

        Raises:
            DeviceError: The store cannot be read.
        """
        if not self._recovered:
            await self._intake.recover()
            self._recovered = True

    async def run(self) -> NoReturn:
        """Look, wait, look again; ends by cancellation only.

        Raises:
            DeviceError: Nobody called ``recover``, and the store cannot be read.
        """
        await self.recover()
        while True:
            pause_s = await self.look()
            try:
                async with asyncio.timeout(pause_s):
                    await self._poked.wait()
            except TimeoutError:
                continue
            self._poked.clear()
            self._intake.memory.hurry()

    def poke(self) -> None:
        """Look now: someone says that something changed."""
        self._poked.set()

    def snapshot(self) -> UpdateSnapshot:
        """Return the counters and the phase as they are now."""
        repository = self._supply.repository
        floor = repository.clock_floor if repository is not None else 0.0
        behind_s = max(0.0, floor - self._around.clock())
        return self._intake.tally.snapshot(str(self._intake.phase), behind_s)

    async def look(self) -> float:
        """Look once at everything and return the seconds until the next look."""
        failed = False
        try:
            await self._look_at_factories()
            await self._look_at_fleet()
        except EXPECTED as err:
            failed = True
            self._intake.count_trouble(REPOSITORY, err)
        else:
            if self._intake.memory.forget(REPOSITORY):
                log.info("repository.recovered")
        return self._pace.after(failed=failed)

    async def _look_at_fleet(self) -> None:
        """Follow the fleet's repository, where it is the orchestrator."""
        repository = self._supply.repository
        if repository is None or self._settings.orchestrator != "tuf":
            return
        slots = {name: self._store.slots(name) for name in self._models}
        await self._follow(Origin(repository), slots)

    async def _look_at_factories(self) -> None:
        """Import the factory model of every pipeline that has none at all."""
        for name, opens in self._supply.factories.items():
            slots, subject = self._store.slots(name), f"factory of {name}"
            if slots.active is not None:
                continue
            if not self._intake.memory.may_try(subject, ()):
                continue
            try:
                if name not in self._factories:
                    self._factories[name] = await in_thread(opens)
                origin = Origin(self._factories[name], last_resort=True)
                await self._follow(origin, {name: slots})
            except EXPECTED as err:
                self._intake.count_trouble(subject, err)

    async def _follow(self, origin: Origin, slots: dict[str, Slots]) -> None:
        """Take in what a repository wants of some pipelines.

        Raises:
            BundleRefusedError: Its metadata did not verify.
            DeviceError: Something on this board does not play along.
        """
        repository, now = origin.repository, self._around.clock()
        files = await in_thread(partial(self._refreshed, repository, now))
        for path, file in files:
            self._judge(f"factory/{path}" if origin.last_resort else path, file)
        time_s = max(now, repository.clock_floor)
        for order in plan(files, slots, self._around.board().id, time_s):
            await self._intake.consider(origin, order)

    def _judge(self, subject: str, file: GroupFile) -> None:
        """Count a desired state that makes no sense; the plan passes over it."""
        try:
            check_dates(file)
        except BundleRefusedError as err:
            self._intake.count_trouble(subject, err)
        else:
            self._intake.memory.forget(subject)

    def _refreshed(
        self, repository: Repository, now: float
    ) -> list[tuple[str, GroupFile]]:
        """Verify the newest metadata and return the desired states in it."""
        repository.refresh(now)
        return repository.desired(self._settings.groups)
