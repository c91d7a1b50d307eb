"""``tinyward repo`` beyond publishing: devices, rollouts, revocations, slices."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.repo_timestamp import warn
from agent.core.targets import bundle_path
from agent.errors import DeviceError
from agent.publish.repository import Repository
from agent.publish.roles import utc
from agent.publish.upkeep import deadlines
from tests.fakes.bundle_factory import DAY_S
from tests.fakes.bundles import good_bundle

SIGNING = {"init", "publish", "rotate", "timestamp"}


class Shell:
    """A published repository with two bundles, and the command line."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repo = str(home / "repo")
        (home / "passphrase").write_text("a secret\n")
        self.say("init")
        for version in (1, 2):
            path = home / f"kws-{version}.bundle"
            path.write_bytes(good_bundle(version))
            self.say("add", str(path))
        self.say("assign", "group:all", "door=kws@1")
        self.say("publish")

    def run(self, name: str, *arguments: str) -> Result:
        """Run ``tinyward repo NAME REPO ...``."""
        words = ["repo", name, self.repo, *arguments]
        if name in SIGNING:
            words += ["--passphrase-file", str(self.home / "passphrase")]
        return CliRunner().invoke(cli, words)

    def say(self, name: str, *arguments: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        result = self.run(name, *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def fail(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run a command that has to fail; return its exit code and first line."""
        result = self.run(name, *arguments)
        assert result.exit_code != 0
        problem, todo = result.stderr.splitlines()[-2:]
        assert todo.startswith("to do: ")
        return result.exit_code, problem

    def status(self) -> dict[str, Any]:
        """Return the status as JSON."""
        found: dict[str, Any] = json.loads(self.say("status", "--json"))
        return found


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_device_is_assigned_paused_and_released(shell: Shell) -> None:
    """One board's exception: said, shown, published, ended."""
    said = shell.say("assign", "device:Pi-7", "door=kws@2", "--window", "22:00-04:00")
    assert "device:Pi-7 door = kws 2" in said
    said = shell.say("pause", "device:Pi-7")
    assert "paused" in said
    shell.say("publish")
    shown = shell.say("status")
    for word in ("Pi-7", "(paused)", "22:00-04:00"):
        assert word in shown
    assert "paused" not in shell.say("pause", "device:Pi-7", "--resume")
    said = shell.say("remove", "device:Pi-7")
    assert "Pi-7 follows its groups again" in said
    assert "the end of device Pi-7" in shell.say("status")
    shell.say("publish")
    assert shell.status()["devices"] == {}


def test_a_window_may_be_in_local_time(shell: Shell) -> None:
    """``22:00-04:00 local`` reaches the signed desired state."""
    shell.say("assign", "group:all", "--window", "22:00-04:00 local")
    shell.say("publish")
    assert shell.status()["groups"]["all"]["window"] == "22:00-04:00 local"


def test_a_rollout_is_widened(shell: Shell) -> None:
    """Boards drawn at one percentage stay drawn: the salt is kept unless given."""
    shell.say("percent", "group:all", "10")
    shell.say("publish")
    first = shell.status()["groups"]["all"]
    assert "for 50 % of boards" in shell.say("percent", "group:all", "50")
    shell.say("publish")
    second = shell.status()["groups"]["all"]
    shell.say("percent", "group:all", "50", "--salt", "other")
    third = shell.status()["staged"]["groups"]
    assert (first["percent"], second["percent"]) == (10.0, 50.0)
    assert (first["salt"] == second["salt"], third["all"]["salt"]) == (True, "other")


@pytest.mark.parametrize("command", [["pause"], ["percent"]])
def test_only_what_is_there_is_changed(shell: Shell, command: list[str]) -> None:
    """A typing error makes no new group."""
    more = ["10"] if command == ["percent"] else []
    code, problem = shell.fail(command[0], "group:lab", *more)
    assert (code, "group:lab has no desired state" in problem) == (2, True)


def test_a_bundle_is_removed_unless_it_is_wanted(shell: Shell) -> None:
    """The command says who still wants it."""
    code, problem = shell.fail("remove", "kws=1")
    assert (code, "wanted by group all" in problem) == (2, True)
    assert "models/kws/2.bundle is listed no longer" in shell.say("remove", "kws=2")
    assert "models/kws/2.bundle unlisted" in shell.say("status")
    shell.say("publish")
    assert [bundle["path"] for bundle in shell.status()["bundles"]] == [
        bundle_path("kws", 1)
    ]
    assert shell.fail("remove", "kws=9")[0] == 1
    assert shell.fail("remove", "kws")[0] == 2


def test_bundles_and_operators_are_revoked(shell: Shell) -> None:
    """By version, digest or serial, however that is spelled; shown; taken back."""
    said = shell.say("revoke", "kws=2", "F" * 64, "--operator", "0A:BC")
    assert "revoked: operator abc" in said
    assert "2 bundles and 1 operators" in said
    assert "staged: revocations" in shell.say("status")
    told = shell.say("publish")
    assert "revoked: 2 bundles, 1 operators" in told
    shown = shell.say("status")
    for word in ("kws 2", "f" * 16, "an operator", "abc"):
        assert word in shown
    shell.say("revoke", "--undo", "kws=2", "f" * 64)
    shell.say("publish")
    assert shell.status()["revoked"] == {"bundles": [], "operators": ["abc"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to revoke is named"),
        (["--operator", "xyz"], "'xyz' is no serial number"),
        (["a" * 63], "is not MODEL=VERSION"),
        (["kws=9"], "never added"),
        (["--undo", "a" * 64], "was never revoked"),
    ],
)
def test_wrong_revocations_are_explained(
    shell: Shell, arguments: list[str], said: str
) -> None:
    """A revocation that would revoke nothing is never staged."""
    assert said in shell.fail("revoke", *arguments)[1]
    assert shell.status()["staged"]["revoked"] is None


def test_a_timer_signs_with_online_keys_and_says_when_next(shell: Shell) -> None:
    """Without the offline keys it signs, publishes and names the deadline."""
    for path in (shell.home / "repo-keys").glob("[rt]*-*.pem"):
        if not path.name.startswith("timestamp"):
            path.unlink()
    said = shell.say("timestamp")
    assert "timestamp: signed by 1 of 1 keys" in said
    assert "run again before 20" in said
    assert "snapshot" not in said


@pytest.mark.parametrize(
    ("after_days", "expected"),
    [
        (100, ""),
        (155, "targets expires in 25 days"),
        (181, "targets expired at"),
        (340, "root expires in 25 days"),
    ],
)
def test_18_a_timer_fails_before_offline_roles_expire(
    shell: Shell, after_days: float, expected: str
) -> None:
    """It is the unit's failure, with a clear word, that tells somebody in time."""
    roles = Repository.open(Path(shell.repo))._files.load()
    begin = roles.signed("root").expires.timestamp() - 365 * DAY_S
    moment = utc(begin + after_days * DAY_S)
    if not expected:
        warn(deadlines(roles), moment, 30)
        return
    with pytest.raises(DeviceError) as caught:
        warn(deadlines(roles), moment, 30)
    assert (caught.value.reason, caught.value.exit_code) == ("expired", 1)
    assert expected in str(caught.value)
    assert "repo publish" in caught.value.todo


def test_the_timer_signs_first_and_fails_then(shell: Shell) -> None:
    """A warning must not stop the signature that keeps boards updating."""
    before = shell.status()["roles"]
    result = shell.run("timestamp", "--warn-days", "200")
    assert (result.exit_code, "targets expires in" in result.stderr) == (1, True)
    assert "[expired]" in result.stderr
    assert before != shell.status()["roles"]


def test_a_slice_is_exported(shell: Shell) -> None:
    """The bundles that go along are named; wrong names are refused."""
    out = str(shell.home / "slice.tar")
    said = shell.say("export", out)
    assert said.splitlines()[0].endswith("1.bundle")
    assert f"1 bundles, to {out}" in said
    assert "2 bundles" in shell.say("export", out, "--all")
    assert "2 bundles" in shell.say("export", out, "--group", "all", "--model", "kws=2")
    assert shell.fail("export", out, "--group", "Lab")[0] == 2
    assert shell.fail("export", out, "--device", "a/b")[0] == 2
    assert shell.fail("export", out, "--model", "kws")[0] == 2


def test_status_counts_the_days(shell: Shell) -> None:
    """Every role has its days left beside its date."""
    shown = shell.say("status")
    for days in ("365", "180", " 7 "):
        assert days in shown


COMPLETE = """
eval "$(tinyward completion bash)"
COMP_WORDS=({words}) COMP_CWORD={place}
_tinyward_completion tinyward
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(bash: Path, words: str) -> list[str]:
    """Return what a real bash would offer for the last word."""
    script = COMPLETE.format(words=words, place=len(words.split()) - 1)
    programs = Path(sys.executable).parent
    ran = subprocess.run(
        [bash, "--norc", "-c", script],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(ran.stdout.split())


def test_bash_completes_names_from_the_repository(
    shell: Shell, require_tool: Callable[[str], Path]
) -> None:
    """Groups, devices and bundles of the repository that stands before them."""
    bash = require_tool("bash")
    shell.say("assign", "device:pi-7", "door=kws@2")
    shell.say("publish")
    repo = f"tinyward repo {{}} {shell.repo}"
    assert complete(bash, f"{repo.format('assign')} gr") == ["group:all"]
    assert complete(bash, f"{repo.format('remove')} k") == ["kws=1", "kws=2"]
    assert complete(bash, f"{repo.format('remove')} d") == ["device:pi-7"]
    assert complete(bash, f"{repo.format('revoke')} kws=2") == ["kws=2"]
