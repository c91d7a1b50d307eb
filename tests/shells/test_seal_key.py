"""The board's private key for sealed models: its file, its credential, its silence."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.sealing import Suite
from agent.core.sealing_keys import PUBLIC_BYTES
from agent.errors import DeviceError, SettingsError
from agent.trust.seal_key import key_loader, load_seal_key, make_seal_key
from tests.fakes.sealed_bytes import SUITES, seal_bytes


@pytest.mark.parametrize("suite", SUITES)
def test_a_key_is_made_for_its_owner_alone(tmp_path: Path, suite: Suite) -> None:
    """0600 in a folder 0700; what was made is what is loaded."""
    path = tmp_path / "identity" / "seal.key"
    made = make_seal_key(path, suite)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert made.public("pi") == load_seal_key(path).public("pi")
    assert len(made.public("pi").raw) == PUBLIC_BYTES[suite]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """Whoever makes a second one is told, and the first one stays."""
    path = tmp_path / "seal.key"
    make_seal_key(path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="never overwritten"):
        make_seal_key(path)
    assert before == path.read_bytes()


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o620])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """It is no secret any more; the message says what to do, and not the key."""
    path = tmp_path / "seal.key"
    make_seal_key(path)
    path.chmod(mode)
    with pytest.raises(DeviceError, match="read by others") as caught:
        load_seal_key(path)
    assert caught.value.reason == "seal_key"
    assert "chmod 600" in caught.value.todo


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_modes_of_credentials_are_fine(tmp_path: Path, mode: int) -> None:
    """systemd gives 0400, or 0440 where the service has a user of its own."""
    path = tmp_path / "seal.key"
    made = make_seal_key(path)
    path.chmod(mode)
    assert made.public("pi") == load_seal_key(path).public("pi")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"missing\n",
        b"tinyward-secret-x25519\n",
        b"tinyward-secret-x25519 AAAA\n",
        b"tinyward-x25519 " + b"A" * 43 + b"=\n",
        b"tinyward-secret-x448 " + b"A" * 43 + b"=\n",
        b"tinyward-secret-x25519 " + b"A" * 43 + b"= pi-7\n",
        b"tinyward-secret-mlkem768-x25519 " + b"A" * 43 + b"=\n",
        b"\xff" * 100,
        b"S3cret" * 1000,
    ],
)
def test_what_is_no_key_is_refused_without_being_quoted(
    tmp_path: Path, content: bytes
) -> None:
    """Empty, another key's, too long, or what the service puts where none was given."""
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DeviceError) as caught:
        load_seal_key(path)
    assert caught.value.reason == "seal_key"
    assert caught.value.__cause__ is None
    words = content.decode("ascii", "replace").split()
    assert [it for it in words if len(it) > 20 and it in str(caught.value)] == []


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """Nothing, a folder, and a FIFO that nobody writes to."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "nothing", tmp_path, tmp_path / "fifo"):
        with pytest.raises(DeviceError) as caught:
            load_seal_key(path)
        assert caught.value.reason == "seal_key"


def test_a_credential_wins_over_a_file(tmp_path: Path) -> None:
    """It is read from the folder that systemd names, at each opening anew."""
    file, folder = tmp_path / "file.key", tmp_path / "credentials"
    make_seal_key(file)
    load = key_loader("seal", str(file), str(folder))
    with pytest.raises(DeviceError, match="does not exist"):
        load()
    made = make_seal_key(folder / "seal")
    assert made.public("pi") == load().public("pi")
    (folder / "seal").unlink()
    again = make_seal_key(folder / "seal")
    assert again.public("pi") == load().public("pi")


@pytest.mark.parametrize(
    ("credential", "file", "said"),
    [
        ("", "", "neither"),
        ("seal", "seal.key", "no service"),
        ("", "~nobody-here/seal.key", "seal.key"),
        ("", "a\0b", "no path"),
    ],
)
def test_settings_without_a_key_say_what_is_missing(
    credential: str, file: str, said: str
) -> None:
    """Also a credential outside of a service, and paths that are none."""
    with pytest.raises(DeviceError, match=said) as caught:
        key_loader(credential, file, "")()
    assert caught.value.reason == "seal_key"


# Hides a module as a library does that is too old to have it.
WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from pathlib import Path
from agent.core.sealing import Sealed, Sealing
from agent.errors import AgentError
from agent.trust.seal_key import load_seal_key
from agent.trust.unseal import Unsealer
key, content, envelope, digest, length, algorithm = sys.argv[2:]
sealed = Sealed("kws", 7, Sealing(algorithm), digest, int(length))
try:
    unsealer = Unsealer("pi-7", lambda: load_seal_key(Path(key)))
    content, envelope = (Path(it).read_bytes() for it in (content, envelope))
    unsealer.open(memoryview(content), "a" * 64, sealed, envelope)
except AgentError as err:
    print(err.reason, "|", err, "|", err.todo)
"""


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("cryptography.cobblestone", "unseal"),
        ("cryptography.hazmat.primitives.hpke", "envelope"),
    ],
)
def test_an_older_library_says_what_it_lacks(
    tmp_path: Path, module: str, reason: str
) -> None:
    """Without Cobblestone or HPKE a board refuses, and names what to install."""
    made = seal_bytes("cobblestone-256")
    files = {
        "key": made.board_key.to_line(),
        "content": made.content,
        "envelope": made.envelope(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    sealed = made.sealed
    words = [sealed.plain_sha256, str(sealed.plain_bytes), sealed.sealing.algorithm]
    command = [sys.executable, "-c", WITHOUT, module]
    command += [*(str(tmp_path / name) for name in files), *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"{reason} | ")
    assert "cryptography>=50" in said
