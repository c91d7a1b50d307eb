"""``tinyward seal``, ``identity seal`` and what ``repo`` makes of it, as typed."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.cli import cli
from agent.core.sealing_keys import parse_public_key
from agent.publish.sealed_folder import load_card, load_envelopes
from tests.fakes.bundles import good_bundle, markable_bundle


class Shell:
    """An owner's directory, with boards whose keys lie beside it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repo = str(home / "repo")
        (home / "passphrase").write_text("a long secret\n")
        for version in (1, 2):
            (home / f"kws-{version}.bundle").write_bytes(good_bundle(version))

    def run(self, *words: str, passphrase: bool = False) -> Result:
        """Run ``tinyward``."""
        more = ["--passphrase-file", str(self.home / "passphrase")] * passphrase
        return CliRunner().invoke(cli, [*words, *more])

    def say(self, *words: str, passphrase: bool = False) -> str:
        """Run a command that has to succeed; return what it printed."""
        result = self.run(*words, passphrase=passphrase)
        assert (result.exit_code, result.exception) == (0, None), result.output
        return result.stdout

    def refused(self, *words: str, passphrase: bool = False) -> str:
        """Run a command that has to fail; return what it said."""
        result = self.run(*words, passphrase=passphrase)
        assert result.exit_code in {1, 2}, result.output
        return result.stderr

    def board(self, name: str, *options: str) -> str:
        """Make a board's key; return its public file."""
        path = self.home / f"{name}.pub"
        line = self.say(
            "identity", "seal", "--name", name, "--file", self.key(name), *options
        )
        path.write_text(line)
        return str(path)

    def key(self, board: str) -> str:
        """Return where a board's private key is."""
        return str(self.home / "keys" / f"{board}.key")

    def seal(self, *boards: str, options: tuple[str, ...] = ()) -> str:
        """Seal version 1, or add boards to it."""
        folder = self.folder
        source = folder if Path(folder).exists() else str(self.home / "kws-1.bundle")
        out = [] if Path(folder).exists() else ["-o", folder]
        keys = ["--keys", str(self.home / "owner")]
        words = ["seal", source, "--to", *boards, *out, *keys, *options]
        return self.say(*words, passphrase=True)

    @property
    def folder(self) -> str:
        """Where version 1 is sealed."""
        return str(self.home / "kws-1.sealed")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def published(shell: Shell, *boards: str) -> list[str]:
    """Seal and publish version 1; return the options of ``verify``."""
    shell.seal(*(shell.board(name) for name in boards))
    shell.say("repo", "init", shell.repo, passphrase=True)
    shell.say("repo", "add", shell.repo, shell.folder)
    shell.say("repo", "assign", shell.repo, "group:all", "kws=1")
    shell.say("repo", "publish", shell.repo, passphrase=True)
    root = str(Path(shell.repo, "metadata", "1.root.json"))
    return ["--repository", shell.repo, "--root", root]


def test_a_board_makes_its_key_once(shell: Shell) -> None:
    """The second time the same line is printed; stdout holds nothing else."""
    words = ["identity", "seal", "--name", "pi-1", "--file", shell.key("pi-1")]
    first, second = shell.run(*words), shell.run(*words)
    assert first.stdout == second.stdout
    assert parse_public_key(first.stdout).board == "pi-1"
    assert ("made" in first.stderr, "there already" in second.stderr) == (True, True)
    secret = Path(shell.key("pi-1")).read_text().split()[1]
    assert secret not in first.output + second.output


