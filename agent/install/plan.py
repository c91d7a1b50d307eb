"""What ``tinyward install`` has to do: from what there is to an ordered list of steps.

The rules this module keeps:
 * Nothing is read or changed here: facts and wishes in, steps out. What is so already
   is in the plan as well, marked, so that people see all of it.
 * The order is the safety: everything a version needs is there before ``current``
   points to it, and from before that moment until it was ready, ``previous`` and the
   trial marker say how to go back.
 * Settings of an operator are never overwritten, nor is a fleet's root without being
   asked. Settings that nobody has changed since an installation wrote them are ours.
"""

from collections.abc import Iterator

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.install.facts import Facts, Found, configured
from agent.install.places import (
    BEFORE,
    CURRENT,
    DEMO,
    DEMO_REPOSITORY,
    FLEET_ROOT,
    IDENTITY,
    PREVIOUS,
    PROGRAM,
    PROGRAM_TARGET,
    SETTINGS,
    SLOT_FOLDER,
    STARTED,
    SYSUSERS,
    TMPFILES,
    TRIAL,
    USER,
)
from agent.install.settings_change import rewrites, settings_after, what_lacks
from agent.install.steps import (
    Apply,
    Check,
    Enable,
    KeepState,
    Link,
    MakeDemo,
    MakeIdentity,
    Plan,
    Planned,
    Reload,
    Remove,
    Restart,
    RestoreState,
    StartLater,
    Stop,
    WriteFile,
)
from agent.install.wanted import Wanted

_IDLE = ("inactive", "failed")


def paths_of(wanted: Wanted) -> list[str]:
    """Return the paths whose content the plan depends on."""
    return [*wanted.units, SYSUSERS, TMPFILES, FLEET_ROOT, SETTINGS, PROGRAM]


def plan_install(facts: Facts, wanted: Wanted) -> Plan:
    """Return the steps that install a slot, or upgrade to it.

    Raises:
        SettingsError: Something is in the way that only its owner may remove.
    """
    check_way(facts, wanted)
    return (*_prepare(facts, wanted), *_take_over(facts, wanted))


def plan_fall_back(facts: Facts, wanted: Wanted) -> Plan:
    """Return the steps by which the slot before takes its place again.

    Each is safe to repeat: a power cut in between only means that the version on trial
    is tried once more, and that this is done again.

    Raises:
        SettingsError: ``not_installed``: this is not the slot before.
    """
    if facts.previous != wanted.slot:
        raise SettingsError(
            f"slot {wanted.slot} is not the one before ({facts.previous or 'none'})",
            reason=Reason.NOT_INSTALLED,
            todo=f"{PREVIOUS}/bin/tinyward install --fall-back",
        )
    restores = facts.kept_schema not in (0, facts.schema)
    # Only where something runs: stopping the service ends the fall-back's own unit,
    # too, and that unit begins only after the service has failed.
    idle = facts.service.active in _IDLE
    steps: list[Planned] = [
        Planned(Stop("the service is stopped"), idle),
        Planned(
            RestoreState("the state is the one this version left", facts.state_dir),
            not restores,
        ),
        # Its own: those of the version on trial may want what this one has not.
        *_units(facts, wanted),
        _link(facts, CURRENT, wanted.slot, "slot {} runs"),
        # Before the start: if this version fails as well, for whatever reason, two
        # units would go back to it in turns for ever.
        _remove(f"no version is on trial ({TRIAL})", TRIAL, there=facts.on_trial),
        _remove("the copy of the state is gone", BEFORE, there=facts.kept_schema != 0),
    ]
    steps.append(Planned(Reload("systemd knows the units"), _knows(facts, steps)))
    return (*steps, Planned(StartLater("the service is started")))


