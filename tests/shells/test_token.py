"""The token by which a fleet's server knows a board: read anew, and kept secret."""

import os
from pathlib import Path

import pytest

from agent.cli.check import find_absences
from agent.core.fleet_settings import DdiSettings
from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.fleet_link import Papers
from agent.settings import Settings, UpdateSettings
from agent.trust.token import MAX_TOKEN_BYTES, read_token, token_place

SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105 - a test's


def written(place: Path, content: bytes = SECRET.encode(), mode: int = 0o600) -> Path:
    """Write a token file."""
    place.write_bytes(content)
    place.chmod(mode)
    return place


def refused(place: Path) -> DeviceError:
    """Return why a token is not used; it is not in the message."""
    with pytest.raises(DeviceError) as caught:
        read_token(place)
    assert caught.value.reason == Reason.PERMISSION
    assert SECRET not in f"{caught.value} {caught.value.todo}"
    return caught.value


def test_a_token_is_read_with_or_without_its_newline(tmp_path: Path) -> None:
    """As editors and `echo` write it."""
    place = written(tmp_path / "token", f"{SECRET}\n".encode())
    assert read_token(place) == SECRET


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o777])
def test_what_everybody_may_read_is_no_secret(tmp_path: Path, mode: int) -> None:
    """Refused, with the command that mends it."""
    place = written(tmp_path / "token", mode=mode)
    assert "chmod 600" in refused(place).todo


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"missing\n",
        f"{SECRET}\n{SECRET}".encode(),
        f"Bearer {SECRET}".encode(),
        b"\xff" + SECRET.encode(),
        b"a" * (MAX_TOKEN_BYTES + 1),
    ],
)
def test_what_cannot_be_a_token(tmp_path: Path, content: bytes) -> None:
    """Nothing of it reaches a header, and what is there reaches no message."""
    refused(written(tmp_path / "token", content))


def test_what_is_no_file(tmp_path: Path) -> None:
    """Neither a directory nor a missing file is read, and a FIFO is not waited for."""
    refused(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe", 0o600)
    refused(tmp_path / "pipe")


@pytest.mark.parametrize("what", ["folder", "pipe", "token"])
def test_no_descriptor_is_left_open(tmp_path: Path, what: str) -> None:
    """A request a minute: whatever is there, it is closed again."""
    place = tmp_path / what
    if what == "folder":
        place.mkdir()
    elif what == "pipe":
        os.mkfifo(place, 0o600)
    else:
        written(place)
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(10):
        if what == "token":
            read_token(place)
        else:
            assert "is no file" in str(refused(place))
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("file", ["~nobody-of-that-name/token", "a\0b", "\ud800"])
def test_what_is_no_path_ends_nothing(file: str) -> None:
    """An error like that of any other token; `tinyward check` warns of other paths."""
    with pytest.raises(DeviceError, match=r"fleet\.ddi: ") as caught:
        token_place("", file, "")
    assert caught.value.reason == Reason.PERMISSION
    settings = Settings(update=UpdateSettings(ca=file))
    warned = {(key, reason) for key, _, reason in find_absences(settings, "")}
    assert ("update.ca", Reason.TLS) in warned


def test_a_credential_comes_from_the_services_directory(tmp_path: Path) -> None:
    """Outside of a service there is none, and that is said."""
    assert token_place("ddi-token", "", str(tmp_path)) == tmp_path / "ddi-token"
    assert token_place("", "", "") is None
    with pytest.raises(DeviceError, match="no service"):
        token_place("ddi-token", "", "")


def test_a_rotated_token_works_at_once(tmp_path: Path) -> None:
    """Each request asks anew, by the kind of token that the settings say."""
    place = written(tmp_path / "token")
    papers = Papers(DdiSettings(token_file=str(place)), lambda: (0.0, 0.0))
    assert papers.credentials() == f"TargetToken {SECRET}"
    written(place, SECRET[::-1].encode())
    assert papers.credentials() == f"TargetToken {SECRET[::-1]}"
    gateway = DdiSettings(token_file=str(place), gateway_token=True)
    assert Papers(gateway, lambda: (0.0, 0.0)).credentials().startswith("GatewayToken ")
    assert Papers(DdiSettings(), lambda: (0.0, 0.0)).credentials() == ""


def test_plain_http_has_no_tls_context() -> None:
    """It is for the loopback interface alone, which the address's check sees to."""
    plain = DdiSettings(url="http://127.0.0.1:8080")
    assert Papers(plain, lambda: (0.0, 0.0)).context() is None


def test_the_context_stays_while_its_files_do(tmp_path: Path) -> None:
    """A connection is kept over polls; other files begin another."""
    papers = Papers(DdiSettings(url="https://fleet.example"), lambda: (0.0, 0.0))
    first = papers.context()
    assert first is papers.context()
    wrong = DdiSettings(url="https://fleet.example", ca=str(tmp_path / "absent.pem"))
    with pytest.raises(DeviceError, match=r"fleet\.ddi\.ca") as caught:
        Papers(wrong, lambda: (0.0, 0.0)).context()
    assert caught.value.reason == Reason.CERTIFICATE
