"""A few thousand damaged inputs; ``python -m benchmarks fuzz`` throws 100,000."""

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.targets import (
    REVOKED_PATH,
    GroupFile,
    Revocations,
    Wanted,
    render_group,
    render_revocations,
)
from tests.fuzz.board import DIGESTS, HONEST, Found, FuzzedBoard
from tests.fuzz.fleet import GROUP, Fleet, Publication
from tests.fuzz.inputs import KINDS
from tests.fuzz.json_text import Tree
from tests.fuzz.parsers import PARSERS, judge
from tests.fuzz.storm import ANSWERS, Report, run_slice, slices

INPUTS = 3_000
SEED = 20_261_123
LATER = "2026-09-21T16:00:00Z"  # two hours after the repository was made
FORGED = {
    GROUP: render_group(GroupFile(2, {"door": Wanted("kws", 1)})),
    REVOKED_PATH: render_revocations(Revocations(bundles=("cd" * 32,))),
}


@pytest.fixture(scope="module")
def report() -> Report:
    """Give what became of all inputs."""
    found = Report()
    for part in slices(INPUTS, SEED):
        found.add(run_slice(*part))
    return found


def test_2_29_30_nothing_escapes_and_nothing_forged_acts(report: Report) -> None:
    """Our own errors only; no floor falls; nothing acts but as it was signed."""
    assert report.wrong == []
    assert (report.inputs, report.honest) == (INPUTS, INPUTS // 50)


def test_every_kind_of_input_gets_somewhere(report: Report) -> None:
    """Each kind comes to more than one end: damage is not all of one sort."""
    reached: Counter[str] = Counter(kind for kind, _ in report.words)
    assert set(reached) == {*KINDS, *PARSERS, ANSWERS}
    for kind in KINDS:
        assert reached[kind] >= 2, kind
    deep = {
        "metadata",
        "signature",
        "digest",
        "length",
        "mixed",
        "replayed",
        "manifest",
    }
    assert deep <= {word for _, word in report.words}


def test_a_slice_repeats_from_its_seed() -> None:
    """What was found once is found again."""
    assert run_slice(7, 1, 60).words == run_slice(7, 1, 60).words


@pytest.mark.parametrize("path", [GROUP, REVOKED_PATH])
def test_the_oracle_sees_what_was_never_signed(tmp_path: Path, path: str) -> None:
    """Shown what somebody signed, and told that nobody did, it cries out."""
    fleet = Fleet(tmp_path / "repository")
    with closing(FuzzedBoard(tmp_path, fleet)) as board:
        files = fleet.seal({path: FORGED[path]})
        assert "is believed" in board.show(Publication(files)).wrong
        assert board.show(Publication(files, signed=True)).wrong == ""
        assert board.show(Publication(fleet.seal())) == Found(HONEST)


def test_the_oracle_sees_metadata_that_nobody_signed(tmp_path: Path) -> None:
    """What a client kept whose signatures were not checked is found in its cache."""
    fleet = Fleet(tmp_path / "repository")
    with closing(FuzzedBoard(tmp_path, fleet)) as board:
        files = fleet.seal()
        fleet.payloads.clear()
        assert "nobody signed it" in board.show(Publication(files)).wrong


def test_the_oracle_sees_bytes_that_nobody_signed(tmp_path: Path) -> None:
    """An active model that was never listed is found, and so is a clock gone ahead."""
    fleet = Fleet(tmp_path / "repository")
    with closing(FuzzedBoard(tmp_path, fleet)) as board:
        fleet.signed.discard(DIGESTS[2])
        assert "nobody signed" in board.show(Publication(fleet.seal())).wrong
        fleet.signed.add(DIGESTS[2])

        def ahead(signed: Tree) -> bytes:
            return fleet.sign("timestamp", {**signed, "x-issued": LATER})

        files = fleet.seal(spell={"timestamp": ahead})
        assert "clock" in board.show(Publication(files)).wrong


@given(st.integers(0, 2**32), st.sampled_from(sorted(PARSERS)))
@settings(max_examples=300)
def test_2_29_54_no_parser_lets_a_foreign_error_out(seed: int, name: str) -> None:
    """Children, operators and servers may write what they like."""
    parser, chance = PARSERS[name], random.Random(seed)  # noqa: S311 - repeatable
    raw = parser.damage(chance.choice(parser.seeds), chance)
    assert judge(parser, raw)


@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=300))
def test_29_any_bytes_are_parsed_or_refused(name: str, raw: bytes) -> None:
    """Bytes that nothing honest was near to."""
    assert judge(PARSERS[name], raw)
