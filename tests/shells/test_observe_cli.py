"""``tinyward observe export``: what is shipped is what is written, and nothing lost."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.observe import list_shipped

FILES = [
    *(
        "README.md",
        "alerts.yml",
        "fleet-rules.yml",
        "prometheus-agent.yaml",
        "rules.yml",
    ),
    *("tinyward-board.json", "tinyward-fleet.json"),
]


def export(directory: Path, *options: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["observe", "export", str(directory), *options])


def test_all_files_are_written(tmp_path: Path) -> None:
    """As they are shipped, byte for byte, into a directory that is made."""
    target = tmp_path / "new" / "dashboards"
    ran = export(target)
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [str(target / name) for name in FILES]
    assert sorted(path.name for path in target.iterdir()) == FILES
    for file in list_shipped():
        assert (target / file.name).read_bytes() == file.read_bytes()


def test_existing_files_are_kept(tmp_path: Path) -> None:
    """One file of the same name stops all: half an export helps nobody."""
    mine = tmp_path / "alerts.yml"
    mine.write_text("groups: []  # mine")
    ran = export(tmp_path)
    assert ran.exit_code == 1
    assert "alerts.yml already [request]" in ran.stderr
    assert "--force" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["alerts.yml"]
    assert mine.read_text() == "groups: []  # mine"


def test_force_overwrites_and_leaves_other_files(tmp_path: Path) -> None:
    """Files of a newer version replace older ones; one's own are not touched."""
    (tmp_path / "alerts.yml").write_text("old")
    (tmp_path / "own.yml").write_text("mine")
    assert export(tmp_path, "--force").exit_code == 0
    assert "TinywardDrift" in (tmp_path / "alerts.yml").read_text()
    assert (tmp_path / "own.yml").read_text() == "mine"
    assert export(tmp_path, "--force").exit_code == 0


@pytest.mark.parametrize("blocked", ["a file", "a file in the way"])
def test_where_nothing_can_be_written_it_says_so(tmp_path: Path, blocked: str) -> None:
    """An error of the device, not a trace."""
    file = tmp_path / "file"
    file.write_text("")
    ran = export(file if blocked == "a file" else file / "below")
    assert ran.exit_code == 1
    assert ran.stderr.startswith("error: ")
    assert "cannot be written" in ran.stderr


def test_the_readme_names_every_file_and_its_command() -> None:
    """Who opens the folder finds out what each file is for."""
    shipped = {file.name: file for file in list_shipped()}
    text = shipped.pop("README.md").read_text()
    assert [name for name in shipped if f"`{name}`" not in text] == []
    assert "tinyward observe export DIR --force" in text
