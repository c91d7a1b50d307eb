"""``tinyward doctor`` on the service: what systemd and /proc say becomes a judgment."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.findings import Finding
from agent.cli.findings_service import (
    PROPERTIES,
    Slots,
    Unit,
    Worker,
    judge_daemon,
    judge_others,
    judge_unit,
    judge_workers,
    parse_unit,
)
from agent.cli.symptoms_service import (
    ask_systemd,
    daemons,
    examine_service,
    is_daemon,
    look_at_daemon,
    look_at_slots,
    look_at_workers,
)
from agent.core.reasons import Reason
from agent.errors import DeviceError
from tests.fakes.board_server import FakeBoard, on_socket

# What systemd 252 says of the service on a board that is well.
SHOWN = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "Result": "success",
    "ExecMainStatus": "0",
    "NRestarts": "0",
    "MainPID": "38",
    "ActiveEnterTimestamp": "Mon 2026-11-23 00:15:29 UTC",
    "WatchdogUSec": "20s",
    "DropInPaths": "",
    "ProcSubset": "all",
}
# Without a daemon there is no watchdog either.
STOPPED = {"MainPID": "0", "WatchdogUSec": "infinity"}
CONFINED = "Name:\ttinyward\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
LAYERS = {"no_new_privs": "", "seccomp": "", "landlock": ""}
FOLDER = "/etc/systemd/system/tinyward.service.d"


def shown(changes: Mapping[str, str]) -> str:
    """Return what ``systemctl show`` prints of a board that is well, but for these."""
    return "".join(f"{key}={value}\n" for key, value in {**SHOWN, **changes}.items())


def marks(findings: Sequence[Finding]) -> list[str]:
    """Return what is not as it should be: its mark and its words."""
    return [f"{f.mark}: {f.what}" for f in findings if f.mark != "green"]


def test_a_board_that_is_well() -> None:
    """The service is green, with its slots and its watchdog."""
    found = judge_unit(parse_unit(shown({})), Slots("b", "a"))
    assert found == [
        Finding(
            "service",
            "green",
            "active since Mon 2026-11-23 00:15:29 UTC, watchdog 20s",
        ),
        Finding("service", "green", "slot b, slot a before it"),
    ]


@pytest.mark.parametrize(
    ("changes", "mark", "words"),
    [
        ({"LoadState": "not-found"}, "yellow", "tinyward.service is not found"),
        ({"LoadState": "masked"}, "yellow", "tinyward.service is masked"),
        ({"UnitFileState": "disabled"}, "yellow", "does not start at boot"),
        ({"NeedDaemonReload": "yes"}, "yellow", "changed since systemd read it"),
        ({"WatchdogUSec": "infinity"}, "yellow", "no watchdog"),
        ({"WatchdogUSec": "0"}, "yellow", "no watchdog"),
        ({"ProcSubset": "pid"}, "yellow", "80 times slower"),
        ({"NRestarts": "1"}, "yellow", "started again once"),
        ({"NRestarts": "7"}, "yellow", "started again 7 times"),
        ({**STOPPED, "ActiveState": "inactive"}, "yellow", "inactive"),
        ({"ActiveState": "deactivating"}, "yellow", "deactivating"),
    ],
)
def test_what_is_not_as_it_should_be(
    changes: Mapping[str, str], mark: str, words: str
) -> None:
    """One fact that differs is one finding, with what to do."""
    found = judge_unit(parse_unit(shown(changes)), Slots("a"))
    (bad,) = (finding for finding in found if finding.mark != "green")
    assert bad.mark == mark
    assert words in bad.what
    assert bad.todo


@pytest.mark.parametrize(
    ("result", "status", "words", "todo"),
    [
        ("exit-code", "2", "exit code 2", "tinyward check"),
        ("exit-code", "1", "exit code 1", "journalctl"),
        ("exit-code", "0", "a command before its start failed", "journalctl"),
        ("exit-code", "203", "exit code 203", "ls -lL /opt/tinyward"),
        ("exit-code", "216", "exit code 216", "SupplementaryGroups"),
        ("exit-code", "243", "exit code 243", "LoadCredential"),
        ("signal", "11", "signal 11 ended it", "journalctl"),
        ("watchdog", "6", "the watchdog ended it", "journalctl"),
        ("timeout", "15", "did not get ready", "journalctl"),
        ("oom-kill", "9", "for want of memory", "journalctl"),
        ("start-limit-hit", "0", "failed too often", "journalctl"),
        ("a-new-word", "0", "a-new-word", "journalctl"),
    ],
)
def test_a_failed_service_is_red(
    result: str, status: str, words: str, todo: str
) -> None:
    """It says how the daemon ended last, and where to look."""
    ended = {"Result": result, "ExecMainStatus": status, "MainPID": "0"}
    failed = parse_unit(shown(ended | {"ActiveState": "failed"}))
    found = judge_unit(failed, Slots())[0]
    assert found.mark == "red"
    assert words in found.what
    assert todo in found.todo
    for sub in ("auto-restart", "auto-restart-queued"):
        again = ended | {"ActiveState": "activating", "SubState": sub}
        found = judge_unit(parse_unit(shown(again)), Slots())[0]
        assert found.mark == "yellow"
        assert words in found.what


def test_a_trial_is_told() -> None:
    """Until a new version was ready once, it may go back."""
    found = judge_unit(parse_unit(shown({})), Slots("b", "a", trial=True))
    assert marks(found) == ["yellow: slot b is on trial, slot a before it"]


def test_drop_ins_are_named_by_what_was_asked_for() -> None:
    """The installer's by their word, others by their file."""
    paths = f"{FOLDER}/override.conf {FOLDER}/tinyward-camera.conf"
    unit = parse_unit(shown({"DropInPaths": paths}))
    assert unit.drop_ins == ("override", "camera")
    assert judge_unit(unit, Slots())[-1].what == "drop-ins: override, camera"


