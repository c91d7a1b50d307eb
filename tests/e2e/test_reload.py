"""SIGHUP on the real daemon: what is applied, what is refused, and nothing is lost."""

import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.conftest import STEADY, MakeBoard, Table
from tests.fakes import toxic_server as toxic
from tests.fakes.daemon_process import (
    NAME,
    DaemonProcess,
    Json,
    child_pids,
    read_lines,
    toml,
)
from tests.fakes.fleet import GROUP, MODEL, Fleet, bundle
from tests.fakes.packed_candidates import on_trial
from tests.fakes.service_socket import ServiceSocket
from tests.fakes.toxic_server import ToxicServer

SECOND = "second"
LONG_S = 600.0  # longer than any test waits
STORM = 100
TRIALS = ("SHADOWING", "PROBATION")


class ReloadedBoard:
    """A board whose settings are rewritten while it runs.

    Attributes:
        board: The daemon; ``manager`` hears what it says to its service manager.
    """

    def __init__(self, board: DaemonProcess, manager: ServiceSocket) -> None:
        self.board = board
        self.manager = manager
        self._first = board.settings.read_text(encoding="utf-8")
        manager.adopt(board)

    def write(
        self,
        text: str = "",
        *replaced: tuple[str, str],
        more: Mapping[str, Table] | None = None,
    ) -> None:
        """Write the first settings with some text replaced, and tables behind them."""
        first = text or self._first
        for old, new in replaced:
            assert old in first
            first = first.replace(old, new)
        rows = [first]
        for name, table in (more or {}).items():
            header = f"[[{name}]]" if name == "pipeline" else f"[{name}]"
            rows += [header, *(f"{key} = {toml(it)}" for key, it in table.items())]
        self.board.settings.write_text("\n".join(rows) + "\n", encoding="utf-8")

    def reload(self) -> None:
        """Send SIGHUP and wait for the end of the reload."""
        ended = self.manager.count("READY=1") + 1
        self.board.signal(signal.SIGHUP)
        self.board.wait_for(lambda: self.manager.count("READY=1") >= ended, "READY")

    def note(self) -> str:
        """Return the status line that was said last."""
        return self.manager.statuses()[-1]

    def assert_nothing_lost(self) -> Json:
        """Every sample that came in is answered, or the one in flight."""
        sums = self.board.samples()
        assert (sums["failed"], sums["dropped"]) == (0, 0)
        assert sums["in"] - sums["ok"] in (0, 1)
        return sums


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceSocket]:
    """Give a listening socket."""
    with ServiceSocket(tmp_path / "notify") as manager:
        yield manager


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Give the file that predictions go to."""
    return tmp_path / "lines.jsonl"


@pytest.fixture
def reloaded(
    make_board: MakeBoard, manager: ServiceSocket, fleet: Fleet, lines: Path
) -> Iterator[ReloadedBoard]:
    """Give a board that answers 500 samples a second with version 1."""
    fleet.publish(1)
    sink = {"kind": "file", "path": lines, "max_mb": 4000.0}
    board = make_board(source=STEADY, sinks=[sink])
    reloaded = ReloadedBoard(board, manager)
    with board:
        board.wait_version(1)
        yield reloaded
        assert "Traceback" not in board.words()


def second(**more: object) -> Table:
    """Return the table of another pipeline of the same model."""
    slow = {**STEADY, "rate": 20.0}
    return {"name": SECOND, "model": MODEL, "source": slow, "kernels": "plain", **more}


def assign_both(fleet: Fleet, version: int = 1) -> None:
    """Want a version of both pipelines."""
    wanted = {NAME: (MODEL, version), SECOND: (MODEL, version)}
    fleet.spoiled.repository.assign(GROUP, wanted)
    fleet.sign()


def ready(board: DaemonProcess, name: str) -> bool:
    """Whether a pipeline is there and ready."""
    return bool(board.state()["pipelines"].get(name, {}).get("ready"))


def counted(board: DaemonProcess, name: str) -> bool:
    """Whether a scrape shows samples of a pipeline."""
    rows = (it for it in board.metrics() if it.startswith("tinyward_samples_total"))
    return any(f'pipeline="{name}"' in row for row in rows)


def stop_and_count(reloaded: ReloadedBoard, lines: Path) -> int:
    """End the daemon; return how many answers there were, without a hole."""
    board = reloaded.board
    board.signal(signal.SIGTERM)
    assert board.wait() == 0
    numbers = [line["seq"] for line in read_lines(lines)]
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)


def test_the_same_settings_change_nothing(
    reloaded: ReloadedBoard, manager: ServiceSocket
) -> None:
    """It says so; RELOADING and READY are told all the same."""
    pid = reloaded.board.worker_pid()
    reloaded.reload()
    reloaded.board.wait_said("settings.unchanged")
    assert reloaded.board.worker_pid() == pid
    told = [it.splitlines()[0] for it in manager.read()]
    states = [it for it in told if it in {"READY=1", "RELOADING=1"}]
    assert states == ["READY=1", "RELOADING=1", "READY=1"]


def test_pipelines_come_and_go_without_disturbing_others(
    reloaded: ReloadedBoard, fleet: Fleet, lines: Path
) -> None:
    """The worker of the first is the same all along, and loses no sample."""
    board = reloaded.board
    pid = board.worker_pid()
    reloaded.write(more={"pipeline": second()})
    reloaded.reload()
    assert list(board.state()["pipelines"]) == [NAME, SECOND]
    assign_both(fleet)
    board.wait_for(lambda: ready(board, SECOND), "the second answers")
    board.wait_for(lambda: counted(board, SECOND), "its series")
    reloaded.write()
    reloaded.reload()
    assert list(board.state()["pipelines"]) == [NAME]
    assert child_pids(board.pid) == [pid]
    board.wait_for(lambda: not counted(board, SECOND), "its series end")
    reloaded.write(more={"pipeline": second()})
    reloaded.reload()
    # What was committed is still there, and starts without a look at the repository.
    board.wait_for(lambda: ready(board, SECOND), "the second answers again")
    assert board.worker_pid() == pid
    reloaded.assert_nothing_lost()
    stop_and_count(reloaded, lines)


def test_a_change_replaces_one_worker_and_loses_nothing(
    reloaded: ReloadedBoard, lines: Path
) -> None:
    """Counters go on, and so do the numbers of the answers, without a hole."""
    board = reloaded.board
    before, pid = reloaded.assert_nothing_lost(), board.worker_pid()
    for rate in (400.0, 300.0, 450.0):
        reloaded.write("", ("rate = 500.0", f"rate = {rate}"))
        reloaded.reload()
        assert board.samples()["ok"] >= before["ok"]
        board.wait_version(1)
        before = reloaded.assert_nothing_lost()
    assert board.worker_pid() != pid
    assert board.pipeline()["worker"]["pid"] in child_pids(board.pid)
    restarts = board.metrics()
    key = f'tinyward_worker_restarts_total{{pipeline="{NAME}",reason="requested"}}'
    assert restarts[key] == 3
    assert stop_and_count(reloaded, lines) >= before["ok"]


def test_another_model_is_looked_up(reloaded: ReloadedBoard) -> None:
    """What is committed for another one is not run; the old one comes back at once."""
    board = reloaded.board
    reloaded.write("", (f'model = "{MODEL}"', 'model = "other"'))
    reloaded.reload()
    board.wait_for(lambda: board.readiness() == (503, "no_model"), "no model")
    reloaded.write()
    reloaded.reload()
    board.wait_version(1)


def test_limits_are_applied_and_listeners_need_a_restart(
    reloaded: ReloadedBoard,
) -> None:
    """Each key that needs one is named, with what to do; the rest is applied."""
    board = reloaded.board
    pid = board.worker_pid()
    where = '[local]\nlisten = "127.0.0.1:0"'
    reloaded.write(
        "",
        (where, '[local]\nlisten = "127.0.0.1:1"'),
        ("poll_s = 0.1", "poll_s = 0.2"),
        more={"degrade": {"hot_c": 60.0}, "monitor": {"cpu_share": 0.05}},
    )
    for _ in range(2):  # it is said until there was a restart
        reloaded.reload()
        assert reloaded.note().startswith(
            "local.listen: needs systemctl restart tinyward"
        )
    words = board.words()
    assert "settings.restart key=local.listen" in words
    applied = "settings.applied keys=update.poll_s,monitor.cpu_share,degrade.hot_c\n"
    assert words.count(applied) == 1
    assert board.worker_pid() == pid
    assert board.metrics()["tinyward_monitor_cpu_budget_ratio"] == 0.05
    reloaded.assert_nothing_lost()


def test_the_desired_state_of_other_groups_is_followed(
    reloaded: ReloadedBoard, fleet: Fleet
) -> None:
    """A board that is moved to another group gets its model."""
    repository = fleet.spoiled.repository
    repository.add(bundle(2), model=MODEL, version=2)
    repository.assign("lab", {NAME: (MODEL, 2)})
    fleet.sign()
    reloaded.write("", (f'groups = ["{GROUP}"]', 'groups = ["lab"]'))
    reloaded.reload()
    reloaded.board.wait_version(2)
    reloaded.assert_nothing_lost()


def test_the_log_level_is_applied(reloaded: ReloadedBoard) -> None:
    """What is below it is said no more."""
    board = reloaded.board
    text = "state_dir"
    reloaded.write("", (f"{text} =", f'log_level = "error"\n{text} ='))
    reloaded.reload()
    reloaded.write("", ("rate = 500.0", "rate = 400.0"))
    reloaded.reload()
    assert board.words().count("settings.applied") == 1
    assert "settings.applied keys=log_level,pipeline" in board.words()


BROKEN = {
    "no key": ("rate = 500.0", "rat = 500.0", "rat"),
    "no value": ("rate = 500.0", 'rate = "many"', "pipeline[0].source.rate"),
    "no TOML": ("[local]", "[local", "not TOML"),
    "digits": ("rate = 500.0", f"rate = {'5' * 5000}", "not TOML"),
    "contradiction": ("[local]", "[degrade]\nhot_c = 90\n[local]", "very_hot_c"),
    "no file for lines": ("lines.jsonl", "notify/lines.jsonl", "sink file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_settings_change_nothing(reloaded: ReloadedBoard, case: str) -> None:
    """Log and status name the key; the daemon is ready, and answers as before."""
    board, (good, bad, told) = reloaded.board, BROKEN[case]
    pid = board.worker_pid()
    reloaded.write("", (good, bad))
    reloaded.reload()
    # The line for people may be said before READY, after it, or once more.
    said = "settings refused, the old ones stay in force: "
    board.wait_for(lambda: reloaded.note().startswith(said), "the refusal")
    assert told in reloaded.note()
    refused = [it for it in board.words().splitlines() if "settings.refused" in it]
    assert len(refused) == 1
    assert "warning settings.refused reason=settings" in refused[0]
    assert told in refused[0]
    assert board.worker_pid() == pid
    assert ready(board, NAME)
    reloaded.write()
    reloaded.reload()
    # The line for people follows READY.
    board.wait_for(lambda: "refused" not in reloaded.note(), "nothing is refused")
    reloaded.assert_nothing_lost()


def test_a_file_that_is_gone_changes_nothing(reloaded: ReloadedBoard) -> None:
    """Nor does one that comes back."""
    text = reloaded.board.settings.read_text(encoding="utf-8")
    reloaded.board.settings.unlink()
    reloaded.reload()
    assert "cannot be read: No such file" in reloaded.note()
    reloaded.write(text)
    reloaded.reload()
    reloaded.board.wait_said("settings.unchanged")
    reloaded.assert_nothing_lost()


def beats(reloaded: ReloadedBoard) -> bool:
    """Whether the loop turns: the local listener answers."""
    return bool(reloaded.board.samples()["ok"])


def test_a_fifo_in_place_of_a_file_changes_nothing(
    reloaded: ReloadedBoard, tmp_path: Path
) -> None:
    """Neither settings nor a sink are waited for; the daemon says what is there."""
    board = reloaded.board
    os.mkfifo(tmp_path / "pipe")
    reloaded.write("", ("lines.jsonl", "pipe"))
    reloaded.reload()
    assert "pipe: it is a FIFO, not a file" in reloaded.note()
    board.settings.unlink()
    os.mkfifo(board.settings)
    reloaded.reload()
    assert "cannot be read: it is a FIFO, not a file" in reloaded.note()
    assert beats(reloaded)
    board.settings.unlink()
    reloaded.write()
    reloaded.reload()
    # The line for people follows READY.
    board.wait_for(lambda: "refused" not in reloaded.note(), "nothing is refused")
    reloaded.assert_nothing_lost()


def test_a_refused_sink_leaves_no_file(reloaded: ReloadedBoard, tmp_path: Path) -> None:
    """What could have been written is not made for the sake of what could not."""
    good, bad = tmp_path / "new" / "good.jsonl", tmp_path / "notify" / "bad.jsonl"
    sinks = [{"kind": "file", "path": good}, {"kind": "file", "path": bad}]
    reloaded.write(more={"pipeline": second(sinks=sinks)})
    reloaded.reload()
    assert "sink file" in reloaded.note()
    assert not good.parent.exists()


def test_more_pipelines_than_descriptors_are_refused(reloaded: ReloadedBoard) -> None:
    """The old settings stay in force, and the daemon answers as before."""
    board = reloaded.board
    hard = resource.prlimit(board.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(board.pid, resource.RLIMIT_NOFILE, (48, hard))
    text = board.settings.read_text(encoding="utf-8")
    tables = [{**second(), "name": f"p{number}"} for number in range(12)]
    for table in tables:
        reloaded.write(text, more={"pipeline": table})
        text = board.settings.read_text(encoding="utf-8")
    reloaded.reload()
    board.wait_said("settings.refused reason=descriptors")
    assert list(board.state()["pipelines"]) == [NAME]
    reloaded.assert_nothing_lost()


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_a_file_that_was_cut_short_ends_no_pipeline(
    reloaded: ReloadedBoard, text: str
) -> None:
    """An empty file is what an editor leaves on a full disk."""
    reloaded.board.settings.write_text(text)
    reloaded.reload()
    assert "the file says nothing" in reloaded.note()
    assert ready(reloaded.board, NAME)


def test_a_file_that_is_being_written_is_waited_for(reloaded: ReloadedBoard) -> None:
    """Half of it may be good settings without the other half's pipelines."""
    board = reloaded.board
    reloaded.write(more={"pipeline": second()})
    text = board.settings.read_text(encoding="utf-8")
    half = text.index('[[pipeline]]\nname = "second"')
    with board.settings.open("w", encoding="utf-8") as file:
        file.write(text[:20])
        file.flush()
        ended = reloaded.manager.count("READY=1") + 1
        board.signal(signal.SIGHUP)
        # Faster than it may be taken for whole, for longer than that takes.
        for start in range(20, half, 20):
            file.write(text[start : min(start + 20, half)])
            file.flush()
            time.sleep(0.01)
        file.write(text[half:])
    board.wait_for(lambda: reloaded.manager.count("READY=1") >= ended, "READY")
    assert list(board.state()["pipelines"]) == [NAME, SECOND]
    assert "settings.refused" not in board.words()


