"""Signed, and still not for this board: admission, trials, quarantine, revocation.

One board for all: each attack ends with the next honest version, which proves that
nothing of it stays behind.
"""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.e2e.conftest import STEADY, MakeBoard
from tests.fakes.daemon_process import NAME, child_pids
from tests.fakes.fleet import GROUP, MODEL, Fleet, bundle
from tests.fakes.packed_candidates import (
    budgeted,
    hungry,
    on_trial,
    rendered,
    swapped_labels,
)
from tests.fakes.watched_board import WatchedBoard

TEBIBYTE = 2**40


class TestAdmission:
    """Refused before a trial."""

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [({"hardware": ["toaster"]}, "hardware"), ({"min_agent": "99.0"}, "min_agent")],
    )
    def test_37_not_for_this_board(
        self, watched: WatchedBoard, fields: dict[str, str], reason: str
    ) -> None:
        """Other hardware, a newer agent: nothing is fetched, and the reason is told."""
        version = watched.next()
        repository = watched.fleet.spoiled.repository
        fetched = watched.board.state()["update"]["bytes"]["full"]
        with watched.refused(reason):
            repository.add(bundle(version), model=MODEL, version=version, **fields)
            repository.assign(GROUP, {NAME: (MODEL, version)})
            watched.fleet.sign()
        watched.wait_decision("refused", reason)
        assert f"[{reason}]" in watched.status()
        assert watched.board.state()["update"]["bytes"]["full"] == fetched
        watched.clean()

    def test_37_more_memory_than_the_board_has(self, watched: WatchedBoard) -> None:
        """A terabyte for the interpreter."""
        version = watched.next()
        with watched.refused("memory"):
            watched.fleet.publish(version, hungry(version, TEBIBYTE))
        watched.clean()

    def test_36_below_the_floor(self, watched: WatchedBoard) -> None:
        """A version older than the previous one, signed and listed: never again."""
        oldest = watched.good
        watched.clean()
        watched.clean()
        with watched.refused("version_floor"):
            watched.want(MODEL, oldest)
        watched.clean()

    def test_41_a_downgrade_is_an_old_model_under_a_higher_version(
        self, watched: WatchedBoard
    ) -> None:
        """The way back that the owner has: the same models, a new number."""
        before = watched.board.pipeline()["active"]
        watched.clean()
        watched.clean()  # the same model as before
        after = watched.board.pipeline()["active"]
        assert after["version"] == before["version"] + 2
        assert after["sha256"] != before["sha256"]
        watched.answers()

    def test_an_unknown_model(self, watched: WatchedBoard) -> None:
        """A model that nobody listed, and one that the settings do not name."""
        with watched.refused("missing_target"):
            watched.want("unheard_of", 7)
        version = watched.next()
        repository = watched.fleet.spoiled.repository
        with watched.refused("mismatch"):
            repository.add(bundle(version), model="other", version=version)
            watched.fleet.sign()
            watched.want("other", version)
        watched.clean()

    def test_an_unknown_pipeline_is_told_and_the_others_go_on(
        self, watched: WatchedBoard
    ) -> None:
        """A typing mistake in a desired state delays nobody."""
        with watched.undisturbed():
            watched.want(MODEL, watched.good, pipeline="typo")
            watched.wait_decision("refused", "unknown_pipeline", pipeline="typo")
            assert "typo refused" in watched.status()
        state = watched.desired()
        known = {NAME: state.pipelines[NAME]}
        generation = state.generation + 1
        watched.stage(replace(state, generation=generation, pipelines=known))
        watched.clean()

    def test_35_a_generation_that_goes_back(self, watched: WatchedBoard) -> None:
        """A stolen fleet key may sign an old desired state: it is a replay."""
        before = watched.desired()
        with watched.refused("replayed"):
            watched.stage(replace(before, generation=before.generation - 1))
        watched.stage(replace(before, generation=before.generation + 1))
        watched.clean()


class TestTrials:
    """Refused by trial, each in its phase, and not tried for ever."""

    def test_38_golden_samples_that_do_not_match(self, watched: WatchedBoard) -> None:
        """Another model's golden samples: set aside, told, and not tried again."""
        version = watched.next()
        content = rendered(version, golden_of=version + 1)
        with watched.refused("golden", "failed"):
            watched.fleet.publish(version, content)
        watched.wait_decision("refused", "golden")
        assert watched.board.state()["update"]["set_aside"] >= 1
        watched.clean()

    def test_38_slower_than_it_promised(self, watched: WatchedBoard) -> None:
        """A budget of a nanosecond; a busy board is given as the benefit of doubt."""
        version = watched.next()
        with watched.refused("latency", "failed"):
            watched.fleet.publish(version, budgeted(version, p95_ms=1e-6))
        watched.clean()

    def test_38_it_drifts_in_shadow(self, watched: WatchedBoard) -> None:
        """Other words for the same digits, on live samples: never gets to answer."""
        version = watched.next()
        labels = swapped_labels(version)
        content = on_trial(version, labels, shadow_samples=40, min_agreement=0.9)
        with watched.refused("agreement", "failed"):
            watched.fleet.publish(version, content)
        said = {model["version"] for model in watched.board.pipeline()["models"]}
        assert version not in said
        watched.clean()

    def test_39_it_crashes_at_load(self, watched: WatchedBoard) -> None:
        """SIGSEGV in each preflight: three tries, then its bytes are set aside."""
        version = watched.next()
        with watched.undisturbed():
            watched.fleet.publish(version, bundle(version))
            for tries in range(1, 4):
                _strike(watched, signal.SIGSEGV)
                crashed = partial(_has_reports, watched, version, tries)
                watched.board.wait_for(crashed, f"{tries} crashes")
        quarantine = watched.say("update", "list").stdout
        assert "crash" in quarantine
        watched.clean()

    def test_38_it_hangs(self, watched: WatchedBoard) -> None:
        """A candidate that is not through by its own deadline is ended."""
        version = watched.next()
        with watched.refused("hang", "failed"):
            watched.fleet.publish(version, on_trial(version, preflight_s=0.001))
        watched.clean()