def check_way(facts: Facts, wanted: Wanted) -> None:
    """Refuse what would destroy something that is not ours, or could not work.

    Raises:
        SettingsError: ``not_installed``, ``settings`` or ``state``.
    """
    # Somebody's wrapper, or a `pip install` as root: both are theirs to remove.
    program = facts.found.get(PROGRAM)
    if program is not None and not facts.links(PROGRAM, PROGRAM_TARGET):
        raise SettingsError(
            f"{PROGRAM} is not ours" + (program.target and f": -> {program.target}"),
            reason=Reason.NOT_INSTALLED,
            todo=f"Move it away (`mv {PROGRAM} {PROGRAM}.old`), then run this again.",
        )
    root = facts.found.get(FLEET_ROOT)
    if wanted.fleet_root and root and root.content != wanted.fleet_root:
        _check_replacing(wanted)
    # The daemon would refuse it as well, but only after the switch and a restart.
    if facts.schema > wanted.schema:
        raise SettingsError(
            f"the state in {facts.state_dir} is of a newer Tinyward (schema "
            f"{facts.schema}); {wanted.version} knows {wanted.schema} and older",
            reason=Reason.STATE,
            todo="Install the newer version again. To go back for good, stop the "
            f"service and move {facts.state_dir} away: models come again, and version "
            "floors begin anew.",
        )


def _check_replacing(wanted: Wanted) -> None:
    """Refuse to change whom this board trusts without being asked."""
    if wanted.replace_root:
        return
    raise SettingsError(
        f"{FLEET_ROOT} is there and another one: it says whom this board trusts",
        reason=Reason.SETTINGS,
        todo="Compare both; `--replace-root` replaces it. The board then begins anew "
        "with the other fleet's versions.",
    )


def _prepare(facts: Facts, wanted: Wanted) -> Iterator[Planned]:
    """All that no running version is touched by."""
    # The fragments stay: they restore user and directories that somebody removed.
    yield _write(facts, "the fragment of its user", SYSUSERS, wanted.shipped.sysusers)
    users = Apply(f"user and group {USER}", "systemd-sysusers", SYSUSERS)
    yield Planned(users, facts.user)
    line = "the fragment of its directories"
    yield _write(facts, line, TMPFILES, wanted.shipped.tmpfiles)
    folders = Apply("directories with their modes", "systemd-tmpfiles", TMPFILES)
    yield Planned(folders, facts.folders)
    # Before the settings that name it: a daemon that starts in between finds it.
    if _runs_demo(facts, wanted):
        line = f"the demo's model, signed for this board alone ({DEMO})"
        yield Planned(MakeDemo(line), facts.demo)
    if wanted.fleet_root is not None:
        yield _write(facts, "the fleet's root", FLEET_ROOT, wanted.fleet_root)
    yield _settings(facts, wanted)
    if wanted.board:
        line = f"key and certificate request of {wanted.board} ({IDENTITY})"
        yield Planned(MakeIdentity(line, wanted.board), facts.identity)
    if wanted.starts:
        yield Planned(Check(f"slot {wanted.slot} runs here, with these settings"))


def _settings(facts: Facts, wanted: Wanted) -> Planned:
    """The settings, where there are none or ours: nobody's own are overwritten."""
    found = facts.found.get(SETTINGS)
    content = settings_after(facts, wanted)
    line = "settings that work as they are"
    if wanted.own_settings:
        line = "your settings"
    # Not for everybody: addresses and commands of a fleet are nobody else's business.
    step = WriteFile(f"{line} ({SETTINGS})", SETTINGS, content, 0o640, True)
    if found is None or rewrites(facts, wanted):
        return Planned(step)
    return Planned(step, already=True, todo=what_lacks(found, wanted))


def _runs_demo(facts: Facts, wanted: Wanted) -> bool:
    """Whether the settings, those there or else the new ones, name the demo."""
    # An upgrade of a board with models of its own must not bring the demo back.
    settings = configured(Found(content=settings_after(facts, wanted)))
    slices = [it.factory for it in settings.pipeline] if settings else []
    return DEMO_REPOSITORY in slices


