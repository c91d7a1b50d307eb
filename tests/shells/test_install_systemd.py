"""The door to systemd: what the fake promises the real tools keep, and words of theirs.

What needs a systemd that runs is in ``tests/service``.
"""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.install.facts import group_id, look, user_id
from agent.install.places import SYSUSERS, TMPFILES, UNIT_FOLDER, Places
from agent.install.shipped import (
    EXTRAS,
    drop_in_path,
    installed_extras,
    read_shipped,
    shipped_folder,
)
from agent.install.systemd import (
    ImageSystemd,
    Systemd,
    UnitState,
    is_booted,
    run_tool,
)
from tests.fakes.machine import FakeSystemd

UNIT = "tinyward.service"
FILE = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
# A systemctl that notes how it was called, and says what the test wants.
SCRIPT = """\
#!/bin/sh
echo "$0 $*" | sed 's,.*/,,' >> {log}
{body}
"""
CALL = """\
import json
from dataclasses import asdict
from agent.install.systemd import BootedSystemd, StartFailedError
systemd = BootedSystemd()
"""


@pytest.fixture(params=["fake", "real"])
def door(
    request: pytest.FixtureRequest, tmp_path: Path, require_tool: Callable[[str], Path]
) -> tuple[Systemd, Path]:
    """Give a systemd of a tree, once ours and once the real tools."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    unit = tmp_path / UNIT_FOLDER.lstrip("/") / UNIT
    unit.parent.mkdir(parents=True)
    unit.write_text(FILE)
    if request.param == "fake":
        return FakeSystemd(tmp_path), tmp_path
    for tool in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
        require_tool(tool)
    if os.geteuid() != 0:
        pytest.skip("only root may own the files of a service")
    return ImageSystemd(tmp_path), tmp_path


def lay_out(root: Path) -> Places:
    """Put the shipped fragments where they belong."""
    files = read_shipped()
    for path, content in ((SYSUSERS, files.sysusers), (TMPFILES, files.tmpfiles)):
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return Places(root)


def test_a_unit_is_enabled_and_disabled(door: tuple[Systemd, Path]) -> None:
    """As often as one likes; a unit that does not exist does nothing."""
    systemd, _ = door
    assert systemd.state("none.service").active == "inactive"
    assert not systemd.state(UNIT).enabled
    for _ in range(2):
        systemd.enable(UNIT)
        assert systemd.state(UNIT).enabled
    for _ in range(2):
        systemd.disable(UNIT)
        assert not systemd.state(UNIT).enabled


def test_fragments_make_the_user_and_the_directories(
    door: tuple[Systemd, Path],
) -> None:
    """With the modes that they say; a second time changes nothing."""
    systemd, root = door
    places = lay_out(root)
    for _ in range(2):
        systemd.apply("systemd-sysusers", SYSUSERS)
        systemd.apply("systemd-tmpfiles", TMPFILES)
        assert user_id(places) >= 0
        assert group_id(places) >= 0
        for path, mode in (("etc/tinyward", 0o750), ("var/lib/tinyward", 0o700)):
            assert stat.S_IMODE((root / path).stat().st_mode) == mode


def test_what_the_tools_made_counts_as_made(
    tmp_path: Path, require_tool: Callable[[str], Path]
) -> None:
    """A plan sees the shipped directories, and sees when one is not as it should be."""
    require_tool("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("only root may own the files of a service")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\n")
    places, systemd = lay_out(tmp_path), ImageSystemd(tmp_path)
    fragment = read_shipped().tmpfiles
    assert not look(places, systemd, (), fragment).folders
    systemd.apply("systemd-sysusers", SYSUSERS)
    systemd.apply("systemd-tmpfiles", TMPFILES)
    facts = look(places, systemd, (), fragment)
    assert (facts.user, facts.folders) == (True, True)
    (tmp_path / "var/lib/tinyward").chmod(0o755)
    assert not look(places, systemd, (), fragment).folders


def test_everything_that_is_named_is_shipped() -> None:
    """Each drop-in has a word, each word a drop-in, and an installed one is seen."""
    files = read_shipped()
    drop_ins = (shipped_folder() / "drop-ins").glob("*.conf")
    assert sorted(EXTRAS) == sorted(path.stem for path in drop_ins)
    assert set(files.drop_ins(EXTRAS)) == {drop_in_path(extra) for extra in EXTRAS}
    from agent.cli.install import EXTRAS as OFFERED

    assert OFFERED == EXTRAS


def test_installed_extras_are_seen(tmp_path: Path) -> None:
    """An upgrade renews the drop-ins that were asked for once, and no other."""
    place = tmp_path / drop_in_path("sound").lstrip("/")
    place.parent.mkdir(parents=True)
    place.touch()
    (place.parent / "override.conf").touch()
    assert installed_extras(Places(tmp_path)) == ["sound"]


def scripted(tmp_path: Path, name: str, body: str) -> Path:
    """Put a tool that is a script of ours into a folder; return the folder."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    path = tools / name
    path.write_text(SCRIPT.format(log=tmp_path / "log", body=body))
    path.chmod(0o755)
    return tools


