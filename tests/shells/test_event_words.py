"""Events in words: every event of ours is a sentence, and names are only text."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from agent.core.events import Event
from agent.core.watching import ANCHORS, SCOPES
from agent.endpoint.event_words import WORDS, describe_event, say_event

SOURCES = Path(agent.__file__).parent
TEXTS = st.text(max_size=20)


def event(name: str, **fields: str) -> Event:
    """Return an event."""
    return Event(1, 0.0, "info", name, fields)


def test_an_alarm_is_told_in_words() -> None:
    """What it means, how sure it is, and what moved most."""
    fields = {"pipeline": "door", "anchor": "shipped", "scope": "input"}
    text = say_event(event("drift.confirmed", **fields, feature="band3", shift="3.1"))
    assert text == (
        "door: The input has changed: it no longer looks like the data that the model "
        "shipped with (confirmed). Moved most: band3 (3.1)."
    )
    over = say_event(event("drift.cleared", **fields))
    assert over.startswith("door: Alarm over: the input looks again like")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("name", ["drift.alarm", "drift.confirmed", "drift.cleared"])
def test_every_alarm_is_a_sentence(name: str, anchor: str, scope: str) -> None:
    """With and without a feature."""
    text = say_event(event(name, anchor=anchor, scope=scope))
    assert text.endswith(".")
    assert "{" not in text


def test_phases_of_one_update_are_one_story() -> None:
    """The page keeps the newest line of it."""
    whose = {"pipeline": "door", "model": "kws", "version": "3"}
    fetching = describe_event(event("update.phase", **whose, phase="FETCHING"))
    ended = describe_event(
        event("update.phase", **whose, phase="IDLE", event="TRIAL_PASSED")
    )
    assert fetching["story"] == ended["story"] != ""
    assert fetching["text"] == "door: Update: kws 3 is fetched."
    assert ended["text"] == "door: The update to kws 3 has ended: trial passed."
    other = describe_event(event("update.phase", **{**whose, "version": "4"}))
    assert other["story"] != ended["story"]
    assert describe_event(event("update.refused", **whose))["story"] == ""


def test_a_reason_is_explained_where_no_detail_is() -> None:
    """A refusal says why, in a sentence."""
    whose = {"model": "kws", "version": "3"}
    told = say_event(event("update.refused", **whose, detail="too old"))
    assert told == "Refused kws 3: too old."
    told = say_event(event("update.refused", **whose, reason="digest"))
    assert told.startswith("Refused kws 3: ")
    assert told.endswith(".")


def test_an_unknown_event_is_shown_by_its_name() -> None:
    """A newer agent's, or a line that nobody put into words."""
    assert say_event(event("moon.has_risen", detail="over x")) == (
        "Moon has risen: over x."
    )


def test_every_name_in_the_table_is_logged_somewhere() -> None:
    """A name that was changed in the code is found here."""
    sources = [it for it in SOURCES.rglob("*.py") if it.name != "event_words.py"]
    text = "".join(path.read_text("utf-8") for path in sources)
    logged = set(re.findall(r'"([a-z]+\.[a-z_]+)"', text))
    by_result = {"update.failed", "update.rolled_back"}
    assert set(WORDS) - logged <= by_result


@given(st.sampled_from([*WORDS, "drift.alarm", "update.phase"]), TEXTS, TEXTS)
def test_fields_are_text_and_never_a_template(name: str, key: str, value: str) -> None:
    """Braces in a field stay as they are, whatever the field is called."""
    plain = {"pipeline": value, "model": "{version}", key: value}
    text = say_event(Event(1, 0.0, "info", name, plain))
    whose = plain["pipeline"]
    assert text.startswith(f"{whose}: ") or not whose
    assert isinstance(describe_event(event(name))["text"], str)
