"""Which refusals are of the past: those whose order something else has followed."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.superseded import is_past, is_superseded
from agent.core.targets import Wanted
from agent.core.updates import Decision, Report

VERSIONS = st.integers(1, 3)
PIPELINES = st.sampled_from(["door", "gate"])


def refused(version: int, pipeline: str = "door") -> Report:
    """Return the report of an order whose bundle is nowhere."""
    return Report(
        *(1, pipeline, "kws", version, "8" * 64, "ddi", 3),
        result="refused",
        reason="missing_target",
        detail="no target",
    )


def wants(version: int | None, pipeline: str = "door") -> Decision:
    """Return what is wanted of a pipeline."""
    wanted = None if version is None else Wanted("kws", version)
    return Decision(pipeline, "runs" if wanted else "unassigned", wanted)


def test_an_order_that_was_taken_back_is_of_the_past() -> None:
    """Whether another one came or none."""
    told = ("missing_target", "no target")
    assert is_past(told, [refused(99)], [wants(7)]) is True
    assert is_past(told, [refused(99)], [wants(None)]) is True


def test_what_nobody_reported_stands() -> None:
    """A slice or a repository that did not verify was nobody's order."""
    assert is_past(("signature", "not ours"), [refused(99)], [wants(7)]) is False
    assert is_past(("missing_target", "no target"), [refused(99)], []) is False


@given(VERSIONS, PIPELINES, VERSIONS, PIPELINES)
def test_law_what_is_wanted_still_is_never_of_the_past(
    version: int, pipeline: str, wanted: int, of: str
) -> None:
    """And what is wanted of one pipeline says nothing of another."""
    past = is_superseded(refused(version, pipeline), [wants(wanted, of)])
    assert past is (pipeline == of and version != wanted)
