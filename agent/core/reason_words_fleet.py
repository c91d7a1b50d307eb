"""What reasons mean and what to do, where the operator of a fleet acts.

One line is one reason; ``agent.core.explanations`` puts them together.
"""

from agent.core.reason_words import Words
from agent.core.reasons import Reason

# The operator of a fleet: its orchestrator, its inventory, its rollouts.
FLEET: Words = {
    Reason.UNAUTHORIZED: (
        "The fleet's server does not accept this board's token or certificate.",
        "Give the board a token that is valid: [fleet.ddi], `systemd-creds`.",
    ),
    Reason.PROTOCOL: (
        "The fleet's server said something that its protocol does not know.",
        "Check that `fleet.ddi.url` and `tenant` name a hawkBit-like server.",
    ),
    Reason.FOREIGN_URL: (
        "The fleet's server pointed to another host than its own.",
        "Let it name itself as boards do: `fleet.ddi.url`.",
    ),
    Reason.CANCELED: (
        "The fleet's server took its order back before it was committed.",
        "Nothing: what ran before goes on.",
    ),
    Reason.SKIPPED: (
        "The fleet's server wants this downloaded, and not yet installed.",
        "Nothing: it is installed when the server says so.",
    ),
    Reason.GAVE_UP: (
        "What might have passed by itself did not, after many attempts.",
        "See the reason of the last attempt; order it again.",
    ),
    Reason.INVENTORY: (
        "The inventory of the fleet makes no sense.",
        "The message names the key; `tinyward fleet --help` shows one.",
    ),
    Reason.ROLLOUT: (
        "The file of this rollout is not the one that belongs to it.",
        "Restore it, or abort the rollout and begin another.",
    ),
    Reason.GATE: (
        "Boards of the last wave do worse than the rollout allows.",
        "See `tinyward fleet status`; resume with `rollout`, or `abort`.",
    ),
}
