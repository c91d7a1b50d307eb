"""What reasons mean and what to do, where models are protected and runs are proven.

One line is one reason; ``agent.core.explanations`` puts them together.
"""

from agent.core.reason_words import Words
from agent.core.reasons import Reason

# The owner of a model: who seals, marks and sells it.
OWNER: Words = {
    Reason.ENVELOPE: (
        "There is no envelope of this sealed model that this board can open.",
        "Seal it for the board: `tinyward seal --to BOARD.pub`, and publish.",
    ),
    Reason.UNSEAL: (
        "A sealed model does not decrypt to what its owner signed.",
        "Seal and publish it again, under a higher version.",
    ),
    Reason.WATERMARK: (
        "A model cannot be marked, or this is another board's copy of it.",
        "The message says why; seal the board's own copy.",
    ),
    Reason.PROVENANCE: (
        "What a bundle says about its origin is missing or is not about this model.",
        "See `tinyward provenance --help`; pack the statement of this very model.",
    ),
    Reason.OTHER_BOARD: (
        "A voucher or a log is another board's.",
        "Ask for one that names this board: `tinyward meter status`.",
    ),
    Reason.UNITS: (
        "A voucher has more units than a counter can hold, or a kind without them.",
        "Issue one with fewer units: `tinyward meter vouchers`.",
    ),
    Reason.FORKED: (
        "Two checkpoints of one log contradict each other: a copy was brought back.",
        "Keep both as evidence; ask the operator what was restored.",
    ),
    Reason.AUDIT: (
        "An inference computed anew does not give what its receipt says.",
        "Keep the evidence; look at the board, its kernels and its memory.",
    ),
}

# The operator of a board that protects, proves or pays.
KEEPER: Words = {
    Reason.SEAL_KEY: (
        "This board's key for sealed models is missing, damaged or no secret.",
        "`tinyward identity seal`; chmod 600; see `tinyward doctor`.",
    ),
    Reason.LOG: (
        "The log of receipts is damaged, or was changed.",
        "`tinyward audit verify`; keep the folder as evidence.",
    ),
    Reason.UNPAID: (
        "No paid unit is left for this pipeline.",
        "Redeem a voucher: `tinyward meter redeem FILE`.",
    ),
    Reason.INTEGRITY: (
        "The model in memory is not what was verified, or answers otherwise.",
        "Nothing: the worker starts anew; if it comes again, check the board's memory.",
    ),
}
