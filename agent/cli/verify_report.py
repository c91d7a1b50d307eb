"""What ``tinyward verify`` found, step by step: kept, as JSON, and on a terminal."""

import json
import shutil
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import click

from agent.cli.plain_text import plain
from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason
from agent.errors import BundleRefusedError

# In the order in which a board checks them; the first that does not hold is the last.
STEPS = (
    ("root", "the chain of roots begins with the given one"),
    ("clock", "what time it is"),
    ("timestamp", "which snapshot is newest"),
    ("snapshot", "which versions belong together"),
    ("targets", "which bundles are signed"),
    ("fleet", "which desired states are signed"),
    ("listed", "the bundle is one of them"),
    ("content", "the repository's copy is what was signed"),
    ("container", "the bundle opens, and its parts are what its manifest says"),
    ("fields", "its manifest says what was signed about it"),
)
# What the last steps say about a sealed bundle that no key opened.
_UNOPENED = {
    "container": "not opened",
    "fields": "what was signed about it",
}
_COLOURS = {"✓": "green", "✗": "red", "-": "yellow"}


@dataclass(slots=True)
class Report:
    """What was checked, in order; the step after the last one is what failed.

    Attributes:
        passed: (step, detail) of each step that held.
        reason: Why the next one did not; empty if all held.
        message: The same for people.
        todo: What its reader can do.
        unopened: It is sealed, and no key was at hand: the last two steps hold only as
            far as what was signed says.
    """

    passed: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""
    message: str = ""
    todo: str = ""
    unopened: bool = False

    def note(self, step: str, detail: str) -> None:
        """Take a step that held."""
        self.passed.append((step, detail))

    def fail(self, error: BundleRefusedError) -> None:
        """Take why the next step did not hold."""
        self.reason, self.message = error.reason, str(error)
        self.todo = error.todo or EXPLANATIONS[Reason(error.reason)].todo

    @property
    def failed(self) -> str:
        """Name of the step that did not hold, or empty."""
        return STEPS[len(self.passed)][0] if self.reason else ""

    def render(self) -> str:
        """Return the report as JSON."""
        steps = [
            {"step": number, "name": name, "ok": True, "detail": detail}
            for number, (name, detail) in enumerate(self.passed, 1)
        ]
        if self.reason:
            steps.append(
                {
                    "step": len(steps) + 1,
                    "name": self.failed,
                    "ok": False,
                    "detail": self.message,
                }
            )
        verdict: dict[str, object] = {"ok": not self.reason, "reason": self.reason}
        if self.unopened:
            verdict["opened"] = False
        if self.reason:
            verdict["todo"] = self.todo
        return json.dumps(verdict | {"steps": steps}, indent=2)


def show_report(report: Report, bundle: Path) -> None:
    """Print the numbered steps; what is too wide goes on below its own text."""
    left = _UNOPENED if report.unopened else {}
    said = {**dict(STEPS), **left}
    # What is not trusted yet chooses some of these words: names, paths, versions.
    lines = [
        ("-" if name in left else "✓", f"{name}: {said[name]}: {plain(detail)}")
        for name, detail in report.passed
    ]
    if report.reason:
        why = plain(report.message)
        lines.append(("✗", f"{report.failed}: {why} [{report.reason}]"))
    width = shutil.get_terminal_size().columns
    for number, (mark, text) in enumerate(lines, 1):
        step = textwrap.fill(
            f"{number:2} {mark} {text}",
            width,
            subsequent_indent=" " * 5,
            break_on_hyphens=False,
        )
        click.echo(step.replace(mark, click.style(mark, _COLOURS[mark]), 1))
    if report.reason:
        click.echo(f"to do: {report.todo}")
    else:
        unopened = ", sealed, and was not opened" if report.unopened else ""
        click.echo(f"{bundle} is what its publisher signed{unopened}")
