"""fleet.toml: what is wrong is found when it is read, and named by its key."""

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.addresses import CONTROL_PORT, Place
from agent.core.inventory import (
    MAX_INVENTORY_BYTES,
    RESERVED_LABELS,
    BoardTable,
    parse_inventory,
)
from agent.core.reasons import Reason
from agent.errors import SettingsError
from agent.telemetry.families import METRICS

WHOLE = b"""
[papers]
cert = "me.pem"
ca = "fleet-ca.pem"

[[board]]
id = "pi-1"
address = "pi-1.local"
groups = ["canary", "hall"]
labels = {site = "north", rack = "7"}

[[board]]
id = "pi-2"
address = "[2001:db8::2]:9443"
groups = ["hall"]
metrics = "10.0.0.2:9797"

[rollout]
waves = ["group:canary", "50%", "all"]
at_once = 4
gate = {soak_s = 60, drift = false}
"""
WORDS = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in RESERVED_LABELS and not name.startswith("__")
)
# What JSON and TOML spell the same: TOML escapes DEL as well.
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8)


def inventory(*boards: dict[str, Any]) -> bytes:
    """Return an inventory of boards; JSON's strings and lists are TOML's."""
    lines: list[str] = []
    for board in boards:
        rows = {"id": f"pi-{len(lines)}", "address": f"pi-{len(lines)}"} | board
        labels = rows.pop("labels", {})
        lines += [
            "[[board]]",
            *(f"{key} = {json.dumps(value)}" for key, value in rows.items()),
            "[board.labels]",
            *(
                f"{json.dumps(k)} = {json.dumps(v, ensure_ascii=False)}"
                for k, v in labels.items()
            ),
        ]
    return "\n".join(lines).encode()


def fault(raw: bytes) -> str:
    """Return what is said about an inventory that is wrong."""
    with pytest.raises(SettingsError) as caught:
        parse_inventory(raw)
    assert caught.value.reason == Reason.INVENTORY
    return str(caught.value)


def test_a_whole_inventory_is_read() -> None:
    """Every table and key, with what is not said at its default."""
    read = parse_inventory(WHOLE)
    first, second = read.board
    assert (first.place, first.scraped) == (
        Place("pi-1.local", CONTROL_PORT),
        Place("pi-1.local", CONTROL_PORT),
    )
    assert second.place == Place("2001:db8::2", 9443)
    assert second.scraped == Place("10.0.0.2", 9797)
    assert first.labels == {"site": "north", "rack": "7"}
    assert read.papers.cert == "me.pem"
    assert read.rollout.waves == ("group:canary", "50%", "all")
    assert (read.rollout.gate.soak_s, read.rollout.gate.failed_share) == (60.0, 0.0)


def test_boards_are_chosen_by_their_group() -> None:
    """All without one, in the order of the file; a group of none is a mistake."""
    read = parse_inventory(WHOLE)
    assert read.groups() == ("canary", "hall")
    assert read.chosen() == read.board
    assert read.chosen("hall") == read.board
    assert read.chosen("canary") == read.board[:1]
    with pytest.raises(SettingsError, match=r"'cannary' \(groups: canary, hall\)"):
        read.chosen("cannary")


