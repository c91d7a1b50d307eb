"""What is amiss where sealed models are to be opened: the key, core dumps and swap.

The rules this module keeps:
 * Nothing of a key is shown; whether it is one, and whose, is found by reading it.
 * A credential lies where only the service sees it: that is said, and nothing guessed.
 * A key on the card it is to protect is told: in clear, or encrypted by a key that lies
   on the same card, which a TPM's does not.
 * What a board does not seal is not judged: it may swap as it likes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agent.cli.findings import Finding
from agent.core.reasons import Reason
from agent.errors import AgentError
from agent.settings import Settings

SERVED = "run/credentials/tinyward.service"
SWAP_MAX = "sys/fs/cgroup/system.slice/tinyward.service/memory.swap.max"
# Where `tinyward install --with seal` and its drop-in look for the key.
CLEAR, ENCRYPTED = "etc/tinyward/seal.key", "etc/tinyward/seal.key.cred"
HOST_KEY, TPM = "var/lib/systemd/credential.secret", "sys/class/tpmrm"
ENCRYPT = (
    "systemd-creds encrypt --name=seal-key /etc/tinyward/seal.key "
    "/etc/tinyward/seal.key.cred && rm /etc/tinyward/seal.key; then in "
    "/etc/systemd/system/tinyward.service.d/zz-seal-key.conf, under [Service]: "
    "LoadCredentialEncrypted=seal-key:/etc/tinyward/seal.key.cred"
)
WITH_SEAL = "`tinyward install --with seal` keeps the service out of it."


def find_seal_trouble(settings: Settings) -> Iterator[tuple[str, str, Reason]]:
    """Yield (key, what is wrong, reason) of a key that cannot be used as it is."""
    from agent.trust.seal_key import load_seal_key

    if not settings.seal.key:
        return
    try:
        load_seal_key(Path(settings.seal.key).expanduser())
    except (AgentError, RuntimeError) as err:
        reason = Reason(err.reason) if isinstance(err, AgentError) else Reason.SEAL_KEY
        yield "seal.key", str(err), reason


def look_at_sealing(
    settings: Settings,
    user: int,
    daemons: Callable[[], Sequence[int]],
    root: Path = Path("/"),
) -> Iterator[Finding]:
    """Look at the key for sealed models, at core dumps and at swap.

    Args:
        settings: Of the daemon; nothing is said where they name no key.
        user: Whom it runs as.
        daemons: Returns the processes that run it, which are looked at.
        root: Where ``/proc``, ``/run`` and ``/sys`` lie.
    """
    if not (settings.seal.key or settings.seal.credential):
        return
    yield _judge_key(settings, user, root)
    yield _judge_rest(settings, root)
    yield from _judge_dumps(daemons(), root)
    yield _judge_swap(root)


def _judge_key(settings: Settings, user: int, root: Path) -> Finding:
    """Judge the board's key, or say where it will come from."""
    name = settings.seal.credential
    place = root / SERVED / name if name else Path(settings.seal.key).expanduser()
    if name and not _is_there(place):
        what = f"credential {name}: systemd gives it to the service; not seen from here"
        todo = "sudo tinyward doctor while it runs; `tinyward install --with seal`."
        return Finding("seal", "yellow", what, todo)
    from agent.trust.seal_key import load_seal_key

    try:
        key = load_seal_key(place)
        owner = place.stat().st_uid
    except AgentError as err:
        return Finding("seal", "red", str(err), err.todo)
    if not name and user not in {owner, 0}:
        what = f"{place} belongs to user {owner}, the daemon runs as {user}"
        todo = "Give it that owner, or the key as a credential."
        return Finding("seal", "yellow", what, todo)
    return Finding(
        "seal", "green", f"the key for sealed models is private: {key.suite}"
    )


def _judge_rest(settings: Settings, root: Path) -> Finding:
    """Judge what somebody gets who takes the card out and reads it elsewhere."""
    if settings.seal.key or (root / CLEAR).exists():
        what = "the key lies in clear on this card: who takes it opens its models"
        return Finding("seal", "yellow", what, ENCRYPT)
    if not (root / ENCRYPTED).exists():
        what = "where the credential comes from is not seen from here"
        return Finding("seal", "yellow", what, ENCRYPT)
    if any((root / TPM).glob("*")):
        return Finding("seal", "green", "the key is encrypted, and there is a TPM")
    what = f"no TPM: what encrypts the key lies on this card, too (/{HOST_KEY})"
    todo = "It stops a copied file; a stolen card needs a TPM or secure element."
    return Finding("seal", "yellow", what, todo)


def _judge_dumps(daemons: Sequence[int], root: Path) -> Iterator[Finding]:
    """Judge what the daemons that run would leave if they died."""
    open_ones = [pid for pid in daemons if not _dumps_nothing(root / f"proc/{pid}")]
    if open_ones:
        what = f"process {open_ones[0]} may leave a core dump with a model in it"
        todo = "Restart it: `systemctl restart tinyward`."
        yield Finding("seal", "yellow", what, todo)
    elif daemons:
        yield Finding("seal", "green", "core dumps are off")


def _dumps_nothing(process: Path) -> bool:
    """Whether a process may write no core of a size; of one that ended, too."""
    try:
        lines = (process / "limits").read_text(encoding="ascii").splitlines()
    except OSError:
        return True
    return any(
        line.split()[:5] == ["Max", "core", "file", "size", "0"] for line in lines
    )


def _judge_swap(root: Path) -> Finding:
    """Judge whether the models' pages may get to a disk."""
    try:
        rows = (root / "proc/swaps").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        rows = []
    # zram is memory; what it writes back, an administrator has set up.
    disks = [row.split()[0] for row in rows if not row.startswith("/dev/zram")]
    if not disks:
        return Finding("seal", "green", "no swap on a disk")
    try:
        limit = (root / SWAP_MAX).read_text(encoding="ascii").strip()
    except OSError:
        limit = ""
    if limit == "0":
        return Finding("seal", "green", "the service does not swap")
    what = f"swap on {', '.join(disks)} may get pages of an opened model"
    return Finding("seal", "yellow", what, WITH_SEAL)


def _is_there(path: Path) -> bool:
    """Whether a file exists that we may look at."""
    return os.access(path, os.R_OK)
