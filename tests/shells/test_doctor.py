"""``tinyward doctor``: each finding's mark follows from facts, and red stops."""

import grp
import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import cli
from agent.cli.attachments import (
    look_at_delegates,
    look_at_devices,
    look_at_programs,
)
from agent.cli.doctor import describe, render
from agent.cli.findings import (
    MB,
    Finding,
    judge_clock,
    judge_cpu,
    judge_engines,
    judge_layer,
    judge_memory,
)
from agent.cli.symptoms import look_at_engines, try_import
from agent.cli.symptoms_state import find_subject, look_at_directory
from agent.core.executors import DelegateFile
from agent.errors import SettingsError

LITERT = {"litert": "2.3.0"}
BROKEN = {"tflite 2.14.0": "needs numpy < 2"}


@pytest.mark.parametrize(
    ("working", "broken", "marks"),
    [
        (LITERT, {}, ["green"]),
        (LITERT, BROKEN, ["green", "yellow"]),
        ({}, BROKEN, ["red"]),
        ({}, {}, ["red"]),
    ],
    ids=["one", "one and a broken one", "a broken one", "none"],
)
def test_one_runtime_has_to_work(
    working: dict[str, str], broken: dict[str, str], marks: list[str]
) -> None:
    """A broken runtime is red only if there is no other."""
    found = judge_engines(working, broken)
    assert [finding.mark for finding in found] == marks
    assert all(finding.todo for finding in found if finding.mark != "green")


@pytest.mark.parametrize(
    ("available", "allowed", "mark"),
    [(900, 900, "green"), (900, 150, "yellow"), (900, 70, "red"), (70, 900, "red")],
)
def test_memory_is_what_is_left_of_both(
    available: int, allowed: int, mark: str
) -> None:
    """The machine and the control group both limit; the smaller one counts."""
    assert judge_memory(available * MB, 1000 * MB, allowed * MB).mark == mark


@pytest.mark.parametrize(
    ("now", "synchronised", "mark"),
    [
        (2e9, True, "green"),
        (2e9, False, "yellow"),
        (2e9, None, "yellow"),
        (1e9, True, "yellow"),
    ],
)
def test_a_clock_is_never_red(now: float, mark: str, *, synchronised: object) -> None:
    """A wrong clock is a note: boards without a battery wake up in 1970."""
    known = None if synchronised is None else bool(synchronised)
    found = judge_clock(now=now, built=1.7e9, synchronised=known, battery=False)
    assert found.mark == mark


def test_a_hidden_processor_is_slow() -> None:
    """Without /proc/cpuinfo models run, but 80 times slower: somebody should know."""
    assert judge_cpu(None).mark == "yellow"
    assert judge_cpu(()).mark == "yellow"  # what an emulator shows of its host
    assert judge_cpu(("avx2", "fma")) == Finding("processor", "green", "avx2 fma")


def test_a_missing_layer_says_how_to_get_it() -> None:
    """The others hold without it."""
    assert judge_layer("mdwe", "").mark == "green"
    missing = judge_layer("seccomp", "libseccomp does not load")
    assert (missing.mark, missing.todo) == ("yellow", "apt install libseccomp2")


def test_the_state_directory_may_be_made_later(tmp_path: Path) -> None:
    """Nothing is created; where it would be is looked at."""
    found = look_at_directory(tmp_path / "a" / "b")
    assert found.mark == "green"
    assert "will be made" in found.what
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_state_directory(tmp_path: Path) -> None:
    """What cannot be written is red and says what to do."""
    (tmp_path / "state").write_text("")
    found = look_at_directory(tmp_path / "state")
    assert (found.mark, bool(found.todo)) == ("red", True)


def test_a_state_directory_of_another_user_is_red(tmp_path: Path) -> None:
    """Its owner is named."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(tmp_path, 4711, 4711)
    found = look_at_directory(tmp_path)
    assert (found.mark, "4711" in found.what) == ("red", True)


def test_a_state_directory_that_may_not_be_looked_at_is_red(tmp_path: Path) -> None:
    """As of `tinyward doctor` without sudo, beside a service's directories."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    users = os.getresuid()
    if users[0] == 0:
        os.setresuid(65534, 65534, 0)
    try:
        found = look_at_directory(closed / "state")
    finally:
        os.setresuid(*users)
    assert (found.mark, bool(found.todo)) == ("red", True)