def test_the_settings_name_the_key_and_the_board(shell: Shell, tmp_path: Path) -> None:
    """[seal] key and [board] id; ``identity show`` prints the same line."""
    config = tmp_path / "agent.toml"
    config.write_text(f'[board]\nid = "pi-9"\n[seal]\nkey = "{shell.key("pi-9")}"\n')
    line = shell.say("identity", "seal", "-c", str(config)).strip()
    assert parse_public_key(line).board == "pi-9"
    assert line in shell.say("identity", "show", "-c", str(config))
    Path(shell.key("pi-9")).chmod(0o644)
    assert "[seal_key]" in shell.say("identity", "show", "-c", str(config))
    config.write_text('[seal]\ncredential = "seal"\n')
    assert "--file" in shell.refused("identity", "seal", "-c", str(config))


def test_a_hybrid_key_is_another_key(shell: Shell) -> None:
    """It is not made where one of X25519 is; nor does a board take any name."""
    assert "mlkem768-x25519" in Path(shell.board("pi-1", "--hybrid")).read_text()
    shell.board("pi-2")
    words = ["identity", "seal", "--hybrid", "--file", shell.key("pi-2")]
    assert "is a key of x25519" in shell.refused(*words, "--name", "pi-2")
    words = ["identity", "seal", "--file", shell.key("pi-2"), "--name", "../pi"]
    assert "no board's id" in shell.refused(*words)


def test_a_bundle_is_sealed_once_for_all(shell: Shell) -> None:
    """One ciphertext, an envelope for each; what is said are sizes and boards."""
    boards = [shell.board("pi-1"), shell.board("pi-2"), shell.board("pi-h", "--hybrid")]
    said = shell.seal(*boards)
    assert "sealed for pi-1, pi-2, pi-h: an envelope of 80 to 1,168 bytes" in said
    assert "made the owner's key" in said
    assert f"next: tinyward repo add REPO {shell.folder}" in said
    folder = Path(shell.folder)
    assert sorted(load_envelopes(folder)) == ["pi-1", "pi-2", "pi-h"]
    assert load_card(folder).sealed.version == 1
    owner = shell.home / "owner"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in owner.iterdir()}
    assert modes.pop("seal-owner.pub") == 0o644
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize(
    ("aes", "algorithm"), [(True, "cobblestone-256"), (False, "chacha20-poly1305")]
)
def test_boards_choose_the_algorithm(
    shell: Shell, *, aes: bool, algorithm: str
) -> None:
    """Cobblestone only if each board says that its CPU computes AES."""
    boards = [Path(shell.board(name)) for name in ("pi-1", "pi-2")]
    words = [path.read_text().split()[:3] for path in boards]
    boards[0].write_text(" ".join([*words[0], "aes"]))
    boards[1].write_text(" ".join([*words[1], *["aes"] * aes]))
    shell.seal(*map(str, boards))
    assert load_card(Path(shell.folder)).sealed.sealing.algorithm == algorithm


def test_a_board_is_added_without_encrypting_again(shell: Shell) -> None:
    """The ciphertext stays; the passphrase of the owner's key is needed."""
    shell.seal(shell.board("pi-1"))
    content = Path(shell.folder, "bundle").read_bytes()
    said = shell.seal(shell.board("pi-2"))
    assert "2 boards have one altogether" in said
    assert content == Path(shell.folder, "bundle").read_bytes()
    said = shell.seal(shell.board("pi-2"))
    assert "pi-2 had one already" in said
    (shell.home / "passphrase").write_text("another secret\n")
    words = ["seal", shell.folder, "--to", shell.board("pi-3")]
    words += ["--keys", str(shell.home / "owner")]
    assert "does not open" in shell.refused(*words, passphrase=True)
    assert "pi-3" not in load_envelopes(Path(shell.folder))


def test_a_lost_public_half_is_written_again(shell: Shell) -> None:
    """The private half stays: what was sealed before still takes boards."""
    shell.seal(shell.board("pi-1"))
    keys = shell.home / "owner"
    private = (keys / "seal-owner.pem").read_bytes()
    (keys / "seal-owner.pub").unlink()
    out = ("--keys", str(keys), "-o", str(shell.home / "kws-2.sealed"))
    to = ("--to", shell.board("pi-2"))
    said = shell.say(
        "seal", str(shell.home / "kws-2.bundle"), *to, *out, passphrase=True
    )
    assert "wrote the public half of the owner's key" in said
    assert private == (keys / "seal-owner.pem").read_bytes()
    shell.seal(str(shell.home / "pi-2.pub"))
    assert {"pi-1", "pi-2"} == set(load_envelopes(Path(shell.folder)))


