"""The DDI client against fakes: what it asks, saves, tells and never does."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.core.targets import Wanted
from agent.errors import BundleRefusedError, DeviceError
from agent.update.ddi_needs import Answer
from tests.fakes.ddi_wire import BASE, NOW, SERVER, ClientBench

KWS = {"door": Wanted("kws", 7)}
FEEDBACK = "/deploymentBase/5/feedback"


@pytest.fixture
def bench() -> ClientBench:
    """Give a client among fakes, at a server that wants nothing."""
    return ClientBench()


def polls(bench: ClientBench, times: int = 1) -> float:
    """Poll so many times; return the last pause."""
    pause_s = 0.0
    for _ in range(times):
        pause_s = asyncio.run(bench.client.poll())
    return pause_s


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - fakes have no events to wait for
            await asyncio.sleep(0.005)


def run_client(bench: ClientBench, course: Coroutine[None, None, None]) -> None:
    """Run the client's task as long as a course of events takes."""

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(bench.client.run())
            await course
            task.cancel()

    asyncio.run(both())


class TestPoll:
    """When to ask, and what of troubles."""

    def test_pause(self, bench: ClientBench) -> None:
        """The server's sleep, spread by name and chance, is the pause."""
        bench.wire.offer(sleep="00:10:00")
        assert 540.0 < polls(bench) < 660.0
        for draw in (0.0, 0.999):
            bench.draw = draw
            assert 500.0 < polls(bench) < 700.0

    @pytest.mark.parametrize("sleep", ["00:00:01", "-1:00:00", "99:99:99", None, 7])
    def test_sleep_that_is_none(self, bench: ClientBench, sleep: object) -> None:
        """A sleep that is too short, or nonsense, makes no flood and no silence."""
        bench.wire.offer(sleep=sleep)
        assert 30.0 <= polls(bench) < 400.0

    def test_boards_differ(self) -> None:
        """Two boards that draw the same pause differently."""
        pauses = set()
        for name in ("a", "b", "c"):
            bench = ClientBench()
            bench.settings = type(bench.settings)(url=SERVER, controller=name)
            bench.start()
            bench.wire.pages["GET", f"{SERVER}/default/controller/v1/{name}"] = (
                bench.wire.pages["GET", ""]
            )
            pauses.add(polls(bench))
        assert len(pauses) == 3

    def test_etag(self, bench: ClientBench) -> None:
        """What has not changed is not sent again, and goes on being followed."""
        bench.wire.deploy()
        bench.wire.offer("deploymentBase/5", etag='"a"')
        polls(bench)
        assert "If-None-Match" not in bench.wire.headers
        bench.wire.put("", b"", status=304)
        polls(bench)
        assert bench.wire.asked.count("GET /deploymentBase/5") == 1
        assert bench.trouble() == ""
        asked = [it for it in bench.wire.asked if it == "GET "]
        assert len(asked) == 2
        bench.machine.state = "runs"
        polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"

    def test_unreachable(self, bench: ClientBench) -> None:
        """Failures are spread, and grow; what recovers is followed at once."""
        bench.wire.down = BundleRefusedError("gone", reason=Reason.UNREACHABLE)
        bench.draw = 0.999
        pauses = [polls(bench) for _ in range(5)]
        assert pauses == sorted(pauses)
        assert pauses[0] < 5.0
        assert bench.trouble() == "unreachable"
        bench.wire.down = None
        assert polls(bench) >= 30.0
        assert bench.trouble() == ""

    def test_a_server_that_fails_for_long(self, bench: ClientBench) -> None:
        """It is asked less and less often, down to a tenth; one answer is enough."""
        bench.wire.offer(sleep="00:00:30")
        polls(bench)
        page = bench.wire.pages["GET", ""]
        bench.wire.put("", b"", status=500)
        bench.draw = 0.999
        pauses = [polls(bench) for _ in range(20)]
        assert pauses == sorted(pauses)
        assert 270.0 < pauses[-1] < 330.0
        bench.wire.pages["GET", ""] = page
        polls(bench)
        bench.wire.put("", b"", status=500)
        assert polls(bench) == pauses[0]

    def test_one_lost_packet_a_day(self, bench: ClientBench) -> None:
        """Where a server is asked once a day, one failure costs minutes."""
        bench.wire.offer(sleep="23:59:59")
        polls(bench)
        bench.wire.down = BundleRefusedError("cut", reason=Reason.UNREACHABLE)
        bench.draw = 0.999
        assert polls(bench) < 600.0
        assert max(polls(bench) for _ in range(12)) > 80_000.0

    @pytest.mark.parametrize("status", [401, 403])
    def test_unauthorized(self, bench: ClientBench, status: int) -> None:
        """A token that is not taken is no reason to hammer."""
        bench.wire.put("", b"", status=status)
        assert polls(bench) >= 250.0
        assert bench.trouble() == "unauthorized"

    @pytest.mark.parametrize(
        ("status", "reason"),
        [(404, "protocol"), (400, "protocol"), (302, "redirect"), (500, "unreachable")],
    )
    def test_statuses(self, bench: ClientBench, status: int, reason: str) -> None:
        """Each answer has its reason; only what may pass is asked again soon."""
        bench.wire.put("", b"", status=status)
        pause_s = polls(bench)
        assert bench.trouble() == reason
        assert (pause_s >= 250.0) == (reason != "unreachable")

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after(self, bench: ClientBench, status: int) -> None:
        """A server that asks for silence gets it, for a day at most."""
        bench.wire.put("", b"", status=status, retry_after="1234")
        assert polls(bench) == 1234.0
        assert bench.trouble() == "rate_limited"
        bench.wire.put("", b"", status=status, retry_after="9" * 15)
        assert polls(bench) == 86_400.0
        bench.wire.put(
            "", b"", status=status, retry_after="Fri, 15 Jan 2027 09:00:00 GMT"
        )
        assert polls(bench) == 3600.0
        bench.wire.put("", b"", status=status, retry_after="soon")
        assert polls(bench) < 1000.0

    def test_a_page_for_people(self, bench: ClientBench) -> None:
        """A portal in between is trouble, and no order."""
        bench.wire.put("", b"<html>please log in</html>")
        polls(bench)
        assert bench.trouble() == "protocol"

    def test_a_full_disk(self, bench: ClientBench) -> None:
        """What cannot be saved is neither begun nor told."""
        bench.wire.deploy()
        bench.kept.full = True
        polls(bench)
        assert (bench.trouble(), bench.wire.told()) == ("disk_full", [])
        assert bench.machine.looks == []
        bench.kept.full = False
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 scheduled"]

    def test_snapshot(self, bench: ClientBench) -> None:
        """Others see the last poll, the open action and what waits."""
        bench.wire.deploy()
        with bench.answering(FEEDBACK, 500):
            polls(bench)
        found = bench.client.snapshot()
        assert (found.last_poll, found.action) == (NOW, "5")
        assert (found.said, found.outbox) == ("scheduled", 1)


