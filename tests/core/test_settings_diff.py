"""What a running daemon takes of new settings, and what needs a restart: all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.core.executors import DelegateFile
from agent.core.fleet_settings import DdiSettings, FleetSettings
from agent.core.flow import BoardSource, CountSink, FileSink
from agent.settings import (
    BoardSettings,
    ControlSettings,
    DegradeSettings,
    LocalSettings,
    MonitorSettings,
    PipelineSettings,
    Settings,
    SuperviseSettings,
    Table,
    UpdateSettings,
)
from agent.settings_diff import ReloadPlan, differing, plan_reload, settings_in_force

DELEGATE = DelegateFile("npu", "/lib/npu.so", "0" * 64)
PIPELINES = st.builds(
    PipelineSettings,
    name=st.sampled_from(["a", "b", "c"]),
    model=st.sampled_from(["kws", "vww"]),
    source=st.sampled_from([BoardSource(), BoardSource(2.0)]),
    sinks=st.sampled_from([(CountSink(),), (FileSink("/var/lib/a/lines"),)]),
    factory=st.sampled_from(["", "/slice"]),
    deadline_ms=st.sampled_from([5000.0, 100.0]),
    threads=st.integers(1, 2),
)
SETTINGS = st.builds(
    Settings,
    pipeline=st.lists(PIPELINES, max_size=3, unique_by=lambda it: it.name).map(tuple),
    state_dir=st.sampled_from(["", "/var/lib/a"]),
    log_level=st.sampled_from(["info", "debug"]),
    update=st.builds(
        UpdateSettings,
        orchestrator=st.sampled_from(["tuf", "push"]),
        repository=st.sampled_from(["", "/repo"]),
        groups=st.sampled_from([("all",), ("lab", "all")]),
        poll_s=st.sampled_from([300.0, 1.0]),
        quota_mb=st.sampled_from([1.0, 2.0]),
    ),
    local=st.builds(LocalSettings, listen=st.sampled_from(["127.0.0.1:1", ""])),
    control=st.builds(ControlSettings, listen=st.sampled_from(["", "0.0.0.0:2"])),
    board=st.builds(
        BoardSettings,
        id=st.sampled_from(["", "pi"]),
        hardware=st.sampled_from([(), ("pi4",)]),
    ),
    supervise=st.builds(SuperviseSettings, drain_s=st.sampled_from([3.0, 1.0])),
    monitor=st.builds(MonitorSettings, privacy=st.booleans()),
    degrade=st.builds(DegradeSettings, hot_c=st.sampled_from([80.0, 70.0])),
    delegate=st.sampled_from([(), (DELEGATE,)]),
)


def keys_that_differ(before: Settings, after: Settings) -> set[str]:
    """Return all keys that differ, found another way: through the flattened tables."""
    old, new = flattened(before), flattened(after)
    found = {key for key in old.keys() & new.keys() if old[key] != new[key]}
    return found | {".".join(it.split(".")[:2]) for it in old.keys() ^ new.keys()}


def flattened(settings: Settings) -> dict[str, object]:
    """Return key -> value of everything in the settings, by the names that are told."""
    rows: dict[str, object] = {}
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        if isinstance(value, Table):
            rows |= {
                f"{name}.{it}": getattr(value, it) for it in differing_fields(value)
            }
        elif name == "pipeline":
            for table in value:
                for key in differing_fields(table):
                    if key != "name":
                        rows[f"pipeline.{table.name}.{key}"] = getattr(table, key)
        else:
            rows[name] = value
    return rows


def differing_fields(table: Table) -> tuple[str, ...]:
    """Return the keys that a table may have."""
    return table.__struct_fields__


@given(SETTINGS)
def test_the_same_settings_change_nothing(settings: Settings) -> None:
    """``diff(s, s)`` is empty."""
    assert plan_reload(settings, settings) == ReloadPlan()
    assert settings_in_force(settings, settings) == settings


@given(SETTINGS, SETTINGS)
def test_every_key_that_differs_is_applied_or_needs_a_restart(
    before: Settings, after: Settings
) -> None:
    """Exactly those, and none is both."""
    plan = plan_reload(before, after)
    told = [*plan.applied(), *plan.restart]
    assert len(told) == len(set(told))
    assert set(told) == keys_that_differ(before, after)


@given(SETTINGS, SETTINGS)
def test_what_needs_a_restart_is_said_again_at_the_next_reload(
    before: Settings, after: Settings
) -> None:
    """And nothing else is left to do then."""
    plan = plan_reload(before, after)
    again = plan_reload(settings_in_force(before, after), after)
    assert again == ReloadPlan(restart=plan.restart)


@given(SETTINGS, SETTINGS)
def test_what_is_in_force_has_the_new_pipelines(
    before: Settings, after: Settings
) -> None:
    """All of them, as they are written, in their order."""
    in_force = settings_in_force(before, after)
    assert in_force.pipeline == after.pipeline
    plan = plan_reload(before, after)
    names = {it.name for it in before.pipeline} - set(plan.removed)
    assert {it.name for it in after.pipeline} == names | {it.name for it in plan.added}


@given(SETTINGS, SETTINGS)
def test_there_and_back_again(before: Settings, after: Settings) -> None:
    """A reload that is taken back leaves what was there."""
    there = settings_in_force(before, after)
    assert settings_in_force(there, before) == before


@pytest.mark.parametrize(
    ("table", "key", "value", "live"),
    [
        ("update", "poll_s", 7.0, True),
        ("update", "groups", ("lab",), True),
        ("update", "repository", "/elsewhere", False),
        ("update", "root", "/root.json", False),
        ("local", "listen", "127.0.0.1:1", False),
        ("control", "listen", "127.0.0.1:1", False),
        ("board", "hardware", ("pi4",), True),
        ("board", "id", "pi", False),
        ("monitor", "privacy", True, True),
        ("supervise", "drain_s", 1.0, True),
        ("degrade", "hot_c", 70.0, True),
    ],
)
def test_what_is_live(table: str, key: str, value: object, live: bool) -> None:  # noqa: FBT001 - a column
    """A table of its own: nothing moves from one side to the other by accident."""
    before = Settings()
    changed = replace(getattr(before, table), **{key: value})
    plan = plan_reload(before, replace(before, **{table: changed}))
    told = (f"{table}.{key}",)
    assert (plan.live, plan.restart) == ((told, ()) if live else ((), told))


def test_a_pipeline_says_which_of_its_keys_changed() -> None:
    """Only those."""
    table = PipelineSettings("a", "kws", BoardSource())
    changed = replace(table, threads=2, deadline_ms=1.0)
    plan = plan_reload(Settings(pipeline=(table,)), Settings(pipeline=(changed,)))
    assert plan == ReloadPlan(
        changed=((changed, frozenset({"threads", "deadline_ms"})),)
    )
    assert plan.applied() == ("pipeline.a.deadline_ms", "pipeline.a.threads")
    assert differing(table, table) == frozenset()


def test_another_fleet_server_needs_a_restart() -> None:
    """Said by the name of its table; the old one is followed until then."""
    after = Settings(fleet=FleetSettings(ddi=DdiSettings(tenant="other")))
    plan = plan_reload(Settings(), after)
    assert (plan.restart, plan.live) == (("fleet.ddi",), ())
    assert settings_in_force(Settings(), after) == Settings()