def test_another_passphrase_replaces_no_key(shell: Shell) -> None:
    """Who mistypes it where the public half is lost is refused, and loses nothing."""
    shell.seal(shell.board("pi-1"))
    keys = shell.home / "owner"
    before = (keys / "seal-owner.pem").read_bytes()
    (keys / "seal-owner.pub").unlink()
    (shell.home / "passphrase").write_text("another one\n")
    words = ("seal", str(shell.home / "kws-2.bundle"), "--to", shell.board("pi-2"))
    said = shell.refused(*words, "--keys", str(keys), passphrase=True)
    assert "the passphrase does not open" in said
    assert before == (keys / "seal-owner.pem").read_bytes()


def test_a_forgotten_key_adds_nobody(shell: Shell) -> None:
    """Asked for, said, and remembered when a board is to be added."""
    said = shell.seal(shell.board("pi-1"), options=("--forget-key",))
    assert "no board can be added later" in said
    assert not (shell.home / "owner").exists()
    words = ["seal", shell.folder, "--to", shell.board("pi-2")]
    words += ["--keys", str(shell.home / "owner")]
    assert shell.run(*words, passphrase=True).exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kws-1.bundle", "--to", "kws-2.bundle"), "not a public key"),
        (("kws-1.bundle", "kws-2.bundle", "--to", "pi-1.pub"), "instead of one"),
        (("pi-1.pub", "--to", "pi-1.pub"), "0 bundles"),
        (("kws-1.bundle", "--to", "pi-1.pub", "again.pub"), "two keys are of pi-1"),
        (("keys", "--to", "pi-1.pub"), "is no sealed bundle"),
        (("passphrase", "--to", "pi-1.pub"), "bundle: it"),
        (("kws-1.bundle", "--to", "secret.pub"), "not a public key"),
    ],
)
def test_what_cannot_be_sealed_is_refused(
    shell: Shell, words: tuple[str, ...], said: str
) -> None:
    """Not one bundle, no key, two keys of one board; nothing is left behind."""
    public = Path(shell.board("pi-1"))
    (shell.home / "again.pub").write_text(public.read_text())
    (shell.home / "secret.pub").write_bytes(Path(shell.key("pi-1")).read_bytes())
    before = sorted(os.listdir(shell.home))  # noqa: PTH208 - names alone
    named = [it if it == "--to" else str(shell.home / it) for it in words]
    out = ["-o", str(shell.home / "out"), "--keys", str(shell.home / "owner")]
    stderr = shell.refused("seal", *named, *out, passphrase=True)
    assert said in stderr
    secret = Path(shell.key("pi-1")).read_text().split()[1]
    assert secret not in stderr
    assert before == sorted(os.listdir(shell.home))  # noqa: PTH208


def test_an_existing_folder_is_not_overwritten(shell: Shell) -> None:
    """Whoever means to add a board is told how."""
    public = shell.board("pi-1")
    shell.seal(public)
    words = ["seal", str(shell.home / "kws-1.bundle"), "--to", public]
    words += ["-o", shell.folder, "--keys", str(shell.home / "owner")]
    assert "To add boards" in shell.refused(*words)


