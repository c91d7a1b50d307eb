"""A machine to install on: a laid-out tree, and a systemd that keeps its word on disk.

The rules this module keeps:
 * Everything the fake systemd knows lies in the tree, so that it outlives a killed
   installer as the real one does.
 * A version either gets ready or does not, as the test says; READY removes the trial
   marker, as ExecStartPost= of the unit does.
"""

import json
import os
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from agent.core.reasons import Reason
from agent.errors import DeviceError
from agent.install.facts import Facts, look
from agent.install.perform import Performer
from agent.install.places import (
    CURRENT,
    DEMO_ROOT,
    IDENTITY,
    SERVICE,
    TRIAL,
    UNIT_FOLDER,
    Places,
)
from agent.install.plan import paths_of, plan_fall_back, plan_install
from agent.install.removal import Removal, paths_of_ours, plan_removal
from agent.install.settings_file import Asked, render_settings
from agent.install.shipped import Shipped
from agent.install.steps import Plan, Planned
from agent.install.systemd import StartFailedError, Tool, UnitState
from agent.install.tree import Tree
from agent.install.wanted import Wanted

KNOWN = "run/fake-systemd.json"
USER_LINE = "tinyward:x:{user}:{group}::/var/lib/tinyward:/usr/sbin/nologin\n"
GROUP_LINE = "tinyward:x:{group}:\n"
TMPFILES = b"d /etc/tinyward 0750 root root -\nd /var/lib/tinyward 0700 root root -\n"
Snapshot = dict[str, tuple[int, bytes | str]]


class Killed(BaseException):
    """The installer is no more: nothing catches this."""


@dataclass(frozen=True, slots=True)
class Known:
    """What systemd knows."""

    active: str = "inactive"
    enabled: bool = False
    runs: str = ""
    starts: int = 0
    read: dict[str, str] = field(default_factory=dict)


