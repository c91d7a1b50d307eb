"""Whether a refusal is still about what is wanted, or about an order of the past.

The rules this module keeps:
 * Only what certainly is of the past is passed over: a refusal whose order nobody
   reported (a slice, a repository), or of whose pipeline nothing is known, stands.
"""

from collections.abc import Iterable

from agent.core.updates import Decision, Report


def is_superseded(report: Report, decisions: Iterable[Decision]) -> bool:
    """Return whether something else is wanted by now than what a report is about.

    Args:
        report: How an order ended.
        decisions: What is wanted of each pipeline now.
    """
    for decision in decisions:
        if decision.pipeline == report.pipeline:
            wanted = decision.desired
            return wanted is None or (
                (wanted.model, wanted.version) != (report.model, report.version)
            )
    return False


def is_past(
    refusal: tuple[str, str], reports: Iterable[Report], decisions: Iterable[Decision]
) -> bool:
    """Return whether a refusal was of an order that something else has followed.

    Args:
        refusal: Its reason and its message, as the board says it.
        reports: How orders ended, newest first.
        decisions: What is wanted of each pipeline now.
    """
    # Its report has the same words: both are written of one error.
    told = (it for it in reports if (it.reason, it.detail) == refusal)
    newest = next(told, None)
    return newest is not None and is_superseded(newest, decisions)