class TestDeployment:
    """From offer to last word."""

    def test_from_offer_to_success(self, bench: ClientBench) -> None:
        """Each state is told once, and saved before."""
        bench.wire.deploy()
        polls(bench)
        assert bench.machine.looks == [KWS]
        for phase in ("FETCHING", "STAGING", "PROBATION"):
            bench.machine.phase = phase
            polls(bench, 2)
        bench.machine.commit()
        bench.wire.offer()
        polls(bench, 2)
        assert bench.wire.told() == [
            "deploymentBase/5 scheduled",
            "deploymentBase/5 download",
            "deploymentBase/5 downloaded",
            "deploymentBase/5 proceeding",
            "deploymentBase/5 closed/success",
        ]
        assert bench.record.runs == KWS
        assert bench.machine.wanted() == KWS

    def test_lost_report(self, bench: ClientBench) -> None:
        """A report that no server took survives power cuts, and goes out once."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.commit()
        with bench.answering(FEEDBACK, 500):
            polls(bench)
        bench.start()
        bench.wire.offer()
        polls(bench, 3)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"
        assert bench.wire.told().count("deploymentBase/5 closed/success") == 1
        assert bench.machine.looks.count(KWS) == 1
        assert bench.record.outbox == ()

    def test_feedback_that_gets_lost(self, bench: ClientBench) -> None:
        """Where feedback dies on its way, the server is polled all the same."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.commit()
        bench.wire.lost = BundleRefusedError("cut", reason=Reason.UNREACHABLE)
        bench.wire.cancel()
        assert polls(bench) >= 30.0
        assert bench.trouble() == "unreachable"
        assert bench.wire.asked[-2:] == [
            "GET /cancelAction/9",
            "POST /cancelAction/9/feedback",
        ]
        bench.wire.lost = None
        bench.wire.offer()
        polls(bench)
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 closed/success",
            "cancelAction/9 rejected",
        ]

    def test_a_server_that_forgets(self, bench: ClientBench) -> None:
        """What is offered on after its report is reported again, not begun again."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.commit()
        polls(bench, 3)
        assert set(bench.wire.told()[4:]) == {"deploymentBase/5 closed/success"}
        assert (bench.record.generation, bench.record.open) == (1, None)
        assert bench.wire.asked.count("GET /deploymentBase/5") == 1

    def test_power_cut_during_a_trial(self, bench: ClientBench) -> None:
        """After a restart it is resumed, and not begun as a new order."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.phase = "PROBATION"
        polls(bench)
        bench.start()
        bench.machine.phase = "FETCHING"
        polls(bench)
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 resumed",
            "deploymentBase/5 download",
        ]
        assert bench.record.generation == 1

    @pytest.mark.parametrize("status", [404, 410])
    def test_nobody_listens(self, bench: ClientBench, status: int) -> None:
        """410 and 404 drop the entry; the next one goes out."""
        bench.wire.deploy()
        with bench.answering(FEEDBACK, status):
            polls(bench)
        assert bench.record.outbox == ()

    def test_a_word_that_is_never_taken(self, bench: ClientBench) -> None:
        """A last word that a server calls wrong holds up no other action."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.state, bench.machine.reason = "refused", "golden"
        with bench.answering(FEEDBACK, 400):
            polls(bench)
            assert bench.trouble() == "protocol"
            bench.machine.state = "ordered"
            bench.wire.deploy("6", "models/kws/8.bundle")
            polls(bench)
            assert bench.wire.told()[-1] == "deploymentBase/6 scheduled"
        polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/failure"

    def test_refused_by_the_machine(self, bench: ClientBench) -> None:
        """A refusal is told with its reason, and what failed is wanted no more."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.state, bench.machine.reason = "refused", "version_floor"
        polls(bench)
        _, said = bench.wire.said[-1]
        assert said["timestamp"] == NOW * 1000
        assert said["status"]["result"] == {"finished": "failure"}
        assert said["status"]["details"] == ["version_floor: door: words"]
        assert bench.machine.wanted() == {}

    def test_several_chunks(self, bench: ClientBench) -> None:
        """Several chunks are several pipelines, one action."""
        bench.wire.deploy("5", "models/kws/7.bundle", "models/vww/2.bundle")
        polls(bench)
        assert bench.machine.wanted() == KWS | {"window": Wanted("vww", 2)}
        bench.machine.commit("door")
        polls(bench)
        assert bench.record.open is not None
        bench.machine.commit("window")
        polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"

    @pytest.mark.parametrize(
        ("targets", "reason"),
        [
            (["models/other/1.bundle"], "unknown_pipeline"),
            (["fleet/groups/all"], "protocol"),
            (["../../etc/passwd"], "protocol"),
            (["models/kws/7.bundle", "models/kws/8.bundle"], "protocol"),
        ],
    )
    def test_what_no_board_can_do(
        self, bench: ClientBench, targets: list[str], reason: str
    ) -> None:
        """What names nothing for this board fails at once, and nothing is wanted."""
        bench.wire.deploy("5", *targets)
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 closed/failure"]
        assert bench.wire.said[-1][1]["status"]["details"][0].startswith(reason)
        assert (bench.machine.wanted(), bench.machine.looks) == ({}, [])
        assert bench.trouble() == reason

    def test_no_chunks(self, bench: ClientBench) -> None:
        """An empty order is no success."""
        bench.wire.deploy("5", chunks=[])
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 closed/failure"]

    def test_replaced_while_under_way(self, bench: ClientBench) -> None:
        """The one under way is ended first, then the other begins."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.phase = "FETCHING"
        polls(bench)
        bench.wire.deploy("6", "models/kws/8.bundle")
        polls(bench)
        assert bench.machine.withdrawn == [1]
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 canceled",
            "deploymentBase/6 scheduled",
        ]
        assert bench.machine.wanted() == {"door": Wanted("kws", 8)}
        assert bench.machine.looks[-2:] == [{}, {"door": Wanted("kws", 8)}]

    def test_replaced_after_the_commit(self, bench: ClientBench) -> None:
        """What was committed before it was replaced is a success."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.commit()
        bench.wire.deploy("6", "models/kws/8.bundle")
        polls(bench)
        assert bench.machine.withdrawn == []
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 closed/success",
            "deploymentBase/6 scheduled",
        ]

    def test_taken_away(self, bench: ClientBench) -> None:
        """What is offered no more is ended: the server has forgotten it."""
        bench.wire.deploy()
        polls(bench)
        bench.wire.offer()
        polls(bench)
        assert (bench.machine.withdrawn, bench.machine.wanted()) == ([1], {})
        assert bench.wire.told()[-1] == "deploymentBase/5 canceled"
        # Offered again later, it is a new order.
        bench.wire.deploy()
        polls(bench, 2)
        assert bench.record.generation == 2

    def test_only_downloaded(self, bench: ClientBench) -> None:
        """An order to download ends there for the server; the bytes stay."""
        bench.wire.deploy("5", download="forced", update="skip")
        bench.machine.state, bench.machine.reason = "waits", "paused"
        bench.machine.fetched = frozenset({"door"})
        polls(bench)
        bench.wire.offer()
        polls(bench)
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 download",
            "deploymentBase/5 downloaded",
        ]
        assert bench.record.open is not None
        assert (bench.machine.withdrawn, bench.machine.wanted()) == ([], {})

    def test_maintenance_window(self, bench: ClientBench) -> None:
        """While the server's window is closed nothing starts; then it does."""
        bench.wire.deploy("5", update="skip", maintenanceWindow="unavailable")
        polls(bench)
        assert (bench.machine.wanted(), bench.machine.looks) == ({}, [{}])
        bench.wire.deploy("5", maintenanceWindow="available")
        bench.wire.put(
            "",
            json.dumps(
                {"_links": {"deploymentBase": {"href": BASE + "/deploymentBase/5?c=7"}}}
            ).encode(),
        )
        polls(bench)
        assert bench.machine.looks[-1] == KWS
        assert bench.record.generation == 1

    def test_heat(self, bench: ClientBench) -> None:
        """What the server leaves to the board waits until that is fit."""
        bench.machine.heat = "heat"
        bench.wire.deploy("5", update="attempt")
        polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 rejected"
        assert bench.machine.wanted() == {}
        bench.machine.heat = ""
        polls(bench)
        assert bench.machine.wanted() == KWS

    def test_gives_up(self) -> None:
        """After so many attempts an order has failed; each is asked for and counted."""
        bench = ClientBench(attempts=3)
        bench.wire.deploy()
        polls(bench)
        bench.machine.state, bench.machine.reason = "waits", "unreachable"
        looks = len(bench.machine.looks)
        for _ in range(8):
            bench.now += 4000.0
            polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/failure"
        assert bench.wire.told().count("deploymentBase/5 rejected") == 1
        # Two more attempts were asked for; the last look is that nothing is wanted.
        assert len(bench.machine.looks) - looks == 3

    def test_gives_up_while_it_is_watched(self) -> None:
        """Looks in between put no attempt off: pauses of 2, 4 and 8 s, then the end."""
        bench = ClientBench(attempts=3)
        bench.wire.deploy()
        polls(bench)
        bench.machine.state, bench.machine.reason = "waits", "unreachable"
        began = bench.now
        while bench.record.open is not None:
            bench.now += 1.0
            polls(bench)
        assert bench.now - began == 15.0

    def test_paused_anew_after_progress(self, bench: ClientBench) -> None:
        """What goes on, and fails again, has its pause from then on."""
        bench.wire.deploy()
        bench.machine.state, bench.machine.reason = "waits", "unreachable"
        polls(bench)
        bench.machine.phase = "PROBATION"
        polls(bench)
        bench.now += 4000.0
        bench.machine.phase = ""
        looks = len(bench.machine.looks)
        polls(bench)
        assert bench.record.open is not None
        assert (bench.record.open.failures, len(bench.machine.looks)) == (0, looks)

    def test_each_order_has_its_own_pauses(self, bench: ClientBench) -> None:
        """An order does not pay for how often the one before it had failed."""
        bench.machine.state, bench.machine.reason = "waits", "unreachable"
        bench.wire.deploy()
        for _ in range(9):
            bench.now += 4000.0
            polls(bench)
        bench.wire.deploy("6", "models/kws/8.bundle")
        polls(bench, 2)
        bench.now += 2.0
        polls(bench)
        assert bench.record.open is not None
        assert (bench.record.open.id, bench.record.open.failures) == ("6", 1)

    def test_clock_that_is_set_back(self) -> None:
        """A board that learns the time late tries on, and gives up at some time."""
        bench = ClientBench(attempts=3)
        bench.wire.deploy()
        bench.machine.state, bench.machine.reason = "waits", "unreachable"
        polls(bench, 2)
        bench.now -= 4e8
        for _ in range(8):
            bench.now += 7200.0
            polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/failure"

    @pytest.mark.parametrize("status", [407, 408, 421, 425])
    def test_order_that_cannot_be_read_now(
        self, bench: ClientBench, status: int
    ) -> None:
        """A matter of time, or of a proxy, fails no order."""
        bench.wire.deploy()
        page = bench.wire.pages["GET", "/deploymentBase/5"]
        bench.wire.put("/deploymentBase/5", b"", status=status)
        polls(bench, 2)
        assert (bench.wire.told(), bench.record.ended) == ([], ())
        assert bench.trouble() in {"rate_limited", "unreachable"}
        bench.wire.pages["GET", "/deploymentBase/5"] = page
        polls(bench)
        assert (bench.trouble(), bench.machine.wanted()) == ("", KWS)

    def test_no_attempt_before_its_time(self, bench: ClientBench) -> None:
        """A failure is not tried again with each look."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.state, bench.machine.reason = "waits", "unreachable"
        looks = len(bench.machine.looks)
        polls(bench, 20)
        assert len(bench.machine.looks) == looks

    def test_order_that_cannot_be_read(self) -> None:
        """Portals and broken servers fail an action only after many attempts."""
        bench = ClientBench(attempts=3)
        bench.wire.offer("deploymentBase/5")
        bench.wire.put("/deploymentBase/5", b"<html>")
        polls(bench, 2)
        assert (bench.wire.told(), bench.trouble()) == ([], "unreachable")
        polls(bench)
        bench.wire.offer()
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 closed/failure"]
        assert "gave_up: unreachable" in str(bench.wire.said[-1])

    def test_order_that_is_gone(self, bench: ClientBench) -> None:
        """A link to nothing is a race, and no trouble."""
        bench.wire.offer("deploymentBase/5")
        polls(bench)
        assert (bench.trouble(), bench.wire.told()) == ("", [])

    def test_another_id_than_its_link(self, bench: ClientBench) -> None:
        """An order that calls itself otherwise than its link is refused."""
        bench.wire.deploy("6")
        bench.wire.pages["GET", "/deploymentBase/5"] = bench.wire.pages[
            "GET", "/deploymentBase/6"
        ]
        bench.wire.offer("deploymentBase/5")
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 closed/failure"]

    def test_same_id_other_content(self, bench: ClientBench) -> None:
        """A server that numbers files may change what an id means."""
        bench.wire.deploy("-1")
        polls(bench)
        bench.wire.deploy("-1", "models/kws/8.bundle")
        link = {"deploymentBase": {"href": f"{BASE}/deploymentBase/-1?c=8"}}
        bench.wire.put("", {"_links": link})
        polls(bench)
        assert bench.machine.withdrawn == [1]
        assert bench.machine.wanted() == {"door": Wanted("kws", 8)}
        assert bench.record.generation == 2

    def test_same_id_other_content_after_a_commit(self, bench: ClientBench) -> None:
        """What was committed of the earlier content stays: no board goes back."""
        bench.wire.deploy("-1", "models/kws/7.bundle", "models/vww/3.bundle")
        polls(bench)
        bench.machine.commit("door")
        bench.wire.deploy("-1", "models/vww/4.bundle")
        link = {"deploymentBase": {"href": f"{BASE}/deploymentBase/-1?c=8"}}
        bench.wire.put("", {"_links": link})
        polls(bench)
        assert bench.machine.wanted() == KWS | {"window": Wanted("vww", 4)}

    def test_a_server_that_never_listens(self, bench: ClientBench) -> None:
        """Whoever takes no last words gets nothing more begun; memory is bounded."""
        bench.wire.deaf = True
        for number in range(60):
            bench.wire.deploy(str(number), "models/other/1.bundle")
            polls(bench)
        assert len(bench.record.outbox) == 40
        bench.wire.deaf = False
        polls(bench, 2)
        assert bench.record.outbox == ()
        assert "deploymentBase/59 closed/failure" in bench.wire.told()


class TestLastWords:
    """What a server does not take."""

    @pytest.mark.parametrize("status", [400, 403, 405, 409, 422])
    def test_called_wrong(self, bench: ClientBench, status: int) -> None:
        """Words that are called wrong go at last, and hold nothing up meanwhile."""
        for number in range(40):
            path = f"/deploymentBase/{number}/feedback"
            bench.wire.put(path, b"", method="POST", status=status)
            bench.wire.deploy(str(number), "models/other/1.bundle")
            polls(bench)
        assert 0 < len(bench.record.outbox) < 40
        bench.wire.asked.clear()
        bench.wire.deploy("777")
        polls(bench)
        assert bench.machine.wanted() == KWS
        assert bench.wire.told()[-1] == "deploymentBase/777 scheduled"
        assert len(bench.wire.asked) <= 8
        polls(bench, 40)
        assert bench.record.outbox == ()

    def test_wrong_once(self, bench: ClientBench) -> None:
        """What is called wrong a few times, and then is taken, was not lost."""
        bench.wire.deploy("5", "models/other/1.bundle")
        with bench.answering(FEEDBACK, 409):
            polls(bench)
            bench.wire.offer()
            polls(bench, 3)
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 closed/failure"]


class TestPointer:
    """Servers without metadata."""

    RAW = b'{"tuf.target": "models/kws/7.bundle"}'

    def offer(self, bench: ClientBench, href: str, **changes: object) -> None:
        """Offer an artifact as gooseBit does."""
        artifact = {
            "filename": "kws-7.swu",
            "size": len(self.RAW),
            "hashes": {"sha1": hashlib.sha1(self.RAW).hexdigest()},  # noqa: S324 - gooseBit's
            "_links": {"download": {"href": href}},
            **changes,
        }
        bench.wire.deploy("5", chunks=[{"name": "os", "artifacts": [artifact]}])
        bench.wire.put("/download", self.RAW)
        bench.wire.put(f"{SERVER}/files/kws-7.swu", self.RAW)

    @pytest.mark.parametrize("href", [f"{BASE}/download", f"{SERVER}/files/kws-7.swu"])
    def test_pointer(self, bench: ClientBench, href: str) -> None:
        """A small artifact names the bundle; it may lie anywhere on the server."""
        self.offer(bench, href)
        polls(bench)
        assert bench.machine.wanted() == KWS

    @pytest.mark.parametrize(
        ("href", "changes", "reason"),
        [
            ("http://hawkbit.example/a", {}, "foreign_url"),
            ("https://hawkbit.example:444/a", {}, "foreign_url"),
            ("https://evil.example/a", {}, "foreign_url"),
            ("//evil.example/a", {}, "foreign_url"),
            ("https://hawkbit.example@evil.example/a", {}, "foreign_url"),
            ("https://user:x@hawkbit.example/a", {}, "foreign_url"),
            ("file:///etc/passwd", {}, "foreign_url"),
            (f"{SERVER}/a/%2e%2e/b", {}, "foreign_url"),
            (f"{SERVER}/missing", {}, "protocol"),
            (f"{BASE}/download", {"size": 36}, "length"),
            (f"{BASE}/download", {"hashes": {"md5": "00"}}, "digest"),
            (f"{BASE}/download", {"hashes": {"sha256": "00"}}, "digest"),
            (f"{BASE}/download", {"size": 50_000_000}, "protocol"),
            (f"{BASE}/download", {"_links": {}}, "protocol"),
        ],
    )
    def test_lies(
        self, bench: ClientBench, href: str, changes: dict[str, object], reason: str
    ) -> None:
        """Foreign places, wrong sizes and hashes fail the action, and fetch nothing."""
        self.offer(bench, href, **changes)
        polls(bench)
        assert bench.wire.said[-1][1]["status"]["details"][0].startswith(reason)
        assert bench.machine.wanted() == {}
        assert all("evil" not in it for it in bench.wire.asked)

    def test_endless_pointer(self, bench: ClientBench) -> None:
        """A pointer that is longer than it says is not read to its end."""
        self.offer(bench, f"{BASE}/download")
        bench.wire.put("/download", b"x" * 5000)
        polls(bench)
        assert bench.wire.told() == ["deploymentBase/5 closed/failure"]


class TestCancel:
    """Orders that are taken back."""

    def test_at_any_stage(self, bench: ClientBench) -> None:
        """Before the commit the cancellation is closed, and nothing is wanted."""
        for number, phase in enumerate(("", "FETCHING", "PROBATION")):
            action, cancel = str(number), str(number + 50)
            bench.wire.deploy(action)
            polls(bench)
            bench.machine.phase = phase
            polls(bench)
            bench.wire.cancel(cancel, action)
            polls(bench)
            bench.machine.phase = ""
            assert bench.wire.told()[-1] == f"cancelAction/{cancel} closed/success"
            assert bench.machine.wanted() == {}
        assert bench.machine.withdrawn == [1, 2, 3]

    def test_before_it_was_seen(self, bench: ClientBench) -> None:
        """An order that never came here is canceled all the same."""
        bench.wire.cancel()
        polls(bench)
        assert bench.wire.told() == ["cancelAction/9 closed/success"]

    def test_after_the_commit(self, bench: ClientBench) -> None:
        """What was committed stays: the cancellation is rejected."""
        bench.wire.deploy()
        polls(bench)
        bench.machine.commit()
        bench.wire.cancel()
        polls(bench)
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 closed/success",
            "cancelAction/9 rejected",
        ]
        assert bench.machine.wanted() == KWS

    @pytest.mark.parametrize("offers", [(), ("deploymentBase/5",)])
    def test_partly_committed(
        self, bench: ClientBench, offers: tuple[str, ...]
    ) -> None:
        """What was committed in part cannot be taken back, and goes on to its end."""
        both = KWS | {"window": Wanted("vww", 3)}
        bench.wire.deploy("5", "models/kws/7.bundle", "models/vww/3.bundle")
        polls(bench)
        bench.machine.commit("door")
        bench.wire.cancel()
        bench.wire.offer("cancelAction/9", *offers)
        polls(bench)
        assert bench.wire.told()[-1] == "cancelAction/9 rejected"
        assert (bench.machine.withdrawn, bench.machine.wanted()) == ([], both)
        bench.wire.offer("deploymentBase/5")
        bench.machine.commit("window")
        polls(bench)
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"

    def test_committed_while_it_is_withdrawn(self, bench: ClientBench) -> None:
        """Where the commit comes first, the rest goes on under a new generation."""
        bench.wire.deploy("5", "models/kws/7.bundle", "models/vww/3.bundle")
        polls(bench)

        async def too_late(generation: int) -> bool:
            bench.machine.commit("door")
            bench.machine.withdrawn.append(generation)
            return False

        bench.machine.withdraw = too_late  # type: ignore[method-assign]  # a race
        bench.wire.cancel()
        polls(bench)
        assert bench.wire.told()[-1] == "cancelAction/9 rejected"
        assert bench.machine.wanted() == KWS | {"window": Wanted("vww", 3)}
        assert (bench.machine.withdrawn, bench.record.generation) == ([1], 2)
        # And it is not forgotten that part of it was committed under the first.
        polls(bench)
        assert (bench.machine.withdrawn, bench.record.generation) == ([1], 2)
        bench.machine.commit("window")
        polls(bench)
        assert bench.wire.told()[-2:] == [
            "deploymentBase/5 closed/success",
            "cancelAction/9 rejected",
        ]

    def test_answered_once(self, bench: ClientBench) -> None:
        """A cancellation is not read again while the server says nothing new."""
        bench.wire.cancel()
        bench.wire.offer("cancelAction/9", etag='"a"')
        polls(bench)
        bench.wire.put("", b"", status=304)
        polls(bench, 2)
        assert bench.wire.asked.count("GET /cancelAction/9") == 1
        assert bench.wire.told() == ["cancelAction/9 closed/success"]

    def test_power_cut_while_withdrawing(self, bench: ClientBench) -> None:
        """What was leaving when power went leaves after it came back."""
        bench.wire.deploy()
        polls(bench)
        bench.wire.cancel()

        async def die(generation: int) -> bool:
            raise ConnectionError(generation)

        alive, bench.machine.withdraw = bench.machine.withdraw, die  # type: ignore[method-assign]  # the power cut
        with pytest.raises(ConnectionError):
            polls(bench)
        assert bench.machine.wanted() == {}
        bench.machine.withdraw = alive  # type: ignore[method-assign]  # power is back
        bench.wire.offer()
        bench.start()
        polls(bench)
        assert bench.wire.told()[-1] == "cancelAction/9 closed/success"

    def test_wrong_cancellations(self, bench: ClientBench) -> None:
        """What makes no sense stops nothing."""
        bench.wire.deploy()
        polls(bench)
        said = {"id": "8", "cancelAction": {"stopId": "5"}}
        bench.wire.put("/cancelAction/9", said)
        bench.wire.offer("cancelAction/9", "deploymentBase/5")
        polls(bench)
        assert (bench.trouble(), bench.machine.withdrawn) == ("protocol", [])


class TestConfirmation:
    """What a server wants to have confirmed."""

    def test_admissible(self, bench: ClientBench) -> None:
        """What is admissible is confirmed, once, and not begun."""
        bench.wire.deploy("5", resource="confirmationBase")
        polls(bench, 3)
        assert bench.wire.told() == ["confirmationBase/5 confirmed"]
        assert bench.machine.wanted() == {}

    def test_inadmissible(self, bench: ClientBench) -> None:
        """What is not is denied with its reason; what changes is told."""
        bench.wire.deploy("5", resource="confirmationBase")
        bench.machine.inadmissible = BundleRefusedError("old", reason=Reason.REVOKED)
        polls(bench, 2)
        assert bench.wire.told() == ["confirmationBase/5 denied"]
        assert bench.wire.said[-1][1]["details"] == ["revoked: old"]
        bench.machine.inadmissible = None
        polls(bench)
        assert bench.wire.told()[-1] == "confirmationBase/5 confirmed"

    def test_published_a_minute_ago(self, bench: ClientBench) -> None:
        """What seems to be refused is looked for first, and then confirmed."""
        bench.wire.deploy("5", resource="confirmationBase")
        refused = BundleRefusedError("?", reason=Reason.MISSING_TARGET)
        bench.machine.inadmissible = refused
        polls(bench)
        assert (bench.wire.told(), len(bench.machine.looks)) == ([], 1)
        bench.machine.inadmissible = None
        polls(bench)
        assert bench.wire.told() == ["confirmationBase/5 confirmed"]

    @pytest.mark.parametrize(
        "error",
        [
            DeviceError("starting", reason=Reason.STARTING),
            BundleRefusedError("away", reason=Reason.UNREACHABLE),
        ],
    )
    def test_holds_up_no_order(
        self, bench: ClientBench, error: BundleRefusedError | DeviceError
    ) -> None:
        """What cannot be said of one order is no matter of another."""
        bench.wire.deploy("8", resource="confirmationBase")
        bench.wire.deploy("5")
        bench.wire.offer("confirmationBase/8", "deploymentBase/5")
        bench.machine.inadmissible = error
        polls(bench)
        assert (bench.trouble(), bench.machine.wanted()) == (str(error.reason), KWS)

    @pytest.mark.parametrize(
        "error",
        [
            DeviceError("no", reason=Reason.STATE),
            BundleRefusedError("no", reason=Reason.UNREACHABLE),
        ],
    )
    def test_cannot_say(
        self, bench: ClientBench, error: BundleRefusedError | DeviceError
    ) -> None:
        """What cannot be judged now is neither confirmed nor denied."""
        bench.wire.deploy("5", resource="confirmationBase")
        bench.machine.inadmissible = error
        polls(bench)
        assert (bench.wire.told(), bench.trouble()) == ([], str(error.reason))

    def test_left_to_others(self) -> None:
        """Where the settings say so, somebody else confirms."""
        bench = ClientBench(confirm=False)
        bench.wire.deploy("5", resource="confirmationBase")
        polls(bench)
        assert bench.wire.told() == []
        assert "GET /confirmationBase/5" not in bench.wire.asked


class TestInstalled:
    """What a board ran before it lost its memory."""

    def test_new_board(self, bench: ClientBench) -> None:
        """It is wanted again, and nobody is told."""
        bench.wire.deploy("4", resource="installedBase")
        polls(bench, 2)
        assert (bench.machine.wanted(), bench.wire.told()) == (KWS, [])
        assert bench.wire.asked.count("GET /installedBase/4") == 1

    def test_orders_come_first(self, bench: ClientBench) -> None:
        """Where there is an order, what ran before is none of its business."""
        bench.wire.deploy("4", resource="installedBase")
        bench.wire.deploy("5", "models/kws/8.bundle")
        bench.wire.offer("installedBase/4", "deploymentBase/5")
        polls(bench)
        assert bench.machine.wanted() == {"door": Wanted("kws", 8)}
        assert "GET /installedBase/4" not in bench.wire.asked

    def test_nonsense(self, bench: ClientBench) -> None:
        """What makes no sense is trouble once, and wanted never."""
        bench.wire.deploy("4", "models/other/1.bundle", resource="installedBase")
        polls(bench)
        assert bench.trouble() == "unknown_pipeline"
        polls(bench)
        assert (bench.trouble(), bench.machine.wanted()) == ("", {})


class TestAttributes:
    """What this board is."""

    def test_when_asked_and_when_changed(self, bench: ClientBench) -> None:
        """At first, when something steady changed, and whenever the server asks."""
        polls(bench, 2)
        assert [path for path, _ in bench.wire.said] == ["/configData"]
        bench.machine.attributes["model.door"] = "kws 2"
        polls(bench)
        bench.start()
        polls(bench)
        assert len(bench.wire.said) == 1
        bench.machine.attributes["hardware"] = "jetson"
        polls(bench, 2)
        assert len(bench.wire.said) == 2
        bench.wire.offer("configData")
        polls(bench)
        assert bench.wire.said[-1] == (
            "/configData",
            {"mode": "merge", "data": {"hardware": "jetson", "model.door": "kws 2"}},
        )
        assert len(bench.wire.said) == 3

    def test_not_taken(self, bench: ClientBench) -> None:
        """Attributes that are too much are no reason to stop, or to repeat them."""
        bench.wire.deploy()
        bench.wire.put("/configData", b"", method="PUT", status=403)
        polls(bench, 3)
        assert bench.wire.asked.count("PUT /configData") == 1
        assert bench.machine.wanted() == KWS

    def test_foreign_links(self, bench: ClientBench) -> None:
        """Links elsewhere are not followed; the others of that poll are."""
        bench.wire.deploy()
        links = {
            "configData": {"href": "https://evil.example/configData"},
            "cancelAction": {
                "href": f"{SERVER}/default/controller/v1/pi-2/cancelAction/5"
            },
            "deploymentBase": {"href": f"{BASE}/deploymentBase/5"},
        }
        bench.wire.put("", {"_links": links})
        polls(bench)
        assert (bench.trouble(), bench.machine.wanted()) == ("foreign_url", KWS)
        assert not [it for it in bench.wire.asked if "evil" in it or "pi-2" in it]


class TestTask:
    """The task itself."""

    def test_tells_while_it_waits(self, bench: ClientBench) -> None:
        """While an action is open, what the machine does is told between two polls."""
        bench.wire.deploy()

        async def course() -> None:
            await until(bench.wire.told)
            bench.machine.commit()
            await until(lambda: len(bench.wire.told()) == 5)

        run_client(bench, course())
        assert bench.wire.told()[-1] == "deploymentBase/5 closed/success"
        assert bench.wire.asked.count("GET ") == 1
        assert bench.wire.closed

    def test_silent_server_while_it_waits(self, bench: ClientBench) -> None:
        """What is not taken between two polls is not told again before the next."""
        bench.wire.deploy()

        async def course() -> None:
            await until(bench.wire.told)
            bench.wire.put(FEEDBACK, b"", method="POST", status=500)
            bench.machine.phase = "FETCHING"
            await until(lambda: bench.client.snapshot().outbox == 1)
            bench.machine.phase = "PROBATION"
            await until(lambda: bench.client.snapshot().outbox == 3)

        run_client(bench, course())
        assert bench.wire.asked.count(f"POST {FEEDBACK}") == 2

    def test_poke_while_it_tells(self, bench: ClientBench) -> None:
        """A poke is heard that comes while the server takes its time with news."""
        bench.wire.deploy()
        ask, told = bench.wire.ask, asyncio.Event()
        slow = False

        async def slowly(method: str, url: str, **more: Any) -> Answer:  # noqa: ANN401 - passed on
            if slow and url.endswith("/feedback"):
                told.set()
                await asyncio.sleep(0)
                bench.client.poke()
            return await ask(method, url, **more)

        bench.wire.ask = slowly  # type: ignore[method-assign]  # a slow server

        async def course() -> None:
            nonlocal slow
            await until(lambda: bench.client.snapshot().next_poll)
            slow = True
            bench.machine.phase = "FETCHING"
            await told.wait()
            slow = False
            await until(lambda: bench.wire.asked.count("GET ") == 2)

        run_client(bench, course())

    def test_asked_for_silence_while_it_waits(self, bench: ClientBench) -> None:
        """Who answers news with Retry-After is left alone for so long."""
        bench.wire.deploy()

        async def course() -> None:
            await until(lambda: bench.client.snapshot().next_poll)
            bench.wire.put(FEEDBACK, b"", method="POST", status=429, retry_after="7200")
            bench.machine.phase = "FETCHING"
            await until(lambda: bench.client.snapshot().next_poll >= NOW + 7200)

        run_client(bench, course())
        assert bench.wire.asked.count("GET ") == 1

    def test_poke(self, bench: ClientBench) -> None:
        """Who pokes gets a round; who pokes a hundred times does, too."""

        async def course() -> None:
            await until(lambda: bench.client.snapshot().next_poll)
            for _ in range(100):
                bench.client.poke()
            assert bench.client.snapshot().next_poll == 0.0
            await until(lambda: bench.wire.asked.count("GET ") == 2)
            await until(lambda: bench.client.snapshot().next_poll)

        run_client(bench, course())
        assert bench.wire.asked.count("GET ") == 2


BODY = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.just("models/kws/9.bundle"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "deployment", "chunks", "metadata", "key", "value"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
HREFS = st.sampled_from(
    [
        f"{BASE}/deploymentBase/5",
        f"{BASE}/cancelAction/5",
        f"{BASE}/../../..",
        "https://evil.example/deploymentBase/5",
        "",
        "/default/controller/v1/pi-1/installedBase/5",
    ]
)
RELATIONS = ["deploymentBase", "cancelAction", "confirmationBase", "installedBase"]


@given(
    links=st.dictionaries(st.sampled_from([*RELATIONS, "configData"]), HREFS),
    bodies=st.lists(BODY, min_size=4, max_size=4),
    status=st.sampled_from([200, 200, 204, 301, 401, 404, 410, 429, 500]),
)
def test_hostile_server(
    links: dict[str, str], bodies: list[object], status: int
) -> None:
    """Whatever a server says: polls go on, and only named targets are wanted."""
    bench = ClientBench()
    said = {"_links": {name: {"href": it} for name, it in links.items()}}
    bench.wire.put("", said)
    for relation, body in zip(RELATIONS, bodies, strict=True):
        bench.wire.put(f"/{relation}/5", body, status=status)
    for _ in range(2):
        pause_s = polls(bench)
        assert 1.0 <= pause_s <= 86_400.0
    assert set(bench.machine.wanted().values()) <= {Wanted("kws", 9)}
    assert not [it for it in bench.wire.asked if "evil" in it]
