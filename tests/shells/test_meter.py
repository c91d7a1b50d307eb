"""The meter on a real disk: what it lets through, keeps, refuses and tells."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.audit.key import verify_ed25519
from agent.audit.meter import Meter
from agent.audit.recorder import Meter as RecordersMeter
from agent.core.meter_report import open_report
from agent.core.protect_settings import Unpaid
from agent.core.reasons import Reason
from agent.core.voucher import MAX_UNITS, Kind
from agent.endpoint.needs import Meter as ListenersMeter
from agent.errors import AgentError, DeviceError
from benchmarks.meter_lives import LEASE, Course
from tests.fakes.metered import BOARD_KEY, MODEL, NOW_S, MeteredBoard, records
from tests.fakes.vouchers import VENDOR, Vendor, refused_for

PATIENCE_S = 30.0


@pytest.fixture
def board(tmp_path: Path) -> MeteredBoard:
    """Give a board with one pipeline that stops, and a lease of 100."""
    return MeteredBoard(tmp_path)


@pytest.fixture
def started(board: MeteredBoard) -> Iterator[Meter]:
    """Give its meter with the thread that renews leases."""
    meter = board.open()
    meter.start()
    yield meter
    meter.close()


def allowed(meter: Meter, pipeline: str = "door") -> int:
    """Return what a pipeline may answer, once a lease that is due is there."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        count, reason = meter.allowance(pipeline)
        if count or reason:
            return count
        time.sleep(0.002)
    raise AssertionError("no lease came")


def answer(meter: Meter, most: int, pipeline: str = "door") -> int:
    """Answer as long as it is allowed; return how much that was."""
    done = 0
    while done < most and (count := min(most - done, allowed(meter, pipeline))):
        meter.take(pipeline, records(count))
        done += count
    return done


def test_it_is_what_recorders_and_listeners_need(board: MeteredBoard) -> None:
    """The meter fits both of the Protocols that stand next to its use."""
    meter = board.open()
    for_recorders: RecordersMeter = meter
    assert for_recorders.allowance("door") == (0, Reason.UNPAID)
    for_listeners: ListenersMeter = meter
    assert for_listeners.status().left == 0


