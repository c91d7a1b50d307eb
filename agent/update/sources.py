"""What the fleet's repository, the uploaded slice and a push say, as of the last look.

The rules this module keeps:
 * Nothing is ordered by a source whose newest metadata did not verify in this look.
 * The slice is looked at once the doorbell rang, or a start finds it filled, until
   nothing of it waits any more. One that does not verify stays only where more files,
   or the same ones once more, may complete it; else it is told of once, and removed.
 * Group files are read again only where a repository says that something changed, or
   where they could not be read when it did.
 * What is revoked is heard first: no desired state that cannot be read hides it.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent.core.ddi import SOURCE as DDI
from agent.core.desired import check_dates
from agent.core.targets import GroupFile
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.settings import UpdateSettings
from agent.update.ledger import Ledger
from agent.update.memory import is_mendable
from agent.update.needs import Repository, Supply, Surroundings
from agent.update.pushed import SOURCE, PushedState
from agent.update.threads import in_thread

if TYPE_CHECKING:
    from agent.update.ddi_state import DdiState

log = logging.getLogger(__name__)

Files = list[tuple[str, GroupFile]]
# Subjects of troubles that concern no one pipeline.
REPOSITORY, INBOX = "repository", "inbox"
EXPECTED = (BundleRefusedError, DeviceError)


@dataclass(slots=True)
class _Word:
    """What one repository said last.

    Attributes:
        believed: It verified in the last look.
        news: It said that something changed, which was not read yet: it says so once.
        files: Desired states; None before they were read.
        unread: Why they could not be read, though the metadata verified.
        hopeless: It did not verify, and nothing that is added to it changes that.
    """

    believed: bool = False
    news: bool = False
    files: Files | None = None
    unread: AgentError | None = None
    revoked: Collection[str] = ()
    expires: dict[str, float] = field(default_factory=dict)
    issued: float = 0.0
    hopeless: bool = False


class Sources:
    """Follows what says what should run, and where its bytes are.

    Attributes:
        files: (path, desired state), most specific first.
        last_look: Unix seconds of the last look that verified something.
        trouble: (reason, message) of what the last look stumbled over, or None.
        slice_open: The uploaded slice is looked at.
        pushed: The desired state that was pushed.
        ddi: What a DDI server ordered, where such a server is the orchestrator.
        revoked: Digests of the bundles that the owner revoked.
    """

    def __init__(
        self,
        settings: UpdateSettings,
        supply: Supply,
        surroundings: Surroundings,
        ledger: Ledger,
        ddi: "DdiState | None" = None,
    ) -> None:
        self.files: Files = []
        self.last_look = 0.0
        self.trouble: tuple[str, str] | None = None
        self.slice_open = surroundings.inbox is not None
        self.pushed = PushedState(surroundings.store)
        self.ddi = ddi
        self._settings = settings
        self._supply = supply
        self._around = surroundings
        self._ledger = ledger
        self.revoked: Collection[str] = ()
        self._board_id = ""
        self._fleet = _Word()
        self._slice = _Word()
        self._slice_as_of = 0  # ``Inbox.changes`` when it was announced last

    @property
    def believed(self) -> list[Repository]:
        """Where bundles may come from now: what was uploaded is nearest."""
        pairs = [
            (self._supply.inbox, self._slice),
            (self._supply.repository, self._fleet),
        ]
        return [it for it, word in pairs if it is not None and word.believed]

    @property
    def expires(self) -> dict[str, float]:
        """Role -> Unix seconds at which its metadata expires."""
        return self._newest().expires

    @property
    def issued(self) -> float:
        """Signed issue time of the newest metadata, Unix seconds."""
        return self._newest().issued

    @property
    def clock_floor(self) -> float:
        """Unix seconds before which it cannot be."""
        known = (self._supply.repository, self._supply.inbox)
        return max((it.clock_floor for it in known if it is not None), default=0.0)

    @property
    def retry_after(self) -> float:
        """Seconds that the fleet's server asked to be left alone for."""
        repository = self._supply.repository
        return repository.retry_after if repository is not None else 0.0

    @property
    def orchestrator(self) -> str:
        """Who writes the desired state."""
        return self._settings.orchestrator

    def follow(self, settings: UpdateSettings) -> None:
        """Go on with another table ``[update]``; other groups are read anew."""
        if settings.groups != self._settings.groups:
            self._fleet.files = self._slice.files = None
        self._settings = settings

    def board_id(self) -> str:
        """Return this board's name; it stays the same as long as the daemon runs."""
        self._board_id = self._board_id or self._around.board().id
        return self._board_id

    def now(self) -> float:
        """Return the time: never before what was verified to have been."""
        return max(self._around.clock(), self.clock_floor)

    async def recall(self) -> None:
        """Learn what was known to be revoked, before any repository is read.

        Raises:
            DeviceError: The store cannot be read.
        """
        self.revoked = await in_thread(self._around.known_revoked)

    async def refresh(self, *, inbox: bool = True) -> bool:
        """Look at everything that may say something; return whether it worked.

        Args:
            inbox: Also at the uploaded slice, if there is one.

        Raises:
            DeviceError: The store cannot be read.
        """
        worked = True
        self.trouble = None
        fleet, uploaded = self._supply.repository, self._supply.inbox
        if fleet is not None:
            worked = await self._follow(REPOSITORY, fleet, self._fleet)
        if inbox and uploaded is not None:
            self._slice.believed = False
            if await self._is_filled():
                # One that does not verify has to be completed, and announced again.
                self.slice_open = await self._follow(INBOX, uploaded, self._slice)
                if self._slice.hopeless:
                    await self.close_slice()
                    self._ledger.memory.forget(INBOX)  # the next one is another
        self.hear()
        for path, file in self.files:
            self.judge(path, file)
        return worked

    def hear(self) -> None:
        """Take what was said on this board for what is desired, where that counts.

        It was pushed, or a DDI server ordered it.

        Raises:
            DeviceError: The store cannot be read.
        """
        if self._settings.orchestrator == "push":
            pushed = self.pushed.load()
            self.files = [] if pushed is None else [(SOURCE, pushed)]
        elif self.ddi is not None:
            ordered = self.ddi.desired()
            self.files = [] if ordered is None else [(DDI, ordered)]

    def judge(self, subject: str, file: GroupFile) -> None:
        """Count a desired state that makes no sense; the plan passes over it."""
        try:
            check_dates(file)
        except BundleRefusedError as err:
            self._ledger.count_trouble(subject, err)
        else:
            self._ledger.memory.forget(subject)

    def announce_slice(self) -> None:
        """Look at the uploaded slice from now on: it is whole, as its uploader says."""
        self.slice_open = True
        if self._around.inbox is not None:
            self._slice_as_of = self._around.inbox.changes

    async def close_slice(self) -> None:
        """Remove the uploaded slice: nothing of it is wanted any more.

        Where the next one is on its way already, it stays until that is announced.

        Raises:
            DeviceError: It cannot be removed.
        """
        self.slice_open = self._slice.believed = False
        inbox = self._around.inbox
        if inbox is not None:
            clear = partial(inbox.clear_unless_changed, self._slice_as_of)
            cleared = await in_thread(clear)
            log.info("inbox.cleared" if cleared else "inbox.kept")

    def has_slice(self) -> bool:
        """Return whether an uploaded slice is among what is believed."""
        return self._slice.believed

    def _newest(self) -> _Word:
        """Return the word that was issued last."""
        return max(self._fleet, self._slice, key=lambda word: word.issued)

    async def _is_filled(self) -> bool:
        """Whether there is a slice to be looked at; an empty one is not asked again."""
        inbox = self._around.inbox
        if inbox is not None and self.slice_open:
            self.slice_open = await in_thread(inbox.filled)
        return self.slice_open

    async def _follow(self, subject: str, repository: Repository, word: _Word) -> bool:
        """Verify one repository's newest metadata and take what it says."""
        follows, groups = self._settings.orchestrator == "tuf", self._settings.groups
        read = partial(
            _read,
            repository,
            self._around.clock(),
            word,
            self._groups() if follows else None,
        )
        try:
            said = await in_thread(read)
        except EXPECTED as err:
            return self._stumble(subject, word, err)
        word.expires, word.issued = said.expires, said.issued
        # Both keep one note of it; an older slice says what the newer one said.
        self._ledger.memory.forget_revoked(set(self.revoked).difference(said.revoked))
        self.revoked = said.revoked
        if said.unread is not None:
            return self._stumble(subject, word, said.unread)
        if self._ledger.memory.forget(subject):
            log.info("%s.recovered", subject)
        # Those of other groups are none: they are read anew in the next look.
        if said.files is not None and groups == self._settings.groups:
            word.files = self.files = said.files
        word.believed, word.hopeless, word.news = True, False, False
        self.last_look = self._around.clock()
        return True

    def _groups(self) -> Callable[[Repository], Files]:
        """Return what reads a repository's desired states for this board."""
        groups: Sequence[str] = self._settings.groups
        device = self.board_id()
        return lambda repository: repository.desired(groups, device)

    def _stumble(self, subject: str, word: _Word, error: AgentError) -> bool:
        """Take note of a repository that cannot be followed; return False."""
        word.believed = False
        word.hopeless = not is_mendable(error)
        whose = "the uploaded slice: " if subject == INBOX else ""
        self.trouble = (str(error.reason), f"{whose}{error}")
        self._ledger.count_trouble(subject, error)
        return False


def _read(
    repository: Repository,
    now: float,
    known: _Word,
    desired: Callable[[Repository], Files] | None,
) -> _Word:
    """Verify the newest metadata and return what it says; called in a thread.

    A repository that was out of reach and has nothing new is asked for nothing more:
    a whole fleet comes back at once, and would ask twice as often as usual.

    Raises:
        BundleRefusedError: It did not verify, or does not say what is revoked.
        DeviceError: Something on this board does not play along.
    """
    known.news |= repository.refresh(now)
    revoked = frozenset(repository.revoked().bundles)
    files, unread = None, None
    if desired is not None and (known.news or known.files is None):
        try:
            files = desired(repository)
        except EXPECTED as err:
            unread = err
    return _Word(
        files=files,
        unread=unread,
        revoked=revoked,
        expires=dict(repository.expiries()),
        issued=repository.issued,
    )
