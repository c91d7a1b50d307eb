"""``tinyward check``: mistakes end with exit code 2, absences are only warnings."""

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.places import control_socket, state_directory
from agent.settings import LocalSettings, Settings, parse_settings
from tests.core.test_settings import MISTAKES, PIPELINE

FULL = """
state_dir = "/var/lib/tinyward"
[[pipeline]]
name = "door"
model = "vww"
factory = "/no/slice"
sinks = [
  {kind = "file", path = "/no/folder/x.jsonl"},
  {kind = "command", command = ["no-gpio"]},
]
[pipeline.source]
kind = "command"
command = ["no-camera", "-"]
format = "rgb24"
width = 96
height = 96
[[pipeline]]
name = "sound"
model = "kws"
source = {kind = "files", path = "/no/a"}
[update]
repository = "/no/repository"
root = "/no/root.json"
[[delegate]]
name = "edgetpu"
path = "/no/libedgetpu.so.1"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""


ROOTLESS = (
    "warning: update.root: there is none, nor a repository: "
    "no model will ever come [no_model]"
)


def check(tmp_path: Path, written: str) -> Result:
    """Run the command on a file."""
    path = tmp_path / "agent.toml"
    path.write_text(written)
    return CliRunner().invoke(cli, ["check", str(path)])


@pytest.mark.parametrize(("written", "key"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_ends_with_exit_code_2(
    written: str, key: str, tmp_path: Path
) -> None:
    """The file, the key and the reason stand in one line on stderr."""
    result = check(tmp_path, written)
    first = result.stderr.splitlines()[0]
    assert (result.exit_code, result.stdout) == (2, "")
    assert first.startswith(f"error: {tmp_path}/agent.toml: ")
    assert key in first
    assert result.stderr.splitlines()[-2].endswith("[settings]")


def test_a_missing_file_ends_with_exit_code_2(tmp_path: Path) -> None:
    """The error names the file and why it cannot be read."""
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "none.toml")])
    assert result.exit_code == 2
    assert "none.toml: cannot be read: No such file or directory [settings]" in (
        result.stderr
    )


def test_a_directory_is_no_settings_file(tmp_path: Path) -> None:
    """What cannot be read says so, whatever it is."""
    result = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert (result.exit_code, "it is a directory" in result.stderr) == (2, True)


def test_the_output_is_toml_again(tmp_path: Path) -> None:
    """Every effective value is there, and parses to the same settings."""
    result = check(tmp_path, PIPELINE)
    assert result.exit_code == 0
    assert parse_settings(result.stdout.encode()) == parse_settings(PIPELINE.encode())


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    """What stands in the file is told from defaults; units are named."""
    lines = check(tmp_path, PIPELINE + "deadline_ms = 100").stdout.splitlines()
    assert 'name = "door"  # file' in lines
    assert "deadline_ms = 100.0  # file, milliseconds" in lines
    assert "threads = 1  # default" in lines
    assert "poll_s = 300.0  # default, seconds" in lines
    assert "[[pipeline.sinks]]  # default" in lines


def test_empty_values_say_what_they_stand_for(tmp_path: Path) -> None:
    """Where the state will be on this board is not left to guess."""
    lines = check(tmp_path, PIPELINE).stdout.splitlines()
    place = state_directory(Settings())
    assert f'state_dir = ""  # default, here {place}' in lines
    assert f'socket = ""  # default, here {place}/control.sock' in lines


def test_a_strange_name_cannot_leave_its_comment(tmp_path: Path) -> None:
    """A value with quotes, escapes and control characters is still one value."""
    strange = 'a"b\\c\x7f\té'
    written = f'state_dir = "a\\"b\\\\c\\u007F\\té"\n{PIPELINE}'
    result = check(tmp_path, written)
    assert tomllib.loads(result.stdout)["state_dir"] == strange


def test_what_is_not_there_is_a_warning(tmp_path: Path) -> None:
    """Sources, programs, folders and repositories may come later: exit code 0."""
    result = check(tmp_path, FULL)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: pipeline.door.source.command: no program no-camera [source_missing]",
        "warning: pipeline.door.sinks.command: no program no-gpio [source_missing]",
        "warning: pipeline.door.factory: /no/slice does not exist [unreachable]",
        "warning: pipeline.sound.source.path: /no/a does not exist [source_missing]",
        "warning: update.repository: /no/repository does not exist [unreachable]",
        "warning: update.root: /no/root.json does not exist [metadata]",
        "warning: delegate.edgetpu.path: /no/libedgetpu.so.1 does not exist [delegate]",
    ]


def test_a_folder_that_can_be_made_is_no_warning(tmp_path: Path) -> None:
    """The daemon makes the folder of a sink's file; below a file it cannot."""
    (tmp_path / "file").write_text("")
    sink = 'sinks = [{{kind = "file", path = "{}/x.jsonl"}}]'
    made = check(tmp_path, PIPELINE + sink.format(tmp_path / "a" / "b"))
    assert made.stderr.splitlines() == [ROOTLESS]
    where = tmp_path / "file"
    refused = check(tmp_path, PIPELINE + sink.format(where / "b"))
    assert refused.stderr.splitlines() == [
        f"warning: pipeline.door.sinks.path: {where} is no directory [settings]",
        ROOTLESS,
    ]


DDI = """
[update]
orchestrator = "ddi"
repository = "https://models.example/repo"
root = "{root}"
[fleet.ddi]
url = "{url}"
"""


def ordered(tmp_path: Path, url: str, *more: str) -> Result:
    """Check settings of a board that a fleet's server orders about."""
    root = tmp_path / "root.json"
    root.write_text("{}")
    table = DDI.format(root=root, url=url) + "\n".join(more)
    return check(tmp_path, PIPELINE + table)


