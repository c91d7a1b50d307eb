"""Waves by a signed repository: each is a group file with a higher ``percent``.

The rules this module keeps:
 * A file that says already what it should is not published again: a newer generation
   would end what operators hold back by hand.
 * A pause is published, too: boards begin by themselves, and nobody else stops them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from agent.core.targets import GroupFile, Wanted, group_path
from agent.core.waves import Course, Phase, Wave
from agent.core.waves_draw import GROUP, percent_for, share_count
from agent.publish.repository import Repository
from agent.publish.staging import Assignment


@dataclass(slots=True)
class Publisher:
    """Publishes what the waves of one rollout say.

    Attributes:
        group: Whose file has the percent.
        assign: Pipeline -> (model, version), all models named.
        ids: All boards of the inventory.
        salt: Draws them.
        clock: Unix seconds.
        told: Is told what was published.
        again: Publish even what is published: failed boards try a newer generation.
    """

    repository: Repository
    group: str
    assign: Mapping[str, tuple[str, int]]
    waves: Sequence[Wave]
    ids: Sequence[str]
    salt: str
    clock: Callable[[], float]
    told: Callable[[str], None]
    again: bool = False

    def open_wave(self, course: Course) -> int:
        """Let the wave under way begin; return the generation that says so.

        Raises:
            AgentError: A key is missing, or a file cannot be written.
        """
        name = self.waves[course.wave].name
        asked = Assignment(percent=100.0, paused=False)
        group = name.removeprefix(GROUP)
        if group == name:
            count = share_count(name, len(self.ids))
            percent = percent_for(self.ids, count, self.salt)
            group = self.group
            asked = Assignment(percent=percent, salt=self.salt, paused=False)
        return self._publish(group, asked)

    def close(self, course: Course) -> None:
        """Let no more boards begin, unless all may.

        Raises:
            AgentError: As ``open_wave``.
        """
        if course.phase is Phase.DONE:
            return
        names = {wave.name for wave in self.waves[: course.wave + 1]}
        groups = {
            n.removeprefix(GROUP) if n.startswith(GROUP) else self.group for n in names
        }
        for group in sorted(groups):
            if self.repository.status().groups.get(group) is not None:
                self._publish(group, Assignment(paused=True))

    def _publish(self, group: str, asked: Assignment) -> int:
        """Publish a group's file, if it would say anything new."""
        known = self.repository.status().groups.get(group)
        wanted = {} if asked.paused else dict(self.assign)
        if known is not None and not self.again and _says(known, wanted, asked):
            return known.generation
        file = self.repository.desire(group_path(group), wanted, asked)
        self.repository.publish(self.clock())
        share = "paused" if file.paused else f"for {file.percent:g} % of boards"
        self.told(f"published group:{group}, generation {file.generation}, {share}")
        return file.generation


def _says(
    known: GroupFile, wanted: Mapping[str, tuple[str, int]], asked: Assignment
) -> bool:
    """Return whether a file says what is asked for already."""
    pipelines = {name: Wanted(*it) for name, it in wanted.items()}
    changes = {
        key: value
        for key in ("percent", "salt", "paused")
        if (value := getattr(asked, key)) is not None
    }
    return known == replace(
        known, pipelines={**known.pipelines, **pipelines}, **changes
    )
