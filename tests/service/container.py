"""A board that boots: ``systemd-nspawn`` with its own processes, users and network.

The rules this module keeps:
 * It ends with the process that started it, however that one ends: nspawn is told by
   PDEATHSIG, and the kernel ends everything below its PID 1.
 * It has its own control groups and loopback: two containers never meet.
 * The host needs no systemd: nothing is registered, no unit is asked for.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
PATIENCE_S = 60.0  # two shared cores with others on them
RUN_S = 120.0  # an installation on a slow disk; nothing else takes seconds
LOOK_S = 0.02
# Of systemd(1): the signals to its PID 1 that power a machine off cleanly.
POWER_OFF = signal.SIGRTMIN + 4
# What people have at hand over ssh, and nothing of ours.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
_GROUPS = Path("/sys/fs/cgroup")


class Container:
    """One machine: a root folder that is booted, asked, and cut from power.

    Args:
        root: Its root file system; everything it writes stays there.
        options: Further words for ``systemd-nspawn(1)``.

    Attributes:
        console: What systemd printed, of all boots.
    """

    def __init__(self, root: Path, options: Sequence[str] = ()) -> None:
        self.root = root
        self.console = root.parent / "console.log"
        self._options = tuple(options)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._name = f"{root.parent.name}-{os.getpid()}".replace("_", "-")

    # --- life

    @property
    def runs(self) -> bool:
        """Whether it is powered."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def power_on(self) -> None:
        """Start booting; returns when its PID 1 exists."""
        assert not self.runs
        groups = _make_groups(self._name)
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]
        command += ["--private-network", "--link-journal=no", "--console=pipe"]
        command += ["--resolv-conf=off", "--timezone=off", *self._options]
        # A board has these; nspawn's own filter keeps them from the services inside.
        command += [f"--system-call-filter={LANDLOCK}"]
        command += [f"--machine={self._name}", "-b", "-D", str(self.root)]
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                # Enters its groups first: nspawn makes the payload's below them.
                ["/bin/sh", "-c", _enter(groups), "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                # As modern boards have it, whatever the host has.
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        self._leader = 0
        wait_until(self._find_leader, "PID 1")

    def boot(self) -> None:
        """Power on and wait until all units have started, or failed."""
        self.power_on()
        wait_until(self._is_up, "the system has booted")

    def power_off(self) -> None:
        """Shut down as ``poweroff`` does; every unit is stopped."""
        assert self._nspawn is not None
        os.kill(self._leader, POWER_OFF)
        self._nspawn.wait(PATIENCE_S)
        self._clean()

    def cut_power(self) -> None:
        """End every process at once; nobody is told."""
        if self._nspawn is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._leader:
                os.kill(self._leader, signal.SIGKILL)
        self._nspawn.kill()
        self._nspawn.wait(PATIENCE_S)
        self._clean()

    def _clean(self) -> None:
        """Remove the control groups, once the last process has left them."""
        for group in _groups(self._name):
            wait_until(partial(_remove, group), f"{group} is empty")
        self._leader = 0

    # --- work inside

    def run(
        self,
        *command: object,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = RUN_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside as root, as over ssh, and return its words.

        Raises:
            AssertionError: It failed and ``check`` is set; with all it said.
        """
        done = subprocess.run(
            [*self._inside(), *map(str, command)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**ENVIRONMENT, **(environment or {})},
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout}\n{done.stderr}"
            raise AssertionError(f"{command} ended with {done.returncode}: {said}")
        return done

    def spawn(self, *command: object) -> subprocess.Popen[bytes]:
        """Start a program inside and return it; it ends with the container."""
        return subprocess.Popen(
            [*self._inside(), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )

    def _inside(self) -> list[str]:
        """Return the words that lead into the namespaces of PID 1.

        Time has no namespace: without this a ``date -s`` inside sets our own clock.
        """
        enter = ["nsenter", "--target", str(self._leader), "--all", "--wd", "--"]
        return [*enter, "setpriv", "--bounding-set=-sys_time", "--"]

    def path(self, inside: str) -> Path:
        """Return a path inside as this machine sees it, mounts of the boot included."""
        return Path(f"/proc/{self._leader}/root") / inside.lstrip("/")

    def host_pid(self, inside: int) -> int:
        """Return the number that a process inside has on this machine, 0 if it ended.

        proc_pid_status(5): the last number of NSpid is the one inside.
        """
        ours = _pid_namespace(self._leader)
        for path in Path("/proc").glob("[0-9]*"):
            pid = int(path.name)
            if _pid_namespace(pid) == ours and _inner_pid(pid) == inside:
                return pid
        return 0

    # --- looking

    def _find_leader(self) -> bool:
        """Find the process that is PID 1 inside."""
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            said = self.console.read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"systemd-nspawn ended: {said[-2000:]}")
        path = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        for word in path.read_text(encoding="ascii").split():
            # The child is there before it is systemd: it lays out the root first.
            if _inner_pid(int(word)) == 1 and _name(int(word)) == "systemd":
                self._leader = int(word)
        return self._leader != 0

    def _is_up(self) -> bool:
        """Whether systemd has nothing left to start."""
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S
) -> None:
    """Look until something holds.

    Raises:
        AssertionError: It did not within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(LOOK_S)


def _groups(name: str) -> Iterator[Path]:
    """Yield the control group of a name in each hierarchy that systemd uses."""
    tops = (_GROUPS, _GROUPS / "unified", _GROUPS / "systemd")
    for top in tops:
        if (top / "cgroup.procs").exists():
            yield top / name


def sweep_groups(prefix: str) -> None:
    """Remove control groups of containers whose process was killed: all empty ones."""
    for pattern in _groups(f"{prefix}*"):
        for group in pattern.parent.glob(pattern.name):
            _remove(group)


def _make_groups(name: str) -> list[Path]:
    """Make the container's control groups."""
    groups = list(_groups(name))
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def _enter(groups: Sequence[Path]) -> str:
    """Return a line of shell that enters the groups and becomes its arguments."""
    enter = [f"echo $$ > {group}/cgroup.procs" for group in groups]
    return " && ".join([*enter, 'exec /usr/bin/setpriv --pdeathsig KILL "$@"'])


def _remove(group: Path) -> bool:
    """Remove a control group with all below it; False while something lives there."""
    if not group.exists():
        return True
    inner = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    try:
        for path in [*inner, group]:
            path.rmdir()
    except OSError:
        return False
    return True


def _pid_namespace(pid: int) -> str:
    """Return the name of a process's pid namespace; empty if it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _inner_pid(pid: int) -> int:
    """Return the number a process has in its own namespace, 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    found = [line for line in lines if line.startswith("NSpid:")]
    return int(found[0].split()[-1]) if found else 0


def _name(pid: int) -> str:
    """Return the name of a process's program."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