class FakeSystemd:
    """The systemd of a tree.

    Args:
        root: The tree.
        broken: Slots that do not get ready.
        about_to: Called before each change.

    Attributes:
        asked: What it was asked for, in order.
    """

    runs = True

    def __init__(
        self,
        root: Path,
        broken: frozenset[str] = frozenset(),
        about_to: Callable[[str, Path], None] = lambda *_: None,
    ) -> None:
        self._root = root
        self._places = Places(root)
        self._broken = broken
        self._about_to = about_to
        self.asked: list[str] = []

    @property
    def known(self) -> Known:
        """What it knows, also after the process that told it was killed."""
        path = self._root / KNOWN
        return Known(**json.loads(path.read_text())) if path.exists() else Known()

    def state(self, unit: str) -> UnitState:
        """Return what a unit is doing."""
        known = self.known
        return UnitState(
            active=known.active,
            enabled=known.enabled,
            stale=known.active == "active" and known.read != self._units(),
            pid=1 if known.active == "active" else 0,
            invocation=f"{unit}-{known.starts}",
        )

    def apply(self, tool: Tool, fragment: str) -> None:
        """Make the user, or the directories of ``TMPFILES``."""
        self._ask(f"{tool} {Path(fragment).name}")
        assert self._places.at(fragment).is_file()
        if tool == "systemd-sysusers":
            numbers = {"user": os.getuid(), "group": os.getgid()}
            for name, row in (("passwd", USER_LINE), ("group", GROUP_LINE)):
                path = self._root / "etc" / name
                before = path.read_text() if path.exists() else ""
                if "tinyward:" not in before:
                    path.write_text(before + row.format(**numbers))
            return
        for name, mode in (("etc/tinyward", 0o750), ("var/lib/tinyward", 0o700)):
            (self._root / name).mkdir(parents=True, exist_ok=True)
            (self._root / name).chmod(mode)

    def reload(self) -> None:
        """Read all unit files again."""
        self._ask("reload")
        self._save(replace(self.known, read=self._units()))

    def enable(self, unit: str) -> None:
        """Let a unit start at boot."""
        self._ask(f"enable {unit}")
        self._save(replace(self.known, enabled=True))

    def disable(self, unit: str) -> None:
        """Let a unit start at boot no more."""
        self._ask(f"disable {unit}")
        self._save(replace(self.known, enabled=False))

    def restart(self, unit: str) -> None:
        """Start what ``current`` points to."""
        self._ask(f"restart {unit}")
        self._start()
        if self.known.active != "active":
            raise StartFailedError("Job failed.", reason=Reason.UPGRADE)

    def start(self, unit: str) -> None:
        """Start what does not run yet."""
        self._ask(f"await {unit}")
        if self.known.active != "active":
            self._start()
        if self.known.active != "active":
            raise StartFailedError("Job failed.", reason=Reason.UPGRADE)

    def start_later(self, unit: str) -> None:
        """Start it at once: nobody sees the difference."""
        self._ask(f"start {unit}")
        self._start()

    def stop(self, unit: str) -> None:
        """Stop a unit."""
        self._ask(f"stop {unit}")
        if unit != SERVICE:
            return
        self._save(replace(self.known, active="inactive", runs=""))

    def forget(self, unit: str) -> None:
        """Forget failures."""
        self._ask(f"forget {unit}")

    def last_words(self, unit: str, after: str) -> Sequence[str]:
        """Return what a version says that does not get ready."""
        del unit, after
        return ("Traceback", "no good")

    def boot(self) -> str:
        """Cut the power and boot; return the slot that is started, "" for none."""
        self._save(replace(self.known, active="inactive", runs="", read=self._units()))
        if self.known.enabled and self._units():
            self._start()
        return self.known.runs

    def _start(self) -> None:
        """Start what ``current`` points to: READY removes the trial marker."""
        slot = self._places.at(CURRENT).readlink().name
        assert SERVICE in self._units()
        ready = slot not in self._broken
        known = self.known
        if ready:
            self._places.at(TRIAL).unlink(missing_ok=True)
        active, runs = ("active", slot) if ready else ("failed", "")
        started = replace(known, active=active, runs=runs, starts=known.starts + 1)
        self._save(started)

    def _units(self) -> dict[str, str]:
        """Return the unit files as they are."""
        folder = self._places.at(UNIT_FOLDER)
        return {
            str(path.relative_to(folder)): path.read_text()
            for path in sorted(folder.rglob("tinyward*"))
            if path.is_file()
        }

    def _ask(self, what: str) -> None:
        """Note what was asked for."""
        self._about_to(what, self._root)
        self.asked.append(what)

    def _save(self, known: Known) -> None:
        """Keep what it knows, at one moment."""
        path = self._root / KNOWN
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(known)))
        aside.replace(path)


@dataclass(slots=True)
class ScriptedWorkshop:
    """Makes plain files; a check that fails raises what the test says."""

    places: Places
    trouble: DeviceError | None = None

    def make_demo(self, folder: Path) -> None:
        """Fill a folder with something."""
        (folder / "repository" / "metadata").mkdir(parents=True)
        (folder / "repository" / "metadata" / "timestamp.json").write_text("{}")
        (folder / Path(DEMO_ROOT).name).write_text("{}")
        (folder / "digits-stream.npz").write_bytes(b"npz")

    def make_identity(self, board: str) -> None:
        """Write a key and a request."""
        folder = self.places.at(IDENTITY)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("board.key", "board.csr"):
            (folder / name).write_text(board)

    def check(self) -> None:
        """Fail, if the test says so."""
        if self.trouble is not None:
            raise self.trouble

    def remove_user(self) -> None:
        """Take the service's lines away."""
        for name in ("passwd", "group"):
            path = self.places.at(f"/etc/{name}")
            lines = path.read_text().splitlines(keepends=True)
            path.write_text(
                "".join(it for it in lines if not it.startswith("tinyward"))
            )