def test_what_is_paid_is_answered_and_no_more(
    started: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 250 units 250 are used, then it says `unpaid`; another voucher goes on."""
    caplog.set_level(logging.INFO, "agent.audit")
    assert started.allowance("door") == (0, Reason.UNPAID)
    started.redeem(VENDOR.voucher(1, 250))
    assert answer(started, 1000) == 250
    assert started.allowance("door") == (0, Reason.UNPAID)
    started.redeem(VENDOR.voucher(2, 30))
    assert answer(started, 1000) == 30
    said = [it.message for it in caplog.records if it.message != "meter.begun"]
    turns = ["meter.redeemed", "meter.paid", "meter.unpaid"]
    assert ["meter.unpaid", *turns, *turns] == said
    levels = {it.levelno for it in caplog.records if it.message == "meter.unpaid"}
    assert levels == {logging.WARNING}  # alerts and `events --level warning` hear it


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (VENDOR.voucher(1)[:-1], Reason.MALFORMED),
        (Vendor(b"x" * 32).voucher(1), Reason.SIGNATURE),
        (VENDOR.voucher(1, board=bytes(32)), Reason.OTHER_BOARD),
        (VENDOR.voucher(1, expiry_s=int(NOW_S) - 1), Reason.EXPIRED),
        (VENDOR.voucher(1, MAX_UNITS + 1), Reason.UNITS),
        (VENDOR.voucher(5), Reason.REPLAYED),
    ],
)
def test_bad_vouchers_are_refused(board: MeteredBoard, raw: bytes, reason: str) -> None:
    """Each with its own reason, and nothing is changed; over a restart, too."""
    board.open().redeem(VENDOR.voucher(5, 40))
    meter = board.open()
    before = meter.status()
    assert reason == refused_for(lambda: meter.redeem(raw))
    assert before == meter.status()
    assert board.open().status().bought == 40


def test_the_thread_renews_ahead_of_use(started: Meter) -> None:
    """Thousands of answers go through leases of 100, and the loop never waits."""
    started.redeem(VENDOR.voucher(1, 20_000))
    assert answer(started, 20_000) == 20_000
    assert started.status().left == 0


@pytest.mark.parametrize("refund", [False, True])
def test_a_crash_takes_what_the_policy_says(tmp_path: Path, *, refund: bool) -> None:
    """Without a refund the lease is gone, with it what was handed out at most."""
    board = MeteredBoard(tmp_path, refund=refund)
    meter = board.open(inferences=0)
    meter.redeem(VENDOR.voucher(1, 1000))
    meter.renew()
    meter.take("door", records(allowed(meter)))
    used = meter.status().used
    again = board.open(inferences=used).status()
    if refund:
        assert (used, 0) == (again.used, again.lost)
    else:
        assert (100, 100 - used) == (again.used, again.lost)


def test_an_orderly_end_takes_nothing(board: MeteredBoard) -> None:
    """What was reserved and not used is there after a restart."""
    meter = board.open()
    meter.start()
    meter.redeem(VENDOR.voucher(1, 1000))
    answer(meter, 130)
    meter.close()
    assert (
        (again := board.open().status()).used,
        again.lost,
        again.left,
    ) == (130, 0, 870)


def test_a_disk_that_takes_no_lease_ends_answers(board: MeteredBoard) -> None:
    """What was reserved is answered, then nothing, with the disk's own reason."""
    meter = board.open()
    meter.redeem(VENDOR.voucher(1, 1000))
    meter.renew()
    done = 0
    while done < 60:
        meter.take("door", records(count := meter.allowance("door")[0]))
        done += count
    path = board.home / "meter.bin"
    kept = path.rename(board.home / "kept")
    path.mkdir()
    board.folder.close()  # it is opened anew, as after any failure
    with pytest.raises(DeviceError):
        meter.renew()
    while count := meter.allowance("door")[0]:
        meter.take("door", records(count))
        done += count
    assert done <= 100
    assert meter.allowance("door")[1] not in {Reason.NONE, Reason.UNPAID}
    assert meter.status().trouble
    path.rmdir()
    kept.rename(path)
    board.folder.close()
    meter.renew()
    assert not meter.status().trouble
    assert allowed(meter) > 0


def test_degrading_thins_and_goes_back(tmp_path: Path) -> None:
    """A pipeline is told once to answer one in seven, and once to answer all."""
    policies = {"door": Unpaid("degrade", every=7)}
    board = MeteredBoard(tmp_path, policies)
    meter = board.open()
    meter.renew()
    for _ in range(3):
        count, reason = meter.allowance("door")
        assert (count > 0, reason) == (True, Reason.UNPAID)
    meter.take("door", records(5))
    meter.redeem(VENDOR.voucher(1, 100))
    meter.renew()
    for _ in range(2):
        meter.allowance("door")
    assert board.thinned == [("door", 7), ("door", 1)]
    assert (meter.status().used, meter.status().free) == (0, 5)


def test_other_rules_hold_at_once(board: MeteredBoard) -> None:
    """Settings that were read anew change policy and lease, and forget who ended."""
    meter = board.open()
    meter.allowance("door")
    meter.follow({"yard": Unpaid("grace", grace=9)}, 500)
    meter.renew()
    assert allowed(meter, "yard") == 9
    status = meter.status()
    assert (list(status.pipelines), status.lease) == (["yard"], 500)


def test_unlimited_vouchers_cost_no_units(board: MeteredBoard) -> None:
    """By time or date; and all of it can be taken back."""
    meter = board.open()
    meter.redeem(VENDOR.voucher(1, 3600, Kind.TIME))
    meter.renew()
    meter.take("door", records(allowed(meter)))
    until = int(NOW_S) + 900
    meter.redeem(VENDOR.voucher(2, until, Kind.UNTIL))
    status = meter.status()
    assert (True, until, 0, 3600) == (
        status.unlimited,
        status.until,
        status.used,
        status.seconds,
    )
    meter.redeem(VENDOR.voucher(3, 0, Kind.REVOKE))
    status = meter.status()
    assert (status.unlimited, status.until, status.seconds) == (False, 0, 0)
    late = refused_for(lambda: meter.redeem(VENDOR.voucher(2, 5)))
    assert late == Reason.REPLAYED


def test_nothing_is_left_once_all_was_taken_back(board: MeteredBoard) -> None:
    """Nor after the next start; what a pipeline was handed is owed if it uses it."""
    meter = board.open()
    meter.redeem(VENDOR.voucher(1, 1000))
    meter.renew()
    held = allowed(meter)
    meter.redeem(VENDOR.voucher(2, 0, Kind.REVOKE))
    assert (held > 0, meter.status().left, meter.status().owed) == (True, 0, 0)
    meter.take("door", records(3))
    assert (meter.status().left, meter.status().owed) == (0, 3)
    meter.close()
    again = board.open()
    assert (again.status().left, again.status().owed, allowed(again)) == (0, 3, 0)


def test_the_report_adds_up(board: MeteredBoard) -> None:
    """Over hours, models and a crash: the rows are what was charged and free."""
    meter = board.open(inferences=0)
    meter.redeem(VENDOR.voucher(1, 1000))
    meter.renew()
    meter.take("door", records(min(10, allowed(meter)), failed=2))
    board.clock.now_s += 3600
    meter.renew()
    meter.take("door", records(3, model=b"n" * 32))
    meter = board.open(inferences=15)
    usage = open_report(meter.report().encode(), BOARD_KEY, verify_ed25519)
    by_model = {it.model: it.count for it in usage.rows}
    assert by_model[MODEL.hex()] == 10
    assert usage.answers == usage.used == sum(by_model.values())
    late = open_report(
        meter.report(board.clock.now_s).encode(), BOARD_KEY, verify_ed25519
    )
    assert MODEL.hex() not in {it.model for it in late.rows}


def test_a_file_without_a_whole_part_is_refused(board: MeteredBoard) -> None:
    """Nobody begins at nothing where vouchers were redeemed."""
    board.open().redeem(VENDOR.voucher(1))
    path = board.home / "meter.bin"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(AgentError) as refused:
        board.open()
    assert refused.value.reason == Reason.STATE


@pytest.mark.parametrize("refund", ["", "refund"])
def test_killed_boards_answer_nothing_that_is_not_charged(
    tmp_path: Path, refund: str
) -> None:
    """Lives of log, meter, ring and worker, each killed at any moment: none escapes."""
    program = (sys.executable, "-m", "benchmarks.meter_lives")
    told = subprocess.run(
        [*program, tmp_path, "10", "7", refund],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        timeout=120,
    ).stdout
    course = msgspec.json.decode(told, type=Course)
    assert course.unmetered == 0
    assert course.worst_loss <= LEASE
    assert course.answers <= course.used
    assert course.lost == course.used - course.answers
