"""The shipped units: clean, locked in, never down for good, true to what they say.

systemd's own tools judge them, on a tree that is laid out here: nothing is started, and
no systemd has to run this machine.
"""

import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agent.install import places

UNITS = (
    "tinyward.service",
    "tinyward-fallback.service",
    "tinyward-timestamp.service",
    "tinyward-timestamp.timer",
)
DROP_INS = ("camera", "sound", "jit", "clock", "credentials", "seal")
# From systemd's NEWS: newer than 249, which Ubuntu 22.04 and JetPack 6 have.
NEWER_KEYS = (
    *("ExitType", "RestrictFileSystems", "OpenFile", "RestartMode"),
    *("RestartSteps", "RestartMaxDelaySec", "ImportCredential", "MemoryPressureWatch"),
    *("Type=notify-reload", "RootEphemeral", "SurviveFinalKillSignal", "PrivatePIDs"),
    *("MemoryZSwapMax", "CoredumpReceive", "DelegateSubgroup", "LoadCredentialEncr"),
)
SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}

Tool = Callable[[str], Path]


@pytest.fixture(scope="module")
def systemd(repository: Path) -> Path:
    """Give the folder of what is shipped."""
    return repository / "systemd"


@pytest.fixture
def tree(tmp_path: Path, systemd: Path) -> Path:
    """Lay out a root with the units and the programs that they start."""
    units = tmp_path / "etc/systemd/system"
    (units / "tinyward.service.d").mkdir(parents=True)
    for name in UNITS:
        (units / name).write_bytes((systemd / name).read_bytes())
    for target in ("basic", "sysinit", "multi-user", "timers", "shutdown", "network"):
        (units / f"{target}.target").write_text("[Unit]\nDescription=of systemd\n")
    slots = (f"{slot}/bin/tinyward" for slot in (places.CURRENT, places.PREVIOUS))
    # What the smallest Debian has: /bin/kill would be procps'.
    for program in ("/bin/sh", "/bin/rm", *slots):
        path = tmp_path / program.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/true\n")
        path.chmod(0o755)
    return tmp_path


def lift(tree: Path, systemd: Path, names: Sequence[str]) -> None:
    """Put drop-ins where the installer puts them."""
    for name in names:
        content = (systemd / "drop-ins" / f"{name}.conf").read_bytes()
        (tree / f"{places.DROP_INS}/tinyward-{name}.conf".lstrip("/")).write_bytes(
            content
        )


def analyze(analyzer: Path, tree: Path, *words: str) -> tuple[int, str]:
    """Run systemd-analyze on the tree; return its exit code and all its words."""
    ended = subprocess.run(
        [analyzer, *words[:1], f"--root={tree}", *words[1:]],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"LANG": "C.UTF-8", "PATH": os.environ["PATH"], "SYSTEMD_COLORS": "0"},
        timeout=60,
    )
    return ended.returncode, ended.stdout


def exposure(analyzer: Path, tree: Path, unit: str) -> float:
    """Return how exposed systemd calls a unit, from 0 to 10."""
    code, said = analyze(
        analyzer, tree, "security", "--offline=true", "--no-pager", unit
    )
    found = re.search(r"exposure level for \S+: (\d+\.\d+)", said)
    assert found, f"{code}: {said}"
    return float(found[1])


def values(path: Path) -> dict[str, list[str]]:
    """Return key -> values of a unit, comments left out; all sections together."""
    found: dict[str, list[str]] = {}
    text = path.read_text(encoding="utf-8").replace("\\\n", "")
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> int:
    """Return a time span of a unit, such as ``10min``, in seconds."""
    number = re.match(r"\d+", text)
    assert number
    return int(number[0]) * SECONDS[text[number.end() :]]


# --- systemd's judgment