def _take_over(facts: Facts, wanted: Wanted) -> Iterator[Planned]:
    """From here on a power cut may start the new version."""
    # The same slot again (a drop-in, a repeated line) has no way back to lay.
    upgrades = facts.current not in ("", wanted.slot)
    steps: list[Planned] = []
    if upgrades:
        steps.append(_link(facts, PREVIOUS, facts.current, "slot {} is the one before"))
        line = f"slot {wanted.slot} is on trial ({TRIAL})"
        steps.append(_write(facts, line, TRIAL, f"{wanted.slot}\n".encode()))
    # After the marker: should the old version not start with the new units, the
    # fall-back gives it its own again.
    steps += _units(facts, wanted)
    if upgrades and facts.schema not in (0, wanted.schema):
        # Only here does it stop for longer than a restart. A copy of the running one
        # could miss its last transaction, and with it the floor that this raised.
        steps.append(Planned(Stop("the service is stopped"), _is_idle(facts)))
        line = f"a copy of the state, for the way back ({BEFORE})"
        steps.append(Planned(KeepState(line, facts.state_dir)))
    steps.append(_link(facts, CURRENT, wanted.slot, "slot {} is the one that runs"))
    program = Link(f"the command tinyward ({PROGRAM})", PROGRAM, PROGRAM_TARGET)
    steps.append(Planned(program, facts.links(PROGRAM, PROGRAM_TARGET)))
    steps.append(Planned(Reload("systemd knows the units"), _knows(facts, steps)))
    line = "the service starts at boot"
    steps.append(Planned(Enable(line), facts.service.enabled))
    yield from steps
    if wanted.starts:
        changed = rewrites(facts, wanted) or not all(it.already for it in steps)
        yield from _start(facts, wanted, changed=changed)


def _start(facts: Facts, wanted: Wanted, *, changed: bool) -> Iterator[Planned]:
    """Start the service unless all of it runs already, and accept the version."""
    same = facts.has(STARTED, wanted.stamp, 0o644)
    # One restart is one pause of every pipeline: not without need.
    runs = facts.service.active == "active" and same and not changed
    line = f"tinyward {wanted.version} runs and is ready"
    note = "there is no way back: next time fill the other slot" * _was_refilled(
        facts, wanted
    )
    yield Planned(Restart(line), runs, note)
    line = f"no version is on trial ({TRIAL})"
    trial = facts.on_trial or facts.current not in ("", wanted.slot)
    # The unit removes the marker at READY; units of others may not.
    yield _remove(line, TRIAL, there=trial)
    kept = facts.kept_schema != 0 or facts.schema not in (0, wanted.schema)
    yield _remove("no copy of the state is left", BEFORE, there=kept)
    # Last: a run that was killed restarts once more, which is better than never.
    yield _write(facts, "a note of what was started", STARTED, wanted.stamp)


def _was_refilled(facts: Facts, wanted: Wanted) -> bool:
    """Whether this slot was filled anew while it ran; other units do not count."""
    started = facts.found.get(STARTED)
    if facts.current != wanted.slot or started is None:
        return False
    # The last word is the digest of the units.
    have = (started.content or b"").split()
    return have[:3] != wanted.stamp.split()[:3]


def _units(facts: Facts, wanted: Wanted) -> Iterator[Planned]:
    """The unit files, and the drop-ins that change one."""
    for path, content in wanted.units.items():
        what = "the drop-in" if path in wanted.drop_ins else "the unit"
        yield _write(facts, what, path, content)


def _knows(facts: Facts, steps: list[Planned]) -> bool:
    """Whether systemd has read the unit files as they will be."""
    written = any(isinstance(it.step, WriteFile) and not it.already for it in steps)
    return not written and not facts.service.stale


def _is_idle(facts: Facts) -> bool:
    """Whether the service does not run."""
    return facts.service.active in _IDLE


def _write(facts: Facts, what: str, path: str, content: bytes) -> Planned:
    """A file with mode 0644, unless it is there."""
    line = what if path in what else f"{what} ({path})"
    return Planned(WriteFile(line, path, content), facts.has(path, content, 0o644))


def _link(facts: Facts, path: str, slot: str, line: str) -> Planned:
    """A link to a slot beside it, unless it is there."""
    have = {CURRENT: facts.current, PREVIOUS: facts.previous}[path]
    said = line.format(f"{SLOT_FOLDER}/{slot}")
    return Planned(Link(f"{said} ({path})", path, slot), have == slot)


def _remove(line: str, path: str, *, there: bool) -> Planned:
    """A name that is there no more."""
    return Planned(Remove(line, path), not there)
