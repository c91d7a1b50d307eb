"""What a DDI server has still to be told: in order, bounded, last words never lost.

The rules this module keeps:
 * A last word leaves only when the server took it, said that it knows nothing of the
   action any more (404, 410), or has called it wrong so often that it never will take
   it (``drop``). Progress that piles up loses its oldest entries.
 * Room for last words is never exhausted by those already there: while ``is_full``,
   nothing new is begun that would need one.
 * A last word is not queued again behind itself.

Laws: ``queue`` of anything keeps all last words; at most ``MAX_OUTBOX`` entries wait.
"""

from msgspec.structs import replace

from agent.core.ddi import MAX_OUTBOX, Ended, Feedback, Record

MAX_PROGRESS = 16  # an order takes four or five; more are of servers that were away
# An open action and its cancellation need a word each; the rest is for the unforeseen.
FULL = MAX_OUTBOX - MAX_PROGRESS - 8
# What says nothing about a request, only about the way or the time: a proxy wants to
# be told who we are, took us for somebody else, or it took too long, or is too early.
PASSING_STATUSES = frozenset({407, 408, 421, 425, 429})


def queue(record: Record, said: Feedback) -> Record:
    """Return a record in which something waits to be told."""
    of_it = [it for it in record.outbox if _about(it) == _about(said)]
    if said.is_last and of_it and _same(said, of_it[-1]):
        return record
    waiting = [*record.outbox, said]
    surplus = sum(not it.is_last for it in waiting) - MAX_PROGRESS
    kept: list[Feedback] = []
    for it in waiting:
        if surplus > 0 and not it.is_last:
            surplus -= 1  # the oldest: what is newer says more
        else:
            kept.append(it)
    return replace(record, outbox=tuple(kept))


def is_full(record: Record) -> bool:
    """Return whether nothing may begin until the server has listened."""
    return sum(it.is_last for it in record.outbox) >= FULL


def answered(record: Record, said: Feedback, status: int) -> Record:
    """Return a record after a server answered a feedback.

    2xx: it was taken; 404 and 410: there is nobody to take it. News of progress that
    the server calls wrong (another 4xx that is no matter of papers or of time) is not
    worth a second try; a last word is. Anything else keeps the entry.
    """
    settled = 200 <= status < 300 or status in {404, 410}
    if not settled and not (is_wrong(status) and not said.is_last):
        return record
    return drop(record, said)


def is_wrong(status: int) -> bool:
    """Return whether a server calls what it was told wrong.

    Not so for papers (401, 403), and for what passes.
    """
    return 400 <= status < 500 and status not in {401, 403, *PASSING_STATUSES}


def drop(record: Record, said: Feedback) -> Record:
    """Return a record in which something does not wait to be told any more."""
    kept = list(record.outbox)
    if said in kept:
        kept.remove(said)
    return replace(record, outbox=tuple(kept))


def waits(record: Record, action: str) -> bool:
    """Return whether an action's last word has not been taken yet."""
    return any(it.is_last and it.action == action for it in record.outbox)


def ended_as(record: Record, action: str) -> Ended | None:
    """Return how an action ended, as long as the server may still offer it."""
    found = [it for it in record.ended if it.id == action and not it.gone]
    return found[-1] if found else None


def not_offered(record: Record, offered: str) -> Record:
    """Return a record after a poll that offered this action (or none) to begin.

    What ended, was told, and is not offered any more is gone: its id may come again.
    """
    ended = tuple(
        replace(it, gone=True)
        if it.id != offered and not it.gone and not waits(record, it.id)
        else it
        for it in record.ended
    )
    return record if ended == record.ended else replace(record, ended=ended)


def _about(said: Feedback) -> tuple[str, str]:
    """Return what a feedback is about."""
    return said.resource, said.action


def _same(one: Feedback, other: Feedback) -> bool:
    """Whether two last words say the same."""
    return replace(one, at_ms=0) == replace(other, at_ms=0)
