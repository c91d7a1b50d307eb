"""Waves by a signed repository: each is a group file with a higher ``percent``.

The rules this module keeps:
 * A file that says already what it should is not published again: a newer generation
   would end what operators hold back by hand.
 * A pause is published, too: boards begin by themselves, and nobody else stops them.
 * Others publish as well: a file that is not as we left it is theirs, and is left
   alone; what they have staged is neither signed nor lost.
 * What a file will say is durable before it is published: who comes after a crash can
   tell our publication from another's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from agent.core.reasons import Reason
from agent.core.targets import GroupFile, Wanted, bundle_path
from agent.core.waves import Course, Phase, Wave
from agent.core.waves_draw import GROUP, percent_for, share_count
from agent.errors import SettingsError
from agent.publish.repository import Repository
from agent.publish.staging import Assignment, Staged, next_group
from agent.publish.status import Status

Files = dict[str, GroupFile]


class OverruledError(SettingsError):
    """Somebody else published what the boards of a rollout follow."""


def forget(files: Files) -> None:
    """Keep nothing: where nothing outlives the process anyway."""
    del files


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
        left: Group files as we published them last, or found them at the beginning.
        note: Makes ``left`` durable.
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
    left: Files = field(default_factory=dict)
    note: Callable[[Files], None] = forget
    _renewed: set[str] = field(default_factory=set)
    _looked_at: int = -1

    def __post_init__(self) -> None:
        """Look at the files as they are, unless it is known how we left them."""
        # Who says --retry has seen what others published, and wants ours all the same.
        if not self.left or self.again:
            asked = self._asked(len(self.waves) - 1)
            known = self.repository.status().groups
            self.left = {name: it for name, it in known.items() if name in asked}

    def rehearse(self, *, with_keys: bool = True) -> None:
        """Check what can be known before anybody is told.

        Raises:
            AgentError: Somebody else's work is staged, a version cannot be assigned,
                a share would be lowered, or a key does not sign.
        """
        status = self.repository.status()
        if status.staged:
            raise SettingsError(
                f"{self.repository.path}: not published yet: {_names(status.staged)}",
                reason=Reason.ROLLOUT,
                todo="Publish it with `tinyward repo publish`, or remove staged.json.",
            )
        check_listed(status, self.assign, str(self.repository.path))
        for wave in self.waves:
            group = self._group_of(wave)
            self._next(group, status.groups.get(group), self._asks(wave))
        if with_keys:
            self.repository.rehearse(self.clock())

    def open_wave(self, course: Course) -> int:
        """Let the waves so far begin; return the generation of the one under way.

        Those before are opened, too: a pause has closed the files of all.

        Raises:
            OverruledError: A file is not ours any more.
            AgentError: A key is missing, or a file cannot be written.
        """
        status = self.repository.status()
        asked = self._asked(course.wave)
        self._require_ours(status, asked)
        check_listed(status, self.assign, str(self.repository.path))
        news = {
            group: file
            for group, it in asked.items()
            if (file := self._next(group, status.groups.get(group), it)) is not None
        }
        self._publish(news)
        self._renewed.update(asked)
        group = self._group_of(self.waves[course.wave])
        return {**status.groups, **news}[group].generation

    def check(self, course: Course) -> None:
        """Look whether somebody else published, once something was.

        Raises:
            OverruledError: A file of a wave so far is not ours any more.
        """
        if course.phase is not Phase.RUNNING:
            return
        beacon = self.repository.path / "metadata" / "timestamp.json"
        try:
            changed_at = beacon.stat().st_mtime_ns
        except OSError:
            return  # told of when it is read
        if changed_at != self._looked_at:
            self._looked_at = changed_at
            self._require_ours(self.repository.status(), self._asked(course.wave))

    def close(self, course: Course) -> None:
        """Let no more boards begin, unless all may.

        Raises:
            AgentError: As ``open_wave``.
        """
        if course.phase is Phase.DONE:
            return
        groups = self.repository.status().groups
        news: Files = {}
        for group in self._asked(course.wave):
            known = groups.get(group)
            if known is None:
                continue
            if self._is_foreign(group, known):
                self.told(f"group:{group} was published by somebody else: left as is")
            elif self._carries(known) and not known.paused:
                file = next_group(known, {}, Assignment(paused=True))
                news[group] = replace(file, generation=known.generation + 1)
        self._publish(news)

    def _asked(self, last: int) -> dict[str, Assignment]:
        """Return what the files shall say when a wave begins, by group."""
        asked: dict[str, Assignment] = {}
        for wave in self.waves[: last + 1]:
            group, it = self._group_of(wave), self._asks(wave)
            before = asked.get(group, it)
            # Waves may be written in any order: a later one lowers no share.
            asked[group] = max(before, it, key=lambda each: each.percent or 0.0)
        return asked

    def _asks(self, wave: Wave) -> Assignment:
        """Return what one wave's file shall say."""
        if wave.name.startswith(GROUP):
            return Assignment(percent=100.0, paused=False)
        count = share_count(wave.name, len(self.ids))
        percent = percent_for(self.ids, count, self.salt)
        return Assignment(percent=percent, salt=self.salt, paused=False)

    def _group_of(self, wave: Wave) -> str:
        """Return the group by whose file a wave goes."""
        named = wave.name.startswith(GROUP)
        return wave.name.removeprefix(GROUP) if named else self.group

    def _next(
        self, group: str, known: GroupFile | None, asked: Assignment
    ) -> GroupFile | None:
        """Return what a file shall say; None where it says that already.

        Raises:
            OverruledError: A share would be taken from boards that have it.
        """
        if known is not None and self._carries(known):
            asked = self._not_lowered(group, known, asked)
        file = next_group(known, self.assign, asked)
        renew = self.again and group not in self._renewed
        if known == file and not renew:
            return None
        return replace(file, generation=known.generation + 1 if known else 1)

    def _not_lowered(
        self, group: str, known: GroupFile, asked: Assignment
    ) -> Assignment:
        """Return an assignment that takes our versions from no board."""
        percent = 100.0 if asked.percent is None else asked.percent
        if known.percent < 100 and percent < 100 and known.salt != self.salt:
            raise OverruledError(
                f"group:{group} is for {known.percent:g} % of boards already, drawn by "
                f"another salt: {known.salt}",
                reason=Reason.ROLLOUT,
                todo="Say that salt with --salt, or --wave all.",
            )
        if known.percent >= percent:
            return replace(asked, percent=None, salt=None)
        return asked

    def _require_ours(self, status: Status, groups: Mapping[str, Assignment]) -> None:
        """Check that nobody else published a file of ours.

        Raises:
            OverruledError: Somebody did.
        """
        for group in groups:
            known = status.groups.get(group)
            if known is None or not self._is_foreign(group, known):
                continue
            said = ", ".join(
                f"{name} = {it.model} {it.version}"
                for name, it in known.pipelines.items()
            )
            what = "paused" if known.paused else f"{known.percent:g} % of boards"
            raise OverruledError(
                f"somebody else published group:{group}: {said}, {what} "
                f"(generation {known.generation})",
                reason=Reason.ROLLOUT,
                todo="Say --retry to publish ours over it, or `tinyward fleet abort`.",
            )

    def _is_foreign(self, group: str, known: GroupFile) -> bool:
        """Return whether a file is neither ours nor what was there before us."""
        left = self.left.get(group)
        if left is None:
            return True
        # An older one: what we meant to publish did not get there.
        return known != left and known.generation >= left.generation

    def _carries(self, known: GroupFile) -> bool:
        """Return whether a file brings what we bring."""
        return all(
            known.pipelines.get(name) == Wanted(*it) for name, it in self.assign.items()
        )

    def _publish(self, news: Files) -> None:
        """Publish files together, and nothing that others have staged."""
        if not news:
            return
        self.left = {**self.left, **news}
        self.note(self.left)
        self.repository.publish(self.clock(), only=Staged(groups=news))
        for group, file in sorted(news.items()):
            share = "paused" if file.paused else f"for {file.percent:g} % of boards"
            self.told(f"published group:{group}, generation {file.generation}, {share}")


def check_listed(
    status: Status, assign: Mapping[str, tuple[str, int]], where: str
) -> None:
    """Check that a repository lists what is assigned, and did not revoke it.

    Raises:
        SettingsError: ``missing_target`` or ``revoked``.
    """
    listed = {bundle.path: bundle.sha256 for bundle in status.bundles}
    for model, version in assign.values():
        digest = listed.get(bundle_path(model, version))
        if digest is None:
            raise SettingsError(
                f"{where}: {model} {version} is not published there",
                reason=Reason.MISSING_TARGET,
                todo="Add and publish it first: `tinyward repo add`, `publish`.",
            )
        if digest in status.revoked.bundles:
            raise SettingsError(
                f"{where}: {model} {version} is revoked",
                reason=Reason.REVOKED,
                todo="Roll out a version that is not.",
            )


def _names(staged: Staged) -> str:
    """Name what is staged, the first few of it."""
    names = [f"group:{name}" for name in staged.groups]
    names += [f"device:{name}" for name in staged.devices]
    names += [*staged.bundles, *staged.unlisted, *staged.deltas]
    names += ["revocations"] if staged.revoked is not None else []
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