@given(st.text())
def test_no_answer_of_systemd_is_a_failure(text: str) -> None:
    """Whatever it prints: a judgment comes out, and nothing red that nobody said."""
    found = judge_unit(parse_unit(text), Slots())
    assert found
    assert all(f.mark != "red" for f in found) or "ActiveState=failed" in text


@given(st.dictionaries(st.sampled_from(PROPERTIES), st.text(max_size=30)))
def test_every_finding_has_words_and_a_way_out(changes: dict[str, str]) -> None:
    """Strange values of known properties: what is not green says what to do."""
    text = shown({key: value.replace("\n", "") for key, value in changes.items()})
    for finding in judge_unit(parse_unit(text), Slots("a", "b")):
        assert finding.topic == "service"
        assert finding.todo or finding.mark == "green"


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("Seccomp:\t2", "Seccomp:\t0", "system call filter"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no new privileges"),
        ("0000000000000000", "000001ffffffffff", "no capabilities"),
        (CONFINED, "", "system call filter, no new privileges, no capabilities"),
    ],
)
def test_a_daemon_without_its_sandbox_is_seen(old: str, new: str, missing: str) -> None:
    """By what the kernel says of the process, not by what the unit promises."""
    assert judge_daemon(CONFINED).mark == "green"
    found = judge_daemon(CONFINED.replace(old, new))
    assert (found.mark, found.what) == (
        "yellow",
        f"the daemon runs without: {missing}",
    )


def test_workers_whose_layers_all_hold() -> None:
    """One line for all of them."""
    found = judge_workers([Worker("kws", LAYERS), Worker("eye", LAYERS)])
    assert found == [
        Finding(
            "sandbox", "green", "workers (kws, eye): no_new_privs, seccomp, landlock"
        )
    ]
    assert judge_workers([])[0].mark == "green"


