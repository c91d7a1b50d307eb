"""What the settings name is read if it is a file, and never waited for."""

import os
import socket
from pathlib import Path

import click
import pytest

from agent.cli.places import check_files, read_file, read_raw, read_settings
from agent.cli.run import read_root
from agent.errors import SettingsError
from agent.settings import ControlSettings, Settings, UpdateSettings


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    """Settings and root.json say what is there instead."""
    path = tmp_path / "agent.toml"
    os.mkfifo(path)
    with pytest.raises(SettingsError, match="cannot be read: it is a FIFO, not a file"):
        read_raw(path)
    with pytest.raises(SettingsError, match=f"{path}: cannot be read: it is a FIFO"):
        read_settings(path)
    with pytest.raises(SettingsError, match=f"{path} cannot be read: it is a FIFO"):
        read_root(Settings(update=UpdateSettings(root=str(path))))


def test_other_things_are_named_too(tmp_path: Path) -> None:
    """A directory, and a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
    names = {"": "a directory", "socket": "a socket"}
    for name, kind in names.items():
        with pytest.raises(OSError, match=f"it is {kind}, not a file"):
            read_file(tmp_path / name)


def test_a_device_is_read_as_far_as_asked() -> None:
    """``check /dev/null`` shows all defaults; one without an end is cut off."""
    assert read_file(Path(os.devnull)) == b""
    assert read_file(Path("/dev/zero"), 5) == bytes(5)


def test_a_file_is_read_as_far_as_asked(tmp_path: Path) -> None:
    """A link to one is as good."""
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link") == b"12345"
    assert read_file(tmp_path / "file", 3) == b"123"


def test_certificates_are_files(tmp_path: Path) -> None:
    """One that is missing is told by whoever reads it; a FIFO would hang that one."""
    os.mkfifo(tmp_path / "pipe")
    pipe, absent = str(tmp_path / "pipe"), str(tmp_path / "absent")
    check_files(Settings(update=UpdateSettings(ca=absent, key=absent)))
    with pytest.raises(SettingsError, match=f"update.ca: {pipe}: it is a FIFO"):
        check_files(Settings(update=UpdateSettings(ca=pipe)))
    with pytest.raises(SettingsError, match=r"control\.client_ca: "):
        check_files(Settings(control=ControlSettings(client_ca=pipe)))


def test_a_wrong_file_says_how_to_try_it(tmp_path: Path) -> None:
    """By a command that is on the board."""
    path = tmp_path / "agent.toml"
    path.write_text("colour = 1\n")
    with pytest.raises(SettingsError) as caught:
        read_settings(path)
    assert f"`tinyward check {path}`" in caught.value.todo


def test_settings_of_root_are_read_by_sudo(tmp_path: Path) -> None:
    """Whoever may not read them is told the line, not to name another file."""
    path = tmp_path / "agent.toml"
    path.write_text("log_level = 'info'\n")
    path.chmod(0)
    users = os.getresuid()
    if users[0] == 0:
        os.setresuid(65534, 65534, 0)
    try:
        with (
            click.Context(click.Command("status"), info_name="tinyward status"),
            pytest.raises(SettingsError) as caught,
        ):
            read_settings(path)
    finally:
        os.setresuid(*users)
    assert caught.value.todo.startswith("`sudo tinyward status`")
