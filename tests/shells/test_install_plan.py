"""Plans of ``tinyward install``: what they hold, their order, and what stops them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.install.facts import Facts, Found
from agent.install.places import (
    BEFORE,
    CURRENT,
    FLEET_ROOT,
    PREVIOUS,
    PROGRAM,
    PROGRAM_TARGET,
    SETTINGS,
    STARTED,
    TRIAL,
)
from agent.install.plan import plan_fall_back, plan_install
from agent.install.settings_change import settings_after
from agent.install.settings_file import (
    Asked,
    asked_of,
    is_shipped,
    join_settings,
    render_settings,
)
from agent.install.steps import (
    Apply,
    Check,
    Enable,
    KeepState,
    Link,
    MakeDemo,
    MakeIdentity,
    Plan,
    Reload,
    Remove,
    Restart,
    RestoreState,
    StartLater,
    Stop,
    WriteFile,
)
from agent.install.systemd import UnitState
from agent.install.wanted import Wanted
from agent.settings import parse_settings
from tests.fakes.machine import wanted

RUNS = UnitState(active="active", enabled=True, pid=7)
SLOTS = st.sampled_from(["", "a", "b"])
FACTS = st.builds(
    Facts,
    current=SLOTS,
    previous=SLOTS,
    on_trial=st.booleans(),
    user=st.booleans(),
    folders=st.booleans(),
    demo=st.booleans(),
    service=st.builds(
        UnitState,
        active=st.sampled_from(["active", "inactive", "failed", "activating"]),
        enabled=st.booleans(),
        stale=st.booleans(),
    ),
    schema=st.integers(-1, 2),
    kept_schema=st.integers(-1, 2),
)


def kinds(plan: Plan) -> list[str]:
    """Return what each step is."""
    return [
        f"{type(it.step).__name__} {getattr(it.step, 'path', '')}".strip()
        for it in plan
    ]


def place_of(plan: Plan, kind: type, path: str = "") -> int:
    """Return where a step stands; -1 where it is not in the plan."""
    for number, it in enumerate(plan):
        if isinstance(it.step, kind) and getattr(it.step, "path", "") == path:
            return number
    return -1


def fleet(root: bytes = b"{}") -> Wanted:
    """Return what a board of a fleet wants."""
    asked = Asked(fleet=True, repository="https://x", board="door-7")
    content = render_settings(asked, SETTINGS)
    return replace(wanted(), fleet_root=root, settings=content)


def test_a_first_installation_does_all_of_it() -> None:
    """On an empty machine every step is to be done, in the order of safety."""
    plan = plan_install(Facts(), wanted())
    assert kinds(plan) == [
        "WriteFile /etc/sysusers.d/tinyward.conf",
        "Apply",
        "WriteFile /etc/tmpfiles.d/tinyward.conf",
        "Apply",
        "MakeDemo",
        f"WriteFile {SETTINGS}",
        "Check",
        "WriteFile /etc/systemd/system/tinyward.service",
        "WriteFile /etc/systemd/system/tinyward-fallback.service",
        f"Link {CURRENT}",
        f"Link {PROGRAM}",
        "Reload",
        "Enable",
        "Restart",
        f"Remove {TRIAL}",
        f"Remove {BEFORE}",
        f"WriteFile {STARTED}",
    ]
    there = [it for it in plan if it.already]
    assert [type(it.step) for it in there] == [Remove, Remove]


@given(FACTS)
def test_the_way_back_is_laid_before_the_switch(facts: Facts) -> None:
    """An upgrade writes `previous` and the marker, then units, then `current`."""
    facts = replace(facts, current="a")
    plan = plan_install(facts, wanted("b"))
    order = [
        place_of(plan, Link, PREVIOUS),
        place_of(plan, WriteFile, TRIAL),
        place_of(plan, WriteFile, "/etc/systemd/system/tinyward.service"),
        place_of(plan, Link, CURRENT),
        place_of(plan, Reload),
        place_of(plan, Restart),
        place_of(plan, Remove, TRIAL),
    ]
    assert order == sorted(order)
    assert min(order) >= 0
    # And everything a version needs is tried before any of that.
    assert place_of(plan, Check) < order[0]


@given(FACTS, st.sampled_from(["a", "b"]))
def test_every_plan_says_what_each_step_is_about(facts: Facts, slot: str) -> None:
    """No line is empty, none is said twice, and no fact makes planning fail."""
    before = replace(facts, previous=slot)
    forth, back = wanted(slot), plan_fall_back(before, wanted(slot))
    for plan in (plan_install(facts, forth), back):
        lines = [it.step.line for it in plan]
        assert "" not in lines
        assert len(lines) == len(set(lines))


@given(FACTS)
def test_the_state_is_copied_where_it_will_be_migrated(facts: Facts) -> None:
    """And nowhere else; the service is stopped before."""
    plan = plan_install(replace(facts, current="a"), wanted("b", schema=2))
    stop, keep = place_of(plan, Stop), place_of(plan, KeepState)
    migrates = facts.schema not in (0, 2)
    assert (keep >= 0) == migrates
    assert (stop == keep - 1) if migrates else (stop == -1)
    assert keep < place_of(plan, Link, CURRENT)


@given(FACTS)
def test_going_back_restores_only_another_schema(facts: Facts) -> None:
    """The same schema keeps the state it has: its floors may have risen."""
    plan = plan_fall_back(replace(facts, previous="a"), wanted("a"))
    restore = plan[place_of(plan, RestoreState)]
    assert restore.already == (facts.kept_schema in (0, facts.schema))
    # The marker goes before the start: if the old one fails as well, it ends there.
    order = [
        place_of(plan, Stop),
        place_of(plan, RestoreState),
        place_of(plan, Link, CURRENT),
        place_of(plan, Remove, TRIAL),
        place_of(plan, StartLater),
    ]
    assert order == sorted(order)
    assert min(order) >= 0


def test_a_foreign_command_is_not_replaced() -> None:
    """What lies at /usr/local/bin/tinyward and is not ours stops everything."""
    for found in (Found(content=b"#!/bin/sh\n", mode=0o755), Found(target="/x")):
        facts = Facts(found={PROGRAM: found})
        with pytest.raises(SettingsError, match="is not ours") as caught:
            plan_install(facts, wanted())
        assert (caught.value.reason, caught.value.exit_code) == ("not_installed", 2)
    plan_install(Facts(found={PROGRAM: Found(target=PROGRAM_TARGET)}), wanted())


def test_a_newer_state_stops_an_older_version() -> None:
    """Before anything is switched, with what to do."""
    with pytest.raises(SettingsError, match="schema 3") as caught:
        plan_install(Facts(current="a", schema=3), wanted("b", schema=2))
    assert caught.value.reason == Reason.STATE
    assert "move /var/lib/tinyward away" in caught.value.todo


def test_another_fleets_root_is_replaced_only_if_asked() -> None:
    """Whom a board trusts does not change by the way."""
    facts = Facts(found={FLEET_ROOT: Found(content=b"one", mode=0o644)})
    want = fleet(b"two")
    with pytest.raises(SettingsError, match="another one"):
        plan_install(facts, want)
    plan = plan_install(facts, replace(want, replace_root=True))
    assert not plan[place_of(plan, WriteFile, FLEET_ROOT)].already
    same = plan_install(facts, replace(want, fleet_root=b"one"))
    assert same[place_of(same, WriteFile, FLEET_ROOT)].already


def test_own_settings_are_kept_and_it_is_said() -> None:
    """A file that is there stays, whatever --config says."""
    facts = Facts(found={SETTINGS: Found(content=b"x = 1", mode=0o640)})
    want = replace(wanted(), own_settings=True)
    plan = plan_install(facts, want)
    kept = plan[place_of(plan, WriteFile, SETTINGS)]
    assert (kept.already, kept.todo) == (
        True,
        "they were kept, and differ from the file you named",
    )


def test_a_running_service_is_left_alone_only_if_it_is_the_same() -> None:
    """Its note says what it was started with; anything else restarts it."""
    want = wanted()
    files = {**want.units, STARTED: want.stamp}
    found = {path: Found(content, mode=0o644) for path, content in files.items()}
    found[PROGRAM] = Found(target=PROGRAM_TARGET)
    facts = Facts(current="a", service=RUNS, found=found)

    def restarts(now: Facts, wish: object = want) -> bool:
        plan = plan_install(now, want if wish is want else replace(want, digest="2"))
        return not plan[place_of(plan, Restart)].already

    assert not restarts(facts)
    assert restarts(facts, "filled anew")
    assert restarts(replace(facts, service=replace(RUNS, active="failed")))
    assert restarts(replace(facts, service=replace(RUNS, stale=True)))


def test_identity_and_an_image() -> None:
    """A key is made when asked; an image starts nothing and tries nothing."""
    plan = plan_install(Facts(), replace(wanted(), board="door-7", starts=False))
    assert place_of(plan, MakeIdentity) >= 0
    assert place_of(plan, Enable) >= 0
    assert (place_of(plan, Restart), place_of(plan, Check)) == (-1, -1)
    plan = plan_install(Facts(), fleet())
    assert place_of(plan, MakeDemo) == -1
    assert isinstance(plan[1].step, Apply)


@given(FACTS)
def test_only_the_slot_before_goes_back(facts: Facts) -> None:
    """Neither the version on trial nor a slot that was never one."""
    for slot in {"a", "b"} - {facts.previous}:
        with pytest.raises(SettingsError, match="not the one before"):
            plan_fall_back(facts, wanted(slot))


def test_settings_that_are_there_are_told_what_they_lack() -> None:
    """A fleet or an id that was asked for is not in them: they stay, and it is said."""
    own = Found(content=b'[update]\nroot = "/x"\n', mode=0o640)
    want = replace(fleet(), board="door-7")
    plan = plan_install(Facts(found={SETTINGS: own}), want)
    todo = plan[place_of(plan, WriteFile, SETTINGS)].todo
    assert todo == (
        'they are yours and were kept; put into them: [update] repository = "https://x"'
        f', root = "{FLEET_ROOT}"; [board] id = "door-7"; '
        "then `systemctl restart tinyward`"
    )
    said = Found(content=want.settings, mode=0o640)
    plan = plan_install(Facts(found={SETTINGS: said}), want)
    assert plan[place_of(plan, WriteFile, SETTINGS)].todo == ""


def test_the_demo_is_made_for_settings_that_name_it() -> None:
    """An upgrade of a board with models of its own makes none."""
    own = Found(content=b"log_level = 'info'", mode=0o640)
    plan = plan_install(Facts(current="a", found={SETTINGS: own}), wanted("b"))
    assert place_of(plan, MakeDemo) == -1
    demo = Found(content=wanted().settings, mode=0o640)
    plan = plan_install(Facts(current="a", found={SETTINGS: demo}), wanted("b"))
    assert place_of(plan, MakeDemo) >= 0


def test_a_slot_that_was_filled_while_it_ran_has_no_way_back() -> None:
    """It is restarted, and its owner hears how to do it next time."""
    found = {STARTED: Found(content=b"a 1 other\n", mode=0o644)}
    plan = plan_install(Facts(current="a", service=RUNS, found=found), wanted("a"))
    restart = plan[place_of(plan, Restart)]
    assert (restart.already, "other slot" in restart.note) == (False, True)
    plan = plan_install(Facts(current="b", service=RUNS, found=found), wanted("a"))
    assert plan[place_of(plan, Restart)].note == ""


def with_settings(content: bytes) -> Facts:
    """Return a machine that runs slot a with these settings, all of it as it was."""
    want = wanted()
    files = {**want.units, STARTED: want.stamp}
    found = {path: Found(each, mode=0o644) for path, each in files.items()}
    found |= {
        PROGRAM: Found(target=PROGRAM_TARGET),
        SETTINGS: Found(content, "", 0o640),
    }
    return Facts(current="a", service=RUNS, found=found)


def test_settings_as_shipped_join_a_fleet() -> None:
    """They are written anew, and the service starts with them."""
    want = fleet()
    plan = plan_install(with_settings(wanted().settings), want)
    step = plan[place_of(plan, WriteFile, SETTINGS)]
    assert (step.already, step.todo) == (False, "")
    assert isinstance(step.step, WriteFile)
    assert step.step.content == want.settings
    assert not plan[place_of(plan, Restart)].already
    again = plan_install(with_settings(want.settings), want)
    assert again[place_of(again, WriteFile, SETTINGS)].already
    assert again[place_of(again, Restart)].already


def test_settings_as_shipped_keep_what_was_asked_for_before() -> None:
    """An id that is asked for later leaves the fleet in them; nothing asked, nothing
    written."""
    have = render_settings(
        Asked(fleet=True, repository="https://x", groups=("doors",)), SETTINGS
    )
    content = render_settings(Asked(board="door-7"), SETTINGS)
    want = replace(wanted(), settings=content, board="door-7")
    after = parse_settings(settings_after(with_settings(have), want))
    assert after.update.repository == "https://x"
    assert after.update.groups == ("doors",)
    assert after.board.id == "door-7"
    assert settings_after(with_settings(have), wanted()) == have


@given(st.integers(min_value=0), st.integers(1, 255))
def test_one_changed_byte_makes_settings_somebodys_own(where: int, other: int) -> None:
    """Wherever it is, the digest in the last line included."""
    shipped = bytearray(render_settings(Asked(fleet=True), SETTINGS))
    assert is_shipped(bytes(shipped))
    shipped[where % len(shipped)] ^= other
    assert not is_shipped(bytes(shipped))


@given(
    st.builds(
        Asked,
        fleet=st.just(True),
        repository=st.sampled_from(["", "https://x", "/srv/fleet"]),
        groups=st.lists(st.from_regex("[a-z]{1,9}", fullmatch=True), min_size=1).map(
            lambda names: tuple(dict.fromkeys(names))
        ),
        board=st.sampled_from(["", "door-7"]),
    )
)
def test_what_was_asked_for_is_read_back(asked: Asked) -> None:
    """All that settings as shipped can say survives their being written anew."""
    content = render_settings(asked, SETTINGS)
    assert asked_of(parse_settings(content)) == asked
    assert join_settings(content, content, SETTINGS, fleet=False) == content


def test_a_drop_in_takes_no_way_back_away() -> None:
    """Only a slot that was filled anew does; and it is called what it is."""
    path = "/etc/systemd/system/tinyward.service.d/tinyward-camera.conf"
    want = replace(wanted(), drop_ins={path: b"[Service]\n"})
    plan = plan_install(with_settings(wanted().settings), want)
    restart = plan[place_of(plan, Restart)]
    assert (restart.already, restart.note) == (False, "")
    assert plan[place_of(plan, WriteFile, path)].step.line == f"the drop-in ({path})"
