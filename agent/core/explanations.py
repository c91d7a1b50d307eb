"""What each reason means, who has to act, and what they can do.

The README's table of refusals is rendered from ``EXPLANATIONS`` and checked by a test.
The words stand in ``reason_words*.py``.

>>> EXPLANATIONS[Reason.SIGNATURE].actor
'sender'
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from agent.core.reason_words import AUTHOR, SENDER, US, Words
from agent.core.reason_words_board import NOBODY, OPERATOR
from agent.core.reason_words_fleet import FLEET
from agent.core.reason_words_proof import KEEPER, OWNER
from agent.core.reasons import Reason

Actor = Literal["sender", "author", "operator", "nobody", "us"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means, who has to act, and what they can do.

    Attributes:
        actor: ``sender`` (of the bundle), ``author`` (of the model), ``operator``
            (of the board), ``nobody`` (it passes by itself) or ``us`` (a bug).
        what: What happened, in one sentence.
        todo: What that person can do.
    """

    actor: Actor
    what: str
    todo: str


_ACTORS: Mapping[Actor, Words] = {
    "sender": SENDER,
    "author": {**AUTHOR, **OWNER},
    "operator": {**OPERATOR, **FLEET, **KEEPER},
    "nobody": NOBODY,
    "us": US,
}
EXPLANATIONS: Mapping[Reason, Explanation] = MappingProxyType(
    {
        reason: Explanation(actor, what, todo)
        for actor, words in _ACTORS.items()
        for reason, (what, todo) in words.items()
    }
)
