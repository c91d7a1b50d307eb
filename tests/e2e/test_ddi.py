"""A real board and a DDI server: orders, cancels, windows, and what the server is told.

One board for all; each test leaves it running what it ran, or something newer, and the
next honest order works. Numbers in names are those of ``PROMISES``.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.core.targets import bundle_path
from tests.e2e.conftest import watched_daemon
from tests.fakes import ddi_lies as lies
from tests.fakes import toxic_server as toxic
from tests.fakes.ddi_actions import Action
from tests.fakes.ddi_board import DdiBoard, ddi_board
from tests.fakes.fleet import MODEL
from tests.fakes.packed_candidates import on_trial

# More samples than a test waits for: it stays in this phase until somebody ends it.
LONG_SHADOW = partial(on_trial, shadow_samples=10**6, min_agreement=0.5)
LONG_PROBATION = partial(on_trial, shadow_samples=0, probation_s=600.0)
# The first request imports nothing more; an answer may hold 64 kB.
MAX_GROWTH = 8_000_000
TOLD = ["scheduled", "download", "downloaded", "proceeding", "closed/success"]


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DdiBoard]:
    """Give a board that takes its orders from a DDI server."""
    home = tmp_path_factory.mktemp("ordered")
    with ddi_board(home, watched_daemon) as board:
        yield board


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[toxic.ToxicServer]:
    """Give the server of somebody else."""
    with toxic.ToxicServer(tmp_path) as stranger:
        yield stranger


@pytest.fixture(autouse=True)
def honest_again(ordered: DdiBoard) -> Iterator[None]:
    """Let no lie outlast its test."""
    yield
    ordered.reset()


def stall(ordered: DdiBoard, version: int) -> None:
    """Let the mirror stop in the middle of a version's bundle."""
    ordered.mirror.script(ordered.place(version), toxic.cut(0.5, toxic.stall))


def wait_phase(ordered: DdiBoard, phase: str) -> None:
    """Wait until the machine is in a phase."""
    ordered.hear(lambda: ordered.board.state()["update"]["phase"] == phase, phase)


def wait_fetching(ordered: DdiBoard, version: int) -> None:
    """Wait until a version's bundle is on its way, and said to be."""
    ordered.hear(lambda: ordered.fetches(version), f"version {version} is fetched")
    wait_phase(ordered, "FETCHING")


def test_an_order_is_carried_out_and_each_state_is_told(ordered: DdiBoard) -> None:
    """Deploy, commit: scheduled, download, downloaded, proceeding, closed/success."""
    version = ordered.publish()
    action = ordered.deploy(version)
    ordered.wait_status(action, "FINISHED")
    ordered.board.wait_version(version)
    assert action.said == TOLD
    assert ordered.server.shown.attributes["id"]
    assert ordered.leaks() == []
    ordered.good = version
    ordered.answers()


class TestCancel:
    """At every stage."""

    def test_55_before_anything_was_seen_of_it(self, ordered: DdiBoard) -> None:
        """The board meets the cancel first: it has nothing to stop, and says so."""
        version = ordered.publish()
        with ordered.undisturbed():
            action = ordered.server.deploy(bundle_path(MODEL, version))
            ordered.server.cancel(action)
            ordered.wait_status(action, "CANCELED")
        assert (action.said, ordered.fetches(version)) == ([], 0)

    def test_55_while_it_is_fetched(self, ordered: DdiBoard) -> None:
        """The fetch ends at once, though the mirror sends nothing."""
        version = ordered.publish()
        stall(ordered, version)
        with ordered.undisturbed():
            action = ordered.deploy(version)
            wait_fetching(ordered, version)
            ordered.wait_said(action, "download")
            ordered.server.cancel(action)
            ordered.wait_status(action, "CANCELED")
        wait_phase(ordered, "IDLE")

    @pytest.mark.parametrize(
        ("content", "phase"),
        [(LONG_SHADOW, "SHADOWING"), (LONG_PROBATION, "PROBATION")],
        ids=["shadowing", "probation"],
    )
    def test_55_while_it_is_tried(
        self, ordered: DdiBoard, content: partial[bytes], phase: str
    ) -> None:
        """Whatever was tried is undone before the cancel is accepted."""
        before = ordered.board.version()
        version = ordered.publish(content)
        action = ordered.deploy(version)
        wait_phase(ordered, phase)
        ordered.wait_said(action, "proceeding")
        ordered.server.cancel(action)
        ordered.wait_status(action, "CANCELED")
        ordered.board.wait_version(before)
        ordered.answers()

    def test_55_after_the_commit(self, ordered: DdiBoard) -> None:
        """Too late: the cancel is refused, and the order has succeeded."""
        version = ordered.publish()
        # Taken with thanks and forgotten: the server still believes it under way.
        ordered.server.lie("feedback", lies.status(200))
        action = ordered.deploy(version)
        ordered.board.wait_version(version)
        ordered.hear(lambda: ordered.posted("closed"), "its end is told")
        ordered.server.cancel(action)
        ordered.hear(lambda: action.entries, "an answer to the cancel")
        assert action.entries[0].said == "rejected"
        ordered.server.tell_the_truth()
        ordered.wait_status(action, "FINISHED")
        assert action.said == ["closed/success"]
        ordered.board.wait_version(version)


