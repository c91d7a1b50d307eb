"""All faults by name, each with the line of the fault list that it proves."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tests.faults import cases, power, rooms
from tests.faults.daemon_kills import KILLS, PHASES, daemon_kills
from tests.faults.driver import Variant
from tests.faults.parallel import Case
from tests.faults.scenes import Name, Scene
from tests.faults.strace import killed_by_strace

BOTH: tuple[Name, ...] = ("update", "install")
UPDATE: tuple[Name, ...] = ("update",)
Build = Callable[[Scene, bool], Iterator[Case]]
OPENS = frozenset({"open", "openat", "creat"})


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of fault, at every place where it can happen.

    Attributes:
        line: Of the attack and fault list; 0 for a control.
        title: For people.
        build: (scene, every) -> its cases: at every call, or once for each code site.
        scenes: Which updates it is done to; all the others too with ``--every``.
        only: Not even with ``--every``.
        ordered: Its cases are moments of one life, in their order: nothing that was
            durable may be undone later, and the last one has all of it.
        control: Wrong on purpose; at least one case has to be caught.
        mounts: It needs a mount namespace.
    """

    line: int
    title: str
    build: Build
    scenes: tuple[Name, ...] = BOTH
    only: bool = False
    ordered: bool = False
    control: bool = False
    mounts: bool = False