def test_a_storm_of_signals_is_a_few_reloads(
    reloaded: ReloadedBoard, lines: Path
) -> None:
    """A hundred in a row, while the settings change: the last ones are in force."""
    board = reloaded.board
    for number in range(STORM):
        if number % 10 == 0:
            reloaded.write("", ("rate = 500.0", f"rate = {400 + number}.0"))
        board.signal(signal.SIGHUP)
    reloaded.write("", ("rate = 500.0", "rate = 333.0"))
    reloaded.reload()
    reloaded.reload()
    board.wait_version(1)
    assert len(child_pids(board.pid)) == 1
    reloaded.assert_nothing_lost()
    manager = reloaded.manager
    assert 0 < manager.count("RELOADING=1") <= STORM + 2
    # The last signal may have begun one more, which is under way.
    board.wait_for(
        lambda: manager.count("READY=1") == manager.count("RELOADING=1") + 1,
        "the end of each reload",
    )
    stop_and_count(reloaded, lines)


def test_pipelines_may_swap_what_they_read_and_write(
    reloaded: ReloadedBoard, fleet: Fleet, lines: Path, tmp_path: Path
) -> None:
    """Each goes on with the other's source and file; no answer is in neither file."""
    board = reloaded.board
    other = tmp_path / "other.jsonl"
    reloaded.write(more={"pipeline": second(sinks=[{"kind": "file", "path": other}])})
    reloaded.reload()
    assign_both(fleet)
    board.wait_for(lambda: ready(board, SECOND), "the second answers")
    text = board.settings.read_text(encoding="utf-8")
    for old, new in ((NAME, "third"), (SECOND, NAME), ("third", SECOND)):
        text = text.replace(f'\nname = "{old}"', f'\nname = "{new}"')
    reloaded.write(text)
    reloaded.reload()
    assert list(board.state()["pipelines"]) == [SECOND, NAME]
    for name in (NAME, SECOND):
        board.wait_for(lambda it=name: ready(board, it), name)  # type: ignore[misc]  # a default binds it
    reloaded.assert_nothing_lost()
    board.signal(signal.SIGTERM)
    assert board.wait() == 0
    written = [it for file in (lines, other) for it in read_lines(file)]
    for name in (NAME, SECOND):
        numbers = sorted(it["seq"] for it in written if it["pipeline"] == name)
        assert numbers == list(range(1, len(numbers) + 1))