class TestReplaced:
    """By another order, while the first one is fetched."""

    def begin(self, ordered: DdiBoard) -> Action:
        """Return an order whose bundle stalls."""
        version = ordered.publish()
        stall(ordered, version)
        action = ordered.deploy(version)
        wait_fetching(ordered, version)
        return action

    def test_56_the_old_one_is_cancelled_first(self, ordered: DdiBoard) -> None:
        """hawkBit's way: the cancel is shown, then the new order."""
        old = self.begin(ordered)
        version = ordered.publish()
        new = ordered.server.replace(bundle_path(MODEL, version))
        ordered.wait_status(new, "FINISHED")
        assert old.status == "CANCELED"
        ordered.board.wait_version(version)
        ordered.answers()

    def test_56_the_old_one_is_gone_at_once(self, ordered: DdiBoard) -> None:
        """Feedback to it would be 410: nobody hears of it again."""
        old = self.begin(ordered)
        version = ordered.publish()
        new = ordered.server.replace(bundle_path(MODEL, version), at_once=True)
        ordered.wait_status(new, "FINISHED")
        assert "closed/success" not in old.said
        ordered.board.wait_version(version)
        ordered.wait_all_told()

    def test_56_it_is_closed_behind_its_back(self, ordered: DdiBoard) -> None:
        """During a trial: 410 and no link; what nobody wants is not committed."""
        version = ordered.publish(LONG_SHADOW)
        action = ordered.deploy(version)
        wait_phase(ordered, "SHADOWING")
        with ordered.undisturbed():
            ordered.server.cancel(action, at_once=True)
            wait_phase(ordered, "IDLE")


class TestTiming:
    """When a board may begin."""

    def test_58_a_window_that_is_closed(self, ordered: DdiBoard) -> None:
        """Fetched and verified, not tried; when it opens, nothing is fetched again."""
        version = ordered.publish()
        with ordered.undisturbed():
            action = ordered.deploy(version, window="unavailable")
            ordered.wait_said(action, "downloaded")
        ordered.server.change(action, window="available")
        ordered.wait_status(action, "FINISHED")
        ordered.board.wait_version(version)
        assert (ordered.fetches(version), action.said) == (1, TOLD)

    def test_58_a_download_alone(self, ordered: DdiBoard) -> None:
        """``update: skip`` ends with what is here; the order to try it finds it."""
        version = ordered.publish()
        with ordered.undisturbed():
            early = ordered.deploy(version, update="skip")
            ordered.wait_status(early, "DOWNLOADED")
        late = ordered.deploy(version)
        ordered.wait_status(late, "FINISHED")
        ordered.board.wait_version(version)
        assert ordered.fetches(version) == 1

    def test_58_nothing_at_all_yet(self, ordered: DdiBoard) -> None:
        """``download: skip``: known, not fetched; then forced."""
        version = ordered.publish()
        with ordered.undisturbed():
            action = ordered.deploy(version, download="skip", update="skip")
            ordered.wait_said(action, "scheduled")
            ordered.wait_asked("poll", 2)
        assert ordered.fetches(version) == 0
        ordered.server.change(action, download="forced", update="forced")
        ordered.wait_status(action, "FINISHED")

    def test_it_confirms_and_begins(self, ordered: DdiBoard) -> None:
        """The server asks for a confirmation first."""
        version = ordered.publish()
        action = ordered.deploy(version, confirm=True)
        ordered.wait_status(action, "FINISHED")
        assert action.entries[0].said == "confirmed"
        ordered.board.wait_version(version)


