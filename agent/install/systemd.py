"""The one door to systemd: its commands, and what a unit is doing.

The rules this module keeps:
 * Nothing else in this folder starts a program of systemd. Tests pass a door of their
   own, which passes the same contract tests where it can.
 * An image that is being built has no systemd to talk to: ``ImageSystemd`` changes the
   files that the next boot reads, by the same tools.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from agent.core.reasons import Reason
from agent.errors import DeviceError

# TimeoutStartSec= (90 s), a stop before it and ExecStartPost= after it, on a slow card.
RESTART_S = 240.0
TOOL_S = 60.0
WORDS = 15  # lines of a journal that say why a start failed; a trace has about as many
Tool = Literal["systemd-sysusers", "systemd-tmpfiles"]


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit.

    Attributes:
        active: ``active``, ``inactive``, ``failed``, ``activating``...
        enabled: Whether it starts at boot.
        stale: Whether its file has changed since systemd read it.
        pid: Of its main process, 0 without one.
        invocation: Names its last start in the journal.
    """

    active: str = "inactive"
    enabled: bool = False
    stale: bool = False
    pid: int = 0
    invocation: str = ""


class StartFailedError(DeviceError):
    """The operator has to act: a service did not get ready."""


class Systemd(Protocol):
    """What an installation needs of systemd."""

    @property
    def runs(self) -> bool:
        """Whether there is a systemd whose services can be started."""
        ...

    def state(self, unit: str) -> UnitState:
        """Return what a unit is doing; one that does not exist is inactive."""
        ...

    def apply(self, tool: Tool, fragment: str) -> None:
        """Make the users or directories that a fragment names."""
        ...

    def reload(self) -> None:
        """Read all unit files again."""
        ...

    def enable(self, unit: str) -> None:
        """Let a unit start at boot."""
        ...

    def disable(self, unit: str) -> None:
        """Let a unit start at boot no more."""
        ...

    def restart(self, unit: str) -> None:
        """Start a unit, or stop and start it; return once it is ready.

        Raises:
            StartFailedError: It did not get ready.
        """
        ...

    def start(self, unit: str) -> None:
        """Start a unit, or join a start that is under way; return once it is ready.

        Raises:
            StartFailedError: It did not get ready.
        """
        ...

    def start_later(self, unit: str) -> None:
        """Forget its failures and ask for its start; return at once."""
        ...

    def stop(self, unit: str) -> None:
        """Stop a unit and return when it has ended."""
        ...

    def forget(self, unit: str) -> None:
        """Forget a unit's failures: without its file nothing of it is left."""
        ...

    def last_words(self, unit: str, after: str) -> Sequence[str]:
        """Return the journal's last lines of a unit since the start ``after``."""
        ...