@pytest.mark.parametrize(
    ("boards", "said"),
    [
        ([{}, {"id": "pi-0"}], "board[1].id: 'pi-0' is that of board[0] already"),
        ([{}, {"id": "PI-0"}], "board[1].id: 'PI-0' is that of board[0] already"),
        (
            [{"address": "10.0.0.7"}, {"address": "[::ffff:10.0.0.7]:8443"}],
            "board[1].address: '[::ffff:10.0.0.7]:8443' is that of board[0] already",
        ),
        (
            [{"address": "PI.local"}, {"address": "pi.local."}],
            "board[1].address: 'pi.local.' is that of board[0] already",
        ),
        (
            [{"metrics": "a:1"}, {"metrics": "A:1"}],
            "board[1].metrics: 'A:1' is that of board[0] already",
        ),
        ([{"address": "a:b:c"}], "board[0].address: 'a:b:c': an IPv6 address stands"),
        ([{"address": "me@pi-7"}], "board[0].address: 'me@pi-7' is no host's name"),
        ([{"address": "pi:70000"}], "board[0].address: '70000' is no port"),
        ([{"metrics": "pi"}], "board[0].metrics: the port is missing"),
        ([{"metrics": "http://pi:1/"}], "board[0].metrics: 'http://pi:1/'"),
        ([{"address": ""}], "board[0].address: at least 1 characters expected"),
        ([{"id": "a/b"}], "board[0].id: 1 to 64 of a-z, A-Z"),
        ([{"groups": ["Hall"]}], "board[0].groups[0]: 1 to 64 of a-z, 0-9"),
        ([{"groups": ["a", "a"]}], "board[0].groups: 'a' is there twice"),
        ([{"labels": {"model": "4b"}}], "board[0].labels.model: is a label that"),
        ([{"labels": {"instance": "x"}}], "board[0].labels.instance: is a label"),
        ([{"labels": {"__address__": "x"}}], "board[0].labels.__address__: is"),
        ([{"labels": {"exported_job": "x"}}], "board[0].labels.exported_job: is"),
        ([{"labels": {"a-b": "x"}}], "board[0].labels: 'a-b' is no label's name"),
        ([{"labels": {"a": 1}}], "text expected, not a whole number"),
        ([{"adress": "x"}], "board[0]: there is no key `adress`"),
        ([], "the key `board` is missing"),
    ],
)
def test_each_mistake_is_named_by_its_key(
    boards: list[dict[str, Any]], said: str
) -> None:
    """A typing error in one of a thousand boards is found without searching."""
    assert said in fault(inventory(*boards))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xff", "not TOML: "),
        (b"[[board]]\nid = ", "not TOML: "),
        (b"board = []", "board: at least 1 entries expected"),
        (b"x = " + b"[" * 5000, "not TOML: "),
        (b"#" * (MAX_INVENTORY_BYTES + 1), "at most 4194304"),
        (WHOLE + b"\n[fleet]\n", "there is no key `fleet`"),
        (WHOLE.replace(b"= 60", b"= nan"), "rollout.gate.soak_s: more than 0 expected"),
        (WHOLE.replace(b"= 60", b"= 0"), "rollout.gate.soak_s: more than 0 expected"),
        (WHOLE.replace(b"= 4", b"= 0"), "rollout.at_once: at least 1 expected"),
        (WHOLE.replace(b"= false", b"= 0"), "rollout.gate.drift: true or false"),
    ],
)
def test_a_file_that_is_none_is_refused(raw: bytes, said: str) -> None:
    """Not TOML, too much of it, or tables and values that do not exist."""
    assert said in fault(raw)


def test_no_label_of_a_board_can_hide_one_of_ours() -> None:
    """Prometheus would rename ours, and no rule or dashboard would find it."""
    ours = {label for metric in METRICS.values() for label in metric.labels}
    assert ours - RESERVED_LABELS == set()


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "groups": st.lists(WORDS, max_size=3, unique=True),
                "labels": st.dictionaries(NAMES, VALUES, max_size=3),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_is_admissible_is_read_as_it_stands(
    boards: list[dict[str, Any]],
) -> None:
    """Groups and labels of any board; every group finds exactly its own."""
    read = parse_inventory(inventory(*boards))
    assert [list(it.groups) for it in read.board] == [it["groups"] for it in boards]
    assert [it.labels for it in read.board] == [it["labels"] for it in boards]
    for group in read.groups():
        others = [it for it in read.board if it not in read.chosen(group)]
        assert not any(group in it.groups for it in others)


@given(st.lists(st.sampled_from(["a", "A", "a.", "a:8443", "b", "b:1"]), max_size=4))
def test_no_two_boards_ever_share_a_place(addresses: list[str]) -> None:
    """However they are spelled; and boards that share none are all read."""
    raw = inventory(*({"address": address} for address in addresses))
    spelled = [re.sub(r"\.|:8443", "", it.lower()) for it in addresses]
    if addresses and len(set(spelled)) == len(spelled):
        assert len({board.place for board in parse_inventory(raw).board}) == len(
            spelled
        )
    else:
        assert fault(raw)


@given(st.binary(max_size=60))
def test_bytes_are_an_inventory_or_an_error(noise: bytes) -> None:
    """And nothing else than ours, wherever they stand."""
    for raw in (noise, WHOLE + noise, noise + WHOLE):
        with contextlib.suppress(SettingsError):
            assert parse_inventory(raw).board


def test_a_board_without_metrics_is_scraped_at_its_listener() -> None:
    """Over TLS, where a scraper's certificate is asked for."""
    assert BoardTable("b", "h").scraped == Place("h", CONTROL_PORT)
    assert BoardTable("b", "h", metrics="h:9797").scraped == Place("h", 9797)
