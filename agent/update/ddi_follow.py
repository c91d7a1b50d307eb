"""The links of a poll, followed one after the other.

The rules this module keeps:
 * Cancellations come first: what is taken back does not begin; what is to be confirmed
   and what was installed before come last.
 * What a link is wrong about fails its own action; the way to the server being wrong
   ends the round.
 * A link that was followed is followed again only when the server says something new.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from agent.core.ddi import Feedback
from agent.core.ddi_actions import (
    Offer,
    accept,
    adopt,
    cancel_ended,
    cancel_refused,
    is_new,
    leave,
    refuse,
    repeat,
    replaces,
)
from agent.core.ddi_messages import (
    CANCEL,
    CONFIG,
    CONFIRMATION,
    DEPLOYMENT,
    INSTALLED,
    MAX_POLL_BYTES,
    Deployment,
    parse_cancel,
)
from agent.core.ddi_outbox import ended_as, is_full, not_offered, queue
from agent.core.ddi_words import identity_digest
from agent.core.fleet_settings import DdiSettings
from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.errors import AgentError, BundleRefusedError, DeviceError
from agent.update.ddi_book import Book
from agent.update.ddi_needs import Errands
from agent.update.ddi_orders import Orders, is_verdict
from agent.update.ddi_talk import Talk

log = logging.getLogger(__name__)


class Follower:
    """Follows links.

    Attributes:
        trouble: What the last round's links stumbled over, if they did.
    """

    def __init__(
        self, settings: DdiSettings, talk: Talk, book: Book, errands: Errands
    ) -> None:
        self.trouble: AgentError | None = None
        self._settings = settings
        self._talk = talk
        self._book = book
        self._errands = errands
        self._orders = Orders(talk)
        self._followed = ""  # the deployment's address that was understood last
        self._misses = ("", 0)  # action that could not be read, and how often
        self._confirmed: Feedback | None = None
        self._doubted = ""  # action to be confirmed that was refused once
        self._refused_config = ""
        self._adopted = ""

    async def follow(self, links: Mapping[str, str], *, fresh: bool) -> None:
        """Do what the links of a poll ask for.

        Raises:
            BundleRefusedError: The server cannot be asked any more.
            DeviceError: Our own papers, or the store.
        """
        steps: dict[str, Callable[[str], Awaitable[None]]] = {
            CONFIG: self._configure,
            CANCEL: self._cancel,
            CONFIRMATION: self._confirm,
            DEPLOYMENT: self._deploy,
            INSTALLED: self._adopt,
        }
        for relation, step in steps.items():
            href = links.get(relation, "")
            if not href and relation != CONFIG:
                continue
            if relation == CANCEL and not fresh:
                continue  # it was answered; the server has not said anything since
            try:
                await step(href)
            except BundleRefusedError as err:
                if not is_verdict(err):
                    raise
                self.trouble = self.trouble or err
        if fresh:
            await self._forget_what_is_not_offered(links)

    async def _configure(self, href: str) -> None:
        """Tell what this board is: when asked, and when it has changed."""
        identity = self._errands.identify()
        digest = identity_digest(identity)
        told = self._book.record.identity == digest and not href
        if told or digest == self._refused_config:
            return
        url = self._talk.controller.own(href) if href else ""
        try:
            await self._talk.configure(url, identity)
        except BundleRefusedError as err:
            if is_verdict(err):
                self._refused_config = digest  # the same is not tried in each round
            raise
        self._book.keep(replace(self._book.record, identity=digest))

    async def _cancel(self, href: str) -> None:
        """Take an order back, unless it was committed."""
        controller, book = self._talk.controller, self._book
        url, cancel = controller.own(href), controller.action_at(href)
        raw = await self._talk.read(url, CANCEL, MAX_POLL_BYTES)
        if raw is None:
            self._talk.forget()  # it may be there the next time: no 304 hides it
            return
        said = parse_cancel(raw)
        if said.id != cancel:
            what = f"{CANCEL}: {cancel} calls itself {said.id}"
            raise BundleRefusedError(what, reason=Reason.PROTOCOL)
        await book.look()
        action, now_ms = book.record.open, book.now_ms
        if action is None or action.id != said.stop_id:
            if not is_full(book.record):
                book.keep(cancel_ended(book.record, cancel, said.stop_id, now_ms))
            return
        if book.is_partly_committed():
            # Asked before anything is withdrawn: the rest of it has to go on.
            book.keep(cancel_refused(book.record, cancel, now_ms))
            return
        log.info("ddi.canceled", extra={"action": action.id})
        book.keep(leave(book.record, "canceled", cancel))
        await book.let_go()

    async def _confirm(self, href: str) -> None:
        """Confirm what is admissible, deny the rest, where that is ours to say."""
        if not self._settings.confirm or is_full(self._book.record):
            return
        controller = self._talk.controller
        url, action = controller.own(href), controller.action_at(href)
        confirmation = await self._orders.read(url, action, "confirmationBase")
        if confirmation is None:
            return
        said = Feedback("confirmationBase", action, "confirmed")
        try:
            wanted = await self._understand(confirmation)
            if not await self._is_judged(action, wanted):
                return
        except BundleRefusedError as err:
            if not is_verdict(err):
                raise
            said = Feedback(
                "confirmationBase",
                action,
                "denied",
                reason=str(err.reason),
                details=(str(err),),
            )
        # hawkBit goes on asking after a denial: it is told again what changed.
        if said != self._confirmed:
            self._confirmed = said
            said = replace(said, at_ms=self._book.now_ms)
            self._book.keep(queue(self._book.record, said))

    async def _is_judged(self, action: str, wanted: Mapping[str, Wanted]) -> bool:
        """Return whether it can be said now if this is admissible.

        What cannot be said is no matter of the other links. What seems to be refused
        is looked for first: it may have been published a minute ago.

        Raises:
            BundleRefusedError: It is not.
        """
        for it in dict.fromkeys(wanted.values()):
            try:
                await self._errands.admissible(it)
            except DeviceError as err:
                self.trouble = self.trouble or err
                return False
            except BundleRefusedError as err:
                if not is_verdict(err):
                    self.trouble = self.trouble or err
                    return False
                if self._doubted != action:
                    self._doubted = action
                    self._errands.look()
                    return False
                raise
        return True

    async def _deploy(self, href: str) -> None:
        """Take an order, or what is new about one."""
        controller, book = self._talk.controller, self._book
        url, action = controller.own(href), controller.action_at(href)
        if ended_as(book.record, action):
            book.keep(repeat(book.record, action))
            return
        is_open = book.record.open is not None and book.record.open.id == action
        if (is_open and url == self._followed) or is_full(book.record):
            return
        try:
            deployment = await self._orders.read(url, action, "deploymentBase")
            if deployment is None:
                return
            pipelines = await self._understand(deployment)
        except BundleRefusedError as err:
            self._miss(action, err, is_open=is_open)
            raise
        self._misses = ("", 0)
        offer = Offer(
            action,
            pipelines,
            deployment.download,
            deployment.update,
            deployment.window_open,
        )
        await self._take(offer)
        self._followed = url

    async def _take(self, offer: Offer) -> None:
        """Take an offer; what it replaces is ended first."""
        book = self._book
        if replaces(book.record, offer):
            await book.look()  # it may have ended by itself
        if replaces(book.record, offer):
            if book.record.open is not None and book.record.open.id == offer.id:
                await book.exchange(offer)
                return
            book.keep(leave(book.record, "superseded"))
            await book.let_go()
        known = book.record.open is not None
        book.keep(accept(book.record, offer, book.now_ms))
        if not known:
            log.info("ddi.accepted", extra={"action": offer.id})

    def _miss(self, action: str, error: BundleRefusedError, *, is_open: bool) -> None:
        """Fail an action that cannot be understood, or not be read for too long.

        One that is under way goes on as it was understood before.
        """
        book = self._book
        if is_open:
            return
        reason, words = str(error.reason), str(error)
        if not is_verdict(error):
            count = self._misses[1] + 1 if self._misses[0] == action else 1
            self._misses = (action, count)
            if count < self._settings.attempts:
                return
            reason, words = Reason.GAVE_UP, f"{reason}: {words}"
        book.keep(refuse(book.record, action, reason, words, book.now_ms))
        log.warning("ddi.refused", extra={"action": action, "reason": reason})

    async def _adopt(self, href: str) -> None:
        """Want again what ran before, where nothing is known of it here."""
        controller, book = self._talk.controller, self._book
        if not is_new(book.record) or href == self._adopted:
            return
        url, action = controller.own(href), controller.action_at(href)
        self._adopted = href  # once: it does not become better by itself
        installed = await self._orders.read(url, action, "installedBase")
        if installed is not None:
            wanted = await self._understand(installed)
            book.keep(adopt(book.record, wanted))
            log.info("ddi.adopted", extra={"action": action})

    async def _understand(self, deployment: Deployment) -> dict[str, Wanted]:
        """Return what a deployment wants of this board's pipelines."""
        return await self._orders.understand(deployment, self._errands.facts().models)

    async def _forget_what_is_not_offered(self, links: Mapping[str, str]) -> None:
        """End what the server took away without a word; ids may come again.

        What was only to be downloaded stays: that is how such an order ends.
        """
        book, offered = self._book, ""
        if DEPLOYMENT in links:
            try:
                offered = self._talk.controller.action_at(links[DEPLOYMENT])
            except BundleRefusedError:
                return  # it may be about any of them
        book.keep(not_offered(book.record, offered))
        action = book.record.open
        if action is None or action.id == offered or action.leaving:
            return
        if CANCEL in links:
            return  # hawkBit offers a cancellation instead: it was answered just now
        if action.update == "skip" and action.said == "downloaded":
            return
        await book.look()
        if book.record.open is not None:
            log.info("ddi.taken_away", extra={"action": action.id})
            book.keep(leave(book.record, "superseded"))
            await book.let_go()
