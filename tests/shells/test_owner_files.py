"""Files of an owner: keys are made once, and never replaced by others."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.errors import DeviceError, SettingsError
from agent.publish.files import create_durably
from agent.publish.vault import Vault


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    """The second one is refused, and the first is as it was."""
    path = tmp_path / "below" / "key"
    create_durably(path, b"first", mode=0o600)
    with pytest.raises(SettingsError, match="never overwritten"):
        create_durably(path, b"second", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"first", 0o600)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Not even one that leads nowhere: who laid it there wants the key elsewhere."""
    path, elsewhere = tmp_path / "key", tmp_path / "elsewhere"
    path.symlink_to(elsewhere)
    with pytest.raises(SettingsError, match="never overwritten"):
        create_durably(path, b"mine")
    assert (path.is_symlink(), elsewhere.exists()) == (True, False)


def test_what_a_power_cut_left_empty_is_filled(tmp_path: Path) -> None:
    """An empty file holds no key that could be lost."""
    path = tmp_path / "key"
    path.touch()
    create_durably(path, b"content")
    assert path.read_bytes() == b"content"


def test_a_failure_leaves_no_name_behind(tmp_path: Path) -> None:
    """What could not be written can be tried again."""
    path = tmp_path / "key"
    (tmp_path / ".key.tmp").mkdir()  # in the place of the file that is written aside
    with pytest.raises(DeviceError):
        create_durably(path, b"content")
    assert not path.exists()


def test_a_vault_keeps_its_first_key(tmp_path: Path) -> None:
    """What is encrypted for the first one would open no more."""
    vault, path = Vault.create(tmp_path / "keys", b""), tmp_path / "keys" / "a.pem"
    first = Ed25519PrivateKey.generate()
    vault.keep(path, first)
    with pytest.raises(SettingsError, match="never overwritten"):
        vault.keep(path, Ed25519PrivateKey.generate())
    kept = vault.open(path)
    assert isinstance(kept, Ed25519PrivateKey)
    assert first.private_bytes_raw() == kept.private_bytes_raw()