def test_a_weakness_is_told_once() -> None:
    """Of many workers with the same kernel, and beside it one that is not there."""
    weak = LAYERS | {"landlock": "not in this kernel"}
    workers = [Worker("kws", weak), Worker("eye", weak), Worker("ear", {})]
    assert marks(judge_workers(workers)) == [
        "yellow: worker (kws, eye): landlock: not in this kernel",
        "yellow: worker (ear): not locked in yet: it starts, or cannot",
    ]


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.dictionaries(st.sampled_from(sorted(LAYERS)), st.sampled_from(["", "no"])),
    )
)
def test_no_weak_worker_is_left_out(workers: dict[str, dict[str, str]]) -> None:
    """Every worker with a layer that does not hold is named, and only those."""
    found = judge_workers([Worker(*each) for each in workers.items()])
    weak = {name for name, locks in workers.items() if not locks or any(locks.values())}
    assert bool(weak) == (found[0].mark == "yellow")
    told = " ".join(finding.what for finding in found)
    assert all(name in told for name in weak)


@pytest.mark.parametrize(
    ("unit", "others", "what", "todo"),
    [
        (
            Unit("loaded", pid=38),
            [7, 9],
            "processes 7, 9: started by hand beside the service",
            "One board, one daemon: kill 7 9",
        ),
        (
            Unit("loaded"),
            [7],
            "process 7: started by hand",
            "One board, one daemon: kill 7 && sudo systemctl start tinyward",
        ),
        (
            Unit(),
            [7],
            "process 7: started by hand",
            "A reboot ends it: sudo tinyward install",
        ),
    ],
)
def test_daemons_beside_the_service(
    unit: Unit, others: list[int], what: str, todo: str
) -> None:
    """Two daemons on one board are told, with how to end the second."""
    assert judge_others(unit, others) == [Finding("service", "yellow", what, todo)]
    assert judge_others(unit, []) == []


# --- looking


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/opt/tinyward/a/bin/python /opt/tinyward/current/bin/tinyward run", True),
        ("python3.11 -m agent run --config agent.toml", True),
        ("/usr/bin/python3 -I -m agent run", True),
        ("/usr/local/bin/tinyward run", True),
        ("/opt/tinyward/a/bin/python -I -m agent.worker run 13 38 11", False),
        ("/opt/tinyward/a/bin/python /usr/local/bin/tinyward doctor", False),
        ("vim /usr/local/bin/tinyward run", False),
        ("run", False),
        ("", False),
    ],
)
def test_a_daemon_is_known_by_its_words(line: str, expected: bool) -> None:  # noqa: FBT001
    """As a script or as a module; a worker or an editor is none."""
    assert is_daemon(line.split()) == expected


@given(st.lists(st.text()))
def test_no_command_line_is_a_failure(words: list[str]) -> None:
    """Whatever processes call themselves."""
    assert is_daemon(words) in {True, False}


def board(root: Path, processes: Mapping[int, str]) -> Path:
    """Lay out a board: slots, processes, and a systemd that runs it."""
    (root / "run/systemd/system").mkdir(parents=True)
    slots = root / "opt/tinyward"
    slots.mkdir(parents=True)
    (slots / "current").symlink_to("b")
    (slots / "previous").symlink_to("/opt/tinyward/a")
    for pid, line in processes.items():
        folder = root / f"proc/{pid}"
        folder.mkdir(parents=True)
        (folder / "cmdline").write_bytes(line.replace(" ", "\0").encode() + b"\0")
        (folder / "status").write_text(CONFINED)
    return root