def test_35_54_a_real_daemon_among_lies(
    ordered: DdiBoard, stranger: toxic.ToxicServer
) -> None:
    """Nothing stops, grows, or speaks with strangers, on a real board either."""
    told = (
        *(lies.endless, lies.half, lies.cut, lies.redirect(stranger.url)),
        *(lies.links(stranger.url), lies.sleep("99:99:99"), lies.text(b"[" * 60_000)),
    )
    version = ordered.publish()
    action = ordered.server.deploy(bundle_path(MODEL, version))
    ordered.server.cancel(action)
    peak = ordered.peak_bytes()
    with ordered.undisturbed():
        for lie in told:
            ordered.server.lie("poll", lie)
            ordered.wait_asked("poll")
    ordered.reset()
    ordered.wait_status(action, "CANCELED")
    assert (stranger.asked, ordered.leaks()) == ([], [])
    assert ordered.peak_bytes() - peak < MAX_GROWTH


def test_35_only_what_is_admissible(ordered: DdiBoard) -> None:
    """Signed, but older than its previous model, or for others: refused, told why."""
    for _ in range(2):
        ordered.good = ordered.publish()
        ordered.wait_status(ordered.deploy(ordered.good), "FINISHED")
    toaster = ordered.publish(hardware=["toaster"])
    cases = {ordered.good - 2: "version_floor", toaster: "hardware"}
    with ordered.undisturbed():
        for version, reason in cases.items():
            action = ordered.deploy(version)
            ordered.wait_status(action, "ERROR")
            (entry,) = [it for it in action.entries if it.said == "closed/failure"]
            assert entry.details[0].startswith(reason)


class TestFeedback:
    """On a bad line, and with bad papers."""

    def test_57_what_is_lost_is_said_again(self, ordered: DdiBoard) -> None:
        """In order, until it is taken."""
        version = ordered.publish()
        ordered.server.lose_feedback(3)
        action = ordered.deploy(version)
        ordered.wait_status(action, "FINISHED")
        assert action.said[-1] == "closed/success"
        assert action.said == [it for it in TOLD if it in action.said]
        ordered.board.wait_version(version)

    def test_57_what_was_taken_may_come_twice(self, ordered: DdiBoard) -> None:
        """Only the answer to the last word got lost: 410, and it is dropped for it."""
        version, before = ordered.publish(), ordered.posted("closed") + 1
        ordered.server.lie("feedback", lies.taken_but_lost("closed"))
        action = ordered.deploy(version)
        ordered.wait_status(action, "FINISHED")
        ordered.hear(lambda: ordered.posted("closed") > before, "its end, once more")
        ordered.wait_all_told()
        assert (action.said, len(ordered.reports(version))) == (TOLD, 1)

    def test_35_the_token_is_revoked_midway(self, ordered: DdiBoard) -> None:
        """The board goes on as it is, says why, and goes on when it is let in."""
        version = ordered.publish()
        stall(ordered, version)
        action = ordered.deploy(version)
        wait_fetching(ordered, version)
        with ordered.undisturbed():
            ordered.server.revoke_token()
            refused = "reason=unauthorized"
            ordered.hear(lambda: refused in ordered.board.words(), refused)
        ordered.mirror.scripts.clear()
        ordered.server.revoke_token(revoked=False)
        ordered.wait_status(action, "FINISHED")
        ordered.board.wait_version(version)

    def test_57_59_a_power_cut_between_commit_and_report(
        self, ordered: DdiBoard
    ) -> None:
        """Reported once after the restart, and not installed again."""
        version = ordered.publish()
        ordered.server.lose_feedback(10**6)
        action = ordered.deploy(version)
        ordered.board.wait_version(version)
        ordered.board.kill()
        ordered.server.tell_the_truth()
        ordered.board.start()
        ordered.wait_status(action, "FINISHED")
        ordered.board.wait_version(version)
        assert action.said.count("closed/success") == 1
        committed = [it["result"] for it in ordered.reports(version)]
        assert (committed, ordered.fetches(version)) == (["committed"], 1)
        ordered.clean()
