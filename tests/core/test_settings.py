"""Settings: every mistake is named by its key, every default is a valid value."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.settings_text import describe_keys, render_effective
from agent.core.flow import BoardSource, CountSink, FilesSource
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.settings import MAX_SETTINGS_BYTES, Settings, parse_settings
from tests.core.strategies import settings as any_settings

PIPELINE = """
[[pipeline]]
name = "door"
model = "kws"
source = {kind = "board"}
"""
CAMERA = """
[[pipeline]]
name = "door"
model = "vww"
[pipeline.source]
kind = "command"
command = ["rpicam-vid"]
"""
FILE_SINK = PIPELINE + 'sinks = [{kind = "file", path = "p/x"}]'
MISTAKES = {
    "unknown key": ("colour = 1", "colour"),
    "unknown key in a table": ("[update]\npol_s = 5", "update: "),
    "unknown key in a pipeline": (PIPELINE + "speed = 1", "pipeline[0]: "),
    "unknown key in a source": (
        PIPELINE.replace('"board"', '"board", fps = 3'),
        "pipeline[0].source: ",
    ),
    "text for a number": ('[update]\npoll_s = "5"', "update.poll_s: "),
    "number for a text": ("state_dir = 5", "state_dir: "),
    "truth for a number": ("[update]\npoll_s = true", "update.poll_s: "),
    "table for a list": ("[pipeline]\nname = 'a'", "pipeline: "),
    "key missing": ("[[pipeline]]\nname = 'a'", "pipeline[0]: "),
    "no such source": (PIPELINE.replace("board", "radio"), "pipeline[0].source.kind: "),
    "no such level": ("log_level = 'loud'", "log_level: "),
    "zero seconds": ("[update]\npoll_s = 0", "update.poll_s: "),
    "no number": ("[update]\npoll_s = nan", "update.poll_s"),
    "endless": ("[update]\npoll_s = inf", "update.poll_s: "),
    "a thousand threads": (PIPELINE + "threads = 1000", "pipeline[0].threads: "),
    "name with a slash": (PIPELINE.replace("door", "../x"), "pipeline[0].name: "),
    "name with a line": (PIPELINE.replace("door", "a\\n"), "pipeline[0].name: "),
    "two of one name": (PIPELINE + PIPELINE, "pipeline: two pipelines"),
    "one file of two sinks": (
        f"{FILE_SINK}{FILE_SINK.replace('door', 'gate').replace('p/x', './p//x')}",
        "pipeline[1].sinks[0].path: pipeline[0].sinks[0].path writes",
    ),
    "repository without root": ("[update]\nrepository = 'r'", "update.root: "),
    "factory without root": (PIPELINE + "factory = 'f'", "update.root: "),
    "address without port": ("[local]\nlisten = 'localhost'", "local.listen: "),
    "address without host": ("[local]\nlisten = ':80'", "local.listen: "),
    "impossible port": ("[local]\nlisten = 'a:65536'", "local.listen: "),
    "port in other digits": ("[local]\nlisten = 'a:\u0663'", "local.listen: "),
    "no TOML": ("pipeline = [", "not TOML"),
    "more digits than Python reads": ("a = " + "1" * 5000, "not TOML"),
    "a float like that": ("[update]\npoll_s = 1" + "0" * 400, "update.poll_s: "),
    "hot above very hot": ("[degrade]\nhot_c = 90", "above degrade.very_hot_c"),
    "very hot below hot": ("[degrade]\nvery_hot_c = 79", "degrade.hot_c: 80 is above"),
    "same key twice": ("state_dir = 'a'\nstate_dir = 'b'", "not TOML"),
    "nested too deeply": ("a = " + "[" * 5000, "not TOML"),
    "frame without size": (CAMERA + "format = 'rgb24'", "pipeline[0].source: rgb24"),
    "sound without values": (CAMERA + "format = 's16le'", "pipeline[0].source: s16le"),
    "no command": (CAMERA.replace('"rpicam-vid"', ""), "pipeline[0].source.command: "),
}


@pytest.mark.parametrize(("written", "key"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_named_by_its_key(written: str, key: str) -> None:
    """The error names the key, carries the reason and ends with exit code 2."""
    with pytest.raises(SettingsError) as caught:
        parse_settings(written.encode())
    assert key in str(caught.value)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.SETTINGS, 2)


def test_bytes_that_are_no_text_are_refused() -> None:
    """A settings file is UTF-8."""
    with pytest.raises(SettingsError, match="not TOML"):
        parse_settings(b'state_dir = "\xff"')


def test_a_huge_file_is_refused_unread() -> None:
    """The size is checked before anything is parsed."""
    with pytest.raises(SettingsError, match="at most"):
        parse_settings(b"#" * (MAX_SETTINGS_BYTES + 1))


def test_an_empty_file_is_all_defaults() -> None:
    """Every key has a default but those of a pipeline."""
    assert parse_settings(b"") == Settings()


def test_a_pipeline_needs_three_keys() -> None:
    """Name, model and source are enough; predictions are then counted."""
    (pipeline,) = parse_settings(PIPELINE.encode()).pipeline
    assert (pipeline.name, pipeline.model) == ("door", "kws")
    assert (pipeline.source, pipeline.sinks) == (BoardSource(), (CountSink(),))


def test_hot_may_begin_where_very_hot_does() -> None:
    """Both at one figure is a ladder without its first rung, and nothing wrong."""
    degrade = parse_settings(b"[degrade]\nhot_c = 90\nvery_hot_c = 90").degrade
    assert (degrade.hot_c, degrade.very_hot_c) == (90.0, 90.0)


def test_a_whole_number_serves_as_a_number() -> None:
    """Nobody has to write ``rate = 5.0``."""
    written = PIPELINE.replace('"board"', '"files", path = "x", rate = 5')
    (pipeline,) = parse_settings(written.encode()).pipeline
    assert pipeline.source == FilesSource(path="x", rate=5.0)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_parse_or_raise_a_settings_error(raw: bytes) -> None:
    """Nothing but ``SettingsError`` ever leaves the parser."""
    reasons = {Reason.SETTINGS}
    try:
        parse_settings(raw)
    except SettingsError as err:
        reasons.add(Reason(err.reason))
    assert reasons == {Reason.SETTINGS}


@given(any_settings)
def test_effective_settings_are_toml_again(settings: Settings) -> None:
    """What ``check`` prints parses to the very same settings."""
    written = render_effective(settings, {}, {"state_dir": "/var/lib/tinyward"})
    assert parse_settings(written.encode()) == settings


@given(any_settings)
def test_effective_settings_of_effective_settings_stand_in_the_file(
    settings: Settings,
) -> None:
    """Given back as a file, no value is called a default any more."""
    written = render_effective(settings, {}, {})
    again = render_effective(settings, tomllib.loads(written), {})
    assert parse_settings(again.encode()) == settings
    marks = [line for line in again.splitlines() if line.endswith("# default")]
    assert marks == []


def test_every_key_is_described() -> None:
    """Each key has a meaning, and those without a default are few."""
    rows = describe_keys()
    assert [row.key for row in rows if not row.text.strip()] == []
    needed = {
        row.key for row in rows if not row.default and not row.key.endswith("kind")
    }
    assert {"pipeline[].name", "pipeline[].model", "delegate[].sha256"} <= needed
    assert "pipeline[].threads" not in needed


def test_only_switches_are_true_or_false() -> None:
    """Whatever else a key takes is said: words of two types, too."""
    rows = describe_keys()
    switches = {row.default for row in rows if row.accepts == "true, false"}
    assert switches == {"true", "false"}
    found = [row.accepts for row in rows if row.key == "audit.input_hash"]
    assert found == ['"auto", "blake2b", "sha256"']


@pytest.mark.parametrize(
    ("key", "accepts"),
    [
        ("monitor.cpu_share", "number 0 to 0.5"),
        ("pipeline[].source.width", "whole number 0 to 16,384"),
        ("pipeline[].deadline_ms", "number above 0, to 3,600,000"),
    ],
)
def test_bounds_are_not_rounded(key: str, accepts: str) -> None:
    """A share of at most a half is none of at most 0."""
    assert [row.accepts for row in describe_keys() if row.key == key] == [accepts]
