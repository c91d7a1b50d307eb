"""What an installation asks of the slot's own program: a trial run, and a key."""

import stat
import sys
from pathlib import Path

import pytest

from agent.cli.workshop import Workshop, slot_digest
from agent.errors import DeviceError, SettingsError
from agent.install.places import IDENTITY, SETTINGS, Places

PROGRAM = """\
#!{python}
from agent.__main__ import main
main()
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Give the workshop of a slot whose Python is this one, and settings."""
    slot = tmp_path / "opt/tinyward/a/bin"
    slot.mkdir(parents=True)
    (slot / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (slot / "tinyward").write_text(PROGRAM.format(python=sys.executable))
    for name in ("python", "tinyward"):
        (slot / name).chmod(0o755)
    places = Places(tmp_path)
    settings = places.at(SETTINGS)
    settings.parent.mkdir(parents=True)
    settings.write_text("log_level = 'info'\n")
    return Workshop(places, slot.parent, 1.8e9)


def test_a_slot_that_works_passes(workshop: Workshop) -> None:
    """The daemon imports, a runtime is there, and the settings are right."""
    workshop.check()


def test_a_slot_without_its_packages_is_found(workshop: Workshop) -> None:
    """Whatever its Python says last is the error."""
    python = workshop.prefix / "bin/python"
    python.write_text("#!/bin/sh\necho 'No module named msgspec' >&2; exit 1\n")
    with pytest.raises(DeviceError, match="No module named msgspec") as caught:
        workshop.check()
    assert caught.value.reason == "not_installed"
    assert "Nothing was switched" in caught.value.todo
    python.unlink()
    with pytest.raises(DeviceError, match="does not run as user") as caught:
        workshop.check()
    assert "chmod -R a+rX" in caught.value.todo


def test_settings_that_the_new_version_refuses_are_found(workshop: Workshop) -> None:
    """A key that is no more, for example; the error names it."""
    workshop.places.at(SETTINGS).write_text("log_levle = 'info'\n")
    with pytest.raises(SettingsError, match="log_levle"):
        workshop.check()


def test_an_identity_is_made_once(workshop: Workshop) -> None:
    """And completed where only the key was made before the power went."""
    workshop.make_identity("door-7")
    folder = workshop.places.at(IDENTITY)
    key, request = folder / "board.key", folder / "board.csr"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = key.read_bytes()
    assert b"CERTIFICATE REQUEST" in request.read_bytes()
    request.unlink()
    workshop.make_identity("door-7")
    assert key.read_bytes() == secret
    assert b"CERTIFICATE REQUEST" in request.read_bytes()


def test_an_id_that_is_none_is_refused(workshop: Workshop) -> None:
    """Before a key is made."""
    with pytest.raises(DeviceError, match="not a name for a certificate"):
        workshop.make_identity("a/b")
    assert not workshop.places.at(IDENTITY).exists()


def test_what_is_in_a_slot_has_a_digest() -> None:
    """The same as long as pip puts nothing else there."""
    assert slot_digest() == slot_digest()
