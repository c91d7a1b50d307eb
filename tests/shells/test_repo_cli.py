"""``tinyward repo`` from the outside: what is typed, what is said, what is left."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.repo import ROLE_NAMES
from agent.cli.repo_assign import parse_pipeline
from agent.cli.repo_options import parse_bundle, parse_place
from agent.cli.repo_status import role_todo
from agent.errors import SettingsError
from agent.publish.repository import init_repository
from agent.publish.roles import ROLES
from agent.publish.status import RoleStatus
from tests.fakes.bundles import good_bundle


class Shell:
    """A directory, a passphrase and the command line."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repo = str(home / "repo")
        (home / "passphrase").write_text("a secret\n")
        self.bundles = []
        for version in (1, 2):
            path = home / f"kws-{version}.bundle"
            path.write_bytes(good_bundle(version))
            self.bundles.append(str(path))

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        """Run ``tinyward repo``; without ``typed`` the passphrase is in its file."""
        command = ["repo", *arguments]
        if typed is None and arguments[0] in {"init", "publish", "rotate", "timestamp"}:
            command += ["--passphrase-file", str(self.home / "passphrase")]
        return CliRunner().invoke(cli, command, input=typed)

    def say(self, *arguments: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        result = self.run(*arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_from_init_to_status(shell: Shell) -> None:
    """The five commands of the README make a repository with one assigned model."""
    said = shell.say("init", shell.repo, "--threshold", "2", "--targets-keys", "3")
    assert "1.root.json" in said
    said = shell.say("add", shell.repo, *shell.bundles, "--hardware", "rpi4")
    assert "staged models/kws/1.bundle" in said
    assert "staged models/kws/2.bundle" in said
    said = shell.say("assign", shell.repo, "group:all", "kws=1", "door=kws@2")
    assert "group:all door = kws 2" in said
    said = shell.say("publish", shell.repo)
    assert "targets: signed by 3 of 3 keys" in said
    status = json.loads(shell.say("status", shell.repo, "--json"))
    assert [bundle["path"] for bundle in status["bundles"]] == [
        "models/kws/1.bundle",
        "models/kws/2.bundle",
    ]
    assert status["groups"]["all"]["pipelines"]["door"] == {
        "model": "kws",
        "version": 2,
    }
    assert status["staged"] == {
        "bundles": {},
        "groups": {},
        "devices": {},
        "revoked": None,
        "unlisted": [],
        "deltas": {},
    }


def test_status_is_readable(shell: Shell) -> None:
    """The tables name roles, bundles, groups and what is staged."""
    shell.say("init", shell.repo)
    shell.say("add", shell.repo, shell.bundles[0])
    shell.say("assign", shell.repo, "group:all", "kws=1", "--percent", "10", "--paused")
    before = shell.say("status", shell.repo)
    assert "staged: models/kws/1.bundle, group all" in before
    shell.say("publish", shell.repo)
    after = shell.say("status", shell.repo)
    for word in ("timestamp", "1 of 1 sign", "kws 1", "(paused)", "staged: nothing"):
        assert word in after


@pytest.mark.parametrize(
    ("role", "left_days", "keys_here", "expected"),
    [
        ("root", 200, 0, ""),
        ("root", 100, 1, "publish soon"),
        ("root", -1, 1, "expired: publish"),
        ("targets", 50, 0, "publish soon, with its keys"),
        ("timestamp", 3, 1, ""),
        ("timestamp", 1, 1, "publish soon"),
        ("timestamp", -1, 0, "expired: publish, with its keys"),
    ],
)
def test_status_says_what_helps(
    role: str, left_days: int, keys_here: int, expected: str
) -> None:
    """Each role's line says in time what would renew it, and with which keys."""
    now = 1_790_000_000.0
    expires = datetime.fromtimestamp(now + left_days * 86_400, UTC)
    assert role_todo(RoleStatus(role, 1, expires, 1, 1, keys_here), now) == expected


def test_the_short_form_keeps_the_model_of_the_pipeline(shell: Shell) -> None:
    """PIPELINE=VERSION means the model that the group runs there already."""
    shell.say("init", shell.repo)
    shell.say("add", shell.repo, *shell.bundles)
    shell.say("assign", shell.repo, "group:all", "door=kws@1")
    shell.say("publish", shell.repo)
    said = shell.say("assign", shell.repo, "group:all", "door=2")
    assert "group:all door = kws 2" in said


def test_an_empty_repository_has_no_empty_tables(shell: Shell) -> None:
    """Where there is nothing yet, status names the command that changes that."""
    shell.say("init", shell.repo)
    said = shell.say("status", shell.repo)
    assert said.count("┏") == 1
    assert "no bundles yet: `tinyward repo add`" in said
    assert "no groups yet: `tinyward repo assign`" in said
    assert "┃ to do ┃" in said


def test_rotate_says_what_is_new_and_what_is_signed_again(shell: Shell) -> None:
    """Rotation makes keys, publishes, and names all that the new keys vouch for."""
    shell.say("init", shell.repo)
    shell.say("add", shell.repo, *shell.bundles)
    shell.say("assign", shell.repo, "group:all", "kws=1")
    shell.say("publish", shell.repo)
    said = shell.say("rotate", shell.repo, "targets")
    assert "targets: 1 new key\n" in said
    assert "targets: signs models/kws/2.bundle again\n" in said
    assert "published" in said
    said = shell.say("rotate", shell.repo, "fleet")
    assert "fleet: signs fleet/groups/all again\n" in said
    assert "again" not in shell.say("rotate", shell.repo, "timestamp")


def test_only_roles_are_rotated(shell: Shell) -> None:
    """A name that is no role is refused with the list of those that are."""
    assert ROLE_NAMES == ROLES
    shell.say("init", shell.repo)
    result = shell.run("rotate", shell.repo, "targts")
    assert result.exit_code == 2
    assert all(f"'{role}'" in result.stderr for role in ROLES)


def type_at_terminal(*command: str, answers: list[str]) -> tuple[int, str]:
    """Run a command whose stdin is a terminal; return its exit code and stderr.

    Each answer is typed when it is asked for.
    """
    ours, theirs = os.openpty()
    said = b""
    with subprocess.Popen(
        [sys.executable, "-m", "agent", *command],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # without our own terminal it has only that one
    ) as child:
        assert child.stderr is not None
        waiting = [answer.encode() + b"\n" for answer in answers]
        while piece := os.read(child.stderr.fileno(), 4096):
            said += piece
            if said.endswith(b": ") and waiting:
                os.write(ours, waiting.pop(0))
    os.close(ours)
    os.close(theirs)
    return child.returncode, said.decode()


def test_the_passphrase_is_asked_for_twice_and_not_shown(shell: Shell) -> None:
    """Without a file the passphrase is typed; a typing error makes nothing."""
    init, publish = ("repo", "init", shell.repo), ("repo", "publish", shell.repo)
    one, two = "the first one", "the second one"
    code, said = type_at_terminal(*init, answers=[one, two, one, one])
    assert (code, one in said) == (0, False)
    assert type_at_terminal(*publish, answers=[one])[0] == 0
    code, said = type_at_terminal(*publish, answers=[two])
    assert (code, "does not open" in said) == (2, True)


def test_two_holders_sign_together_with_passphrases_of_their_own(shell: Shell) -> None:
    """A threshold of 2 is held by two people: neither signs alone, both do."""
    holders = []
    for name in ("ann", "bob"):
        (shell.home / f"{name}.txt").write_text(f"the words of {name}")
        file = str(shell.home / f"{name}.txt")
        holders.append(["--keys", str(shell.home / name), "--passphrase-file", file])
    ann, bob = holders
    runner = CliRunner()
    made = runner.invoke(
        cli, ["repo", "init", shell.repo, "--threshold", "2", *ann, *bob]
    )
    assert (made.exit_code, made.stderr) == (0, "")
    held = [len(list((shell.home / name).glob("t*-*.pem"))) for name in ("ann", "bob")]
    assert held == [2, 1]
    shell.say("add", shell.repo, shell.bundles[0])
    alone = runner.invoke(cli, ["repo", "publish", shell.repo, *ann])
    assert (alone.exit_code, "targets: 1 of its keys" in alone.stderr) == (2, True)
    swapped = [*ann[:3], bob[3], *bob[:3], ann[3]]
    assert runner.invoke(cli, ["repo", "publish", shell.repo, *swapped]).exit_code == 2
    both = runner.invoke(cli, ["repo", "publish", shell.repo, *ann, *bob])
    assert (both.exit_code, "targets: signed by 2 of 2" in both.stdout) == (0, True)
    status = ["repo", "status", shell.repo, "--json", *ann[:2], *bob[:2]]
    roles = json.loads(runner.invoke(cli, status).stdout)["roles"]
    assert [role["keys_here"] for role in roles] == [2, 2, 1, 1, 1]


def test_passphrase_files_fit_the_directories(shell: Shell) -> None:
    """One file for two directories, or one directory twice, is refused at once."""
    keys = ["--keys", str(shell.home / "a"), "--keys", str(shell.home / "b")]
    for wrong in (keys, keys[:2] * 2):
        result = shell.run("init", shell.repo, *wrong)
        assert (result.exit_code, "to do: Name" in result.stderr) == (2, True)
    assert not (shell.home / "a").exists()


def test_without_a_terminal_the_file_is_named(shell: Shell) -> None:
    """A script that cannot type is told what to do, and nothing is made."""
    result = shell.run("init", shell.repo, typed="a passphrase\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "to do: " in result.stderr
    assert "--passphrase-file" in result.stderr
    assert not Path(shell.repo).exists()


def test_new_keys_want_a_passphrase_that_is_no_joke(shell: Shell) -> None:
    """Seven bytes make no keys, eight do; keys from before still open."""
    (shell.home / "passphrase").write_text("1234567\n")
    result = shell.run("init", shell.repo)
    assert (result.exit_code, "at least 8" in result.stderr) == (2, True)
    assert not Path(shell.repo).exists()
    init_repository(Path(shell.repo), None, b"a", now=1.0)
    (shell.home / "passphrase").write_text("a")
    shell.say("publish", shell.repo)


@pytest.mark.parametrize("content", ["", "\n", "x" * 5000])
def test_a_file_without_a_passphrase_is_refused(shell: Shell, content: str) -> None:
    """An empty passphrase never encrypts keys by accident."""
    (shell.home / "passphrase").write_text(content)
    result = shell.run("init", shell.repo)
    assert result.exit_code == 2
    assert "holds no passphrase" in result.stderr
    assert not Path(shell.repo).exists()


def test_no_option_takes_the_passphrase_itself(shell: Shell) -> None:
    """Neither an argument nor the environment carries it: both are seen by others."""
    result = CliRunner().invoke(cli, ["repo", "init", shell.repo, "--passphrase", "x"])
    assert result.exit_code == 2
    env = {"PASSPHRASE": "x", "TINYWARD_PASSPHRASE": "x"}
    asked = CliRunner().invoke(cli, ["repo", "init", shell.repo], env=env, input="")
    assert asked.exit_code == 2
    assert not Path(shell.repo).exists()


def test_what_is_no_bundle_is_not_added(shell: Shell) -> None:
    """A file that a board would refuse is refused here, with the same reason."""
    shell.say("init", shell.repo)
    (shell.home / "bad.bundle").write_bytes(good_bundle(1)[:-1])
    result = shell.run("add", shell.repo, str(shell.home / "bad.bundle"))
    assert result.exit_code == 1
    assert f"error: {shell.home / 'bad.bundle'}: bundle" in result.stderr
    assert "[truncated]" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason", "said"),
    [
        ("group:all kws=9", "missing_target", "kws 9 was never added"),
        ("all kws=1", "settings", "'all' is not group:NAME"),
        ("group:a/b kws=1", "settings", "'group:a/b' is not group:NAME"),
        ("group:all kws", "settings", "'kws' is not PIPELINE=VERSION"),
        ("group:all kws=1 --percent 200", "settings", "percent 200.0: a number"),
        ("group:all kws=1 --percent -1", "settings", "percent -1.0: a number"),
        ("group:all kws=1 --percent nan", "settings", "percent nan: a number"),
        ("group:all kws=1 --salt " + "x" * 65, "settings", "at most 64 characters"),
        ("group:all A=kws@1", "settings", "pipeline 'A': a-z, 0-9"),
        ("group:all kws=1 --window 25:00-26:00", "settings", "'25:00-26:00'"),
        ("group:all kws=1 --not-before yesterday", "settings", "'yesterday'"),
        ("group:all --remove nothere", "settings", "nothing about pipeline 'nothere'"),
        ("group:all", "settings", "nothing to change"),
    ],
)
def test_wrong_assignments_are_explained(
    shell: Shell, arguments: str, reason: str, said: str
) -> None:
    """Each wrong assignment says what is wrong and what to do, and stages nothing."""
    shell.say("init", shell.repo)
    shell.say("add", shell.repo, shell.bundles[0])
    result = shell.run("assign", shell.repo, *arguments.split())
    assert result.exit_code in {1, 2}
    problem, todo = result.stderr.splitlines()
    assert problem.endswith(f"[{reason}]")
    assert said in problem
    assert ("Expected" in problem, "tinyward check" in todo) == (False, False)
    assert "group" not in shell.say("status", shell.repo).partition("staged:")[2]


def test_a_wrong_minimum_agent_is_explained(shell: Shell) -> None:
    """``--min-agent`` is refused by example, not by a pattern."""
    shell.say("init", shell.repo)
    result = shell.run("add", shell.repo, shell.bundles[0], "--min-agent", "new")
    assert result.exit_code == 2
    assert "min-agent 'new': a version such as 1.2.3" in result.stderr


def test_trouble_with_the_owners_disk_is_not_a_boards(shell: Shell) -> None:
    """What cannot be made is not answered with advice about ``state_dir``."""
    nowhere = Path(shell.repo, "file", "repo")
    nowhere.parent.parent.mkdir()
    nowhere.parent.write_bytes(b"")
    result = shell.run("init", str(nowhere))
    assert result.exit_code == 1
    assert "to do: Check that the directory it names exists" in result.stderr


def test_help_explains_tuf_in_ten_lines() -> None:
    """``repo --help`` numbers what one has to know before making keys."""
    said = CliRunner().invoke(cli, ["repo", "--help"]).stdout
    for number in range(1, 11):
        assert f"{number:2}. " in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "..." not in said.partition("Commands:")[2]


def test_names_and_pipelines_are_parsed_strictly() -> None:
    """The two small grammars of the command line."""
    assert parse_place("group:lab-2") == "fleet/groups/lab-2"
    assert parse_place("device:Pi_7.b") == "fleet/devices/Pi_7.b"
    for text in ("", "all", "group:", "group:A", "device:a/b", "device:..", "x:a"):
        with pytest.raises(SettingsError):
            parse_place(text)
    assert parse_bundle("kws=3") == ("kws", 3)
    for text in ("kws", "kws=", "=3", "../k=3", "kws=x", "kws=\u0661"):
        with pytest.raises(SettingsError):
            parse_bundle(text)
    assert parse_pipeline("kws=3", {}) == ("kws", ("kws", 3))
    assert parse_pipeline("door=3", {"door": "kws"}) == ("door", ("kws", 3))
    assert parse_pipeline("door=hey@3", {"door": "kws"}) == ("door", ("hey", 3))
    assert parse_pipeline("door=hey:3", {"door": "kws"}) == ("door", ("hey", 3))
    for text in ("", "=1", "a=", "a=b", "a=b@", "a=@1", "a=1@2@3", "a=-1", "a=\u0661"):
        with pytest.raises(SettingsError):
            parse_pipeline(text, {})
