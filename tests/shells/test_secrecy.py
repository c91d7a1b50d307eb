"""No core dump, no debugger, no swap: what the daemon does, and what doctor sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.findings import Finding
from agent.cli.seal_trouble import find_seal_trouble, look_at_sealing
from agent.core.protect_settings import SealSettings
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.settings import Settings, parse_settings
from agent.trust.seal_key import make_seal_key

PRIVATE = """
import ctypes, os, resource, sys
from agent.board.secrecy import keep_memory_private
keep_memory_private()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
print(resource.getrlimit(resource.RLIMIT_CORE))
print(len(os.listdir("/proc/self/fd")) > 0, open("/proc/self/statm").read() != "")
sys.stdout.flush()
os.execv("/bin/sh", ["sh", "-c", "ulimit -c; cat /proc/self/coredump_filter"])
"""


def test_memory_is_private_and_children_inherit_it() -> None:
    """Not dumpable, no core; a child has the limit and a filter that lets none in."""
    done = subprocess.run(
        [sys.executable, "-c", PRIVATE], capture_output=True, text=True, check=True
    )
    dumpable, limit, reads, core, mappings = done.stdout.splitlines()
    assert (dumpable, limit, reads) == ("0", "(0, 0)", "True True")
    assert (core, int(mappings, 16)) == ("0", 0)


def test_two_keys_are_a_mistake() -> None:
    """Nobody could say which one opens what; either alone is fine."""
    with pytest.raises(SettingsError, match=r"seal.key and seal.credential"):
        parse_settings(b'[seal]\nkey = "/x"\ncredential = "seal-key"\n')
    assert parse_settings(b'[seal]\nkey = "/x"\n').seal == SealSettings(key="/x")


# --- doctor


def board(root: Path, swaps: str = "", limit: str | None = None) -> Path:
    """Lay out what doctor looks at: a daemon of number 7, swap, its group's limit."""
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/swaps").write_text("Filename Type Size Used Priority\n" + swaps)
    (root / "proc/7/limits").write_text(
        "Max core file size        0        0    bytes\n"
    )
    if limit is not None:
        group = root / "sys/fs/cgroup/system.slice/tinyward.service"
        group.mkdir(parents=True)
        (group / "memory.swap.max").write_text(f"{limit}\n")
    return root


def looked(root: Path, key: Path | None = None, credential: str = "") -> list[Finding]:
    """Return what doctor says of a board."""
    seal = SealSettings(key=str(key or ""), credential=credential)
    settings = Settings(seal=seal)
    return list(look_at_sealing(settings, os.geteuid(), lambda: [7], root))


def marks(findings: list[Finding]) -> list[str]:
    """Return the marks of findings."""
    return [finding.mark for finding in findings]


def test_a_board_that_seals_nothing_may_swap(tmp_path: Path) -> None:
    """Nothing is said, and nothing is looked at."""
    assert looked(tmp_path / "nowhere") == []


def test_a_board_that_is_well(tmp_path: Path) -> None:
    """A private key, no core, no swap; with swap, a service that has none."""
    key = tmp_path / "seal.key"
    make_seal_key(key)
    well = ["green", "yellow", "green", "green"]  # but for the card it lies on
    assert marks(looked(board(tmp_path / "1"), key)) == well
    zram = "/dev/zram0 partition 100 0 100\n"
    assert marks(looked(board(tmp_path / "2", zram), key)) == well
    disk = board(tmp_path / "3", "/swapfile file 100 0 -2\n", "0")
    assert marks(looked(disk, key)) == well


def test_what_may_leave_a_model_is_told(tmp_path: Path) -> None:
    """A key that others read, a daemon that dumps, a swap file: each with a way out."""
    key = tmp_path / "seal.key"
    make_seal_key(key)
    key.chmod(0o644)
    root = board(tmp_path / "root", "/var/swap file 100 0 -2\n", "max")
    (root / "proc/7/limits").write_text(
        "Max core file size        unlimited            unlimited            bytes\n"
    )
    found = looked(root, key)
    assert marks(found) == ["red", "yellow", "yellow", "yellow"]
    assert all(finding.todo for finding in found)
    assert "/var/swap" in found[3].what
    secret = key.read_text().split()[1]
    assert not any(secret in finding.what + finding.todo for finding in found)


def test_a_credential_is_looked_for_where_systemd_puts_it(tmp_path: Path) -> None:
    """Where it is not seen, that is said; a service that does not run has none."""
    root = board(tmp_path / "root")
    unseen = looked(root, credential="seal-key")
    assert (unseen[0].mark, "not seen from here" in unseen[0].what) == ("yellow", True)
    place = root / "run/credentials/tinyward.service/seal-key"
    place.parent.mkdir(parents=True)
    make_seal_key(place)
    assert looked(root, credential="seal-key")[0].mark == "green"


def test_whose_card_is_stolen_is_told(tmp_path: Path) -> None:
    """In clear, encrypted by a key of the same card, or by a TPM's; a file is clear."""
    root = board(tmp_path / "root")
    clear, encrypted = (root / f"etc/tinyward/seal.key{end}" for end in ("", ".cred"))
    clear.parent.mkdir(parents=True)

    def said() -> tuple[str, str]:
        finding = looked(root, credential="seal-key")[1]
        return finding.mark, finding.what

    assert "not seen" in said()[1]
    clear.write_text("a key")
    assert (said()[0], "in clear on this card" in said()[1]) == ("yellow", True)
    assert "systemd-creds encrypt" in looked(root, credential="seal-key")[1].todo
    encrypted.write_text("a credential")
    assert "in clear" in said()[1]  # as long as both are there
    clear.unlink()
    assert (said()[0], "credential.secret" in said()[1]) == ("yellow", True)
    (root / "sys/class/tpmrm/tpmrm0").mkdir(parents=True)
    assert said()[0] == "green"
    key = tmp_path / "seal.key"
    make_seal_key(key)
    assert "in clear" in looked(root, key)[1].what


@pytest.mark.parametrize("spoil", ["absent", "open", "damaged", "folder"])
def test_check_warns_of_a_key_that_cannot_be_used(tmp_path: Path, spoil: str) -> None:
    """``tinyward check`` says why before the daemon does, and shows nothing of it."""
    key = tmp_path / "seal.key"
    if spoil == "folder":
        key.mkdir()
    elif spoil != "absent":
        make_seal_key(key)
        key.chmod(0o644 if spoil == "open" else 0o600)
    if spoil == "damaged":
        key.write_text("tinyward-secret-x25519 c2VjcmV0\n")
    rows = list(find_seal_trouble(Settings(seal=SealSettings(key=str(key)))))
    assert [(name, why) for name, _, why in rows] == [("seal.key", Reason.SEAL_KEY)]
    assert "c2VjcmV0" not in rows[0][1]
    assert list(find_seal_trouble(Settings())) == []
