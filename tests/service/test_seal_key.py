"""A board's key for sealed models as the service gets it: in clear, and encrypted."""

from tests.service.board import ServiceBoard

KEY, ENCRYPTED = "/etc/tinyward/seal.key", "/etc/tinyward/seal.key.cred"
FOLDER = "/etc/systemd/system/tinyward.service.d"
SHIPPED, OWN = f"{FOLDER}/tinyward-seal.conf", f"{FOLDER}/zz-seal-key.conf"
GIVEN = "/run/credentials/tinyward.service/seal-key"
NAMED = '\n[seal]\ncredential = "seal-key"\n'


def test_a_key_is_given_in_clear_and_then_encrypted(board: ServiceBoard) -> None:
    """As the shipped drop-in says: what is read later counts, and the file may go."""
    machine = board.machine
    try:
        board.write_settings(board.settings + NAMED)
        board.tinyward("identity", "seal", "--file", KEY, "--name", "pi-1")
        key = machine.path(KEY).read_bytes()
        board.tinyward("install", "--with", "seal")
        board.wait_answers()
        assert machine.path(GIVEN).read_bytes() == key
        said = " ".join(board.tinyward("doctor", check=False).split())
        assert "in clear on this card" in said
        machine.run("systemd-creds", "encrypt", "--name=seal-key", KEY, ENCRYPTED)
        machine.run("rm", KEY)
        line = f"LoadCredentialEncrypted=seal-key:{ENCRYPTED}"
        machine.path(OWN).write_text(f"[Service]\n{line}\n", encoding="ascii")
        board.systemctl("daemon-reload")
        board.start_anew()
        board.wait_answers()
        assert machine.path(GIVEN).read_bytes() == key
        assert key not in machine.path(ENCRYPTED).read_bytes()
        said = " ".join(board.tinyward("doctor", check=False).split())
        assert "in clear on this card" not in said
    finally:
        for path in (KEY, ENCRYPTED, OWN, SHIPPED):
            machine.path(path).unlink(missing_ok=True)
        board.systemctl("daemon-reload")
        board.start_anew()
