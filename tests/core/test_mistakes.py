"""Mistakes in written values: said in words, the key first, no pattern shown."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from agent.core.mistakes import PATTERNS, describe_mistake
from agent.core.targets import GroupFile
from agent.errors import SettingsError
from agent.publish.description import PackDescription, parse_description
from agent.settings import Settings, parse_settings

PIPELINE = '[[pipeline]]\nname = "a"\nmodel = "m"\nsource = {kind = "board"}\n'
WRITTEN = {
    PIPELINE.replace('"a"', '"A b"'): (
        "pipeline[0].name: 1 to 64 of a-z, 0-9, - and _ expected"
    ),
    PIPELINE + "threads = 0": "pipeline[0].threads: at least 1 expected",
    PIPELINE + "threads = 65": "pipeline[0].threads: at most 64 expected",
    PIPELINE + "threads = 'x'": (
        "pipeline[0].threads: a whole number expected, not text"
    ),
    PIPELINE + "speed = 1": "pipeline[0]: there is no key `speed`",
    PIPELINE.replace("board", "radio"): (
        "pipeline[0].source.kind: 'radio' is none of its choices"
    ),
    "[[pipeline]]\nname = 'a'": "pipeline[0]: the key `model` is missing",
    "colour = 1": "there is no key `colour`",
    "log_level = 'loud'": "log_level: 'loud' is none of its choices",
    "update = 3": "update: a table expected, not a whole number",
    "[update]\ngroups = 'all'": "update.groups: a list expected, not text",
    "[update]\npoll_s = 0": "update.poll_s: more than 0 expected",
    f"[board]\nid = '{'x' * 129}'": "board.id: at most 128 characters expected",
}


@pytest.mark.parametrize(("written", "said"), WRITTEN.items())
def test_a_mistake_in_settings_is_said_in_words(written: str, said: str) -> None:
    """What is expected there, and no type of Python, no pattern, no JSON path."""
    with pytest.raises(SettingsError) as caught:
        parse_settings(written.encode())
    assert str(caught.value) == said


def test_a_mistake_in_a_description_is_said_in_words() -> None:
    """``pack.toml`` speaks as ``agent.toml`` does."""
    with pytest.raises(SettingsError, match=r"^model: 1 to 64 of a-z.* expected$"):
        parse_description(b'model = "A b"')


def patterns(kind: inspect.Type) -> Iterator[str]:
    """Yield every pattern that a value of a type is checked against."""
    if isinstance(kind, inspect.StrType) and kind.pattern:
        yield kind.pattern
    for name in ("cls", "type", "item_type", "key_type", "value_type"):
        part = getattr(kind, name, None)
        if isinstance(part, inspect.Type):
            yield from patterns(part)
    for part in getattr(kind, "types", ()):
        yield from patterns(part)
    for field in getattr(kind, "fields", ()):
        yield from patterns(field.type)


@pytest.mark.parametrize("kind", [Settings, PackDescription, GroupFile])
def test_every_pattern_has_words(kind: type) -> None:
    """No pattern that people can offend is shown to them."""
    assert set(patterns(inspect.type_info(kind))) - set(PATTERNS) == set()


def test_what_is_not_known_stays() -> None:
    """A message of another kind is better than none."""
    assert describe_mistake("Invalid UUID - at `$.id`") == "id: Invalid UUID"


@given(st.text(), st.text())
def test_any_key_can_be_told(key: str, text: str) -> None:
    """Whatever stands in a file, the error about it can be said."""
    said = "nothing wrong"
    try:
        msgspec.convert({key: text}, Settings)
    except msgspec.ValidationError as err:
        said = describe_mistake(str(err))
    assert said.strip() != ""