class DyingTree(Tree):
    """Ends the run before change number ``last``.

    Args:
        last: How many changes are made; None for all.
        kill: What ends the run.
    """

    def __init__(
        self, last: int | None = None, kill: Callable[[], None] | None = None
    ) -> None:
        self.made: list[str] = []
        self._last = last
        self._kill = kill or raise_killed

    def about_to(self, change: str, path: Path) -> None:
        """Count, or die."""
        if self._last is not None and len(self.made) >= self._last:
            self._kill()
        self.made.append(f"{change} {path.name}")


def raise_killed() -> None:
    """End the run, and nothing else of this process."""
    raise Killed


def kill_dead() -> None:
    """End this process as a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


def shipped(version: str = "1") -> Shipped:
    """Return unit files that say which version they are of."""
    unit = f"[Service]\nExecStart=/opt/tinyward/current/bin/tinyward # {version}\n"
    return Shipped(
        units={
            f"{UNIT_FOLDER}/{SERVICE}": unit.encode(),
            f"{UNIT_FOLDER}/tinyward-fallback.service": unit.encode(),
        },
        sysusers=b"u tinyward -\n",
        tmpfiles=TMPFILES,
        extras={"camera": b"[Service]\nPrivateDevices=no\n"},
    )


def wanted(slot: str = "a", version: str = "1", schema: int = 2) -> Wanted:
    """Return what a slot wants to be there."""
    files = shipped(version)
    return Wanted(
        slot=slot,
        version=version,
        digest=version,
        schema=schema,
        shipped=files,
        drop_ins={},
        settings=render_settings(Asked(), "/etc/tinyward/agent.toml"),
    )


class Machine:
    """A tree with slots, and all that performs plans on it."""

    def __init__(self, root: Path, broken: Sequence[str] = ()) -> None:
        self.root = root
        self.places = Places(root)
        self.broken = frozenset(broken)
        self.systemd = FakeSystemd(root, self.broken)
        self.workshop = ScriptedWorkshop(self.places)
        for slot in ("a", "b"):
            (root / f"opt/tinyward/{slot}/bin").mkdir(parents=True, exist_ok=True)

    def performer(self, tree: Tree | None = None) -> Performer:
        """Return what performs plans, with a tree that may die."""
        tree = tree or Tree()
        systemd = FakeSystemd(self.root, self.broken, tree.about_to)
        self.systemd = systemd
        return Performer(self.places, tree, systemd, self.workshop)

    def facts(self, want: Wanted) -> Facts:
        """Look at the tree."""
        return look(self.places, self.systemd, paths_of(want), TMPFILES)

    def install(self, want: Wanted, tree: Tree | None = None) -> Plan:
        """Plan and perform an installation; return what was told."""
        told: list[Planned] = []
        plan = plan_install(self.facts(want), want)
        self.performer(tree).perform(plan, told.append)
        return tuple(told)

    def fall_back(self, want: Wanted, tree: Tree | None = None) -> Plan:
        """Plan and perform a fall-back; return what was told."""
        told: list[Planned] = []
        plan = plan_fall_back(self.facts(want), want)
        self.performer(tree).perform(plan, told.append)
        return tuple(told)

    def remove(self, *, purge: bool, tree: Tree | None = None) -> Plan:
        """Plan and perform a removal; return what was told."""
        told: list[Planned] = []
        paths = paths_of_ours()
        facts = look(self.places, self.systemd, paths, b"")
        there = {path for path in paths if os.path.lexists(self.places.at(path))}
        plan = plan_removal(facts, Removal(purge, frozenset(there)))
        self.performer(tree).perform(plan, told.append)
        return tuple(told)

    def snapshot(self) -> Snapshot:
        """Return every name below the root: its mode, and its content or target."""
        return {
            str(path.relative_to(self.root)): _seen(path)
            for path in sorted(self.root.rglob("*"))
            if KNOWN not in str(path)
        }


def _seen(path: Path) -> tuple[int, bytes | str]:
    """Return what a path is."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if path.is_symlink():
        return mode, str(path.readlink())
    return (mode, path.read_bytes()) if path.is_file() else (mode, "")
