"""``tinyward ca`` and ``tinyward identity`` from outside, up to a renewal over TLS."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from agent.cli import cli
from agent.cli.ca import show_request
from agent.publish.signing_requests import BoardRequest
from agent.settings import parse_settings
from tests.fakes.identity_server import IdentityServer
from tests.fakes.papers import DAY_S, Files, Papers, shake_hands


@pytest.mark.parametrize("name", ["init", "sign", "issue", "renew"])
def test_help_names_no_option_that_is_not_there(name: str) -> None:
    """A CA has one key: there is no ``--keys`` whose order could matter."""
    shown = CliRunner().invoke(cli, ["ca", name, "--help"]).stdout
    assert "--passphrase-file" in shown
    assert "--keys" not in shown


class Shell:
    """A CA with a passphrase, and the command line."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ca = home / "CA"
        self.passphrase = home / "passphrase"
        self.passphrase.write_text("a secret\n")
        self.say("ca", "init", str(self.ca), *self.secret)

    @property
    def secret(self) -> tuple[str, str]:
        """The option with the passphrase."""
        return "--passphrase-file", str(self.passphrase)

    def run(self, *words: str) -> Result:
        """Run ``tinyward ...``."""
        return CliRunner().invoke(cli, words)

    def say(self, *words: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        result = self.run(*words)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    def fail(self, *words: str) -> tuple[int, str]:
        """Run a command that has to fail; return its exit code and what it said."""
        result = self.run(*words)
        assert "error: " in result.stderr
        return result.exit_code, result.stderr

    def board(self, name: str = "pi-7") -> Files:
        """Make a board's key and have it signed."""
        folder = self.home / name
        named = ("--name", name, "--dns", "localhost", "--ip", "127.0.0.1")
        self.say("identity", "init", "--dir", str(folder), *named)
        csr, crt = folder / "board.csr", folder / "board.crt"
        self.say("ca", "sign", str(self.ca), str(csr), "-o", str(crt), *self.secret)
        return Files(crt, folder / "board.key")

    def operator(self, role: str = "operator") -> Files:
        """Issue a client's certificate."""
        out = str(self.home / role)
        who = ("--role", role, "--name", "alice", "-o", out)
        self.say("ca", "issue", str(self.ca), *who, *self.secret)
        return Files(Path(f"{out}.crt"), Path(f"{out}.key"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_from_init_to_a_handshake(shell: Shell) -> None:
    """Three commands on two machines, and board and operator trust each other."""
    board, operator = shell.board(), shell.operator()
    assert shake_hands(board, operator, shell.ca / "ca.crt") == ("", "")
    listed = shell.say("ca", "list", str(shell.ca)).splitlines()
    assert [line.split()[1:3] for line in listed] == [
        ["board", "pi-7"],
        ["operator", "alice"],
    ]
    assert listed[0].endswith("90 days left")
    lines = json.loads(shell.say("ca", "list", str(shell.ca), "--json"))
    assert [line["serial"] for line in lines] == [line.split()[0] for line in listed]
    ca = shell.home / "operator.ca.crt"
    assert ca.read_bytes() == (shell.ca / "ca.crt").read_bytes()


def test_the_settings_that_are_printed_are_settings(shell: Shell) -> None:
    """What ``identity init`` prints can be pasted into agent.toml."""
    folder = shell.home / "pi-7"
    said = shell.say("identity", "init", "--dir", str(folder), "--name", "pi-7")
    lines = said.partition("[board]")[2]
    settings = parse_settings(f"[board]{lines}".encode())
    assert settings.board.id == "pi-7"
    assert Path(settings.control.key) == folder / "board.key"
    assert settings.control.client_ca.endswith("ca.crt")


def test_a_key_is_never_made_twice(shell: Shell) -> None:
    """The second init is refused and says how to see the request again."""
    shell.board()
    folder = shell.home / "pi-7"
    key = (folder / "board.key").read_bytes()
    code, said = shell.fail("identity", "init", "--dir", str(folder))
    assert (code, "identity csr" in said) == (2, True)
    assert key == (folder / "board.key").read_bytes()


def test_the_request_can_be_printed_again(shell: Shell) -> None:
    """Before there is a certificate the stored one, after it a fresh one, or new names.

    All of them are for the same key.
    """
    folder = shell.home / "pi-7"
    directory = ("--dir", str(folder))
    first = shell.say("identity", "init", *directory, "--name", "pi-7")
    printed = shell.say("identity", "csr", *directory)
    assert printed.encode() == (folder / "board.csr").read_bytes()
    key = first.partition("key sha256 ")[2].split()[0]
    renamed = shell.say(
        "identity", "csr", *directory, "--name", "pi-7", "--dns", "pi-7.lan"
    )
    csr = shell.home / "new.csr"
    csr.write_text(renamed)
    out = str(folder / "board.crt")
    said = shell.say("ca", "sign", str(shell.ca), str(csr), "-o", out, *shell.secret)
    assert ("pi-7.lan" in said, f"key sha256 {key}" in said) == (True, True)
    csr.write_text(shell.say("identity", "csr", *directory))
    said = shell.say("ca", "sign", str(shell.ca), str(csr), "-o", out, *shell.secret)
    assert "pi-7.lan" in said
    (folder / "board.key").unlink()
    assert shell.fail("identity", "csr", *directory)[0] == 1


def test_a_board_cannot_be_called_anything(shell: Shell) -> None:
    """An id that no path can have is refused before a key is made."""
    folder = shell.home / "bad"
    code, said = shell.fail("identity", "init", "--dir", str(folder), "--name", "a/b")
    assert (code, "'a/b'" in said) == (2, True)
    assert not folder.exists()


def test_certificates_are_shown(shell: Shell) -> None:
    """A file, or those of the settings; for people and as JSON."""
    board = shell.board()
    shown = shell.say("identity", "show", str(board.certificate))
    for word in ("CN=pi-7", "DNS:localhost", "clientAuth serverAuth", "90 days left"):
        assert word in shown
    config = shell.home / "agent.toml"
    files = f'certificate = "{board.certificate}"\nkey = "{board.key}"\n'
    config.write_text(f"[update]\n{files}")
    [found] = json.loads(shell.say("identity", "show", "-c", str(config), "--json"))
    [line] = json.loads(shell.say("ca", "list", str(shell.ca), "--json"))
    assert (found["serial"], found["ends"]) == (line["serial"], line["ends"])
    assert round(found["days_left"]) == 90
    config.write_text("")
    assert shell.fail("identity", "show", "-c", str(config))[0] == 2
    assert shell.fail("identity", "show", str(board.key))[0] == 1
    assert shell.fail("identity", "show", str(shell.home / "nothing"))[0] == 1


def test_a_foreign_certificate_drives_no_terminal(tmp_path: Path, now: float) -> None:
    """Its names may hold what retitles a window or clears the screen."""
    key = ed25519.Ed25519PrivateKey.generate()
    evil = "door\x1b]0;owned\x07\x1b[2J\u202e"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, evil)])
    begin = datetime.fromtimestamp(now, UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=9))
        .sign(key, None)
    )
    file = tmp_path / "foreign.pem"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    shown = CliRunner().invoke(cli, ["identity", "show", str(file)], color=True)
    assert shown.exit_code == 0
    assert "CN=door?]0\\;owned??[2J?" in shown.stdout
    assert all(sign.isprintable() for sign in shown.stdout.replace("\n", ""))


