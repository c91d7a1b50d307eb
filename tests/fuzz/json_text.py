"""JSON as an attacker writes it: trees whose rendering no honest writer would produce.

``Raw`` stands in the text as it is; ``Pairs`` is an object whose keys may repeat.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Tree = Any  # what json.loads returns, with Raw and Pairs in it
Place = tuple[Tree, Tree]  # a container, and the key or index of one of its values

Damage = Callable[[Tree, Tree, list[Place], random.Random], None]


class Raw(bytes):
    """Bytes that stand in the text as they are."""


class Pairs(list[tuple[str, Tree]]):
    """An object as its pairs."""


ODD: tuple[Tree, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, 2**31, 2**53, 2**63, 2**64, -(2**63)),
    *("", "\0", "1", "..", "../../x", "/etc/passwd", "a%2f..", "ä\u202e", "x" * 5_000),
    *("2099-01-01T00:00:00Z", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59Z"),
    *("1970-01-01T00:00:00Z", "22:00-04:00 local", "fleet/*", "root", "f" * 64),
    *([], {}, [[]], {"": None}, [None] * 5_000, {str(n): n for n in range(500)}),
    *(Raw(b"NaN"), Raw(b"-Infinity"), Raw(b"1e999"), Raw(b"-0"), Raw(b"1.0")),
    *(Raw(b"1" + b"0" * 9_999), Raw(b'"\xff\xfe"'), Raw(b'"\\ud800"'), Raw(b'"\x01"')),
    *(Raw(b"[" * 9_000), Raw(b"[" * 900 + b"]" * 900), Raw(b"'x'"), Raw(b"")),
    *(Raw(b'{"a":' * 9_000), Raw(b'{"a":' * 900 + b"1" + b"}" * 900), Raw(b"/**/1")),
)


def render(tree: Tree) -> bytes:
    """Return the text of a tree."""
    if isinstance(tree, Raw):
        return tree
    if isinstance(tree, dict):
        tree = Pairs(tree.items())
    if isinstance(tree, Pairs):
        pairs = [render(key) + b": " + render(value) for key, value in tree]
        return b"{" + b", ".join(pairs) + b"}"
    if isinstance(tree, list):
        return b"[" + b", ".join(map(render, tree)) + b"]"
    return json.dumps(tree).encode()


def damaged(tree: Tree, chance: random.Random) -> Tree:
    """Return a tree that differs in one to three places."""
    root = [copy.deepcopy(tree)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(root))
        chance.choice(_DAMAGE)(*chance.choice(places), places, chance)
    return root[0]


def _places(node: Tree) -> Iterator[Place]:
    """Yield every place below a node."""
    if isinstance(node, Pairs):
        return  # its values are damaged already
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])


def _replace(node: Tree, key: Tree, _: list[Place], chance: random.Random) -> None:
    """Put something odd there."""
    node[key] = copy.deepcopy(chance.choice(ODD))


def _remove(node: Tree, key: Tree, _: list[Place], chance: random.Random) -> None:
    """Leave it out, unless it is everything."""
    del chance
    if len(node) > 1:
        del node[key]


def _rename(node: Tree, key: Tree, _: list[Place], chance: random.Random) -> None:
    """Call it otherwise, or put it elsewhere in a list."""
    value = node[key]
    if isinstance(node, dict):
        del node[key]
        node[chance.choice((f"{key}x", key[:-1], "", "__class__", "\0"))] = value
    else:
        node.insert(chance.randrange(len(node) + 1), copy.deepcopy(value))


def _repeat(node: Tree, key: Tree, places: list[Place], chance: random.Random) -> None:
    """Say an object's keys twice, with something else first or last."""
    value = node[key]
    if not isinstance(value, dict) or not value:
        _swap(node, key, places, chance)
        return
    name = chance.choice(list(value))
    lie = (name, copy.deepcopy(chance.choice(ODD)))
    pairs = list(value.items())
    node[key] = Pairs([lie, *pairs] if chance.random() < 0.5 else [*pairs, lie])


def _swap(node: Tree, key: Tree, places: list[Place], chance: random.Random) -> None:
    """Put a copy of another part there."""
    other, name = chance.choice(places)
    if name in other if isinstance(other, dict) else name < len(other):
        node[key] = copy.deepcopy(other[name])


def _wrap(node: Tree, key: Tree, _: list[Place], chance: random.Random) -> None:
    """Put it into a list or an object."""
    value = copy.deepcopy(node[key])
    node[key] = chance.choice(([value], {"": value}, [value, value], str(value)[:900]))


def _nudge(node: Tree, key: Tree, _: list[Place], chance: random.Random) -> None:
    """Change a number by little, a letter of a string, or the length of a list."""
    value = node[key]
    if isinstance(value, bool) or value is None or isinstance(value, Raw):
        node[key] = not value
    elif isinstance(value, int | float):
        node[key] = value + chance.choice((-1, 1, 0.5, 2**31))
    elif isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        put = chance.choice(("", "0", "f", "é", "\n", "/", "*", " "))
        node[key] = value[:at] + put + value[at + chance.randrange(2) :]
    elif isinstance(value, list):
        node[key] = type(value)(value * chance.choice((0, 2, 3)))


_DAMAGE: tuple[Damage, ...] = (
    *(_replace, _replace, _remove, _rename, _repeat, _swap, _swap, _wrap),
    *(_nudge, _nudge, _nudge, _nudge),
)