def test_a_fleets_server_needs_an_address(tmp_path: Path) -> None:
    """Encrypted, but on this board; a password in it would end up in logs."""
    for url in ("http://fleet.example", "ftp://fleet.example", "fleet", "https://a@b"):
        result = ordered(tmp_path, url)
        assert result.exit_code == 2
        assert "fleet.ddi.url" in result.stderr
    assert ordered(tmp_path, "http://127.0.0.1:8080").exit_code == 0


def test_a_board_shows_its_papers(tmp_path: Path) -> None:
    """None at all, a token that is not there, and one that everybody may read."""
    url, place = "https://fleet.example", tmp_path / "token"
    assert "[unauthorized]" in ordered(tmp_path, url).stderr
    named = f'token_file = "{place}"'
    absent = ordered(tmp_path, url, named)
    assert f"fleet.ddi.token_file: {place} does not exist" in absent.stderr
    place.write_text("0123456789abcdef")
    place.chmod(0o644)
    open_to_all = ordered(tmp_path, url, named)
    assert "may be read by everybody" in open_to_all.stderr
    assert "[permission]" in open_to_all.stderr
    assert "0123456789abcdef" not in open_to_all.output
    place.chmod(0o600)
    assert ordered(tmp_path, url, named).stderr == ""


def test_it_says_where_relative_paths_start(tmp_path: Path) -> None:
    """Once, before all values."""
    first = check(tmp_path, PIPELINE).stdout.splitlines()[0]
    assert first.startswith("# relative paths start where `tinyward run` is started")


def test_nothing_to_run_is_a_warning(tmp_path: Path) -> None:
    """An empty file is right, but hardly meant."""
    result = check(tmp_path, "")
    assert result.exit_code == 0
    assert "warning: pipeline: there is none" in result.stderr


def test_the_settings_name_the_places() -> None:
    """The state directory and the socket are taken from the settings first."""
    named = Settings(state_dir="/srv/state", local=LocalSettings(socket="/run/x.sock"))
    assert state_directory(named) == Path("/srv/state")
    assert control_socket(named) == Path("/run/x.sock")
    assert control_socket(Settings(state_dir="/s")) == Path("/s/control.sock")


def test_systemd_names_the_state_directory(tmp_path: Path) -> None:
    """``STATE_DIRECTORY`` serves where the settings name none."""
    path = tmp_path / "agent.toml"
    path.write_text(PIPELINE)
    given = {"STATE_DIRECTORY": "/var/lib/tinyward:/var/lib/other"}
    result = CliRunner().invoke(cli, ["check", str(path)], env=given)
    assert 'state_dir = ""  # default, here /var/lib/tinyward' in result.stdout


@pytest.mark.parametrize(
    ("table", "warning"),
    [
        ('repository = "https://models.example/repo"\nroot = "ROOT"', ""),
        ('repository = "file:///no/repo"\nroot = "ROOT"', "/no/repo does not exist"),
        ('orchestrator = "push"', "[signature]"),
        ('certificate = "/no/board.crt"\nkey = "ROOT"', "[certificate]"),
    ],
)
def test_how_a_repository_is_reached(table: str, warning: str, tmp_path: Path) -> None:
    """A web address is no folder that is missing; what cannot work is said."""
    (tmp_path / "root.json").write_text("{}")
    table = table.replace("ROOT", str(tmp_path / "root.json"))
    ran = check(tmp_path, f"{PIPELINE}[update]\n{table}\n")
    assert (warning in ran.stderr, bool(ran.stderr)) == (True, bool(warning))


@pytest.mark.parametrize(
    "repository", ["http://models.example/repo", "ftp://models.example", "https://"]
)
def test_an_address_that_run_refuses_is_a_mistake(
    repository: str, tmp_path: Path
) -> None:
    """What ends ``run`` with exit code 2 ends ``check`` with it, the key named once."""
    table = f'[update]\nrepository = "{repository}"\nroot = "/no/root.json"\n'
    ran = check(tmp_path, PIPELINE + table)
    first = ran.stderr.splitlines()[0]
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert first.startswith(f"error: {tmp_path}/agent.toml: update.repository: '")
    assert (first.count("update.repository"), "[settings]" in first) == (1, True)


def test_a_budget_of_series_that_cannot_hold_is_told_ahead(tmp_path: Path) -> None:
    """Alerts need theirs whatever the budget is; one pipeline fits into any."""
    eight = "".join(PIPELINE.replace("door", f"door{k}") for k in range(8))
    tight = "[monitor]\nmax_series = 300\n"
    assert (
        "monitor.max_series: what alerts need" in check(tmp_path, eight + tight).stderr
    )
    beyond = check(tmp_path, eight).stderr
    assert "monitor.max_series: there will be about 2" in beyond
    assert "max_series" not in check(tmp_path, PIPELINE).stderr
    close = check(tmp_path, PIPELINE + tight).stderr
    assert ("what alerts need" in close, "max_series" in close) == (False, True)


def test_the_number_of_series_is_told(tmp_path: Path) -> None:
    """Always, with what was assumed; more pipelines have more of them."""
    one = check(tmp_path, PIPELINE).stdout.splitlines()[-1]
    said = re.fullmatch(
        r"# /metrics: about (\d+) series of 1000, "
        r"with models of 12 labels and 15 features",
        one,
    )
    assert said is not None
    two = check(tmp_path, PIPELINE + PIPELINE.replace("door", "gate")).stdout
    assert f"about {said[1]} series" not in two