def _strike(watched: WatchedBoard, number: int) -> None:
    """Send a signal to the next candidate's process."""
    board = watched.board
    board.wait_for(lambda: _candidates(watched), "a candidate")
    for pid in _candidates(watched):
        os.kill(pid, number)


def _candidates(watched: WatchedBoard) -> list[int]:
    """Return the children beside the worker; before exec one is the daemon still."""
    worker = watched.board.worker_pid()
    found = set(child_pids(watched.board.pid)) - {worker}
    return [pid for pid in found if b"agent.worker" in _words(pid)]


def _words(pid: int) -> bytes:
    """Return a process's command line, empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _has_reports(watched: WatchedBoard, version: int, count: int) -> bool:
    """Whether so many updates to a version ended by a crash."""
    reports = watched.board.ask("/v1/updates")["reports"]
    found = [(it["version"], it["reason"]) for it in reports]
    return found.count((version, "crash")) == count


class TestProbation:
    """It answers, and is taken back."""

    def test_38_too_slow_while_it_answers(self, watched: WatchedBoard) -> None:
        """Automatic rollback: the old model answers again, the bytes are set aside."""
        version, board = watched.next(), watched.board
        before = board.pipeline()["active"]
        content = on_trial(version, probation_s=1.0, max_slowdown=1e-6)
        with (
            watched.undisturbed()
        ):  # every sample was answered, by the one or the other
            watched.fleet.publish(version, content)
            board.wait_for(lambda: watched.ended("latency", "rolled_back"), "rollback")
            assert board.pipeline()["active"] == before
        answered = {model["version"] for model in board.pipeline()["models"]}
        assert version in answered
        name = 'tinyward_updates_total{reason="latency",result="rolled_back"}'
        assert board.metrics()[name] == 1
        watched.wait_decision("refused", "latency")
        watched.clean()

    def test_quarantine_survives_a_restart_until_it_is_forgiven(
        self, make_board: MakeBoard, fleet: Fleet
    ) -> None:
        """The same bad bytes are not tried again; ``tinyward update forgive`` may."""
        board = make_board(source=STEADY)
        watched = WatchedBoard(fleet, board)
        with board:
            watched.clean()
            version = watched.next()
            fleet.publish(version, rendered(version, golden_of=version + 1))
            watched.wait_decision("refused", "golden")
        with board:
            watched.wait_decision("refused", "golden")
            with watched.undisturbed():
                assert "PREFLIGHT" not in board.words()
            digest = fleet.spoiled.repository.digest(MODEL, version)
            assert digest[:12] in watched.say("update", "list").stdout
            forgiven = watched.say("update", "forgive", digest[:8])
            assert (forgiven.exit_code, digest[:12] in forgiven.stdout) == (0, True)
            board.wait_said("phase=PREFLIGHT")
            watched.wait_decision("refused", "golden")  # it is as bad as it was
            watched.clean()


class TestRevocation:
    """What the owner takes back."""

    def test_34_the_active_model_falls_back_then_stops(
        self, make_board: MakeBoard, fleet: Fleet
    ) -> None:
        """Previous takes over; with that revoked too, nothing answers any more."""
        board = make_board(source=STEADY)
        watched = WatchedBoard(fleet, board)
        repository = fleet.spoiled.repository
        with board:
            watched.clean()
            watched.clean()
            digests = [repository.digest(MODEL, version) for version in (2, 1)]
            repository.revoke([digests[0]])
            fleet.sign()
            board.wait_version(1)
            watched.wait_decision("refused", "revoked")
            watched.answers()
            repository.revoke([digests[1]])
            fleet.sign()
            board.wait_for(lambda: board.readiness() == (503, "revoked"), "silence")
            answered = board.samples()["ok"]
            assert board.version() == 0
        with board:
            board.wait_for(lambda: board.readiness() == (503, "revoked"), "silence")
            assert (answered > 0, board.samples()["ok"]) == (True, 0)
            watched.clean()