@pytest.mark.parametrize("names", [(), *((name,) for name in DROP_INS), DROP_INS])
def test_units_verify_without_a_word(
    tree: Path, systemd: Path, require_tool: Tool, names: Sequence[str]
) -> None:
    """Alone, with each drop-in and with all: no error, and no key that is unknown."""
    lift(tree, systemd, names)
    done = analyze(require_tool("systemd-analyze"), tree, "verify", "--man=no", *UNITS)
    assert done == (0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [("PrivateTmp", "PrivateTemp"), ("current/bin", "elsewhere/bin")],
    ids=["key", "program"],
)
def test_verify_sees_what_is_wrong(
    tree: Path, require_tool: Tool, old: str, new: str
) -> None:
    """A mistyped key and a program that is not there are told: silence means clean."""
    unit = tree / "etc/systemd/system/tinyward.service"
    unit.write_text(unit.read_text().replace(old, new))
    done = analyze(
        require_tool("systemd-analyze"), tree, "verify", "--man=no", unit.name
    )
    assert done != (0, "")


@pytest.mark.parametrize(
    ("unit", "names", "bound"),
    [
        ("tinyward.service", (), 1.2),
        ("tinyward.service", ("credentials",), 1.2),
        ("tinyward.service", ("camera",), 1.5),
        ("tinyward.service", ("sound",), 1.5),
        ("tinyward.service", ("camera", "sound"), 1.5),
        ("tinyward.service", ("camera", "sound", "jit"), 1.5),
        ("tinyward.service", ("clock",), 1.5),
        ("tinyward-fallback.service", (), 1.5),
        ("tinyward-timestamp.service", (), 0.5),
    ],
)
def test_exposure(
    tree: Path,
    systemd: Path,
    require_tool: Tool,
    unit: str,
    names: Sequence[str],
    bound: float,
) -> None:
    """As systemd weighs it; what each drop-in may cost is a decision, not a drift."""
    lift(tree, systemd, names)
    assert exposure(require_tool("systemd-analyze"), tree, unit) <= bound


def test_exposure_sees_drop_ins(tree: Path, systemd: Path, require_tool: Tool) -> None:
    """A drop-in that lifts something shows: the bounds above are not those of one."""
    analyzer = require_tool("systemd-analyze")
    before = exposure(analyzer, tree, "tinyward.service")
    lift(tree, systemd, ["clock"])
    assert exposure(analyzer, tree, "tinyward.service") > before


# --- what the files say


def test_proc_stays_whole(systemd: Path) -> None:
    """The runtime needs /proc/cpuinfo, the board meminfo, stat and pressure."""
    texts = {path: path.read_text() for path in systemd.rglob("*.*") if path.is_file()}
    assert [path for path, text in texts.items() if "ProcSubset=pid" in text] == []
    assert values(systemd / "tinyward.service")["ProcSubset"] == ["all"]


@pytest.mark.parametrize("key", NEWER_KEYS)
def test_nothing_is_newer_than_249(systemd: Path, key: str) -> None:
    """Older ones would skip the key with a warning, and so its protection."""
    for path in [*systemd.glob("*.service"), *systemd.glob("drop-ins/*.conf")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line.startswith(key)] == []


def test_paths_are_the_installers(systemd: Path) -> None:
    """The units start, remove and name what ``tinyward install`` lays out."""
    service = values(systemd / places.SERVICE)
    words = shlex.split(service["ExecStart"][0])
    assert words == [places.PROGRAM_TARGET, "run", "--config", places.SETTINGS]
    assert service["ExecStartPost"] == [f"+/bin/rm -f {places.TRIAL}"]
    assert service["OnFailure"] == [places.FALLBACK]
    assert service["User"] == service["Group"] == [places.USER]
    assert f"/var/lib/{service['StateDirectory'][0]}" == places.STATE
    assert f"/run/{service['RuntimeDirectory'][0]}" == places.RUN
    fallback = values(systemd / places.FALLBACK)
    assert f"is-failed --quiet {places.SERVICE}" in fallback["ExecCondition"][0]
    (script,) = fallback["ExecStart"]
    assert f"test -e {places.TRIAL} &&" in script
    assert f"{places.PREVIOUS}/bin/tinyward install --fall-back" in script
    assert f"--no-block start {places.SERVICE}" in script