def booted(tmp_path: Path, code: str) -> object:
    """Run some lines against the real door with scripted tools."""
    path = f"{tmp_path / 'tools'}:/usr/bin:/bin"
    ran = subprocess.run(
        [sys.executable, "-c", CALL + code],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


def test_what_systemctl_says_of_a_unit(tmp_path: Path) -> None:
    """Whatever order it says it in, and whatever it leaves out."""
    lines = (
        "NeedDaemonReload=yes\\nMainPID=42\\nActiveState=active\\nInvocationID=ab\\n"
    )
    scripted(tmp_path, "systemctl", f"printf '{lines}UnitFileState=enabled\\n'")
    code = f"print(json.dumps(asdict(systemd.state({UNIT!r}))))"
    assert booted(tmp_path, code) == {
        "active": "active",
        "enabled": True,
        "stale": True,
        "pid": 42,
        "invocation": "ab",
    }
    scripted(tmp_path, "systemctl", "true")
    assert booted(tmp_path, code) == {
        "active": "inactive",
        "enabled": False,
        "stale": False,
        "pid": 0,
        "invocation": "",
    }


def test_a_restart_forgets_failures_and_tells_its_own(tmp_path: Path) -> None:
    """Five failures of before must not refuse it; its first line is the error's."""
    body = '[ "$1" = restart ] || exit 0; echo "Job failed." >&2; echo See >&2; exit 1'
    scripted(tmp_path, "systemctl", body)
    code = (
        f"try:\n    systemd.restart({UNIT!r})\n"
        "except StartFailedError as err:\n    print(json.dumps(str(err)))\n"
    )
    assert booted(tmp_path, code) == "Job failed."
    calls = (tmp_path / "log").read_text().splitlines()
    assert calls == [f"systemctl reset-failed {UNIT}", f"systemctl restart {UNIT}"]


@pytest.mark.parametrize(
    ("after", "match"),
    [("old", "_SYSTEMD_INVOCATION_ID=new"), ("new", f"-u {UNIT}")],
)
def test_last_words_are_those_of_the_last_try(
    tmp_path: Path, after: str, match: str
) -> None:
    """Of the start that failed; where none was tried, of the unit."""
    scripted(tmp_path, "systemctl", "echo InvocationID=new")
    scripted(tmp_path, "journalctl", "printf 'one\\ntwo\\n'")
    code = f"print(json.dumps(systemd.last_words({UNIT!r}, {after!r})))"
    assert booted(tmp_path, code) == ["one", "two"]
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last == f"journalctl --no-pager -o cat -n 15 {match}"


def test_tools_that_are_missing_fail_or_hang() -> None:
    """Each is an error that says so."""
    with pytest.raises(DeviceError, match="is not on this machine") as caught:
        run_tool(["no-such-tool-of-systemd"])
    assert caught.value.reason == "not_installed"
    with pytest.raises(DeviceError, match="broken"):
        run_tool(["sh", "-c", "echo broken >&2; exit 3"])
    assert run_tool(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(DeviceError, match=r"took more than 0\.1 s"):
        run_tool(["sleep", "60"], timeout_s=0.1)


def test_booted_by_systemd_is_seen_as_sd_booted_sees_it(tmp_path: Path) -> None:
    """By one directory."""
    assert not is_booted(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert is_booted(tmp_path)


class SilentSystemd(FakeSystemd):
    """A systemd that does not answer this user."""

    def state(self, unit: str) -> UnitState:
        """Say nothing."""
        raise DeviceError(f"{unit}: not connected", reason=Reason.INTERNAL)


def test_a_bus_that_does_not_answer_keeps_nobody_from_a_plan(tmp_path: Path) -> None:
    """What the service does is unknown then; whoever changes something has to know."""
    places, silent = lay_out(tmp_path), SilentSystemd(tmp_path)
    facts = look(places, silent, (), b"", may_guess=True)
    assert facts.service.active == "unknown"
    with pytest.raises(DeviceError, match="not connected"):
        look(places, silent, (), b"")