def _states(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Copy all states of one run."""
    del every
    return cases.kill_states(scene)


def _numbers(scene: Scene, every: bool) -> list[int]:  # noqa: FBT001 - a Build's
    """Return every call, or the first of each code site."""
    if every:
        return [call.number for call in cases.whole_life(scene)]
    return sorted(cases.code_sites(scene).values())


def _killed(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Kill for real."""
    return cases.killed(scene, _numbers(scene, every))


def _stopped(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Stop politely."""
    return cases.stopped(scene, _numbers(scene, every))


def _slow(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Let every sync take its time."""
    return cases.slow(scene, 0.5 if every else 0.05)


def _traced(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Let strace kill."""
    del every
    names = {call.name for call in cases.whole_life(scene)}
    return killed_by_strace(scene, sorted(names))


def _daemons(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Kill real daemons."""
    return daemon_kills(scene, 3 * KILLS if every else KILLS)


def _each_phase(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Kill real daemons, once or often in each phase."""
    return daemon_kills(scene, len(PHASES) * (3 if every else 1))


def _stopped_daemons(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001
    """Stop real daemons politely, once or often in each phase."""
    return daemon_kills(scene, len(PHASES) * (3 if every else 1), signal.SIGTERM)


def _failing(error: str, *, sticky: bool = False) -> Build:
    """Return a build that lets calls fail; a code site once, in whichever scene."""
    seen: set[cases.Site] = set()

    def build(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
        if every:
            numbers = [call.number for call in cases.whole_life(scene)]
        else:
            sites = cases.code_sites(scene)
            numbers = sorted(n for site, n in sites.items() if site not in seen)
            seen.update(sites)
        return cases.failing(scene, numbers, error, sticky=sticky)

    return build


def _no_descriptors(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001
    """Let opens fail for want of descriptors."""
    opens = {c.number for c in cases.whole_life(scene) if c.name in OPENS}
    numbers = sorted(opens & set(_numbers(scene, every)))
    return cases.failing(scene, numbers, "EMFILE")


def _cut(options: str, weather: power.Weather) -> Build:
    """Return a build that cuts the power."""

    def build(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
        del every
        return power.cut_power(scene, options, weather)

    return build


def _full(what: rooms.What) -> Build:
    """Return a build of disks without room."""

    def build(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
        del every
        return rooms.full(scene, what)

    return build


def _wrong(variant: Variant) -> Build:
    """Return a build of all kill states of a life that is wrong on purpose."""

    def build(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
        del every
        return cases.kill_states(scene, variant)

    return build


def _some_of(build: Build) -> Build:
    """Return a build of every third case: what lasts some calls is seen so, too."""

    def some(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
        return islice(build(scene, every), 0, None, 1 if every else 3)

    return some


def _wrong_cut(scene: Scene, every: bool) -> Iterator[Case]:  # noqa: FBT001 - a Build
    """Cut the power of a life that does not sync its object."""
    del every
    return power.cut_power(scene, power.OPTIONS[0], "calm", "object_not_synced")


def _power_cuts() -> dict[str, Part]:
    """Return one part for each mount option and weather."""
    return {
        f"power-{number}-{weather}": Part(
            64,
            f"power cut: {options}, {weather}",
            _cut(options, weather),
            scenes=UPDATE,
            only=True,
            ordered=True,
            mounts=True,
        )
        for number, options in enumerate(power.OPTIONS, start=1)
        for weather in power.WEATHERS
    } | {
        "power-sealed": Part(
            64,
            f"power cut: {power.OPTIONS[0]}, sealed models",
            _cut(power.OPTIONS[0], "calm"),
            scenes=("sealed",),
            only=True,
            ordered=True,
            mounts=True,
        )
    }


FAULTS = {
    "kill": Part(60, "state after every mutating call", _states, ordered=True),
    "delta": Part(
        60,
        "state after every mutating call of an update by delta",
        _states,
        scenes=("delta",),
        only=True,
        ordered=True,
    ),
    "sealed": Part(
        60,
        "state after every mutating call of an update of sealed models",
        _states,
        scenes=("sealed",),
        only=True,
        ordered=True,
    ),
    "sealed-eio": Part(
        62, "EIO once, of sealed models", _failing("EIO"), ("sealed",), only=True
    ),
    "sigkill": Part(60, "real SIGKILL at a mutating call", _killed, scenes=UPDATE),
    "strace": Part(
        60, "strace: SIGKILL at the k-th call", _traced, scenes=UPDATE, only=True
    ),
    "daemon": Part(
        60, "SIGKILL of the real daemon", _daemons, scenes=UPDATE, only=True
    ),
    "daemon-sealed": Part(
        60,
        "SIGKILL of the real daemon, once in each phase of a sealed update",
        _each_phase,
        scenes=("sealed",),
        only=True,
    ),
    "enospc": Part(61, "ENOSPC once", _failing("ENOSPC")),
    "enospc-sticky": Part(
        61, "ENOSPC from there on", _failing("ENOSPC", sticky=True), scenes=UPDATE
    ),
    "full-blocks": Part(61, "no block left, for real", _full("blocks"), mounts=True),
    "eio": Part(62, "EIO once", _failing("EIO")),
    **_power_cuts(),
    "edquot": Part(
        65, "EDQUOT from there on", _failing("EDQUOT", sticky=True), scenes=UPDATE
    ),
    "erofs": Part(
        65, "read-only from there on", _failing("EROFS", sticky=True), scenes=UPDATE
    ),
    "emfile": Part(65, "no descriptor for an open", _no_descriptors),
    "full-inodes": Part(65, "no inode left, for real", _full("inodes"), mounts=True),
    "sigterm": Part(69, "SIGTERM at a mutating call", _stopped, scenes=UPDATE),
    "daemon-sigterm": Part(
        69, "SIGTERM of the real daemon", _stopped_daemons, scenes=UPDATE, only=True
    ),
    "slow": Part(70, "every sync is slow", _slow),
}
CONTROLS = {
    "late-killed": Part(
        0,
        "wrong: object stored after the commit, kill -9",
        _wrong("object_after_commit"),
        scenes=UPDATE,
        control=True,
        only=True,
    ),
    "late-envelope": Part(
        0,
        "wrong: envelope kept after the commit, kill -9",
        _some_of(_wrong("envelope_after_commit")),
        scenes=("sealed",),
        control=True,
        only=True,
    ),
    "unsynced-cut": Part(
        0,
        "wrong: one fsync removed, power cut",
        _wrong_cut,
        scenes=UPDATE,
        control=True,
        only=True,
        mounts=True,
    ),
    # The other half of that control: what kill -9 alone cannot see.
    "unsynced-killed": Part(
        0,
        "wrong: one fsync removed, kill -9 sees nothing",
        _wrong("object_not_synced"),
        scenes=UPDATE,
        only=True,
        ordered=True,
    ),
}
PARTS = FAULTS | CONTROLS
