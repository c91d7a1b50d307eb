"""A hostile DDI server can delay, or choose among admissible versions, nothing else.

Every lie by its name, over real HTTP, at the whole update side of a board whose
repository and trials are fakes. The oracle, whatever was said: what is active is a
whole signed version that was admissible; floors never fall; nobody else was asked for
anything; rounds end, and the next one is neither at once nor never; when the server is
honest again, its order is carried out.
"""

import tracemalloc
from collections.abc import Iterator

import pytest

from agent.core.ddi_messages import MAX_SLEEP_S
from tests.fakes import ddi_lies as lies
from tests.fakes.ddi_bench import MODEL, DdiBench
from tests.fakes.ddi_hostile import Attack, attacks
from tests.fakes.ddi_server import DdiServer
from tests.fakes.toxic_server import ToxicServer
from tests.fakes.update_bench import BUNDLES

LIE, HONEST = 2, 3  # versions: what a lie is about, and what comes after it
WAITS = "WAIT_FOR_CONFIRMATION"
ROUNDS = 2  # that are lied to
# The simulator's own buffers included, which lie in the same process.
MAX_MEMORY = 8_000_000
MIN_PAUSE_S, MAX_PAUSE_S = 1.0, 1.1 * MAX_SLEEP_S  # spread over a fleet


@pytest.fixture(scope="module")
def server() -> Iterator[DdiServer]:
    """Give a server."""
    with DdiServer() as server:
        yield server


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToxicServer]:
    """Give the server of somebody else."""
    with ToxicServer(tmp_path_factory.mktemp("stranger")) as stranger:
        yield stranger


def check_sound(bench: DdiBench, floor: int) -> None:
    """O1, O2: whole, signed and admissible models; the floor did not fall."""
    for pipeline in bench.poller.models:
        active = bench.store.slots(pipeline).active
        assert active is not None
        content = bytes(bench.store.open_object(active.sha256))
        assert content == BUNDLES[MODEL, active.version]
        assert active.version >= 1
    assert bench.store.version_floor(MODEL) >= floor
    assert [call for call in bench.trials.calls if call[0] == "swap_back"] == []


@pytest.mark.parametrize("attack", attacks(), ids=lambda it: it.name.replace(" ", "-"))
def test_35_54_a_lie_changes_nothing_but_the_time(
    server: DdiServer, stranger: ToxicServer, attack: Attack
) -> None:
    """Whatever is said, the board is sound, asks nobody else, and recovers."""
    server.start_afresh()
    with DdiBench(server) as bench:
        floor = bench.store.version_floor(MODEL)
        if attack.kind:
            server.lie(attack.kind, attack.lie(stranger.url))
        before = server.count(attack.kind)
        fields = {"status": WAITS} if attack.kind == "confirmationBase" else {}
        action = bench.deploy(LIE, *attack.chunks, **fields)
        if attack.kind == "cancelAction":
            server.cancel(action)
        pauses = bench.rounds(ROUNDS)
        check_sound(bench, floor)
        assert all(MIN_PAUSE_S <= pause <= MAX_PAUSE_S for pause in pauses)
        if attack.chunks:
            # What is not signed yet may be soon: that is waited for, for a while.
            assert bench.versions() == (1, 0)
            assert action.status == ("RUNNING" if "99" in attack.name else "ERROR")
        else:
            assert server.count(attack.kind) > before
        server.tell_the_truth()
        honest = server.replace(f"models/{MODEL}/{HONEST}.bundle")
        bench.settle(honest, "FINISHED")
        check_sound(bench, floor)
        assert bench.versions()[0] == HONEST
    assert stranger.asked == []


def test_35_what_does_not_end_fills_no_memory(server: DdiServer) -> None:
    """Answers without end, to each question: some kB of each are held."""
    server.start_afresh()
    with DdiBench(server) as bench:
        for kind in ("poll", "deploymentBase", "feedback", "configData"):
            server.lie(kind, lies.endless)
            bench.deploy(LIE)
            tracemalloc.start()
            try:
                bench.rounds()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            server.tell_the_truth()
            assert peak < MAX_MEMORY, kind


def test_35_a_server_that_never_has_enough(server: DdiServer) -> None:
    """It asks for attributes in each answer: told once a round, and that is all."""
    server.start_afresh()
    with DdiBench(server) as bench:
        server.lie("configData", lies.status(200))  # and goes on asking
        server.shown.curious = True
        before = len(server.asked)
        bench.rounds(5)
        assert len(server.asked) - before <= 2 * 5


def test_2_35_bytes_that_nobody_signed(server: DdiServer) -> None:
    """Ordered, listed, and others came: tried again for a while, then given up."""
    server.start_afresh()
    with DdiBench(server, attempts=3) as bench:
        content = bench.repository.bundles[MODEL, LIE]
        bench.repository.spoiled[MODEL, LIE] = bytes(len(content))
        action = bench.deploy(LIE)
        bench.settle(action, "ERROR")
        words = " ".join(action.entries[-1].details)
        assert ("gave_up" in words, "digest" in words) == (True, True)
        assert bench.versions() == (1, 0)
        bench.settle(bench.deploy(HONEST), "FINISHED")


def test_36_35_below_what_it_ever_ran(server: DdiServer) -> None:
    """Signed, listed, and older than the previous model: refused, and told why."""
    server.start_afresh()
    with DdiBench(server) as bench:
        for version in (2, 3):
            bench.settle(bench.deploy(version), "FINISHED")
        action = bench.deploy(1)
        bench.settle(action, "ERROR")
        assert "version_floor" in action.entries[-1].details[0]
        assert bench.versions() == (3, 2)
        bench.settle(bench.deploy(2), "FINISHED")  # the previous one is admissible
        assert bench.versions()[0] == 2
        assert bench.store.version_floor(MODEL) == 3