def test_other_delegates_need_a_restart(reloaded: ReloadedBoard) -> None:
    """A pipeline that is added meanwhile is held to those of before."""
    board = reloaded.board
    pid = board.worker_pid()
    text = board.settings.read_text(encoding="utf-8")
    table = {"name": "npu", "path": "/opt/npu.so", "sha256": "0" * 64}
    rows = "\n".join(f"{key} = {toml(it)}" for key, it in table.items())
    reloaded.write(f"{text}[[delegate]]\n{rows}", more={"pipeline": second()})
    reloaded.reload()
    assert reloaded.note().startswith("delegate: needs systemctl restart tinyward")
    assert list(board.state()["pipelines"]) == [NAME, SECOND]
    assert board.worker_pid() == pid
    reloaded.assert_nothing_lost()


@pytest.mark.parametrize("touched", ["source", "degrade"])
def test_a_storm_of_signals_during_a_trial(
    reloaded: ReloadedBoard, fleet: Fleet, lines: Path, touched: str
) -> None:
    """Whether its pipeline changes or not, the update comes; nothing is lost."""
    board = reloaded.board
    fleet.publish(2, on_trial(2, shadow_samples=100, probation_s=1.0))
    board.wait_for(
        lambda: board.state()["update"]["phase"] in TRIALS, "a trial that lasts"
    )
    for number in range(STORM // 2):
        if touched == "source":
            reloaded.write("", ("rate = 500.0", f"rate = {400 + number % 2}.0"))
        else:
            reloaded.write(more={"degrade": {"hot_c": 60.0 + number % 2}})
        board.signal(signal.SIGHUP)
        time.sleep(0.02)
    reloaded.reload()
    board.wait_said("version=2 phase=IDLE event=COMMITTED")
    board.wait_version(2)
    assert board.state()["update"]["set_aside"] == 0
    reloaded.assert_nothing_lost()
    stop_and_count(reloaded, lines)


def test_a_stop_during_a_reload_ends_in_time(reloaded: ReloadedBoard) -> None:
    """SIGHUP and SIGTERM at once: exit code 0, no orphan."""
    board = reloaded.board
    reloaded.write("", ("rate = 500.0", "rate = 400.0"), more={"pipeline": second()})
    children = child_pids(board.pid)
    board.signal(signal.SIGHUP)
    board.signal(signal.SIGTERM)
    assert board.wait(10.0) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_a_terminal_that_is_closed_ends_the_daemon(
    make_board: MakeBoard,
) -> None:
    """SIGHUP from a terminal that is there is a reload; from one that went, the end."""
    board = make_board()
    ours, theirs = os.openpty()
    board.log.symlink_to(os.ttyname(theirs))
    said = b""
    try:
        board.spawn()
        while b"listening on" not in said:
            said += os.read(ours, 4096)
        board.signal(signal.SIGHUP)
        while b"settings.unchanged" not in said:
            said += os.read(ours, 4096)
    finally:
        os.close(theirs)
        os.close(ours)
        board.log.unlink()
    board.signal(signal.SIGHUP)
    assert board.wait() == 0


def test_a_trial_that_lasts_gives_way_and_comes_again(
    reloaded: ReloadedBoard, fleet: Fleet
) -> None:
    """It ends by no fault of its own: the old model answers, then it is tried anew."""
    board = reloaded.board
    fleet.publish(2, on_trial(2, probation_s=LONG_S))
    board.wait_said("version=2 phase=PROBATION")
    reloaded.write("", ("rate = 500.0", "rate = 400.0"))
    reloaded.reload()
    assert "pipeline.digits.source" in board.words()
    board.wait_for(
        lambda: board.words().count("version=2 phase=PROBATION") == 2, "another trial"
    )
    assert board.state()["update"]["set_aside"] == 0
    assert board.pipeline()["active"]["version"] in (1, 2)


def test_a_trial_of_another_pipeline_goes_on(
    reloaded: ReloadedBoard, fleet: Fleet
) -> None:
    """A reload that does not touch it does not end it."""
    board = reloaded.board
    fleet.publish(2, on_trial(2, probation_s=LONG_S))
    board.wait_said("version=2 phase=PROBATION")
    reloaded.write(more={"pipeline": second()})
    reloaded.reload()
    assert list(board.state()["pipelines"]) == [NAME, SECOND]
    assert board.state()["update"]["phase"] == "PROBATION"


def test_a_pipeline_stays_until_its_update_has_ended(
    make_board: MakeBoard, manager: ServiceSocket, fleet: Fleet
) -> None:
    """The ground is not pulled from under it; it goes without being asked again."""
    version = 1
    file = fleet.stage(version)
    with ToxicServer(fleet.path) as server:
        server.script(str(file.relative_to(fleet.path)), toxic.drip())
        fleet.sign()
        tables = {"update": {**fleet.update_table(), "repository": server.url}}
        board = make_board(source=STEADY, tables=tables)
        reloaded = ReloadedBoard(board, manager)
        reloaded.write(more={"pipeline": second()})
        board.start()
        board.wait_for(
            lambda: board.state()["update"]["phase"] == "FETCHING", "a fetch"
        )
        text = board.settings.read_text(encoding="utf-8")
        table, others = text.index("[[pipeline]]"), text.index("[local]")
        reloaded.write(text[:table] + text[others:])
        reloaded.reload()
        board.wait_said("settings.waits pipeline=digits")
        assert list(board.state()["pipelines"]) == [SECOND, NAME]
    # The server has gone, and the fetch with it.
    board.wait_for(lambda: list(board.state()["pipelines"]) == [SECOND], "it is gone")
    board.wait_said("settings.applied keys=pipeline.digits")
