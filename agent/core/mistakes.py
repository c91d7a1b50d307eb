"""What is wrong with a written value, in words for whoever wrote it.

The rules this module keeps:
 * The key comes first, then what is expected there: no word of Python or JSON, and no
   pattern; a message that is not known stays as it is.

>>> describe_mistake("Expected `int` >= 1 - at `$.pipeline[0].threads`")
'pipeline[0].threads: at least 1 expected'
>>> describe_mistake("Object missing required field `model` - at `$.pipeline[0]`")
'pipeline[0]: the key `model` is missing'
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "str": "text",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "array": "a list",
        "object": "a table",
        "null": "nothing",
    }
)
# Every pattern that a file written by people is checked against, as people say it.
PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        r"^[a-z0-9][a-z0-9_-]{0,63}$(?!\n)": "1 to 64 of a-z, 0-9, - and _",
        r"^[a-z0-9][a-z0-9_.-]{0,63}$(?!\n)": "1 to 64 of a-z, 0-9, -, _ and .",
        r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$(?!\n)": (
            "1 to 64 of a-z, A-Z, 0-9, -, _ and ."
        ),
        r"^[A-Za-z0-9_.-]{1,64}$(?!\n)": "1 to 64 of a-z, A-Z, 0-9, -, _ and .",
        r"^[A-Za-z0-9_.-]{0,64}$(?!\n)": "at most 64 of a-z, A-Z, 0-9, -, _ and .",
        r"^[A-Za-z0-9_.:@~+=-]{0,128}$(?!\n)": (
            "at most 128 of a-z, A-Z, 0-9, -, _, ., :, @, ~, + and ="
        ),
        r"^[0-9a-f]{64}$(?!\n)": "64 hexadecimal digits in lower case",
        r"^([0-9a-f]{64})?$(?!\n)": "64 hexadecimal digits in lower case, or nothing,",
        r"^([0-9a-f]{40}|[0-9a-f]{64})$(?!\n)": (
            "40 or 64 hexadecimal digits in lower case"
        ),
        r"^(\d{1,6}(\.\d{1,6}){0,2})?$(?!\n)": "a version such as 1.2.3",
    }
)
_BOUNDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
_LENGTHS = {"str": "characters", "array": "entries", "object": "keys"}
_OTHER = re.compile(r"Expected `([^`]+)`, got `(\w+)`")
_BOUND = re.compile(r"Expected `[^`]+` (>=|>|<=|<) (\S+)")
_LENGTH = re.compile(r"Expected `(\w+)[^`]*` of length (>=|<=) (\d+)")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_CHOICE = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)


def describe_mistake(message: str) -> str:
    """Turn what msgspec says about a value into words, the key before them."""
    what, at, path = message.rpartition(" - at `$")
    if not at:
        return _words(message)
    place = path.rstrip("`").removeprefix(".")
    return f"{place}: {_words(what)}" if place else _words(what)


def _words(message: str) -> str:
    """Say what is expected."""
    for pattern, words in PATTERNS.items():
        if repr(pattern) in message:
            return f"{words} expected"
    if found := _OTHER.fullmatch(message):
        wanted = " or ".join(map(_kind, found[1].split(" | ")))
        return f"{wanted} expected, not {_kind(found[2])}"
    if found := _LENGTH.fullmatch(message):
        unit = _LENGTHS.get(found[1], "parts")
        return f"{_BOUNDS[found[2]]} {found[3]} {unit} expected"
    if found := _BOUND.fullmatch(message):
        return f"{_BOUNDS[found[1]]} {found[2].removesuffix('.0')} expected"
    return _key_words(message)


def _key_words(message: str) -> str:
    """Say which key or choice does not exist."""
    if found := _MISSING.fullmatch(message):
        return f"the key `{found[1]}` is missing"
    if found := _UNKNOWN.fullmatch(message):
        return f"there is no key `{found[1]}`"
    if found := _CHOICE.fullmatch(message):
        return f"{found[1]} is none of its choices"
    return message


def _kind(word: str) -> str:
    """Say a type as people do."""
    return KINDS.get(word, word)
