"""What is damaged, and how: metadata, what it lists, and bundles.

Each kind is an endless supply of publications; all chance comes from the one given.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.core.container import parse_container
from agent.core.targets import REVOKED_PATH
from tests.fakes.mutants import mutated
from tests.fakes.zips import RawEnd, RawEntry, raw_zip
from tests.fuzz.fleet import (
    BUNDLES,
    CONTENTS,
    DEVICE,
    GROUP,
    LISTED,
    ROLES,
    Fleet,
    Publication,
    Spell,
    served,
)
from tests.fuzz.json_text import Tree, damaged, render

Kind = Callable[[Fleet, random.Random], Publication]


def text_damage(raw: bytes, chance: random.Random) -> bytes:
    """Return other bytes than a JSON file's: by its structure, or by chance."""
    if chance.random() < 0.4:
        return mutated(raw, chance)
    return render(damaged(json.loads(raw), chance))


def bundle_damage(raw: bytes, chance: random.Random) -> bytes:
    """Return another bundle: anything, another manifest, or another container."""
    return chance.choice((mutated, _manifest, _structure))(raw, chance)


def timestamp(fleet: Fleet, chance: random.Random) -> Publication:
    """The one file that changes under its name."""
    return _unsigned(fleet, "timestamp", chance)


def listed(fleet: Fleet, chance: random.Random) -> Publication:
    """A file that stolen online keys vouch for."""
    shown = _unsigned(fleet, chance.choice(("snapshot", *LISTED)), chance)
    return replace(shown, stolen=True)


def root(fleet: Fleet, chance: random.Random) -> Publication:
    """The next root."""
    return _unsigned(fleet, "root", chance)


def unannounced(fleet: Fleet, chance: random.Random) -> Publication:
    """A file that is not the one that was announced."""
    files = fleet.seal()
    name = chance.choice([name for name in files if "timestamp" not in name])
    return Publication({**files, name: text_damage(files[name], chance)})


def swapped(fleet: Fleet, chance: random.Random) -> Publication:
    """Files of a publication, or of two, in each other's places."""
    files, other = fleet.seal(), fleet.seal()
    every = [*files.values(), *other.values()]
    for name in chance.sample(sorted(files), chance.choice((1, 1, 2, 3))):
        files[name] = chance.choice(every)
    return Publication(files)


def signatures(fleet: Fleet, chance: random.Random) -> Publication:
    """Right content, other signatures."""
    role = chance.choice(("root", *ROLES))

    def spell(signed: Tree) -> bytes:
        tree = json.loads(fleet.sign(role, signed))
        wrong = damaged(tree["signatures"], chance)
        return render({"signed": signed, "signatures": wrong})

    return Publication(fleet.seal(spell={role: spell}))


def well_signed(fleet: Fleet, chance: random.Random) -> Publication:
    """Nonsense under true signatures: a broken publisher, or stolen keys."""
    roles = chance.sample(("root", *ROLES), chance.choice((1, 1, 1, 2)))
    spell: dict[str, Spell] = {
        role: lambda signed, by=role: fleet.sign(by, damaged(signed, chance))  # type: ignore[misc]  # bound early on purpose
        for role in roles
    }
    return Publication(fleet.seal(spell=spell), signed=True, stolen=True)


def content(fleet: Fleet, chance: random.Random) -> Publication:
    """Desired states and revocations that are nobody's."""
    return _content(fleet, chance.choice((GROUP, DEVICE, REVOKED_PATH)), chance)


def signed_content(fleet: Fleet, chance: random.Random) -> Publication:
    """Desired states and revocations that make no sense, well signed."""
    path = chance.choice((GROUP, DEVICE, REVOKED_PATH))
    raw = text_damage(CONTENTS[path], chance)
    return Publication(fleet.seal({path: raw}), signed=True)


def bundle(fleet: Fleet, chance: random.Random) -> Publication:
    """A bundle that is not the one that was signed."""
    return _content(fleet, "models/kws/2.bundle", chance)