def test_a_request_to_be_signed_drives_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who signs reads what the board wrote; nothing else happens."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    show_request(BoardRequest("door\x1b[2J", (x509.DNSName("a\x07"),), key, "ab"))
    said = capsys.readouterr().out
    assert ("board door?[2J asks" in said, "a?" in said) == (True, True)


def test_an_ended_certificate_is_an_error(tmp_path: Path, now: float) -> None:
    """It is shown, and the exit code says that something has to be done."""
    files = Papers(tmp_path, now).board(days=1, begin=now - 3 * DAY_S)
    result = CliRunner().invoke(cli, ["identity", "show", str(files.certificate)])
    assert (result.exit_code, "-2 days left" in result.stdout) == (1, True)
    assert "has ended [certificate]" in result.stderr


@pytest.fixture
def now() -> float:
    """The real time: commands read the clock themselves."""
    return time.time()  # noqa: TID251 - commands read it too


def test_nothing_is_signed_with_a_wrong_passphrase(shell: Shell) -> None:
    """Neither a certificate nor a line in the book."""
    shell.passphrase.write_text("another secret")
    out = str(shell.home / "x")
    who = ("--role", "operator", "--name", "x", "-o", out)
    code, said = shell.fail("ca", "issue", str(shell.ca), *who, *shell.secret)
    assert (code, "does not open" in said) == (2, True)
    assert "nothing was issued" in shell.say("ca", "list", str(shell.ca))
    assert list(shell.home.glob("x*")) == []


def test_what_is_wrong_with_a_request_is_said_before_a_passphrase(
    shell: Shell,
) -> None:
    """A damaged request, a directory that is no CA, a role that does not exist."""
    csr, out = shell.home / "bad.csr", str(shell.home / "out.crt")
    csr.write_text("rubbish")
    code, said = shell.fail("ca", "sign", str(shell.ca), str(csr), "-o", out)
    assert (code, "[certificate]" in said) == (1, True)
    code, said = shell.fail("ca", "list", str(shell.home))
    assert (code, "ca init" in said) == (2, True)
    result = shell.run("ca", "issue", str(shell.ca), "--role", "root", "--name", "x")
    assert (result.exit_code, Path(out).exists()) == (2, False)


def test_a_clients_key_is_never_overwritten(shell: Shell) -> None:
    """Issuing again wants another name for its files."""
    files = shell.operator()
    assert files.key.stat().st_mode & 0o777 == 0o600
    who = ("--role", "observer", "--name", "bob", "-o", str(shell.home / "operator"))
    code, said = shell.fail("ca", "issue", str(shell.ca), *who, *shell.secret)
    assert (code, "never overwritten" in said) == (2, True)


def test_another_key_for_a_board_wants_a_word(shell: Shell) -> None:
    """A second key for an id is refused unless it is said that it was made anew."""
    shell.board()
    second = shell.home / "second"
    shell.say("identity", "init", "--dir", str(second), "--name", "pi-7")
    sign = ("ca", "sign", str(shell.ca), str(second / "board.csr"))
    out = ("-o", str(second / "board.crt"), *shell.secret)
    code, said = shell.fail(*sign, *out)
    assert (code, "--replace" in said) == (1, True)
    shell.say(*sign, *out, "--replace")


def listen(shell: Shell, board: Files) -> IdentityServer:
    """Return a board's listener."""
    from agent.trust.identity import Identity

    ca = shell.ca / "ca.crt"
    identity = Identity(board.certificate, board.key, board="pi-7", cas=[ca])
    return IdentityServer(identity, ca)


def renewal(shell: Shell, address: str, client: Files) -> tuple[str, ...]:
    """Return the command that renews the board at an address."""
    files = ("--cert", str(client.certificate), "--key", str(client.key))
    return ("ca", "renew", str(shell.ca), address, *files, *shell.secret)


def test_a_running_board_is_renewed(shell: Shell) -> None:
    """Over mTLS: its own request, signed, installed, and entered into the book."""
    board, operator = shell.board(), shell.operator()
    before = board.certificate.read_bytes()
    server = listen(shell, board)
    with server.running() as address:
        named = f"pi-7@{address.replace('127.0.0.1', '127.0.0.2')}"
        said = shell.say(*renewal(shell, named, operator), "--days", "120")
    assert "pi-7: valid until" in said
    assert server.asked == ["GET /v1/identity", "PUT /v1/identity/certificate"]
    assert before != board.certificate.read_bytes()
    assert shake_hands(board, operator, shell.ca / "ca.crt") == ("", "")
    assert "120 days left" in shell.say("identity", "show", str(board.certificate))
    assert len(json.loads(shell.say("ca", "list", str(shell.ca), "--json"))) == 3


def test_42_a_renewal_is_for_the_key_that_is_shown(shell: Shell) -> None:
    """A board that asks for another key, or another board's name, gets nothing."""
    board, operator = shell.board(), shell.operator()
    other = shell.board("pi-8")
    for folder in (other.key.parent, shell.home / "fresh"):
        if not folder.exists():
            words = ("--dir", str(folder), "--name", "pi-7")
            shell.say("identity", "init", *words)
        server = listen(shell, board)
        server.instead = (folder / "board.csr").read_bytes()
        with server.running() as address:
            code, said = shell.fail(*renewal(shell, address, operator))
        assert (code, "not for the key" in said) == (1, True)
        assert server.asked == ["GET /v1/identity"]


def test_a_board_that_does_not_take_it_is_noticed(shell: Shell) -> None:
    """Its refusal is shown; a certificate that did not get there is no success."""
    board, operator = shell.board(), shell.operator()
    server = listen(shell, board)
    with server.running() as address:
        code, said = shell.fail(*renewal(shell, address, operator), "--days", "10")
        assert (code, "ends no later" in said) == (1, True)
        server.forgets = True
        code, said = shell.fail(*renewal(shell, address, operator), "--days", "120")
        assert (code, "did not take" in said) == (1, True)


def test_42_a_renewal_meets_only_boards_of_its_ca(shell: Shell) -> None:
    """A board of another CA is not asked; without a certificate nobody is let in."""
    board, operator = shell.board(), shell.operator()
    (shell.home / "other").mkdir()
    other = Shell(shell.home / "other")
    stranger = other.board()
    server = listen(other, stranger)
    with server.running() as address:
        code, said = shell.fail(*renewal(shell, address, operator))
    assert (code, "[certificate]" in said, server.asked) == (1, True, [])
    server = listen(shell, board)
    with server.running() as address:
        foreign = other.operator()
        code, _ = shell.fail(*renewal(shell, address, foreign))
    assert (code, server.asked) == (1, [])