def test_delegates_are_found_where_they_lie(tmp_path: Path) -> None:
    """A library in a usual folder is named with what it is."""
    library = tmp_path / "usr/lib/aarch64-linux-gnu/libteflon.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    (found,) = look_at_delegates((), tmp_path)
    assert str(library) in found.what
    assert "Teflon" in found.what
    (allowed,) = look_at_delegates((delegate(library),), tmp_path)
    assert allowed.what == f"npu: {library}, as the settings say"


def delegate(path: Path, sha256: str = hashlib.sha256(b"").hexdigest()) -> DelegateFile:
    """Return a [[delegate]] table for a file."""
    return DelegateFile(name="npu", path=str(path), sha256=sha256)


def test_no_delegate_is_told(tmp_path: Path) -> None:
    """Silence would leave open whether anybody looked."""
    assert look_at_delegates((), tmp_path) == [
        Finding("delegate", "green", "none: models run on the processor")
    ]


def test_allowed_delegates_are_compared_with_the_settings(tmp_path: Path) -> None:
    """A missing library, another digest and a bare name are told with what to do."""
    library = tmp_path / "libnpu.so"
    library.write_bytes(b"new")
    cases = [delegate(tmp_path / "no.so"), delegate(library), delegate(Path("x.so"))]
    missing, changed, bare = look_at_delegates(cases, tmp_path)
    assert {f.mark for f in (missing, changed, bare)} == {"yellow"}
    assert missing.what == f"npu: {tmp_path}/no.so: No such file or directory"
    assert hashlib.sha256(b"new").hexdigest() in changed.todo
    assert bare.what == "npu: x.so is not absolute"


def test_missing_programs_are_told_beside_those_that_are_there() -> None:
    """With the packages that have them."""
    there, missing = look_at_programs(lambda name: name if name == "ffmpeg" else None)
    assert (there.mark, there.what) == ("green", "ffmpeg")
    assert missing.what == "not there: rpicam-vid, gst-launch-1.0, v4l2-ctl, arecord"
    assert missing.todo.endswith(
        "apt install rpicam-apps gstreamer1.0-tools v4l-utils alsa-utils"
    )


def test_cameras_and_microphones_have_to_be_open_to_this_user(tmp_path: Path) -> None:
    """A device of another group says which group; playback is no microphone."""
    (tmp_path / "dev/snd").mkdir(parents=True)
    for name in ("video0", "video1", "snd/pcmC0D0p"):
        (tmp_path / "dev" / name).write_bytes(b"")
    group = grp.getgrgid(tmp_path.stat().st_gid).gr_name
    closed, camera, microphone = look_at_devices(
        tmp_path, lambda path: path.name != "video0"
    )
    assert (closed.mark, closed.what) == (
        "yellow",
        f"{tmp_path}/dev/video0 is closed to this user, its group is {group}",
    )
    assert f"usermod -aG {group}" in closed.todo
    assert (camera.mark, camera.what) == ("green", f"{tmp_path}/dev/video1")
    assert microphone.what == "no /dev/snd/pcmC*D*c"


def test_the_command_looks_at_the_delegates_of_the_settings(tmp_path: Path) -> None:
    """``--config`` names the tables that are meant."""
    config = tmp_path / "agent.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\n[[delegate]]\nname = "npu"\n'
        f'path = "{tmp_path}/no.so"\nsha256 = "{"0" * 64}"\n'
    )
    result = CliRunner().invoke(cli, ["doctor", "--config", str(config)])
    assert f"npu: {tmp_path}/no.so: No such file" in result.stdout


def test_an_import_that_fails_is_described() -> None:
    """The last words of the child say why."""
    assert try_import("json_of_nobody").startswith("ModuleNotFoundError")
    assert try_import("importlib.resources.abc").startswith("ModuleNotFoundError")


def test_a_runtime_works_here() -> None:
    """The tests run where Tinyward runs, so one runtime imports."""
    assert "green" in {finding.mark for finding in look_at_engines()}


def test_red_stops() -> None:
    """``ok`` is false exactly if something is red."""
    green, yellow = Finding("a", "green", "x"), Finding("b", "yellow", "y", "do")
    red = Finding("c", "red", "z", "do it")
    assert describe([green, yellow])["ok"] is True
    assert describe([green, yellow, red])["ok"] is False


def test_findings_are_lines() -> None:
    """One line for each, one more for what to do."""
    written = render([Finding("a", "green", "x"), Finding("long", "red", "z", "do it")])
    plain = "".join(part.partition("m")[2] for part in written.split("\x1b[") if part)
    assert plain.splitlines() == [
        "[ ok ] a     x",
        "[STOP] long  z",
        "             -> do it",
    ]


