"""One run of ``tinyward install`` or ``uninstall``: where, by whom, and what is said.

The rules this module keeps:
 * What is checked is checked before anything is changed: who calls, from which slot,
   whether systemd runs, whether the settings can be used.
 * Once files are changed, a closed terminal or Ctrl-C does not end it: a child in a
   session of its own does the work, and at worst goes on without anybody to tell.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import click

from agent.cli import show_error
from agent.cli.workshop import Workshop, own_prefix
from agent.core.reasons import Reason
from agent.errors import AgentError, SettingsError
from agent.install.facts import Facts, look
from agent.install.perform import Performer
from agent.install.places import (
    IDENTITY,
    SETTINGS,
    SLOT_FOLDER,
    USER,
    Places,
    other_slot,
)
from agent.install.plan import paths_of, plan_install
from agent.install.removal import Removal, paths_of_ours, plan_removal
from agent.install.shipped import installed_extras, read_shipped
from agent.install.steps import Check, Plan, Planned
from agent.install.systemd import BootedSystemd, ImageSystemd, Systemd, is_booted
from agent.install.tree import Tree
from agent.install.upgrade import Upgrade
from agent.install.wanted import Wanted

LINE = (
    "sudo sh -c 'python3 -m venv {slot} && {slot}/bin/pip install . && "
    "{slot}/bin/tinyward install'"
)


@dataclass(slots=True)
class Telling:
    """Says what becomes of each step, as lines or at the end as JSON."""

    as_json: bool
    dry_run: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def __call__(self, planned: Planned) -> None:
        """Take a step that is so now, or would be."""
        result = self._result(planned)
        kind = type(planned.step).__name__
        row = {"step": kind, "what": planned.step.line, "result": result}
        if note := planned.todo or planned.note:
            row["note"] = note
        self.rows.append(row)
        line = f"[{result:^5}] {planned.step.line}{note and ': '}{note}"
        if planned.todo:
            self.todo.append(line)
        if not self.as_json:
            self.say(line)

    def _result(self, planned: Planned) -> str:
        """Return the word for what became of a step."""
        if planned.todo:
            return "todo"
        if isinstance(planned.step, Check):  # a trial makes nothing
            return "skip" if self.dry_run else "ok"
        return "ok" if planned.already else "would" if self.dry_run else "done"

    def finish(self, wanted: Wanted, *, changed: bool) -> None:
        """Say how it ended."""
        facts = {"slot": wanted.slot, "version": wanted.version, "changed": changed}
        if self.dry_run:
            said = "nothing was changed" if changed else "all is as it should be"
        elif changed:
            said = "\n".join(_next_steps(wanted))
        else:
            said = "all is as it should be; nothing was restarted"
        self.end(facts, said)

    def end(self, facts: Mapping[str, object], said: str) -> None:
        """Say how it ended: facts for programs, words for people."""
        if self.as_json:
            start = {"ok": True, "dry_run": self.dry_run, **facts}
            rest = [row["note"] for row in self.rows if row["result"] == "todo"]
            ends = {"todo": rest} if rest else {}
            said = json.dumps({**start, "steps": self.rows, **ends}, indent=1)
        # Once more at the end: among twenty lines that are fine nobody sees it.
        self.say("\n".join([said, *(() if self.as_json else self.todo)]))

    def say(self, line: str) -> None:
        """Print a line; whoever does not listen any more changes nothing."""
        with suppress(OSError):
            click.echo(line)


@dataclass(frozen=True, slots=True)
class Session:
    """A tree, its systemd, and who is at work."""

    places: Places
    systemd: Systemd
    prefix: Path

    @classmethod
    def begin(cls, root: Path, *, image: bool = False) -> "Session":
        """Look where this is.

        Raises:
            SettingsError: ``not_installed``: systemd does not run this machine.
        """
        whole = root == Path("/")
        systemd: Systemd = BootedSystemd()
        if image or not whole:
            systemd = ImageSystemd(root)
        elif not is_booted():
            raise SettingsError(
                "this machine was not started by systemd (a container?)",
                reason=Reason.NOT_INSTALLED,
                todo="Let what starts programs here run `tinyward run --config FILE`; "
                "while an image is built, `tinyward install --image`.",
            )
        return cls(Places(root), systemd, own_prefix())

    def slot(self, *, may_guess: bool) -> str:
        """Return the slot of this program.

        Args:
            may_guess: Where it lies in none, name the one that is free.

        Raises:
            SettingsError: ``not_installed``: it lies in none.
        """
        slot = self.places.slot_of(self.prefix)
        if slot:
            return slot
        current = self.places.at(f"{SLOT_FOLDER}/current")
        runs = current.readlink().name if current.is_symlink() else ""
        free = other_slot(runs) if runs in ("a", "b") else "a"
        line = LINE.format(slot=f"{SLOT_FOLDER}/{free}")
        if may_guess:
            click.echo(f"as it would be in slot {free}: {line}", err=True)
            return free
        raise SettingsError(
            f"this program lies in {self.prefix}, not in a slot below {SLOT_FOLDER}",
            reason=Reason.NOT_INSTALLED,
            todo=line,
        )

    def install(self, wanted: Wanted, dry_run: bool, as_json: bool) -> int:  # noqa: FBT001 - flags of the command line
        """Install what is wanted, or show how; return the exit code.

        Raises:
            AgentError: Something is in the way.
        """
        if not dry_run:
            self.check_root("install")
        telling = Telling(as_json, dry_run)
        if dry_run:
            return _show(plan_install(self._facts(wanted), wanted), telling, wanted)
        upgrade = Upgrade(self._performer(), lambda: self._facts(wanted), wanted)

        def work() -> None:
            telling.finish(wanted, changed=upgrade.run(telling))

        return detached(work) if self.systemd.runs else in_place(work)

    def fall_back(self) -> None:
        """Let this slot, the one before, take its place again.

        Raises:
            AgentError: Something is in the way, or a step failed.
        """
        self.check_root("install --fall-back")
        wanted = self._own(self.slot(may_guess=False))
        telling = Telling(as_json=False)
        Upgrade(self._performer(), lambda: self._facts(wanted), wanted).fall_back(
            telling
        )
        if not telling.rows:
            telling.say("no version is on trial: there is nothing to go back from")

    def plan_removal(self, *, purge: bool) -> Plan:
        """Return the steps that remove what was installed.

        Raises:
            DeviceError: systemd does not answer.
        """
        # By name, not by content: a half installation is removed all the same.
        paths = paths_of_ours()
        facts = look(self.places, self.systemd, paths, b"", may_guess=_may_guess())
        there = frozenset(
            path for path in paths if os.path.lexists(self.places.at(path))
        )
        return plan_removal(facts, Removal(purge, there))

    def remove(self, plan: Plan, *, dry_run: bool, as_json: bool) -> int:
        """Perform a removal, or show it; return the exit code.

        Raises:
            AgentError: A step failed.
        """
        # What says how it ended is loaded while there is something to load it from.
        import_module("agent.core.explanations")
        telling = Telling(as_json, dry_run)
        if dry_run:
            for planned in plan:
                telling(planned)
            telling.end({"purged": False}, "nothing was changed")
            return 0

        def work() -> None:
            changed = self._performer().perform(plan, telling)
            said = "removed" if changed else "nothing of it was there"
            telling.end({"changed": changed}, said)

        return detached(work) if self.systemd.runs else in_place(work)

    def check_root(self, words: str) -> None:
        """Refuse to work for anybody but root.

        Raises:
            SettingsError: ``permission``.
        """
        if os.geteuid() == 0:
            return
        raise SettingsError(
            "only root may change what this machine runs",
            reason=Reason.PERMISSION,
            todo=f"sudo {self.prefix}/bin/tinyward {words}",
        )

    def _own(self, slot: str) -> Wanted:
        """Return what this slot needs to run again, and no more."""
        from agent import __version__
        from agent.cli.workshop import slot_digest
        from agent.store.schema import SCHEMA

        shipped = read_shipped()
        extras = installed_extras(self.places)
        return Wanted(
            slot=slot,
            version=__version__,
            digest=slot_digest(),
            schema=SCHEMA,
            shipped=shipped,
            drop_ins=shipped.drop_ins(extras),
            settings=b"",
        )

    def _facts(self, wanted: Wanted) -> Facts:
        """Look at the machine; settings that are there have to be usable.

        Raises:
            SettingsError: They are not.
        """
        from agent.cli.places import read_settings

        settings = self.places.at(SETTINGS)
        # Before anything is changed: exit code 2 promises so. A plan that nobody
        # performs is shown to those who may not read the settings, too.
        with suppress(PermissionError):
            if settings.is_file() and os.access(settings, os.R_OK):
                read_settings(settings)
        paths = paths_of(wanted)
        fragment = wanted.shipped.tmpfiles
        return look(self.places, self.systemd, paths, fragment, may_guess=_may_guess())

    def _performer(self) -> Performer:
        """Return what performs plans here."""
        now = time.time()  # noqa: TID251 - the clock that the demo is signed by
        workshop = Workshop(self.places, self.prefix, now)
        return Performer(self.places, Tree(), self.systemd, workshop)


def _may_guess() -> bool:
    """Whether this user can change nothing, and so nothing by a guess."""
    return os.geteuid() != 0


def _show(plan: Plan, telling: Telling, wanted: Wanted) -> int:
    """Tell a plan that nobody performs; return the exit code."""
    for planned in plan:
        telling(planned)
    if os.geteuid() != 0:
        click.echo("as far as this user may see; `sudo` shows all of it", err=True)
    due = [it for it in plan if not it.already and not isinstance(it.step, Check)]
    telling.finish(wanted, changed=bool(due))
    return 0


def _next_steps(wanted: Wanted) -> list[str]:
    """Return what a person may do now."""
    lines = ["see it: tinyward status; systemctl status tinyward; tinyward doctor"]
    if wanted.board:
        lines.append(f"the request to be signed: {IDENTITY}/board.csr")
        lines.append("then: tinyward ca sign CA board.csr -o board.crt, and here:")
        lines.append(f"install -o {USER} -g {USER} -m 600 board.crt {IDENTITY}/")
    return lines


def in_place(work: Callable[[], None]) -> int:
    """Do the work in this process; return the exit code."""
    work()
    return 0


def detached(work: Callable[[], None]) -> int:
    """Do the work in a child with a session of its own; return its exit code.

    A lost connection ends this process. The child goes on: half an upgrade would leave
    the service stopped, with nobody there to see it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # A fork: all that was read, asked and checked goes along.
    child = os.fork()
    if child == 0:
        os.setsid()
        # A terminal's own signals do not reach another session; these are people's.
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os._exit(_worked(work))
    while True:
        try:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)
        except KeyboardInterrupt:
            click.echo(
                "it goes on until a version runs; that may take minutes", err=True
            )


def _worked(work: Callable[[], None]) -> int:
    """Do the work in the child, and say what went wrong; return the exit code."""
    code = 1
    try:
        work()
        code = 0
    except AgentError as err:
        code = err.exit_code
        with suppress(OSError):
            show_error(err)
    except Exception:  # noqa: BLE001 - a bug shows its trace, as in the parent
        with suppress(OSError):
            traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    return code
