"""What ``tinyward uninstall`` has to do: everything that an installation made, undone.

The rules this module keeps:
 * Settings, state and user stay unless a purge is asked for: the next installation goes
   on where this one ended.
 * What runs goes first, the program itself last: a removal that was killed can be
   called again.
 * Nothing is removed that installation did not make: a foreign command of the same name
   stays, and so do drop-ins and slots' neighbours of an operator, until a purge.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agent.install.facts import Facts
from agent.install.places import (
    BEFORE,
    CURRENT,
    DEMO,
    DROP_INS,
    FALLBACK,
    PREVIOUS,
    PROGRAM,
    PROGRAM_TARGET,
    SERVICE,
    SETTINGS_FOLDER,
    SLOT_FOLDER,
    SLOTS,
    STARTED,
    STATE,
    SYSUSERS,
    TMPFILES,
    TRIAL,
    UNIT_FOLDER,
    USER,
)
from agent.install.shipped import EXTRAS, drop_in_path
from agent.install.steps import (
    Disable,
    Plan,
    Planned,
    Reload,
    Remove,
    RemoveUser,
    Stop,
)

UNITS = (f"{UNIT_FOLDER}/{SERVICE}", f"{UNIT_FOLDER}/{FALLBACK}")
_OF_SLOTS = (CURRENT, PREVIOUS, TRIAL, STARTED, BEFORE, DEMO)


@dataclass(frozen=True, slots=True)
class Removal:
    """What is asked for.

    Attributes:
        purge: Settings, state and user go, too.
        there: Paths of ours that exist, of ``paths_of_ours``.
    """

    purge: bool
    there: frozenset[str]


def paths_of_ours() -> list[str]:
    """Return every path that an installation may have made."""
    return [
        *UNITS,
        *(drop_in_path(extra) for extra in EXTRAS),
        *(DROP_INS, SYSUSERS, TMPFILES, PROGRAM, SETTINGS_FOLDER, STATE),
        *_OF_SLOTS,
        *(f"{SLOT_FOLDER}/{slot}" for slot in SLOTS),
        SLOT_FOLDER,
    ]


def plan_removal(facts: Facts, removal: Removal) -> Plan:
    """Return the steps that remove what was installed."""
    return (*_service(facts, removal), *_own(facts, removal), *_slots(removal))


def _service(facts: Facts, removal: Removal) -> Iterator[Planned]:
    """What runs, and what would run at the next boot."""
    idle = facts.service.active == "inactive"  # a failed one is to be forgotten
    yield Planned(Stop("the service is stopped"), idle)
    pauses = UNITS[1] in removal.there
    yield Planned(Stop("nothing waits to start it again", FALLBACK), not pauses)
    enabled = Disable("the service starts at boot no more")
    yield Planned(enabled, not facts.service.enabled)
    # An operator's own drop-ins go with a purge; what systemd makes of them is ours.
    gone = [*UNITS]
    gone += [DROP_INS] if removal.purge else map(drop_in_path, EXTRAS)
    steps = [_gone(removal, path) for path in gone]
    yield from steps
    if not removal.purge:
        line = f"{DROP_INS} is gone, unless drop-ins of yours are in it"
        yield _gone(removal, DROP_INS, line, if_empty=True)
    known = all(step.already for step in steps)
    yield Planned(Reload("systemd knows the units no more"), known)


def _own(facts: Facts, removal: Removal) -> Iterator[Planned]:
    """Fragments, the command, and with a purge what the board has made."""
    yield _gone(removal, SYSUSERS)
    yield _gone(removal, TMPFILES)
    # By where it points: a wrapper of the operator's has the same name.
    ours = facts.links(PROGRAM, PROGRAM_TARGET)
    note = "" if ours or PROGRAM not in removal.there else "kept: it is not ours"
    yield Planned(Remove(f"{PROGRAM} is gone", PROGRAM), not ours, note)
    if removal.purge:
        # A folder that the settings name may hold anything: root deletes only ours.
        elsewhere = f"{facts.state_dir} stays: remove it yourself"
        note = elsewhere * (facts.state_dir != STATE)
        line = f"models, state and keys are gone ({STATE})"
        yield Planned(Remove(line, STATE), STATE not in removal.there, note)
        yield _gone(removal, SETTINGS_FOLDER, f"settings are gone ({SETTINGS_FOLDER})")
        line = f"user and group {USER} are gone"
        yield Planned(RemoveUser(line), not facts.user)


def _slots(removal: Removal) -> Iterator[Planned]:
    """Everything below the folder of the slots; this program itself comes last."""
    for path in _OF_SLOTS:
        yield _gone(removal, path)
    for slot in SLOTS:
        yield _gone(removal, f"{SLOT_FOLDER}/{slot}")
    line = f"{SLOT_FOLDER} is gone, unless something of yours is in it"
    yield _gone(removal, SLOT_FOLDER, line, if_empty=True)


def _gone(
    removal: Removal, path: str, line: str = "", *, if_empty: bool = False
) -> Planned:
    """A path that is there no more."""
    there = path in removal.there
    said = f"{path} is gone" if there else f"{path} is not there"
    return Planned(Remove(line or said, path, if_empty), not there)