@pytest.fixture
def systemctl(tmp_path: Path) -> Callable[[str, int], str]:
    """Give a function that makes a program like systemctl, and returns its path."""

    def make(said: str, code: int = 0) -> str:
        (tmp_path / "said").write_text(said)
        path = tmp_path / "systemctl"
        stream = "" if code == 0 else ">&2"
        path.write_text(f"#!/bin/sh\ncat {tmp_path}/said {stream}\nexit {code}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_a_whole_board(tmp_path: Path, systemctl: Callable[[str, int], str]) -> None:
    """Service, slots, daemon, one beside it; the socket of a tree answers nobody."""
    run = "/usr/local/bin/tinyward run"
    root = board(tmp_path / "root", {38: run, 99: run, 1: "/sbin/init"})
    found = examine_service(root, systemctl(shown({}), 0))
    assert [finding.what for finding in found][:4] == [
        "active since Mon 2026-11-23 00:15:29 UTC, watchdog 20s",
        "slot b, slot a before it",
        "daemon: system call filter, no new privileges, no capabilities",
        "process 99: started by hand beside the service",
    ]
    assert daemons(root) == [38, 99]
    assert found[4].topic == "sandbox"


def test_a_service_that_does_not_run(
    tmp_path: Path, systemctl: Callable[[str, int], str]
) -> None:
    """Nobody is asked for workers then."""
    root = board(tmp_path / "root", {})
    stopped = shown({"ActiveState": "inactive", "MainPID": "0"})
    found = examine_service(root, systemctl(stopped, 0))
    assert [finding.topic for finding in found] == ["service", "service"]
    assert look_at_daemon(38, root) == []


def test_a_machine_without_systemd(tmp_path: Path) -> None:
    """It is no broken one: yellow, and told how else to start."""
    (found,) = examine_service(tmp_path)
    assert found.mark == "yellow"
    assert "tinyward run" in found.todo
    assert look_at_slots(tmp_path) == Slots()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("not booted\nFailed to connect to bus\n", "Failed to connect to bus"),
        ("", "exit code 1"),
    ],
)
def test_a_systemd_that_does_not_answer(
    systemctl: Callable[[str, int], str], said: str, words: str
) -> None:
    """Its last word is passed on."""
    found = ask_systemd(systemctl(said, 1))
    assert isinstance(found, Finding)
    assert (found.mark, found.topic) == ("yellow", "service")
    assert words in found.what


def test_a_missing_systemctl_is_named(tmp_path: Path) -> None:
    """A machine that systemd runs, and a PATH without its tool."""
    found = ask_systemd(str(tmp_path / "systemctl"))
    assert isinstance(found, Finding)
    assert "is not installed" in found.what


def test_the_daemon_is_asked_for_its_workers() -> None:
    """As it answers today, and as another version might."""
    worker = {"pid": 49, "rss_bytes": 1, "locks": LAYERS}
    state = {"version": "1", "pipelines": {"kws": {"worker": worker, "new": 1}}}
    assert marks(look_at_workers(lambda: state)) == []
    (odd,) = look_at_workers(lambda: {"pipelines": [1]})
    assert odd.mark == "yellow"
    assert odd.todo


def test_a_daemon_that_does_not_answer_is_told() -> None:
    """With the link's own advice."""

    def ask() -> object:
        raise DeviceError("nobody listens", reason=Reason.UNREACHABLE, todo="Start it.")

    (found,) = look_at_workers(ask)
    assert (found.mark, found.what) == ("yellow", "workers: nobody listens")


def test_the_daemon_of_the_settings_that_were_named_is_asked(tmp_path: Path) -> None:
    """On their socket; where nobody listens, nobody is told to name them once more."""
    folder = tmp_path / "proc/99"
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"/usr/local/bin/tinyward\0run\0")
    config, place = tmp_path / "agent.toml", tmp_path / "own.sock"
    config.write_text(f'[local]\nsocket = "{place}"\n')
    _, silent = examine_service(tmp_path, config=config)
    assert silent.what == f"workers: no daemon listens on {place}"
    advice = f"tinyward run --config {config}"
    assert (advice in silent.todo) is (os.geteuid() == 0)
    assert "or name its settings" not in silent.todo
    with on_socket(FakeBoard(), place):
        _, workers = examine_service(tmp_path, config=config)
    assert workers.what == "worker (door): not locked in yet: it starts, or cannot"


def test_a_layer_that_is_forbidden_needs_no_newer_kernel() -> None:
    """EPERM is a filter's answer; the kernel says that it lacks one otherwise."""
    weak = LAYERS | {"landlock": "[Errno 1] Operation not permitted"}
    (found,) = judge_workers([Worker("kws", weak)])
    assert "a filter around the service forbids this one" in found.todo
    (found,) = judge_workers([Worker("kws", LAYERS | {"landlock": "no kernel has it"})])
    assert "a newer kernel" in found.todo
