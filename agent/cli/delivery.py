"""Bringing one board a slice and an order, and following what becomes of them.

The rules this module keeps:
 * What the board says it runs decides what is sent; what it says it wants, too.
 * The doorbell rings last, when everything is there.
 * Who only asks for a look does not come too late: an update that is under way is
   followed to its end first. Who brings or orders something is refused (``busy``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from agent.cli.board_answers import State
from agent.cli.board_link import BoardLink
from agent.cli.follow import Follower, Mark
from agent.cli.outcome import Outcome
from agent.cli.plain_text import bytes_text
from agent.cli.slice_choice import Needs, choose_files
from agent.cli.slice_files import Slice
from agent.cli.update_view import BoardView
from agent.cli.upload import Sent, Upload
from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted
from agent.errors import RequestRefusedError

PUSH = "push"
MAX_METADATA_BYTES = 8_000_000  # what a board reads of targets.json is 5 MB


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be delivered.

    Attributes:
        files: A slice, or None where the board fetches by itself.
        assign: Pipeline -> (model, version); empty model means the pipeline's own.
        generation: Of the desired state; 0 means one more than the last.
        everything: Send all files of the slice.
        wait: Follow the update to its end.
    """

    files: Slice | None = None
    assign: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    generation: int = 0
    everything: bool = False
    wait: bool = True


@dataclass(slots=True)
class Delivery:
    """One board on its way to what was ordered.

    Attributes:
        link: The board; ``view`` shows it.
        pause: Waits some seconds; raises to break off.
        sent: What was uploaded.
    """

    link: BoardLink
    view: BoardView
    pause: Callable[[float], None]
    sent: Sent = field(default_factory=Sent)

    def carry_out(self, order: Order) -> list[Outcome]:
        """Upload, order, follow; without waiting there is no outcome.

        Raises:
            AgentError: The board refused something, or was lost.
        """
        state = self.link.state()
        pushed = self.link.desired() if state.update.orchestrator == PUSH else None
        assigned = resolve(order.assign, state)
        desired = next_desired(pushed, assigned, order.generation)
        if order.files is not None:
            self._bring(
                order.files, needs_of(state, desired, everything=order.everything)
            )
        # Marked only now: an upload takes minutes, in which others may have updated it.
        follower = Follower(self.link, self.view, self.pause)
        mark = follower.mark()
        if assigned and desired is not None:
            generation = self.link.set_desired(desired)
            self.view.say(f"ordered, generation {generation}")
        else:
            mark = self._ask_to_look(follower, mark, order)
        if not order.wait:
            return []
        return follower.follow_look(mark)

    def _ask_to_look(self, follower: Follower, first: Mark, order: Order) -> Mark:
        """Ring; return the board at the moment before, and what was reported since."""
        mark = first
        while True:
            try:
                phase = self.link.look()
            except RequestRefusedError as err:
                patient = order.wait and order.files is None
                if err.reason != Reason.BUSY or not patient:
                    raise
                self.view.say("an update is under way already; looking after it")
                follower.follow_others(mark)
                mark = replace(follower.mark(), newest_id=first.newest_id)
            else:
                self.view.say(f"asked to look ({phase})")
                return mark

    def _bring(self, files: Slice, needs: Needs) -> None:
        """Upload what the board needs."""

        def read(path: str) -> bytes:
            if files.sizes[path] > MAX_METADATA_BYTES:
                raise LookupError(path)  # then nothing is left out
            return files.read(path, 0, MAX_METADATA_BYTES)

        choice = choose_files(files.sizes, read, needs)
        for path in choice.absent:
            self.view.say(f"note: the slice lists {path}, but does not hold it")
        # First: what follows them is of no use to a board that cannot open it.
        envelopes = [path for path in choice.envelopes if files.find_envelope(path)]
        paths = (*envelopes, *choice.paths)
        total = sum(files.sizes[path] for path in paths)
        self.view.say(f"sending {len(paths)} files, {bytes_text(total)}")
        upload = Upload(
            self.link,
            files,
            lambda done: self.view.sending(done, total),
            self.pause,
            sent=self.sent,
        )
        upload.send(paths)
        self.view.say(_sent_text(self.sent))


def resolve(
    assign: Mapping[str, tuple[str, int]], state: State
) -> dict[str, tuple[str, int]]:
    """Return what is assigned, with the models of the board's pipelines.

    Raises:
        RequestRefusedError: ``not_orchestrator`` or ``unknown_pipeline``.
    """
    orchestrator = state.update.orchestrator
    # Asked before the upload: the board would say the same, after an hour of sending.
    if assign and orchestrator and orchestrator != PUSH:
        raise RequestRefusedError(
            f"this board takes its orders from {orchestrator!r}, not from a push",
            reason=Reason.NOT_ORCHESTRATOR,
            todo="Leave --assign out: the slice is followed by the same rules.",
        )
    for pipeline in assign:
        if pipeline not in state.pipelines:
            names = ", ".join(state.pipelines) or "none"
            raise RequestRefusedError(
                f"this board has no pipeline {pipeline!r}; it has: {names}",
                reason=Reason.UNKNOWN_PIPELINE,
            )
    return {
        name: (model or state.pipelines[name].model, version)
        for name, (model, version) in assign.items()
    }


def next_desired(
    pushed: GroupFile | None, assign: Mapping[str, tuple[str, int]], generation: int
) -> GroupFile | None:
    """Return the desired state to push: what was pushed before, and what is new.

    Pauses and windows of a fleet server end with it: who assigns by hand means now.
    """
    if not assign:
        return pushed
    before = pushed.pipelines if pushed is not None else {}
    last = pushed.generation if pushed is not None else 0
    new = {name: Wanted(*wanted) for name, wanted in assign.items()}
    return GroupFile(generation=generation or last + 1, pipelines={**before, **new})


def needs_of(
    state: State, desired: GroupFile | None, *, everything: bool = False
) -> Needs:
    """Return what a board needs of a slice."""
    pipelines = state.pipelines.items()
    pushed = desired.pipelines.items() if desired is not None else ()
    return Needs(
        models={name: each.model for name, each in pipelines},
        running={name: each.active.sha256 for name, each in pipelines if each.active},
        wanted=frozenset((name, w.model, w.version) for name, w in pushed),
        board=state.board or "",
        every_version=state.update.orchestrator == "ddi",
        everything=everything,
    )


def _sent_text(sent: Sent) -> str:
    """Say what went over."""
    words = [f"sent {bytes_text(sent.sent_bytes)}"]
    if sent.kept_bytes:
        words.append(f"{bytes_text(sent.kept_bytes)} were there already")
    if sent.resumed:
        words.append(f"resumed {sent.resumed} times")
    return ", ".join(words)