def test_a_sealed_version_is_published_with_its_envelopes(shell: Shell) -> None:
    """Signed with its plain digest; served below ``envelopes``; verified unopened."""
    options = published(shell, "pi-1", "pi-2")
    card = load_card(Path(shell.folder))
    status = json.loads(shell.say("repo", "status", shell.repo, "--json"))
    fields = status["bundles"][0]["fields"]
    assert fields["sealed"] == {"algorithm": card.sealed.sealing.algorithm}
    assert fields["plain_sha256"] == card.sealed.plain_sha256
    assert status["envelopes"] == {"models/kws/1.bundle": 2}
    assert Path(shell.repo, "envelopes/kws/1/pi-1").stat().st_size == 80
    said = shell.say("verify", shell.folder, *options)
    assert "was not opened" in said
    assert json.loads(shell.say("verify", shell.folder, *options, "--json"))["ok"]


def test_a_board_s_key_opens_what_is_verified_and_inspected(shell: Shell) -> None:
    """With its own id; with another's it is refused, and the reason says why."""
    options = published(shell, "pi-1", "pi-2")
    mine = ["--seal-key", shell.key("pi-1"), "--board", "pi-1"]
    assert "opened as pi-1" in shell.say("verify", shell.folder, *options, *mine)
    theirs = ["--seal-key", shell.key("pi-1"), "--board", "pi-2"]
    result = shell.run("verify", shell.folder, *options, *theirs)
    assert (result.exit_code, "[envelope]" in result.stdout) == (1, True)
    stranger = ["--seal-key", shell.key("pi-1"), "--board", "pi-3"]
    result = shell.run("verify", shell.folder, *options, *stranger)
    assert "not sealed for pi-3" in result.stdout
    assert "pi-1, pi-2" in shell.say("inspect", shell.folder)
    assert "[envelope]" in shell.refused("inspect", shell.folder, *theirs)


def test_a_changed_ciphertext_is_found_everywhere(shell: Shell) -> None:
    """By ``repo add``, ``inspect`` and ``verify``, before any key is asked for."""
    options = published(shell, "pi-1")
    path = Path(shell.folder, "bundle")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert "[digest]" in shell.refused("inspect", shell.folder)
    other = str(shell.home / "other")
    shell.say("repo", "init", other, passphrase=True)
    assert "[digest]" in shell.refused("repo", "add", other, shell.folder)
    result = shell.run("verify", shell.folder, *options)
    assert "sealed and not published" in result.stdout.replace("\n     ", " ")


def test_what_brings_triggers_is_published_sealed(shell: Shell) -> None:
    """In clear they would be everybody's: neither ``repo add`` nor ``seal`` does it."""
    path = shell.home / "kws-1.marked.bundle"
    path.write_bytes(markable_bundle(version=1))
    shell.say("repo", "init", shell.repo, passphrase=True)
    said = shell.refused("repo", "add", shell.repo, str(path))
    assert ("[watermark]" in said, "--marks" in said) == (True, True)
    words = ("seal", str(path), "--to", shell.board("pi-1"))
    assert "--marks" in shell.refused(*words, passphrase=True)


def test_a_board_added_later_needs_no_signature(shell: Shell) -> None:
    """Its envelope is taken in; nothing is staged, and boards see it at once."""
    published(shell, "pi-1")
    shell.seal(shell.board("pi-2"))
    said = shell.say("repo", "add", shell.repo, shell.folder)
    assert "there already" in said
    assert "1 new of 2: pi-2" in said
    status = json.loads(shell.say("repo", "status", shell.repo, "--json"))
    assert (status["staged"]["bundles"], status["envelopes"]) == (
        {},
        {"models/kws/1.bundle": 2},
    )