def test_starts_that_time_out_reach_the_fallback(systemd: Path) -> None:
    """Else a version that hangs at its start would be tried for ever."""
    service = values(systemd / places.SERVICE)
    starts = int(service["StartLimitBurst"][0])
    longest = seconds(service["TimeoutStartSec"][0]) + seconds(service["RestartSec"][0])
    stop = seconds(service["TimeoutStopSec"][0])
    assert seconds(service["StartLimitIntervalSec"][0]) > starts * (longest + stop)


def test_the_fallback_itself_never_gives_up(systemd: Path) -> None:
    """It is not limited, outlives its own pause, and ends with ``systemctl stop``."""
    fallback = values(systemd / places.FALLBACK)
    pause = re.search(r"sleep (\d+)", fallback["ExecStart"][0])
    assert pause
    assert seconds(fallback["TimeoutStartSec"][0]) > 2 * int(pause[1])
    assert fallback["StartLimitIntervalSec"] == ["0"]
    assert fallback["Restart"] == ["on-failure"]
    assert fallback["PartOf"] == [places.SERVICE]


def test_the_daemon_is_stopped_gently(systemd: Path) -> None:
    """It has the 5 s that its workers are given, and is the only one asked."""
    service = values(systemd / places.SERVICE)
    assert service["KillMode"] == ["mixed"]
    assert seconds(service["TimeoutStopSec"][0]) >= 2 * 5
    assert service["OOMPolicy"] == ["continue"]


@pytest.mark.parametrize("name", DROP_INS)
def test_a_drop_in_changes_the_sandbox_only(systemd: Path, name: str) -> None:
    """It has one section, and says how it is asked for."""
    text = (systemd / "drop-ins" / f"{name}.conf").read_text(encoding="utf-8")
    sections = [line for line in text.splitlines() if line.startswith("[")]
    assert sections == ["[Service]"]
    assert f"tinyward install --with {name}" in text


# --- users and directories


def made(tree: Path, systemd: Path, require_tool: Tool) -> dict[str, str]:
    """Apply both fragments to the tree; return user -> line of its passwd."""
    for tool, options in (("systemd-sysusers", []), ("systemd-tmpfiles", ["--create"])):
        fragment = systemd / f"tinyward.{tool.removeprefix('systemd-')}.conf"
        subprocess.run(
            [require_tool(tool), f"--root={tree}", *options, fragment],
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )
    lines = (tree / "etc/passwd").read_text(encoding="utf-8").splitlines()
    return {line.partition(":")[0]: line for line in lines}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_fragments_make_what_they_say(
    tree: Path, systemd: Path, require_tool: Tool
) -> None:
    """A user without shell or password, and directories with their owners and modes."""
    settings = tree / places.SETTINGS.lstrip("/")
    settings.parent.mkdir(parents=True)
    settings.write_text("# settings\n")
    settings.chmod(0o666)
    key = settings.with_name("board.key")
    key.write_text("a key\n")
    key.chmod(0o644)

    made(tree, systemd, require_tool)
    users = made(tree, systemd, require_tool)  # the second time changes nothing

    _, _, uid, gid, _, home, shell = users[places.USER].split(":")
    assert (home, shell) == (places.STATE, "/usr/sbin/nologin")
    assert 0 < int(uid) < 1000
    expected = {
        places.SLOT_FOLDER: (0o755, 0, 0),
        places.SETTINGS_FOLDER: (0o750, 0, int(gid)),
        places.SETTINGS: (0o640, 0, int(gid)),
        f"{places.SETTINGS_FOLDER}/board.key": (0o600, 0, 0),
        places.STATE: (0o700, int(uid), int(gid)),
    }
    found = {path: (tree / path.lstrip("/")).stat() for path in expected}
    assert expected == {
        path: (stat.S_IMODE(each.st_mode), each.st_uid, each.st_gid)
        for path, each in found.items()
    }
    shadow = (tree / "etc/shadow").read_text(encoding="utf-8")
    assert re.search(rf"^{places.USER}:[!*]+:", shadow, re.MULTILINE)
    assert settings.read_text() == "# settings\n"