class ImageSystemd:
    """Systemd of a tree that is not booted: nothing runs, files say what will.

    Args:
        root: The tree.
    """

    runs = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def state(self, unit: str) -> UnitState:
        """Return whether a unit will start at boot."""
        # Its exit code is that of "no" as well as that of "there is none".
        said = self._systemctl("is-enabled", unit, check=False).stdout.strip()
        return UnitState(enabled=said == "enabled")

    def apply(self, tool: Tool, fragment: str) -> None:
        """Make the users or directories that a fragment names, in the tree.

        Raises:
            DeviceError: The tool failed.
        """
        create = ["--create"] if tool == "systemd-tmpfiles" else []
        # By name alone: it is then looked for in the tree's own directories.
        run_tool([tool, f"--root={self._root}", *create, Path(fragment).name])

    def reload(self) -> None:
        """Nothing has read a unit file yet."""

    def enable(self, unit: str) -> None:
        """Let a unit start at boot.

        Raises:
            DeviceError: The tool failed.
        """
        self._systemctl("enable", unit)

    def disable(self, unit: str) -> None:
        """Let a unit start at boot no more.

        Raises:
            DeviceError: The tool failed.
        """
        self._systemctl("disable", unit)

    def restart(self, unit: str) -> None:
        """The next boot starts it."""

    def start(self, unit: str) -> None:
        """The next boot starts it."""

    def start_later(self, unit: str) -> None:
        """The next boot starts it."""

    def stop(self, unit: str) -> None:
        """Nothing runs."""

    def forget(self, unit: str) -> None:
        """Nothing is remembered."""

    def last_words(self, unit: str, after: str) -> Sequence[str]:
        """Nothing was said."""
        del unit, after
        return ()

    def _systemctl(
        self, *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run systemctl on the tree."""
        return run_tool(["systemctl", f"--root={self._root}", *words], check=check)


class BootedSystemd:
    """The systemd that runs this machine."""

    runs = True

    def state(self, unit: str) -> UnitState:
        """Return what a unit is doing.

        Raises:
            DeviceError: systemd does not answer.
        """
        # `show` answers for units that do not exist, too, and never fails for them.
        asked = {
            "ActiveState": "inactive",
            "UnitFileState": "",
            "NeedDaemonReload": "no",
            "MainPID": "0",
            "InvocationID": "",
        }
        said = run_tool(["systemctl", "show", f"--property={','.join(asked)}", unit])
        lines = (line.partition("=") for line in said.stdout.splitlines())
        found = asked | {key: value for key, _, value in lines}
        return UnitState(
            active=found["ActiveState"],
            enabled=found["UnitFileState"] == "enabled",
            stale=found["NeedDaemonReload"] == "yes",
            pid=int(found["MainPID"]),
            invocation=found["InvocationID"],
        )

    def apply(self, tool: Tool, fragment: str) -> None:
        """Make the users or directories that a fragment names.

        Raises:
            DeviceError: The tool failed.
        """
        create = ["--create"] if tool == "systemd-tmpfiles" else []
        run_tool([tool, *create, Path(fragment).name])

    def reload(self) -> None:
        """Read all unit files again.

        Raises:
            DeviceError: systemd does not.
        """
        run_tool(["systemctl", "daemon-reload"])

    def enable(self, unit: str) -> None:
        """Let a unit start at boot.

        Raises:
            DeviceError: systemd does not.
        """
        run_tool(["systemctl", "--quiet", "enable", unit])

    def disable(self, unit: str) -> None:
        """Let a unit start at boot no more.

        Raises:
            DeviceError: systemd does not.
        """
        run_tool(["systemctl", "--quiet", "disable", unit])

    def restart(self, unit: str) -> None:
        """Start a unit, or stop and start it; return once it is ready.

        Raises:
            StartFailedError: It did not get ready.
            DeviceError: systemd does not answer.
        """
        self.forget(unit)  # five failures of before must not refuse this start
        self._await_ready("restart", unit)

    def start(self, unit: str) -> None:
        """Start a unit, or join a start that is under way; return once it is ready.

        Raises:
            StartFailedError: It did not get ready.
            DeviceError: systemd does not answer.
        """
        self._await_ready("start", unit)

    def start_later(self, unit: str) -> None:
        """Forget its failures and ask for its start; return at once.

        Raises:
            DeviceError: systemd does not answer.
        """
        self.forget(unit)
        run_tool(["systemctl", "--no-block", "start", unit])

    def stop(self, unit: str) -> None:
        """Stop a unit and return when it has ended.

        Raises:
            DeviceError: systemd does not.
        """
        run_tool(["systemctl", "stop", unit])

    def forget(self, unit: str) -> None:
        """Forget a unit's failures; one that has none is fine."""
        run_tool(["systemctl", "reset-failed", unit], check=False)

    def last_words(self, unit: str, after: str) -> Sequence[str]:
        """Return the journal's last lines of a unit since the start ``after``.

        Of a unit that was tried several times since, those of the last try.
        """
        invocation = self.state(unit).invocation
        # Tries before it and systemd's own lines would take the room of its traceback.
        match = (
            [f"_SYSTEMD_INVOCATION_ID={invocation}"]
            if invocation and invocation != after
            else ["-u", unit]
        )
        said = run_tool(
            ["journalctl", "--no-pager", "-o", "cat", "-n", str(WORDS), *match],
            check=False,
        )
        return said.stdout.splitlines()

    def _await_ready(self, verb: str, unit: str) -> None:
        """Ask for a start, and wait for READY or what comes instead."""
        try:
            ended = run_tool(["systemctl", verb, unit], RESTART_S, check=False)
        except DeviceError as err:  # it takes longer than any start may
            raise StartFailedError(str(err), reason=Reason.UPGRADE) from err
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["it did not start"])[0]
            raise StartFailedError(said, reason=Reason.UPGRADE)


def is_booted(root: Path = Path("/")) -> bool:
    """Whether systemd runs this machine: as sd_booted(3) looks."""
    return (root / "run/systemd/system").is_dir()


def run_tool(
    words: Sequence[str], timeout_s: float = TOOL_S, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a tool of the system and return how it ended.

    Raises:
        DeviceError: ``not_installed``: it is not there; ``internal``: it failed (with
            ``check``), or took longer than ``timeout_s``.
    """
    name = words[0]
    try:
        ended = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as err:
        raise DeviceError(
            f"{name} is not on this machine",
            reason=Reason.NOT_INSTALLED,
            todo="Tinyward's service needs systemd 249 or newer; without it, let "
            "something else run `tinyward run`.",
        ) from err
    except subprocess.TimeoutExpired as err:
        what = f"{' '.join(words)} took more than {timeout_s:g} s"
        raise DeviceError(what, reason=Reason.INTERNAL) from err
    if check and ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1]
        raise DeviceError(f"{' '.join(words)}: {said}", reason=Reason.INTERNAL)
    return ended