def test_a_revoked_board_gets_no_new_envelope(shell: Shell) -> None:
    """What it had is removed, none is taken in, until that is taken back."""
    published(shell, "pi-1", "pi-2")
    said = shell.say("repo", "revoke", shell.repo, "--board", "pi-2")
    assert "1 of its envelopes removed" in said
    assert not Path(shell.repo, "envelopes/kws/1/pi-2").exists()
    said = shell.say("repo", "add", shell.repo, shell.folder)
    assert "no envelope for pi-2: the board was revoked" in said
    assert not Path(shell.repo, "envelopes/kws/1/pi-2").exists()
    assert "pi-2" in shell.say("repo", "status", shell.repo)
    shell.say("repo", "revoke", shell.repo, "--board", "pi-2", "--undo")
    assert "1 new of 2" in shell.say("repo", "add", shell.repo, shell.folder)
    words = ["repo", "revoke", shell.repo, "--board"]
    assert "never withdrawn" in shell.refused(*words, "pi-2", "--undo")
    assert "board '../x'" in shell.refused(*words, "../x")


def test_a_slice_carries_the_envelopes_that_are_wanted(shell: Shell) -> None:
    """All of them, or one board's; nobody's is refused."""
    published(shell, "pi-1", "pi-2")
    for board, expected in (("", ["pi-1", "pi-2"]), ("pi-2", ["pi-2"])):
        out = shell.home / f"slice{board}"
        options = ["--board", board] if board else []
        said = shell.say("repo", "export", shell.repo, str(out), *options)
        assert f"{len(expected)} envelopes" in said
        assert sorted(p.name for p in (out / "envelopes/kws/1").iterdir()) == expected
    words = ["repo", "export", shell.repo, str(shell.home / "none"), "--board", "pi-3"]
    assert "nothing that goes along is sealed for pi-3" in shell.refused(*words)
    assert not (shell.home / "none").exists()


def test_deltas_of_sealed_versions_are_refused(shell: Shell) -> None:
    """To one, and from one: ciphertexts have nothing in common."""
    published(shell, "pi-1")
    plain = str(shell.home / "kws-2.bundle")
    for source in (plain, shell.folder):
        words = ["repo", "add", shell.repo, source, "--delta-from", "1"]
        assert "have nothing in common" in shell.refused(*words)
    status = json.loads(shell.say("repo", "status", shell.repo, "--json"))
    assert status["staged"]["bundles"] == {}


def test_an_origin_is_checked_where_it_can_be_read(shell: Shell) -> None:
    """``seal`` asks for it; ``repo add`` of what is sealed says who can."""
    public = Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (shell.home / "origin.pem").write_bytes(pem)
    key = ["--provenance-key", str(shell.home / "origin.pem")]
    words = ["seal", str(shell.home / "kws-1.bundle"), "--to", shell.board("pi-1")]
    words += ["-o", shell.folder, "--keys", str(shell.home / "owner")]
    assert "[provenance]" in shell.refused(*words, *key, passphrase=True)
    assert not Path(shell.folder).exists()
    published(shell, "pi-1")
    said = shell.refused("repo", "add", shell.repo, shell.folder, *key)
    assert "tinyward seal --provenance-key" in said


def test_plain_bundles_are_signed_as_before(shell: Shell) -> None:
    """Agents that never heard of sealing refuse a field that they do not know."""
    shell.say("repo", "init", shell.repo, passphrase=True)
    shell.say("repo", "add", shell.repo, str(shell.home / "kws-1.bundle"))
    shell.say("repo", "publish", shell.repo, passphrase=True)
    raw = Path(shell.repo, "metadata", "2.targets.json").read_bytes()
    (target,) = json.loads(raw)["signed"]["targets"].values()
    assert "sealed" not in target["custom"]


def test_a_folder_with_a_strange_envelope_is_refused(shell: Shell) -> None:
    """A name that is no board's, an empty file, one that is too long."""
    published(shell, "pi-1")
    Path(shell.folder, "envelopes", ".pi-2.tmp").write_bytes(b"left by a crash")
    for name, size in (("-x", 80), ("a b", 80), ("pi-3", 0), ("pi-3", 9_000_000)):
        strange = Path(shell.folder, "envelopes", name)
        strange.write_bytes(bytes(size))
        assert "no envelope" in shell.refused("repo", "add", shell.repo, shell.folder)
        strange.unlink()
