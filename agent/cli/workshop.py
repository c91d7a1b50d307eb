"""What installing needs of the rest of the agent: a signed demo, a key, a trial run.

The rules this module keeps:
 * The demo is packed and signed here by the functions of ``tinyward pack`` and
   ``repo``, with new keys: they lie encrypted in memory (/run) while it lasts, and
   their passphrase nowhere.
 * What works on files of the service's user runs as that user: root writes into no
   folder that somebody else may fill with links.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError, SettingsError
from agent.install.facts import group_id, user_id
from agent.install.places import IDENTITY, SETTINGS, USER, Places

CHECK_S = 120.0  # a Pi Zero needs 20 s to import a runtime from a cold card
# The runtime in a child, because a wheel for another processor dies by a signal; the
# daemon, because a slot whose packages are not whole must not take over.
TRIAL = (
    "import sys, agent.daemon, agent.cli.run;"
    "from agent.cli.symptoms import look_at_engines;"
    "found = [f.what for f in look_at_engines() if f.mark == 'red'];"
    "sys.exit('; '.join(found) or 0)"
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Does the work in one tree.

    Attributes:
        places: The tree.
        prefix: The Python of the slot.
        now: Unix seconds.
    """

    places: Places
    prefix: Path
    now: float

    def make_demo(self, folder: Path) -> None:
        """Fill a new folder with the demo's samples, its root and its repository.

        Raises:
            AgentError: The model does not run here, or the disk does not let it.
        """
        from agent.cli.examiner import ChildExaminer
        from agent.demo.owner import ASSETS, BETTER, Owner
        from agent.publish.description import parse_description
        from agent.publish.pack import pack
        from agent.publish.repository import Repository, init_repository
        from agent.publish.slices import Choice, export_slice

        def found(path: Path, passphrase: bytes, now: float) -> Repository:
            return init_repository(path, None, passphrase, now=now)

        def packed(raw: bytes, base: Path) -> bytes:
            return pack(parse_description(raw), base, ChildExaminer())

        # Left behind by a power cut, the keys would be ciphertext without a passphrase.
        with tempfile.TemporaryDirectory(dir=self._memory(), prefix="tinyward-") as own:
            place = Path(own, "repository")
            owner = Owner(place, found, packed, lambda: self.now)
            owner.publish(BETTER, owner.bundle(BETTER))
            export_slice(place, folder / "repository", Choice())
            (folder / "root.json").write_bytes(owner.root)
        # Its samples, too: a slot that is filled anew must not take them away.
        shutil.copyfile(ASSETS / "digits-stream.npz", folder / "digits-stream.npz")
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # whatever the umask says

    def make_identity(self, board: str) -> None:
        """Make the board's key and request, as the service's user.

        Raises:
            DeviceError: It cannot be made, and why.
        """
        folder = self.places.at(IDENTITY)
        words = ["identity", "init", "--dir", str(folder), "--name", board]
        if (folder / "board.key").exists():  # killed between the two
            ended = self._as_service(["identity", "csr", *words[2:]])
            self._as_service_write(folder / "board.csr", ended.stdout)
        else:
            self._as_service(words)

    def check(self) -> None:
        """Try the slot's program and the settings, as the service's user.

        Raises:
            DeviceError: The slot does not work here.
            SettingsError: The settings do not.
        """
        self._run([str(self.prefix / "bin/python"), "-I", "-c", TRIAL], "this slot")
        settings = str(self.places.at(SETTINGS))
        self._run([self._program(), "check", settings], settings)

    def remove_user(self) -> None:
        """Remove the service's user and group.

        Raises:
            DeviceError: It cannot be done.
        """
        whole = self.places.root == Path("/")
        where = [] if whole else [f"--prefix={self.places.root}"]
        for tool, number in (("userdel", user_id), ("groupdel", group_id)):
            if number(self.places) >= 0:
                ended = subprocess.run(
                    [tool, *where, USER],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if ended.returncode and number(self.places) >= 0:
                    said = f"{tool} {USER}: {ended.stderr.strip()}"
                    raise DeviceError(said, reason=Reason.INTERNAL)

    def _memory(self) -> Path | None:
        """Where nothing reaches a disk, if there is such a place."""
        run = self.places.at("/run")
        return run if os.access(run, os.W_OK) else None

    def _program(self) -> str:
        """The command of this slot."""
        return str(self.prefix / "bin/tinyward")

    def _run(self, words: Sequence[str], what: str) -> None:
        """Run a trial; its last words are the error.

        Raises:
            DeviceError: It failed.
        """
        ended = self._child(words)
        if not ended.returncode:
            return
        said = ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"]
        wrong = ended.returncode == SettingsError.exit_code
        branch = SettingsError if wrong else DeviceError
        raise branch(
            f"{what} cannot be used: {said[0] if wrong else said[-1]}",
            reason=Reason.SETTINGS if wrong else Reason.NOT_INSTALLED,
            todo=""
            if wrong
            else "Nothing was switched. See "
            f"`{self._program()} doctor`, and that everybody may read {self.prefix}.",
        )

    def _as_service(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command of this slot as the service's user.

        Raises:
            DeviceError: It failed.
        """
        ended = self._child([self._program(), *words])
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"]
            raise DeviceError(said[0].removeprefix("error: "), reason=Reason.INTERNAL)
        return ended

    def _as_service_write(self, path: Path, content: str) -> None:
        """Write a file as the service's user."""
        code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
        python = str(self.prefix / "bin/python")
        ended = self._child([python, "-I", "-c", code, str(path)], content)
        if ended.returncode:
            raise DeviceError(f"{path} cannot be written", reason=Reason.PERMISSION)

    def _child(
        self, words: Sequence[str], said: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a child as the service's user, where this is root."""
        user = user_id(self.places)
        as_user = os.geteuid() == 0 and user >= 0
        try:
            return subprocess.run(
                words,
                input=said,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=CHECK_S,
                check=False,
                cwd="/",
                # Nothing of root's: HOME and caches there are closed to this user.
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
                umask=0o077,
                user=user if as_user else None,
                group=group_id(self.places) if as_user else None,
                extra_groups=[] if as_user else None,
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise DeviceError(
                f"{words[0]} does not run as user {USER}: {err}",
                reason=Reason.NOT_INSTALLED,
                todo=f"Let everybody read it: `chmod -R a+rX {self.prefix}`.",
            ) from err


def slot_digest() -> str:
    """Return a digest of what pip put into this slot; "" in a source tree."""
    import hashlib
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        record = distribution("tinyward").read_text("RECORD") or ""
    except PackageNotFoundError:
        return ""
    return hashlib.sha256(record.encode()).hexdigest()


def own_prefix() -> Path:
    """Return the Python that this program runs from."""
    return Path(sys.prefix)