def test_the_command_examines_this_board(tmp_path: Path) -> None:
    """All topics are there, as text and as JSON; only red ends with 1."""
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path / "state"}"')
    words = ["doctor", "--config", str(config)]
    text = CliRunner().invoke(cli, words)
    data = CliRunner().invoke(cli, [*words, "--json"])
    report = json.loads(data.stdout)
    assert text.exit_code == data.exit_code == (0 if report["ok"] else 1)
    topics = {finding["topic"] for finding in report["findings"]}
    assert {"agent", "runtime", "processor", "memory", "clock", "state"} <= topics
    assert {"sandbox", "images", "sources", "hardware"} <= topics
    assert f"{tmp_path}/state" in text.stdout


def test_a_state_directory_that_cannot_be_is_exit_code_1(tmp_path: Path) -> None:
    """Red anywhere ends with exit code 1."""
    (tmp_path / "file").write_text("")
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path}/file/state"')
    result = CliRunner().invoke(cli, ["doctor", "--config", str(config)])
    assert (result.exit_code, "[STOP] state" in result.stdout) == (1, True)


def test_wrong_settings_are_exit_code_2(tmp_path: Path) -> None:
    """The doctor does not examine what nobody meant."""
    config = tmp_path / "agent.toml"
    config.write_text("colour = 1")
    result = CliRunner().invoke(cli, ["doctor", "--config", str(config)])
    assert (result.exit_code, "colour" in result.stderr) == (2, True)


OWNER = 4711


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Give a tree with the service installed, its user and its state directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    for name in ("etc/systemd/system", "etc/tinyward", "var/lib/tinyward"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/systemd/system/tinyward.service").touch()
    (tmp_path / "etc/passwd").write_text(f"tinyward:x:{OWNER}:{OWNER}::/:/bin/false\n")
    (tmp_path / "etc/tinyward/agent.toml").write_text("log_level = 'info'\n")
    os.chown(tmp_path / "var/lib/tinyward", OWNER, OWNER)
    return tmp_path


@pytest.mark.parametrize("named", [False, True])
def test_the_installed_service_is_examined(service: Path, *, named: bool) -> None:
    """Its directory is judged for its user, also where its settings are named."""
    config = service / "etc/tinyward/agent.toml" if named else None
    subject = find_subject(config, service)
    assert (subject.serves, subject.user, subject.findings) == (True, OWNER, ())
    assert subject.state_dir == service / "var/lib/tinyward"
    found = look_at_directory(subject.state_dir, subject.user, serves=True)
    assert found.mark == "green"
    os.chown(subject.state_dir, 0, 0)
    found = look_at_directory(subject.state_dir, subject.user, serves=True)
    assert (found.mark, found.todo) == (
        "red",
        f"sudo chown -R tinyward: {subject.state_dir}",
    )


def test_other_settings_are_this_users(service: Path, tmp_path: Path) -> None:
    """Beside an installed service, too."""
    other = tmp_path / "own.toml"
    other.write_text(f"state_dir = '{tmp_path}'\n")
    subject = find_subject(other, service)
    assert (subject.serves, subject.user) == (False, os.geteuid())
    assert subject.state_dir == tmp_path


def test_settings_that_are_closed_to_this_user(service: Path) -> None:
    """It is said who may look, and nothing stops."""
    (service / "etc/tinyward").chmod(0o750)
    service.chmod(0o755)
    users = os.getresuid()
    os.setresuid(65534, 65534, 0)
    try:
        (found,) = find_subject(None, service).findings
    finally:
        os.setresuid(*users)
    assert (found.mark, "sudo tinyward doctor" in found.todo) == ("yellow", True)


def test_broken_settings_of_the_service_are_a_finding(service: Path) -> None:
    """Everything else is examined all the same; a named file is refused."""
    path = service / "etc/tinyward/agent.toml"
    path.write_text("colour = 1\n")
    (found,) = find_subject(None, service).findings
    assert (found.mark, "colour" in found.what) == ("red", True)
    with pytest.raises(SettingsError, match="colour"):
        find_subject(path, service)


def test_settings_are_named_as_everywhere(tmp_path: Path) -> None:
    """``-c`` is short for ``--config``."""
    result = CliRunner().invoke(cli, ["doctor", "-c", str(tmp_path / "none.toml")])
    assert (result.exit_code, "none.toml: cannot be read" in result.stderr) == (2, True)
