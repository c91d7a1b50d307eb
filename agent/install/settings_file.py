"""The agent.toml of a new installation: commented, and working as it is.

The rules this module keeps:
 * What is written parses, whatever was asked for: values are spelled by JSON, whose
   strings TOML shares.
 * Its last line is a digest of all before it: whoever changes a byte makes the file
   their own, and no later version has to know how an earlier one spelled it.
 * Nothing in it writes to the card: predictions of the demo are only counted.
"""

import hashlib
import json
from dataclasses import dataclass, replace

from agent.install.places import (
    DEMO_REPOSITORY,
    DEMO_ROOT,
    DEMO_STREAM,
    FLEET_ROOT,
    IDENTITY,
    STATE,
)
from agent.settings import Settings, parse_settings

_HEAD = """\
# Settings of Tinyward. `tinyward check {settings}` explains every effective value;
# after a change: `systemctl reload tinyward`. Upgrades never touch this file.

state_dir = "{state}"
"""
_DEMO = """\
# A small model of handwritten digits on recorded ones, one a second. It was signed when
# Tinyward was installed, by keys that were thrown away: nothing can replace it, and it
# needs no network. Remove it when your own models come.
{mark}[[pipeline]]
{mark}name = "digits"
{mark}model = "digits"
{mark}source = {{kind = "files", path = "{stream}", array = "images", \
rate = 1.0, loop = true, memory = true}}
{mark}sinks = [{{kind = "count"}}]     # counted only: no writes to the card
{mark}factory = "{repository}"
"""
_EXAMPLE = """\
# A pipeline is one model on one source; it runs as soon as the fleet assigns its model:
# [[pipeline]]
# name = "door"                  # in metrics, paths and commands
# model = "kws"                  # what the fleet assigns versions of
# source = {kind = "command", live = true, format = "s16le", values = 16000, \
command = ["arecord", "-q", "-t", "raw", "-f", "S16_LE", "-r", "16000", "-c", "1"]}
# sinks = [{kind = "command", command = ["/usr/local/bin/on-prediction"]}]
# A microphone or camera needs the sandbox opened: `tinyward install --with sound`.
"""
_DEMO_TRUST = """\
[update]
# Whom models are believed from: so far only the demo's owner, who is no more. For a
# fleet: copy its root.json to {fleet_root}, name it here, and its repository:
#   repository = "https://models.example/fleet"
#   groups = ["all"]
root = "{root}"
"""
_FLEET_TRUST = """\
[update]
{repository}root = {root}
groups = {groups}
"""
_BOARD = """\
[board]
id = {board}
"""
_CONTROL = """\
# Control by TLS, once this board has a certificate (`tinyward identity init`):
# [control]
# listen = "0.0.0.0:8443"
# certificate = "{identity}/board.crt"
# key = "{identity}/board.key"
# client_ca = "{identity}/ca.crt"
"""
_SEAL = """\
# Sealed models, which only this board opens (`tinyward identity seal` makes its key,
# `tinyward install --with seal` gives it to the service):
# [seal]
# credential = "seal-key"
"""
_LOCAL = """\
[local]
# Metrics, health and a page, for this board alone; "0.0.0.0:9797" for all who reach it.
listen = "127.0.0.1:9797"
"""
# Before the digest of what it follows; people read it, too.
_MARK = b"\n# As installed (any change makes this file yours): "
_MARK_DIGITS = 16  # against accidents: whoever may write the file needs no trick


@dataclass(frozen=True, slots=True)
class Asked:
    """What the settings are to say beyond the demo.

    Attributes:
        fleet: Whether this board trusts a fleet, and not the demo's owner.
        repository: The fleet's repository; "" where models are pushed or carried.
        groups: Of the fleet.
        board: The board's id; "" for a random one.
    """

    fleet: bool = False
    repository: str = ""
    groups: tuple[str, ...] = ("all",)
    board: str = ""


def render_settings(asked: Asked, path: str) -> bytes:
    """Return the content of agent.toml; ``path`` is where it will lie."""
    parts = [
        _HEAD.format(settings=path, state=STATE),
        _demo(commented=asked.fleet),
        _EXAMPLE,
        _fleet(asked) if asked.fleet else _demo_trust(),
        *([_BOARD.format(board=_quote(asked.board))] if asked.board else []),
        _LOCAL,
        _CONTROL.format(identity=IDENTITY),
        _SEAL,
    ]
    content = "\n".join(parts).encode()
    return content + _MARK + _digest(content) + b"\n"


def is_shipped(content: bytes) -> bool:
    """Whether nobody has changed a byte since an installation wrote this.

    >>> is_shipped(render_settings(Asked(), "/x")), is_shipped(b"state_dir = ''")
    (True, False)
    """
    written, _, digest = content.rpartition(_MARK)
    return digest == _digest(written) + b"\n"


def join_settings(found: bytes, wanted: bytes, path: str, *, fleet: bool) -> bytes:
    """Return settings as shipped that also say what is asked for now.

    Args:
        found: Those that are there, as shipped.
        wanted: Those of a new installation with what is asked for.
        path: Where they lie.
        fleet: Whether a fleet is asked for; else the one that is there stays.
    """
    old, new = (asked_of(parse_settings(content)) for content in (found, wanted))
    board = new.board or old.board
    return render_settings(replace(new if fleet else old, board=board), path)


def asked_of(settings: Settings) -> Asked:
    """Return what was asked for when these settings were written."""
    update = settings.update
    return Asked(
        fleet=update.root == FLEET_ROOT,
        repository=update.repository,
        groups=tuple(update.groups),
        board=settings.board.id,
    )


def _digest(content: bytes) -> bytes:
    """Return what the last line says of those before it."""
    return hashlib.sha256(content).hexdigest()[:_MARK_DIGITS].encode()


def _demo(*, commented: bool) -> str:
    """The demo's pipeline; under a fleet's root its slice would not be believed."""
    return _DEMO.format(
        mark="# " if commented else "", stream=DEMO_STREAM, repository=DEMO_REPOSITORY
    )


def _demo_trust() -> str:
    """Trust in the demo's owner."""
    return _DEMO_TRUST.format(fleet_root=FLEET_ROOT, root=DEMO_ROOT)


def _fleet(asked: Asked) -> str:
    """Trust in the fleet."""
    named = f"repository = {_quote(asked.repository)}\n" if asked.repository else ""
    return _FLEET_TRUST.format(
        repository=named,
        root=_quote(FLEET_ROOT),
        groups=_quote(list(asked.groups)),
    )


def _quote(value: str | list[str]) -> str:
    """Return a value as TOML spells it.

    JSON would spell rarer characters as pairs of surrogates, which TOML has not.
    """
    return json.dumps(value, ensure_ascii=False)
