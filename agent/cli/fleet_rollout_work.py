"""One run of ``tinyward fleet rollout``: from options to its end.

The rules this module keeps:
 * What is asked for has to be the rollout that the file keeps, or one that begins.
 * Nothing is told to any board before the file could be written and locked.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click
from msgspec.structs import replace
from rich.console import Console
from rich.text import Text

from agent.cli.delivery import PUSH
from agent.cli.fleet_boards import choose_papers, link_boards, read_inventory
from agent.cli.fleet_choices import (
    group_of,
    name_models,
    require_boards,
    write_report,
)
from agent.cli.fleet_crew import Crew
from agent.cli.fleet_options import Options, state_path
from agent.cli.fleet_overrule import carry
from agent.cli.fleet_prepare import (
    FirstLook,
    check_boards,
    check_role,
    check_slice,
    find_strays,
    look_around,
)
from agent.cli.fleet_publish import Publisher
from agent.cli.fleet_report import describe_plan, describe_rollout
from agent.cli.fleet_return import remember
from agent.cli.fleet_runner import Runner
from agent.cli.fleet_sight import Reader
from agent.cli.fleet_state import Kept, StateFile, check_belongs, checksum_of
from agent.cli.fleet_threads import threads
from agent.cli.fleet_view import RolloutView, final_view, plan_lines
from agent.cli.patience import Patience
from agent.cli.push import parse_assignments
from agent.cli.reach import Remote
from agent.cli.repo_options import open_with_keys
from agent.cli.slice_files import Slice, open_slice
from agent.cli.status_view import show_lines
from agent.core.inventory import Inventory
from agent.core.reasons import Reason
from agent.core.waves import (
    Phase,
    Plan,
    begin,
    draw_waves,
    resume,
)
from agent.errors import SettingsError
from agent.publish.release import silent
from agent.publish.repository import Repository

clock = time.time  # noqa: TID251 - a command is its own composition root


@dataclass(slots=True)
class Work:
    """One run.

    Attributes:
        kept: What is asked for, as it would begin; later as it has become.
    """

    path: Path
    inventory: Inventory
    options: Options
    plan: Plan
    kept: Kept
    file: StateFile

    @classmethod
    def prepare(cls, path: Path, options: Options) -> Self:
        """Read the inventory and draw the waves.

        Raises:
            SettingsError: Something makes no sense.
            click.UsageError: Options do not go together.
        """
        inventory = read_inventory(path)
        assign = parse_assignments(options["assign"])
        if options["by_percent"] and options["repository"] is None:
            raise click.UsageError(
                "--by-percent needs --repository, which it publishes"
            )
        if options["keys"] and not options["by_percent"]:
            raise click.UsageError("--keys sign group files: only with --by-percent")
        if options["by_percent"]:
            require_boards(group_of(options["by_percent"]), inventory)
            assign = name_models(assign, options)
        rows = sorted(assign.items())
        spelled = ",".join(f"{name}={model}@{number}" for name, (model, number) in rows)
        salt = spelled[:64] if options["salt"] is None else options["salt"]
        names = options["wave"] or inventory.rollout.waves
        waves = draw_waves(inventory.board, names, salt)
        size = sum(len(wave.boards) for wave in waves)
        # Boards that follow a signed file begin by themselves, all of a wave at once.
        at_once = size if options["by_percent"] else inventory.rollout.at_once
        left_out = len(inventory.board) - size
        plan = Plan(
            waves, inventory.rollout.gate, at_once, options["patience"], left_out
        )
        kept = Kept(
            assign=assign,
            mode="repository" if options["by_percent"] else "push",
            salt=salt,
            waves=tuple((wave.name, wave.boards) for wave in waves),
            course=begin(plan, clock()),
        )
        file = StateFile(state_path(path, options["state"]))
        kept = replace(kept, id=checksum_of(kept)[:12])
        return cls(path, inventory, options, plan, kept, file)

    @property
    def exit_code(self) -> int:
        """What the command returns."""
        return 0 if self.kept.course.phase is Phase.DONE else 1

    def show_plan(self, *, as_json: bool, report: Path | None) -> None:
        """Print what would be done, after a look at the boards.

        Raises:
            AgentError: It could not begin like this.
        """
        notes = []
        saved = self.file.load()
        if saved is not None and saved.is_open:
            try:
                check_belongs(saved, self.kept)
            except SettingsError as err:
                notes.append(f"it could not begin now: {err}")
            else:
                self.kept = saved
        with ExitStack() as opened:
            publisher = self._publisher(silent, with_keys=False)
            look = self._check(self._slice(opened), publisher, notes, with_keys=False)
        if look.silent:
            some = ", ".join(look.silent[:5]) + (", ..." if look.silent[5:] else "")
            notes.append(f"not asked, since they do not answer: {some}")
        described = describe_plan(self.kept, self.plan)
        text = json.dumps(described | {"notes": notes}, indent=2)
        if report is not None:
            write_report(report, text + "\n")
        if as_json:
            click.echo(text)
            return
        console = Console(highlight=False)
        for line in plan_lines(self.kept.title(), self.plan, self.kept.course, notes):
            console.print(Text(line), soft_wrap=True)

    def run(self, *, quiet: bool) -> None:
        """Carry the rollout to its end, or to where it stops.

        Raises:
            AgentError: A file cannot be used, or another process works on it.
            KeyboardInterrupt: The operator left; the file is durable.
        """
        patience = Patience()
        links = link_boards(self.inventory.board, self._papers(), patience.pause)
        with self.file.held(), ExitStack() as opened:
            saved = self.file.load()
            self.kept = self._chosen(saved)
            muted = quiet and not sys.stderr.isatty()
            console = Console(stderr=True, highlight=False, quiet=muted)
            files = self._slice(opened)
            opener = self._publisher(lambda line: console.print(Text(line)))
            if saved is None or not saved.is_open:
                notes: list[str] = []
                self._check(files, opener, notes)
                for line in notes:
                    console.print(Text(f"note: {line}"), soft_wrap=True)
            ids = [board.id for board in self.inventory.board]
            reader = Reader(self.kept.assign, by_push=self.kept.mode == "push")
            named = dict(zip(ids, links, strict=True))
            crew = Crew(named, reader, files, patience.pause)
            pool = opened.enter_context(threads(self.plan.at_once, links, patience))
            title = self.kept.title()
            view = RolloutView(console, title, self.plan, crew.notes, clock())
            runner = Runner(
                self.plan, self.kept, self.file, crew, view, pool, clock, opener=opener
            )
            with view:
                try:
                    carry(runner, view, opener)
                finally:
                    self.kept = runner.kept
            # Shown as it is; kept with whom an abort has to take it from.
            self.file.save(remember(saved, self.kept))

    def show_end(self, *, as_json: bool, report: Path | None) -> None:
        """Print how it ended."""
        text = self.write_report(report)
        if as_json:
            click.echo(text)
            return
        now, course = clock(), self.kept.course
        left_out = len(self.inventory.board) - len(course.boards)
        shown = final_view(self.plan, course, now, left_out)
        show_lines(Console(highlight=False), shown)

    def write_report(self, report: Path | None) -> str:
        """Write how it stands to a file, if one is named; return it.

        Raises:
            SettingsError: The file cannot be written.
        """
        described = describe_rollout(self.kept, self.plan, clock())
        known = [board.id for board in self.inventory.board]
        outside = [name for name in known if name not in self.kept.course.boards]
        text = json.dumps(described | {"left_out": outside}, indent=2)
        if report is not None:
            write_report(report, text + "\n")
        return text

    def _papers(self) -> Remote:
        """Return the files for TLS."""
        return choose_papers(self.inventory.papers, self.path, self.options)

    def _check(
        self,
        files: Slice | None,
        publisher: Publisher | None,
        notes: list[str],
        *,
        with_keys: bool = True,
    ) -> FirstLook:
        """Check what can be known before anybody is told; return what boards said.

        Raises:
            AgentError: The operator has to mend something first.
        """
        papers, patience = self._papers(), Patience()
        check_role(papers["certificate"])
        if publisher is not None:
            publisher.rehearse(with_keys=with_keys)
        asked = [it for it in self.inventory.board if it.id in self.kept.course.boards]
        # Links of their own: a thread may still wait at one when the rollout begins.
        links = link_boards(asked, papers, patience.pause)
        named = {board.id: link for board, link in zip(asked, links, strict=True)}
        look = look_around(named, patience.end)
        check_boards(look, self.kept.assign, "tuf" if publisher else PUSH)
        if files is not None:
            check_slice(files, self.kept.assign, look)
        if publisher is not None:
            groups = publisher.repository.status().groups
            names = [*self.kept.assign]
            waves, group = self.plan.waves, publisher.group
            notes += find_strays(look, waves, group, groups, names)
        return look

    def _chosen(self, saved: Kept | None) -> Kept:
        """Return the rollout to work on: the saved one, or one that begins.

        Raises:
            SettingsError: ``rollout``: the saved one is another, or was aborted.
        """
        again = self.options["restart"]
        if saved is None or saved.course.phase is Phase.DONE:
            self.file.forget_asked()
            return self.kept
        if saved.course.phase is Phase.ABORTED:
            if saved.assign == self.kept.assign and not again:
                raise SettingsError(
                    f"{self.file.path}: this rollout was aborted: {saved.course.why}",
                    reason=Reason.ROLLOUT,
                    todo="Say --restart to begin it anew.",
                )
            self.file.forget_asked()
            return self.kept
        check_belongs(saved, self.kept)
        asked = self.file.asked()
        # Who runs it again goes on after a pause; an abort is not outlived like this.
        if asked is not None and asked.order == "pause":
            self.file.forget_asked()
        course = resume(saved.course, clock(), retry=self.options["retry"])
        return replace(saved, course=course)

    def _slice(self, opened: ExitStack) -> Slice | None:
        """Return the files to bring, if there are any."""
        path = self.options["repository"]
        if path is None or self.options["by_percent"]:
            return None
        return opened.enter_context(open_slice(path))

    def _publisher(
        self, told: Callable[[str], None], *, with_keys: bool = True
    ) -> Publisher | None:
        """Return who publishes the waves; None where boards are told by us."""
        group, path = self.options["by_percent"], self.options["repository"]
        if not group or path is None:
            return None
        keys, files = self.options["keys"], self.options["passphrase_files"]
        return Publisher(
            open_with_keys(path, keys, files) if with_keys else Repository.open(path),
            group_of(group),
            self.kept.assign,
            self.plan.waves,
            [board.id for board in self.inventory.board],
            self.kept.salt,
            clock,
            told,
            again=self.options["retry"],
            left=dict(self.kept.files),
        )