def signed_bundle(fleet: Fleet, chance: random.Random) -> Publication:
    """A bundle that breaks the format somewhere, well signed."""
    raw = bundle_damage(BUNDLES[2], chance)
    return Publication(fleet.seal({"models/kws/2.bundle": raw}), signed=True)


def _unsigned(fleet: Fleet, role: str, chance: random.Random) -> Publication:
    """Damage a role's file after it was signed."""

    def spell(signed: Tree) -> bytes:
        return text_damage(fleet.sign(role, signed), chance)

    return Publication(fleet.seal(spell={role: spell}))


def _content(fleet: Fleet, path: str, chance: random.Random) -> Publication:
    """Damage a target after it was listed."""
    raw = CONTENTS[path]
    return Publication({**fleet.seal(), served(path, raw): mutated(raw, chance)})


def _manifest(raw: bytes, chance: random.Random) -> bytes:
    """Damage a bundle's manifest, in a right container."""
    entries = _entries(raw)
    text = text_damage(entries["manifest.json"], chance)
    whole = [
        RawEntry(name.encode(), text if name == "manifest.json" else entry)
        for name, entry in entries.items()
    ]
    return raw_zip(whole)


def _structure(raw: bytes, chance: random.Random) -> bytes:
    """Break a rule of the container: fields, names, order, gaps."""
    entries = [RawEntry(name.encode(), it) for name, it in _entries(raw).items()]
    at = chance.randrange(len(entries))
    entries[at] = replace(entries[at], **chance.choice(_LIES)(chance))
    if chance.random() < 0.3:
        chance.shuffle(entries)
    if chance.random() < 0.2:
        entries.append(chance.choice(entries))
    end = RawEnd(**chance.choice(_END_LIES)(chance)) if chance.random() < 0.3 else None
    return raw_zip(entries, end)


def _entries(raw: bytes) -> Mapping[str, bytes]:
    """Return the entries of a bundle, in order."""
    return {name: bytes(it) for name, it in parse_container(memoryview(raw)).items()}


Lie = Callable[[random.Random], dict[str, Any]]  # fields of entries, of any type


def _number(field: str, bits: int) -> Lie:
    """Say any number in a field."""
    return lambda chance: {
        field: chance.choice((0, 1, 8, 2**bits - 1, chance.getrandbits(bits)))
    }


def _bytes(field: str) -> Lie:
    """Say any bytes in a field."""
    odd = (
        b"",
        b"../x",
        b"/x",
        b"a\0b",
        b"MANIFEST.JSON",
        b"\xff",
        b"x" * 300,
        b"a/b/c",
    )
    return lambda chance: {field: chance.choice(odd)}


_LIES: tuple[Lie, ...] = (
    *(_number("made_by", 16), _number("needed", 16), _number("flags", 16)),
    *(_number("method", 16), _number("time", 16), _number("date", 16)),
    *(_number("crc", 32), _number("stored_size", 32), _number("size", 32)),
    *(_number("disk", 16), _number("internal", 16), _number("mode", 32)),
    *(_number("offset", 32), _bytes("name"), _bytes("local_name"), _bytes("extra")),
    *(_bytes("comment"), _bytes("gap"), _bytes("descriptor"), _bytes("content")),
)
_END_LIES: tuple[Lie, ...] = (
    *(_number("entries", 16), _number("disk_entries", 16), _number("disk", 16)),
    *(_number("directory_size", 32), _number("offset", 32)),
    *(_bytes("comment"), _bytes("before")),
)

# What is shown to the board, and how often of a hundred times.
KINDS: Mapping[str, tuple[Kind, int]] = {
    "timestamp": (timestamp, 8),
    "snapshot, targets, fleet": (listed, 9),
    "root": (root, 5),
    "not announced": (unannounced, 3),
    "files swapped": (swapped, 4),
    "signatures": (signatures, 5),
    "metadata, well signed": (well_signed, 12),
    "desired states, revocations": (content, 2),
    "desired states, revocations, well signed": (signed_content, 8),
    "bundles": (bundle, 2),
    "bundles, well signed": (signed_bundle, 4),
}
